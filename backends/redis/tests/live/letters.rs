//! Dead letters: moved together with their ack, counted by key, and taken out again.

use bytes::Bytes;
use highwater::{
    Entry, EntryId, ErrorKind, Fields, Outcome, Position, Result, StreamName, backend::*, dead_letter_stream,
};

use crate::{Redis, server::*};

const INDEX: &str = "highwater:{s}:letters:1:s:1:g:{s}:dead:g";
const COUNTED: &str = "highwater:{s}:dead-keys:1:s:1:g:{s}:dead:g";

fn dead() -> StreamName {
    dead_letter_stream(&subscription()).unwrap()
}

/// The letter of an entry that [`fill`] appended.
fn letter(ms: u64, key: Option<u64>) -> NewLetter {
    letter_of(ms, &fields(&ms.to_string())).with_key(key)
}

fn letter_of(ms: u64, own: &Fields) -> NewLetter {
    let about = (Bytes::from("dead.id"), Bytes::from(ms.to_string()));
    let all: Vec<_> = own.iter().cloned().chain([about]).collect();
    NewLetter::new(id(ms), Fields::from(all), own.len())
}

fn burial(letters: Vec<NewLetter>) -> BuryLetters {
    BuryLetters::new(subscription(), dead(), letters)
}

async fn bury(redis: &Redis, letters: Vec<NewLetter>) -> Vec<Fate> {
    redis.dead_letter(&burial(letters)).await.unwrap()
}

/// Of a consumer `c` that has them.
async fn bury_held(redis: &Redis, letters: Vec<NewLetter>) -> Result<Vec<Fate>> {
    redis.dead_letter(&burial(letters).held_by(Some(name("c")))).await
}

async fn graves(redis: &Redis) -> Vec<Entry> {
    redis.read(&Read::new(dead(), EntryId::ZERO, 10_000)).await.unwrap()
}

async fn keys(redis: &Redis) -> Vec<(u64, u64)> {
    redis.dead_keys(&DeadKeys::new(subscription(), dead())).await.unwrap()
}

async fn pending(redis: &Redis) -> u64 {
    redis.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap().group.unwrap().pending
}

async fn redrive(redis: &Redis, letters: Vec<RedriveLetter>) -> Vec<Redriven> {
    redis.redrive(&Redrive::new(subscription(), dead(), letters)).await.unwrap()
}

/// How much is kept beside the letters.
async fn kept(server: &Server) -> (u64, u64) {
    let raw = server.raw().await;
    (raw.run(&format!("HLEN {INDEX}")).await, raw.run(&format!("ZCARD {COUNTED}")).await)
}

#[tokio::test]
async fn g11_a_letter_and_its_ack_are_one_step() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 5).await;
    deliver(&redis, "c", 3).await;
    deliver(&redis, "d", 1).await;
    acked(&redis, [2]).await;
    let fates = bury_held(&redis, (1..=5).map(|ms| letter(ms, None)).collect()).await.unwrap();
    let expected = [Fate::Buried, Fate::NotHeld, Fate::Buried, Fate::NotHeld, Fate::NotHeld];
    assert_eq!((fates, pending(&redis).await), (expected.to_vec(), 1));
    let lying = graves(&redis).await;
    let expected = [letter(1, None).fields, letter(3, None).fields];
    assert_eq!(lying.iter().map(|entry| entry.fields.clone()).collect::<Vec<_>>(), expected);
    // Once more, though it is not pending any more, with what is said about it another time.
    let mut again = letter(1, None);
    again.fields = [("f", "1"), ("dead.id", "later")].into_iter().collect();
    assert_eq!(bury_held(&redis, vec![again, letter(3, None)]).await.unwrap(), [Fate::Buried; 2]);
    assert_eq!(graves(&redis).await, lying);
}

