//! Dead letters: what became of each, and that nothing is ever between its stream and theirs.

use std::time::Duration;

use highwater::{Entry, EntryId, ErrorKind, Fields, StreamName, Subscription, backend::*};

use crate::support::*;

fn dead() -> StreamName {
    StreamName::new("dead").unwrap()
}

/// A letter as it is written: the entry's own field, and one that says more.
fn letter(ms: u64) -> NewLetter {
    letter_of(ms, ms, "now")
}

fn letter_of(ms: u64, value: u64, when: &str) -> NewLetter {
    let own = ("value".to_owned(), value.to_string());
    let fields: Fields = [own, ("dead.when".to_owned(), when.to_owned())].into_iter().collect();
    NewLetter::new(id(ms), fields, 1)
}

impl Store {
    fn bury(&self, letters: Vec<NewLetter>) -> BuryLetters {
        BuryLetters::new(self.orders.clone(), dead(), letters)
    }

    async fn letters(&self) -> Vec<Entry> {
        let request = Read::new(dead(), EntryId::ZERO, 1000);
        self.sqlite.read(&request).await.unwrap()
    }

    async fn keys(&self) -> Vec<(u64, u64)> {
        self.sqlite.dead_keys(&DeadKeys::new(self.orders.clone(), dead())).await.unwrap()
    }

    async fn pending(&self) -> u64 {
        self.state().await.group.unwrap().pending
    }

    async fn redrive(&self, letters: Vec<RedriveLetter>) -> Vec<Redriven> {
        self.sqlite.redrive(&Redrive::new(self.orders.clone(), dead(), letters)).await.unwrap()
    }
}

#[tokio::test]
async fn g11_a_letter_is_appended_and_its_entry_acked_in_one_step_and_once() {
    let store = Store::new().await;
    store.append([1, 2, 3]).await;
    store.ensure_group(0).await;
    store.read_group("me", 2).await;
    let request = store.bury(vec![letter(1), letter(3), letter(2)]).held_by(Some(name("me")));
    let fates = store.sqlite.dead_letter(&request).await.unwrap();
    assert_eq!(fates, [Fate::Buried, Fate::NotHeld, Fate::Buried]);
    assert_eq!((store.letters().await.len(), store.pending().await), (2, 0));

    // Delivered again, as after a lost reply, by another value and with another time in the letter.
    let request = store.bury(vec![letter_of(1, 1, "later")]);
    assert_eq!(store.another().await.dead_letter(&request).await.unwrap(), [Fate::Buried]);
    let letters = store.letters().await;
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].fields, letter(1).fields, "the first one stays");
    let not_mine = store.bury(vec![letter(3)]).held_by(Some(name("other")));
    store.read_group("me", 1).await;
    assert_eq!(store.sqlite.dead_letter(&not_mine).await.unwrap(), [Fate::NotHeld]);
    assert_eq!((store.letters().await.len(), store.pending().await), (2, 1));
}

#[tokio::test]
async fn g11_the_id_of_a_stream_that_was_deleted_is_that_of_another_entry() {
    let store = Store::new().await;
    for (round, value) in [7, 8].into_iter().enumerate() {
        store.append([1]).await;
        store.ensure_group(0).await;
        store.read_group("me", 1).await;
        let request = store.bury(vec![letter_of(1, value, "now").with_key(Some(5))]);
        assert_eq!(store.sqlite.dead_letter(&request).await.unwrap(), [Fate::Buried]);
        assert_eq!((store.letters().await.len(), store.pending().await), (round + 1, 0));
        store.sqlite.remove(&Removal::Stream(store.orders.stream.clone())).await.unwrap();
    }
    assert_eq!(store.keys().await, [(5, 2)]);
    let letters = store.letters().await;
    let redrive = RedriveLetter::new(letters[1].id, id(1), Some(5));
    assert_eq!(store.redrive(vec![redrive]).await, [Redriven::Dropped]);
    assert_eq!(store.keys().await, [(5, 1)]);
}

#[tokio::test]
async fn g11_letters_are_parked_behind_those_of_their_key_as_long_as_there_is_room() {
    let store = Store::new().await;
    let keyed = |ms: u64, key| letter(ms).with_key(Some(key));
    let parked = |ms: u64, key| keyed(ms, key).parked(true);
    let largest = u64::MAX;
    let request = store
        .bury(vec![
            parked(1, 7),
            keyed(2, 7),
            parked(3, 7),
            parked(4, 8),
            letter(5),
            keyed(6, largest),
            parked(7, 7),
        ])
        .parked_max(3);
    let fates = store.sqlite.dead_letter(&request).await.unwrap();
    let expected =
        [Fate::Unparked, Fate::Buried, Fate::Buried, Fate::Unparked, Fate::Buried, Fate::Buried, Fate::Full];
    assert_eq!(fates, expected);
    assert_eq!(store.keys().await, [(7, 2), (largest, 1)]);
    let other = Subscription::new("orders", "other").unwrap();
    assert_eq!(store.sqlite.dead_keys(&DeadKeys::new(other, dead())).await.unwrap(), []);

    // A letter that goes, in whatever way, does not keep its key.
    let letters = store.letters().await;
    store.sqlite.trim(&Trim::new(dead(), TrimLimit::Below(letters[1].id))).await.unwrap();
    assert_eq!(store.keys().await, [(7, 1), (largest, 1)]);
    store.sqlite.remove(&Removal::Entries(dead(), vec![letters[3].id])).await.unwrap();
    assert_eq!(store.keys().await, [(7, 1)]);
    store.sqlite.remove(&Removal::Stream(dead())).await.unwrap();
    assert_eq!(store.keys().await, []);
    let mut raw = store.raw().await;
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM highwater_letter").fetch_one(&mut raw).await.unwrap();
    assert_eq!(rows, 0, "nothing is left behind");
    assert_eq!(store.sqlite.dead_letter(&store.bury(vec![parked(8, 7)])).await.unwrap(), [Fate::Unparked]);
}

