//! Keys that have dead letters, and parking behind them.

use std::time::Duration;

use crate::{
    EntryId,
    backend::{BuryLetters, DeadKeys, Fate, NewLetter, Trim, TrimLimit},
    conformance::support::{Streams, Verdict, consumer, id, ids},
};

/// Two keys that no floating-point number tells apart.
const KEY: u64 = u64::MAX;
const OTHER: u64 = u64::MAX - 1;

/// Letters of one key for `ms`.
fn of(t: &Streams, key: u64, ms: impl IntoIterator<Item = u64>) -> Vec<NewLetter> {
    ms.into_iter().map(|ms| t.keyed(ms, key)).collect()
}

/// The same, to be parked.
fn parked(t: &Streams, key: u64, ms: impl IntoIterator<Item = u64>) -> Vec<NewLetter> {
    of(t, key, ms).into_iter().map(|letter| letter.parked(true)).collect()
}

async fn bury_at_most(t: &Streams, parked_max: u64, letters: Vec<NewLetter>) -> crate::Result<Vec<Fate>> {
    let request = t.burial(letters).held_by(Some(consumer("a"))).parked_max(parked_max);
    t.backend.dead_letter(&request).await
}

/// Removes the oldest letters until this many are left.
async fn trim_to(t: &Streams, len: u64) -> crate::Result<u64> {
    t.backend.trim(&Trim::new(t.graveyard(), TrimLimit::Len(len))).await
}

/// Where there are no letters there are no keys, and nothing is created.
pub(super) async fn none(t: Streams) -> Verdict {
    assert_eq!(t.dead_keys().await?, []);
    assert!(t.state().await.is_err(), "it was created");
    assert!(t.at(t.graveyard()).state().await.is_err(), "it was created");
    Ok(())
}

/// G10: letters are counted by key.
pub(super) async fn g10_are_counted(t: Streams) -> Verdict {
    t.deliver(5).await?;
    t.bury("a", of(&t, 7, [1])).await?;
    assert_eq!(t.dead_keys().await?, [(7, 1)]);
    t.bury("a", [of(&t, 7, [2, 4]), of(&t, 3, [3])].concat()).await?;
    assert_eq!(t.dead_keys().await?, [(3, 1), (7, 3)]);
    Ok(())
}

/// G10: all 64 bits of a key count, and keys ascend as numbers.
pub(super) async fn g10_are_whole_and_in_order(t: Streams) -> Verdict {
    let half = i64::MAX as u64;
    let keys = [0, 1, 9, 10, (1 << 53) + 1, (1 << 53) + 2, half, half + 1, OTHER, KEY];
    t.deliver(10).await?;
    let letters: Vec<_> = (1..).zip(keys.iter().rev()).map(|(ms, &key)| t.keyed(ms, key)).collect();
    assert_eq!(t.bury("a", letters).await?, [Fate::Buried; 10]);
    assert_eq!(t.dead_keys().await?, keys.map(|key| (key, 1)));
    Ok(())
}

/// G10: a letter without a key is counted under none.
pub(super) async fn g10_without_a_key(t: Streams) -> Verdict {
    t.deliver(2).await?;
    t.bury("a", vec![t.letter(1), t.keyed(2, 0)]).await?;
    assert_eq!(t.dead_keys().await?, [(0, 1)]);
    Ok(())
}

/// G10: a letter that lies there already is not counted again, and one that is not buried is not counted.
pub(super) async fn g10_once(t: Streams) -> Verdict {
    t.deliver(2).await?;
    for _ in 0..3 {
        t.bury("a", of(&t, KEY, [1, 1])).await?;
        assert_eq!(t.dead_keys().await?, [(KEY, 1)]);
    }
    assert_eq!(t.bury("b", of(&t, KEY, [2])).await?, [Fate::NotHeld]);
    assert_eq!(t.bury("b", of(&t, OTHER, [2])).await?, [Fate::NotHeld]);
    assert_eq!(t.dead_keys().await?, [(KEY, 1)]);
    Ok(())
}

/// G10: another subscription's letters do not count, though they lie in the same stream.
pub(super) async fn g10_of_another_subscription(t: Streams) -> Verdict {
    let (into, other) = (t.graveyard(), t.group("other"));
    let bury = |one: &Streams, letters| BuryLetters::new(one.subscription.clone(), into.clone(), letters);
    t.backend.dead_letter(&bury(&t, of(&t, KEY, [1, 2]))).await?;
    t.backend.dead_letter(&bury(&other, of(&other, KEY, [1]))).await?;
    let keys = async |one: &Streams| {
        t.backend.dead_keys(&DeadKeys::new(one.subscription.clone(), into.clone())).await
    };
    assert_eq!(keys(&t).await?, [(KEY, 2)]);
    assert_eq!(keys(&other).await?, [(KEY, 1)]);
    assert_eq!(keys(&t.group("third")).await?, []);
    let fates = t.backend.dead_letter(&bury(&t.group("third"), parked(&t, KEY, [3]))).await?;
    assert_eq!(fates, [Fate::Unparked]);
    Ok(())
}