#[tokio::test]
async fn g11_a_letter_that_lies_there_is_acked_when_it_comes_again() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 1).await;
    deliver(&redis, "c", 1).await;
    assert_eq!(bury(&redis, vec![letter(1, None), letter(1, None)]).await, [Fate::Buried; 2]);
    // The group begins anew, as after a restore.
    redis.remove(&Removal::Group(subscription())).await.unwrap();
    redis.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap();
    assert_eq!(deliver(&redis, "other", 1).await, ids([1]));
    assert_eq!(bury_held(&redis, vec![letter(1, None)]).await.unwrap(), [Fate::Buried]);
    assert_eq!((graves(&redis).await.len(), pending(&redis).await), (1, 0));
    // Another entry of the same id, in another life of the stream.
    redis.remove(&Removal::Stream(stream("s"))).await.unwrap();
    assert_eq!(bury_held(&redis, vec![letter_of(1, &fields("other"))]).await.unwrap(), [Fate::NotHeld]);
    assert_eq!(bury(&redis, vec![letter_of(1, &fields("other"))]).await, [Fate::Buried]);
    let longer = letter_of(1, &[("f", "other"), ("f", "x")].into_iter().collect());
    assert_eq!(bury(&redis, vec![longer]).await, [Fate::Buried]);
    assert_eq!(graves(&redis).await.len(), 3);
}

#[tokio::test]
async fn g11_fields_of_any_kind_are_kept_untouched() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let mut odd: Vec<(Bytes, Bytes)> =
        vec![(Bytes::new(), Bytes::from_static(b"\xff\0\r\n")), (Bytes::from_static(b"\xfe"), Bytes::new())];
    // From each of these on, a script gets it in another form.
    let lengths = [31, 32, 65_535, 65_536, 900_000];
    odd.extend(lengths.map(|len| (Bytes::new(), Bytes::from(vec![7; len]))));
    let mut letters = vec![letter_of(1, &Fields::from(odd))];
    letters.push(letter_of(2, &(0..3899).map(|n| (format!("f{n}"), "v".to_owned())).collect()));
    letters.push(letter_of(3, &fields("v")));
    assert_eq!(bury(&redis, letters.clone()).await, [Fate::Buried; 3]);
    assert_eq!(bury(&redis, letters.clone()).await, [Fate::Buried; 3]);
    let lying = graves(&redis).await;
    for (entry, letter) in lying.iter().zip(&letters) {
        assert!(entry.fields == letter.fields, "{}", letter.id);
    }
    let again = |(entry, letter): (&Entry, &NewLetter)| {
        let own: Vec<_> = letter.fields.iter().take(letter.own).cloned().collect();
        RedriveLetter::new(entry.id, letter.id, None).append(Some(Fields::from(own)))
    };
    redrive(&redis, lying.iter().zip(&letters).map(again).collect()).await;
    let back = redis.read(&Read::new(stream("s"), EntryId::ZERO, 9)).await.unwrap();
    for (entry, letter) in back.iter().zip(&letters) {
        assert!(entry.fields.iter().eq(letter.fields.iter().take(letter.own)), "{}", letter.id);
    }
    assert_eq!((back.len(), graves(&redis).await), (3, vec![]));
}

#[tokio::test]
async fn g10_letters_are_counted_by_key_and_parked_behind_them() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let parked = |ms, key| letter(ms, Some(key)).parked(true);
    assert_eq!(bury(&redis, vec![parked(1, 7), letter(2, None).parked(true)]).await, [Fate::Unparked; 2]);
    let fates = bury(&redis, vec![letter(1, Some(7)), parked(2, 7), parked(3, 8), letter(4, None)]).await;
    assert_eq!(fates, [Fate::Buried, Fate::Buried, Fate::Unparked, Fate::Buried]);
    bury(&redis, vec![letter(5, Some(u64::MAX)), letter(6, Some(0))]).await;
    assert_eq!(keys(&redis).await, [(0, 1), (7, 2), (u64::MAX, 1)]);
    let full = burial(vec![parked(7, 7), letter(8, Some(7)), parked(2, 7)]).parked_max(4);
    assert_eq!(redis.dead_letter(&full).await.unwrap(), [Fate::Full, Fate::Buried, Fate::Buried]);
    let room = burial(vec![parked(7, 7)]).parked_max(6);
    assert_eq!(redis.dead_letter(&room).await.unwrap(), [Fate::Buried]);
    assert_eq!(keys(&redis).await, [(0, 1), (7, 4), (u64::MAX, 1)]);
    // Another subscription, and another stream of letters, have keys of their own.
    let other = DeadKeys::new(subscription(), stream("{s}:other"));
    assert_eq!(redis.dead_keys(&other).await.unwrap(), []);
}