#[tokio::test]
async fn g11_a_letter_is_redriven_once_and_wakes_who_waits_for_its_entry() {
    let store = Store::new().await;
    store.append([1]).await;
    store.ensure_group(1).await;
    let request = store.bury(vec![letter(1).with_key(Some(7)), letter(2)]);
    let waiting = Read::new(dead(), EntryId::ZERO, 10).block(Duration::from_secs(60));
    let (read, buried) =
        soon(async { tokio::join!(store.sqlite.read(&waiting), store.sqlite.dead_letter(&request)) }).await;
    assert_eq!((read.unwrap().len(), buried.unwrap().len()), (2, 2), "those who wait for letters are woken");

    let letters = store.letters().await;
    let appended = RedriveLetter::new(letters[0].id, id(1), Some(7)).append(Some(fields(1)));
    let dropped = RedriveLetter::new(letters[1].id, id(2), None);
    let waiting = ReadGroup::new(store.orders.clone(), name("me"), 10).block(Duration::from_secs(60));
    let both = vec![appended.clone(), dropped.clone()];
    let (read, redriven) =
        soon(async { tokio::join!(store.sqlite.read_group(&waiting), store.redrive(both)) }).await;
    let [Redriven::Appended(at), Redriven::Dropped] = redriven[..] else { panic!("{redriven:?}") };
    let delivered = read.unwrap().remove(0);
    assert_eq!((delivered.id(), &delivered.entry.fields), (at, &fields(1)));
    assert_eq!(store.redrive(vec![appended, dropped]).await, [Redriven::Gone; 2]);
    assert_eq!((store.state().await.len, store.keys().await), (2, vec![]));
    let state = store.sqlite.inspect(&Inspect::stream(dead())).await.unwrap().unwrap();
    assert_eq!((state.len, state.entries_added), (0, Some(2)), "it is empty, and stays");
}

#[tokio::test]
async fn g18_letters_in_the_stream_itself_are_refused_and_an_error_undoes_all() {
    let store = Store::new().await;
    let own = BuryLetters::new(store.orders.clone(), store.orders.stream.clone(), vec![letter(1)]);
    assert_eq!(kind(store.sqlite.dead_letter(&own).await), ErrorKind::Invalid);
    let own = Redrive::new(store.orders.clone(), store.orders.stream.clone(), vec![]);
    assert_eq!(kind(store.sqlite.redrive(&own).await), ErrorKind::Invalid);
    let empty = NewLetter::new(id(2), Fields::default(), 0);
    assert_eq!(kind(store.sqlite.dead_letter(&store.bury(vec![letter(1), empty])).await), ErrorKind::Invalid);
    assert_eq!(store.letters().await, []);
    let redrive = RedriveLetter::new(id(9), id(1), None).append(Some(fields(1)));
    assert_eq!(store.redrive(vec![redrive]).await, [Redriven::Gone], "there is no such stream");
    assert_eq!(store.sqlite.inspect(&Inspect::subscription(&store.orders)).await.unwrap(), None);
}

#[tokio::test]
async fn g13_only_consumers_whose_heartbeat_stands_are_alive() {
    let store = Store::new().await;
    store.append([1]).await;
    store.ensure_group(0).await;
    store.read_group("without a heartbeat", 1).await;
    let alive = || async {
        let inspect = Inspect::subscription(&store.orders).count_alive(true);
        store.sqlite.inspect(&inspect).await.unwrap().unwrap().group.unwrap().consumers_alive.unwrap()
    };
    assert_eq!(alive().await, 0);
    store.beat("a", 1, Duration::from_secs(600)).await.unwrap();
    store.beat("b", 2, Duration::from_secs(600)).await.unwrap();
    assert_eq!(alive().await, 2);
    store.sqlite.leave(&Leave::new(store.orders.clone(), name("a"), Token(1))).await.unwrap();
    assert_eq!(alive().await, 1);
    store.beat("b", 2, Duration::from_millis(1)).await.unwrap();
    until("the heartbeat has run out", || async { alive().await == 0 }).await;
}