/// G10: the subscription's letters in another stream do not count.
pub(super) async fn g10_of_another_stream(t: Streams) -> Verdict {
    let elsewhere = t.at(crate::StreamName::new(format!("{}2", t.graveyard()))?);
    let into = elsewhere.subscription.stream.clone();
    let request = BuryLetters::new(t.subscription.clone(), into.clone(), of(&t, KEY, [1]));
    t.backend.dead_letter(&request).await?;
    assert_eq!(t.dead_keys().await?, []);
    assert_eq!(t.backend.dead_keys(&DeadKeys::new(t.subscription.clone(), into)).await?, [(KEY, 1)]);
    t.backend.dead_letter(&t.burial(of(&t, KEY, [1]))).await?;
    assert_eq!(t.dead_keys().await?, [(KEY, 1)], "it is buried here too");
    elsewhere.remove_stream().await?;
    Ok(())
}

/// G10: behind a letter of its key, an entry is parked: it lies there in order, acked and counted.
pub(super) async fn g10_parked_behind_its_key(t: Streams) -> Verdict {
    t.deliver(4).await?;
    t.bury("a", of(&t, KEY, [1])).await?;
    assert_eq!(t.bury("a", parked(&t, KEY, [3])).await?, [Fate::Buried]);
    assert_eq!(t.bury("a", parked(&t, KEY, [4])).await?, [Fate::Buried]);
    assert_eq!((t.buried().await?, t.dead_keys().await?), (ids([1, 3, 4]), vec![(KEY, 3)]));
    assert_eq!(t.pending("a").await?, ids([2]));
    Ok(())
}

/// G10: also behind one that is buried in the same call.
pub(super) async fn g10_parked_in_one_call(t: Streams) -> Verdict {
    t.deliver(4).await?;
    let letters = [parked(&t, KEY, [1]), of(&t, KEY, [2]), parked(&t, KEY, [3]), parked(&t, OTHER, [4])];
    let fates = t.bury("a", letters.concat()).await?;
    assert_eq!(fates, [Fate::Unparked, Fate::Buried, Fate::Buried, Fate::Unparked]);
    assert_eq!((t.buried().await?, t.pending("a").await?), (ids([2, 3]), ids([1, 4])));
    Ok(())
}

/// G10: where there are no letters of its key, nothing is parked, and nothing is done.
pub(super) async fn g10_unparked(t: Streams) -> Verdict {
    t.deliver(3).await?;
    assert_eq!(t.bury("a", parked(&t, KEY, [2])).await?, [Fate::Unparked], "no letters at all");
    t.bury("a", vec![t.keyed(1, OTHER)]).await?;
    assert_eq!(t.bury("a", parked(&t, KEY, [2])).await?, [Fate::Unparked], "of another key");
    assert_eq!((t.buried().await?, t.dead_keys().await?), (ids([1]), vec![(OTHER, 1)]));
    assert_eq!(t.pending("a").await?, ids([2, 3]));
    Ok(())
}

/// G10: when the last letter of its key was taken out, nothing is parked any more.
pub(super) async fn g10_unparked_when_its_key_is_free(t: Streams) -> Verdict {
    t.deliver(3).await?;
    t.bury("a", [of(&t, KEY, [1]), parked(&t, KEY, [2])].concat()).await?;
    let graves = t.graves().await?;
    t.redrive(vec![crate::conformance::letters::out_of(&graves[0])]).await?;
    assert_eq!(t.dead_keys().await?, [(KEY, 1)], "a parked one still lies there");
    t.redrive(vec![crate::conformance::letters::out_of(&graves[1])]).await?;
    assert_eq!(t.bury("a", parked(&t, KEY, [3])).await?, [Fate::Unparked]);
    assert_eq!((t.buried().await?, t.pending("a").await?), (vec![], ids([3])));
    Ok(())
}

/// G10: an entry whose key is free waits for no room.
pub(super) async fn g10_unparked_goes_before_full(t: Streams) -> Verdict {
    t.deliver(2).await?;
    bury_at_most(&t, 1, of(&t, KEY, [1])).await?;
    assert_eq!(bury_at_most(&t, 1, parked(&t, OTHER, [2])).await?, [Fate::Unparked]);
    assert_eq!(t.pending("a").await?, ids([2]));
    Ok(())
}

/// G10: no more are parked than may lie there, of all keys together; nothing is done then, until there is room.
pub(super) async fn g10_full(t: Streams) -> Verdict {
    t.deliver(6).await?;
    bury_at_most(&t, 3, [of(&t, KEY, [1]), of(&t, OTHER, [2])].concat()).await?;
    let fates = bury_at_most(&t, 3, parked(&t, KEY, [3, 4])).await?;
    assert_eq!(fates, [Fate::Buried, Fate::Full], "one more has room");
    assert_eq!(bury_at_most(&t, 3, parked(&t, OTHER, [5])).await?, [Fate::Full], "of any key");
    assert_eq!(bury_at_most(&t, 0, parked(&t, OTHER, [5])).await?, [Fate::Full], "none at all");
    assert_eq!((t.buried().await?, t.pending("a").await?), (ids([1, 2, 3]), ids([4, 5, 6])));
    assert_eq!(t.dead_keys().await?, [(OTHER, 1), (KEY, 2)]);

    let graves = t.graves().await?;
    t.redrive(vec![crate::conformance::letters::out_of(&graves[1])]).await?;
    assert_eq!(bury_at_most(&t, 3, parked(&t, KEY, [4])).await?, [Fate::Buried]);
    assert_eq!(t.dead_keys().await?, [(KEY, 3)]);
    Ok(())
}