#[tokio::test]
async fn a_key_goes_with_its_last_letter() {
    let server = Server::start().await;
    let redis = server.backend().await;
    bury(&redis, (1..=6).map(|ms| letter(ms, Some(ms % 2))).collect()).await;
    let lying = graves(&redis).await;
    let trim = async |limit| redis.trim(&Trim::new(dead(), limit)).await.unwrap();
    trim(TrimLimit::Len(3)).await;
    assert_eq!(keys(&redis).await, [(0, 2), (1, 1)], "those that lie there");
    let full = burial(vec![letter(7, Some(1)).parked(true)]).parked_max(3);
    assert_eq!(redis.dead_letter(&full).await.unwrap(), [Fate::Full]);
    trim(TrimLimit::Len(2)).await;
    assert_eq!(redis.dead_letter(&full).await.unwrap(), [Fate::Buried], "there is room again");
    redis.remove(&Removal::Entries(dead(), vec![lying[5].id])).await.unwrap();
    assert_eq!(bury(&redis, vec![letter(8, Some(0)).parked(true)]).await, [Fate::Unparked]);
    assert_eq!(keys(&redis).await, [(1, 2)]);
    trim(TrimLimit::Len(0)).await;
    assert_eq!(keys(&redis).await, []);
    assert_eq!(kept(&server).await, (0, 0));
    // What was trimmed does not lie there.
    assert_eq!(bury(&redis, vec![letter(1, None)]).await, [Fate::Buried]);
    assert_eq!(graves(&redis).await.len(), 1);
    redis.remove(&Removal::Stream(dead())).await.unwrap();
    assert_eq!((keys(&redis).await, kept(&server).await), (vec![], (0, 0)));
}

#[tokio::test]
async fn many_keys_are_counted_in_steps() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let hash = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    assert_eq!(bury(&redis, (1..=500).map(|ms| letter(ms, Some(hash(ms % 250)))).collect()).await.len(), 500);
    let mut expected: Vec<_> = (0..250).map(|n| (hash(n), 2)).collect();
    expected.sort_unstable();
    assert_eq!(keys(&redis).await, expected);
}

#[tokio::test]
async fn g17_what_is_known_of_letters_does_not_outgrow_them() {
    let server = Server::start().await;
    let redis = server.backend().await;
    for round in 0..100u64 {
        let letters = (1..=20).map(|n| letter(round * 20 + n, Some(round * 20 + n))).collect();
        bury(&redis, letters).await;
        redis.trim(&Trim::new(dead(), TrimLimit::Len(50))).await.unwrap();
    }
    let (index, counted) = kept(&server).await;
    assert!(index < 200 && counted < 200, "2000 letters, of which 50 are there: {index}, {counted}");
}

#[tokio::test]
async fn g11_a_letter_is_redriven_once() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    bury_held(&redis, (1..=3).map(|ms| letter(ms, Some(7))).collect()).await.unwrap();
    let lying = graves(&redis).await;
    let of = |n: usize| RedriveLetter::new(lying[n].id, id(n as u64 + 1), Some(7));
    let again = || of(1).append(Some(fields("again")));
    // Not the oldest, which are forgotten as trimmed ones are.
    let asked = || vec![again(), of(2), again()];
    let redriven = redrive(&redis, asked()).await;
    let [Redriven::Appended(at), Redriven::Dropped, Redriven::Gone] = redriven[..] else {
        panic!("{redriven:?}")
    };
    assert_eq!(redrive(&redis, asked()).await, [Redriven::Gone; 3], "repeated");
    assert_eq!(deliver(&redis, "c", 9).await, [at]);
    assert_eq!((graves(&redis).await.len(), kept(&server).await), (1, (1, 1)));
    assert_eq!(keys(&redis).await, [(7, 1)]);
    assert_eq!(redrive(&redis, vec![of(0)]).await, [Redriven::Dropped]);
    assert_eq!((kept(&server).await, keys(&redis).await), ((0, 0), vec![]));
    assert!(redis.inspect(&Inspect::stream(dead())).await.unwrap().is_some(), "the stream stays");
    assert_eq!(bury(&redis, vec![letter(1, Some(7))]).await, [Fate::Buried], "it may die again");
    assert_eq!(graves(&redis).await.len(), 1);
}

#[tokio::test]
async fn g18_what_cannot_be_moved_is_refused_and_nothing_changes() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    filled(&redis, 1).await;
    deliver(&redis, "c", 1).await;
    let attempt = async |letters: StreamName, letter: NewLetter| {
        let own: Vec<_> = letter.fields.iter().take(letter.own).cloned().collect();
        let out = RedriveLetter::new(id(1), id(1), None).append(Some(Fields::from(own)));
        let request = BuryLetters::new(subscription(), letters.clone(), vec![letter]);
        let results = [
            redis.dead_letter(&request.held_by(Some(name("c")))).await.map(|_| ()),
            redis.redrive(&Redrive::new(subscription(), letters, vec![out])).await.map(|_| ()),
        ];
        results.map(|result| {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied), "{error}");
            error.to_string()
        })
    };
    let before = raw.picture().await;
    assert!(attempt(stream("s"), letter(1, None)).await[0].contains("name another one"));
    let wide: Fields = (0..3901).map(|n| (format!("f{n}"), "v".to_owned())).collect();
    assert!(attempt(dead(), letter_of(1, &wide)).await[0].contains("sink"));
    assert_eq!(raw.picture().await, before);
    for key in [INDEX, COUNTED, dead().as_str()] {
        raw.run::<()>(&format!("SET {key} text")).await;
        let before = raw.picture().await;
        for text in attempt(dead(), letter(1, None)).await {
            assert!(text.contains(key) && !text.contains("heartbeats"), "{text}");
        }
        let error = redis.dead_keys(&DeadKeys::new(subscription(), dead())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(raw.picture().await, before);
        raw.run::<()>(&format!("DEL {key}")).await;
    }
    raw.run::<()>(&format!("XADD {} 18446744073709551615-18446744073709551614 f v", dead())).await;
    let before = raw.picture().await;
    let two = vec![letter(1, None), letter(2, None)];
    let error = redis.dead_letter(&burial(two)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied), "{error:?}");
    assert_eq!(raw.picture().await, before);
    raw.run::<()>("SET s text").await;
    attempt(dead(), letter(1, None)).await;
}

#[tokio::test]
async fn g16_at_the_memory_limit_nothing_is_buried_and_letters_can_be_taken_out() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    filled(&redis, 2).await;
    deliver(&redis, "c", 2).await;
    bury_held(&redis, vec![letter(1, Some(7))]).await.unwrap();
    let at = graves(&redis).await[0].id;
    let before = raw.picture().await;
    raw.run::<()>("CONFIG SET maxmemory 1").await;
    let error = bury_held(&redis, vec![letter(2, Some(7))]).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied), "{error:?}");
    assert_eq!(raw.picture().await, before, "nothing is acked without its letter");
    assert_eq!(keys(&redis).await, [(7, 1)]);
    let out = RedriveLetter::new(at, id(1), Some(7)).append(Some(fields("1")));
    assert!(matches!(redrive(&redis, vec![out]).await[..], [Redriven::Appended(_)]));
    raw.run::<()>("CONFIG SET maxmemory 0").await;
    assert_eq!(bury_held(&redis, vec![letter(2, Some(7))]).await.unwrap(), [Fate::Buried]);
}

#[tokio::test]
async fn g18_without_a_right_nothing_is_moved() {
    let server = Server::start().await;
    let redis = server.backend().await;
    if !redis.capabilities().counts_entries {
        println!("not applicable: a server before 7.0 cannot be asked what a user may do");
        return;
    }
    filled(&redis, 2).await;
    deliver(&redis, "c", 2).await;
    bury_held(&redis, vec![letter(1, Some(7))]).await.unwrap();
    let at = graves(&redis).await[0].id;
    let raw = server.raw().await;
    let before = raw.picture().await;
    let refused = async |redrives: bool, denied: &str| {
        raw.run::<()>(&format!("ACL SETUSER limited reset on >secret ~* &* +@all -{denied}")).await;
        let limited = connect(server.url().replace("//", "//limited:secret@")).await.unwrap();
        let error = if redrives {
            let out = RedriveLetter::new(at, id(1), Some(7)).append(Some(fields("1")));
            limited.redrive(&Redrive::new(subscription(), dead(), vec![out])).await.unwrap_err()
        } else {
            bury_held(&limited, vec![letter(2, Some(7))]).await.unwrap_err()
        };
        let about = (error.kind(), error.outcome(), error.context("command"));
        assert_eq!(about, (ErrorKind::Denied, Outcome::NotApplied, Some(denied)));
        assert_eq!(raw.picture().await, before, "{denied}");
    };
    for denied in ["xadd", "hset", "hdel", "zadd", "zrem", "xack", "hrandfield", "zrandmember"] {
        refused(false, denied).await;
    }
    for denied in ["xadd", "xdel", "hdel", "zrem"] {
        refused(true, denied).await;
    }
}