/// G10: letters that are not parked, or have no key, are neither refused nor counted against what may be parked.
pub(super) async fn g10_only_the_parked_are_bounded(t: Streams) -> Verdict {
    t.deliver(5).await?;
    let dead = vec![t.letter(1), t.letter(2), t.keyed(3, KEY), t.keyed(4, KEY)];
    assert_eq!(bury_at_most(&t, 0, dead).await?, [Fate::Buried; 4]);
    assert_eq!(bury_at_most(&t, 2, parked(&t, KEY, [5])).await?, [Fate::Full], "two have a key");
    assert_eq!(bury_at_most(&t, 3, parked(&t, KEY, [5])).await?, [Fate::Buried]);
    Ok(())
}

/// G11: one that is parked already is told so once more, though there is no room, and nothing is appended.
pub(super) async fn g10_parked_is_told_again(t: Streams) -> Verdict {
    t.deliver(2).await?;
    bury_at_most(&t, 2, of(&t, KEY, [1])).await?;
    for _ in 0..3 {
        assert_eq!(bury_at_most(&t, 2, parked(&t, KEY, [2])).await?, [Fate::Buried]);
    }
    assert_eq!((t.buried().await?, t.dead_keys().await?), (ids([1, 2]), vec![(KEY, 2)]));
    Ok(())
}

/// G4: what another consumer holds now is not parked.
pub(super) async fn g4_parked_is_held_by_another(t: Streams) -> Verdict {
    t.deliver(2).await?;
    t.bury("a", of(&t, KEY, [1])).await?;
    assert_eq!(t.claim("b", 1, Duration::ZERO).await?.len(), 1);
    assert_eq!(t.bury("a", parked(&t, KEY, [2])).await?, [Fate::NotHeld]);
    assert_eq!((t.buried().await?, t.pending("b").await?), (ids([1]), ids([2])));
    assert_eq!(t.dead_keys().await?, [(KEY, 1)]);
    Ok(())
}

/// G10: a key is free when its last letter was trimmed, and not before.
pub(super) async fn g10_trimmed_letters_free_their_key(t: Streams) -> Verdict {
    t.deliver(6).await?;
    let letters = [of(&t, KEY, [1]), of(&t, OTHER, [2]), parked(&t, KEY, [3])];
    t.bury("a", letters.concat()).await?;
    trim_to(&t, 2).await?;
    let keys: Vec<_> = t.dead_keys().await?.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [OTHER, KEY], "its last letter lies there");
    trim_to(&t, 1).await?;
    let keys: Vec<_> = t.dead_keys().await?.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [KEY]);
    assert_eq!(t.bury("a", parked(&t, OTHER, [4])).await?, [Fate::Unparked]);
    assert_eq!(t.bury("a", parked(&t, KEY, [5])).await?, [Fate::Buried]);
    trim_to(&t, 0).await?;
    assert_eq!(t.dead_keys().await?, []);
    assert_eq!(t.bury("a", parked(&t, KEY, [6])).await?, [Fate::Unparked]);
    assert_eq!(t.pending("a").await?, ids([4, 6]));
    t.bury("a", of(&t, KEY, [6])).await?;
    assert_eq!(t.dead_keys().await?, [(KEY, 1)], "those that are gone do not count again");
    Ok(())
}

/// G10: letters of keys that were trimmed away do not fill the place for ever.
pub(super) async fn g10_trimmed_letters_make_room(t: Streams) -> Verdict {
    t.deliver(3).await?;
    bury_at_most(&t, 1, of(&t, KEY, [1])).await?;
    trim_to(&t, 0).await?;
    bury_at_most(&t, 2, of(&t, OTHER, [2])).await?;
    assert_eq!(bury_at_most(&t, 2, parked(&t, OTHER, [3])).await?, [Fate::Buried]);
    Ok(())
}

/// G10: when the stream of the letters is removed, no key has one; what was buried may be buried again.
pub(super) async fn g10_a_removed_stream_frees_all_keys(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    t.backend.dead_letter(&t.burial(of(&t, KEY, [1, 2]))).await?;
    t.at(t.graveyard()).remove_stream().await?;
    assert_eq!(t.dead_keys().await?, []);
    assert_eq!(t.backend.dead_letter(&t.burial(parked(&t, KEY, [3]))).await?, [Fate::Unparked]);
    assert_eq!(t.backend.dead_letter(&t.burial(of(&t, OTHER, [1]))).await?, [Fate::Buried]);
    assert_eq!(t.buried().await?, ids([1]));
    assert!(t.dead_keys().await?.contains(&(OTHER, 1)));
    assert_eq!(t.read(EntryId::ZERO, 10).await?, [id(1)]);
    Ok(())
}
