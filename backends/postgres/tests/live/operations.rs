//! What an operator does to a record, and the attempts that are kept beside it.

use std::{cell::Cell, time::Duration};

use highwater::{Attempts, DeathReason, Doom, EntryId, Epoch, ErrorKind, Position, Subscription, backend::*};
use highwater_postgres::{Postgres, Settling};
use proptest::test_runner::{Config, TestRunner};

use crate::{
    checkpoint_model::{agree, steps},
    store::*,
    support::eventually,
};

impl Store {
    fn note(&self, epoch: Epoch, set: Vec<Attempts>, clear: impl IntoIterator<Item = u64>) -> NoteAttempts {
        NoteAttempts::new(self.orders.clone(), epoch, set, ids(clear))
    }

    async fn attempts(&self) -> Vec<Attempts> {
        self.postgres.attempts(&LoadAttempts::all(self.orders.clone())).await.unwrap()
    }
}

fn failed(ms: u64, failures: u32) -> Attempts {
    let mut attempts = Attempts::new(id(ms));
    attempts.failures = failures;
    attempts
}

#[test]
fn g4_operations_and_attempts_are_what_they_are_in_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::new());
    let case = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        // Each has a stream of its own, also when a failure is made smaller.
        case.set(case.get() + 1);
        let of = Subscription::new(format!("s{}", case.get()), "billing").unwrap();
        runtime.block_on(agree(&store.postgres, &of, &steps));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn a_pause_is_shown_and_survives_all_but_its_end() {
    let store = Store::new().await;
    let (postgres, orders) = (&store.postgres, || store.orders.clone());
    let pause = ResetCheckpoint::pause(orders(), true).because("it's a bad \\ deploy").unwrap();
    assert_eq!(kind(postgres.reset(&pause.clone().expect_watermark(id(1))).await), ErrorKind::Fenced);
    assert_eq!(postgres.reset(&pause.expect_watermark(EntryId::ZERO)).await.unwrap(), Epoch(1));
    let shown = "SELECT watermark, paused::text, reason FROM highwater.checkpoint_view";
    assert_eq!(store.sql(shown).await, "0-0|true|it's a bad \\ deploy");
    postgres.advance(&store.advance(1, 2)).await.unwrap();
    let epoch = store.acquire("me").await;
    postgres.release(&Release::new(orders(), epoch)).await.unwrap();
    let paused = postgres.load(&store.orders).await.unwrap().unwrap();
    assert_eq!((paused.paused, paused.reason.as_deref()), (true, Some("it's a bad \\ deploy")));
    let epoch = postgres.reset(&ResetCheckpoint::pause(orders(), false)).await.unwrap();
    let resumed = postgres.load(&store.orders).await.unwrap().unwrap();
    assert_eq!((resumed.paused, resumed.reason, resumed.owner), (false, None, Some(name("me"))));
    assert_eq!((resumed.position, resumed.epoch), (Position::at(id(2)), epoch));
}

#[tokio::test]
async fn attempts_are_noted_under_the_epoch_that_stands_and_go_with_the_position() {
    let store = Store::new().await;
    let postgres = &store.postgres;
    let mut doomed = failed(u64::MAX, 3);
    doomed.doom = Some(Doom::new(DeathReason::Rejected, "it's \\x00 'gone'"));
    // What is said of one entry twice, or of one that is also cleared, does no harm.
    let set = vec![failed(2, 1), doomed.clone(), failed(3, 1), failed(2, 5)];
    postgres.note_attempts(&store.note(Epoch(0), set, [3, 4])).await.unwrap();
    assert_eq!(postgres.load(&store.orders).await.unwrap(), None, "this is no checkpoint yet");
    assert_eq!(store.attempts().await, [failed(2, 5), doomed.clone()]);
    let asked = LoadAttempts::of(store.orders.clone(), ids([1, 2, 3]));
    assert_eq!(store.another().await.attempts(&asked).await.unwrap(), [failed(2, 5)]);
    assert_eq!(kind(postgres.note_attempts(&store.note(Epoch(1), vec![], [2])).await), ErrorKind::Invalid);

    let epoch = store.acquire("me").await;
    assert_eq!(kind(postgres.note_attempts(&store.note(Epoch(0), vec![], [2])).await), ErrorKind::Fenced);
    assert_eq!(store.attempts().await.len(), 2, "one that is fenced changes nothing");
    postgres.note_attempts(&store.note(epoch, vec![], [2])).await.unwrap();
    postgres.reset(&ResetCheckpoint::pause(store.orders.clone(), true).force(true)).await.unwrap();
    assert_eq!(store.attempts().await, [doomed]);
    postgres.reset(&ResetCheckpoint::new(store.orders.clone(), Position::default())).await.unwrap();
    assert_eq!(store.attempts().await, []);
    let other = Subscription::new("orders", "other").unwrap();
    assert_eq!(
        kind(postgres.note_attempts(&NoteAttempts::new(other, Epoch(4), vec![], vec![])).await),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn g18_attempts_that_cannot_be_read_are_corrupt_and_stay() {
    let store = Store::new().await;
    store.postgres.note_attempts(&store.note(Epoch(0), vec![failed(1, 1)], [])).await.unwrap();
    store.sql("UPDATE highwater.attempts SET record = 'garbage'").await;
    let all = LoadAttempts::all(store.orders.clone());
    assert_eq!(kind(store.postgres.attempts(&all).await), ErrorKind::Corrupt);
    assert_eq!(store.sql("SELECT record FROM highwater.attempts").await, "garbage");
}

#[tokio::test]
async fn an_advance_has_nothing_to_do_with_attempts() {
    let store = Store::new().await;
    store.sql("DROP TABLE highwater.attempts").await;
    let epoch = store.acquire("me").await;
    assert!(store.postgres.advance(&store.advance(epoch.0, 1)).await.unwrap().moved);
    assert!(!store.postgres.advance(&store.advance(epoch.0, 1)).await.unwrap().moved);
    store.handle(&store.each(epoch.0, [3])).await.unwrap();
    store.handle(&store.up_to(epoch, 4, 5)).await.unwrap();
    assert_eq!(kind(store.postgres.note_attempts(&store.note(epoch, vec![], [1])).await), ErrorKind::Missing);
}

#[tokio::test]
async fn g4_a_note_waits_for_a_transaction_that_is_settled_and_follows_it() {
    let store = Store::new().await;
    let note = store.note(Epoch(0), vec![failed(9, 1)], []);
    for settlement in [store.each(0, [1, 2]), store.up_to(Epoch(0), 3, 4)] {
        let mut tx = store.pool.begin().await.unwrap();
        let settling = store.postgres.settle_in(&mut tx, &settlement).await.unwrap();
        let Settling::Provisional(provisional) = settling else { panic!("{settling:?}") };
        let noting = store.postgres.note_attempts(&note);
        let committing = async {
            let waits = "SELECT count(*) > 0 FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
            eventually("the note waits", Duration::from_secs(10), async || store.sql(waits).await == "t")
                .await;
            assert_eq!(store.sql("SELECT count(*) FROM highwater.attempts").await, "0");
            tx.commit().await.unwrap();
        };
        let (noted, ()) = tokio::join!(noting, committing);
        noted.unwrap();
        provisional.confirm().await.unwrap();
        assert_eq!(store.attempts().await, [failed(9, 1)]);
        store.postgres.note_attempts(&store.note(Epoch(0), vec![], [9])).await.unwrap();
    }
}

/// Nobody waits in a circle: each that gives up would say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g4_notes_settlements_advances_and_operations_get_along() {
    const ROUNDS: u64 = 150;
    let store = Store::new().await;
    let fenced = |result: highwater::Result<()>| {
        let kind = result.map_err(|error| error.kind());
        assert!(matches!(kind, Ok(()) | Err(ErrorKind::Fenced)), "{kind:?}");
    };
    let epoch = async |postgres: &Postgres, of: &Subscription| {
        postgres.load(of).await.unwrap().map_or(Epoch(0), |checkpoint| checkpoint.epoch)
    };
    let mut tasks = Vec::new();
    for n in 0..4u64 {
        let (postgres, orders) = (store.another().await, store.orders.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                // In all orders, so that those who lock row by row would meet.
                let mut entries: Vec<u64> = (1..=64).collect();
                entries.rotate_left((16 * (n + round) % 64) as usize);
                let set = entries[..32].iter().map(|&ms| failed(ms, n as u32)).collect();
                let (epoch, clear) = (epoch(&postgres, &orders).await, ids(entries[32..].iter().copied()));
                let note = NoteAttempts::new(orders.clone(), epoch, set, clear);
                fenced(postgres.note_attempts(&note).await);
            }
        }));
    }
    for n in 0..2u64 {
        let (postgres, orders) = (store.another().await, store.orders.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..ROUNDS / 4 {
                let epoch = epoch(&postgres, &orders).await;
                let settled = handle(&postgres, &each(&orders, epoch.0, [1_000 * (n + 1) + round])).await;
                fenced(settled.map(drop));
            }
        }));
    }
    let (postgres, orders) = (store.another().await, store.orders.clone());
    tasks.push(tokio::spawn(async move {
        for round in 0..ROUNDS / 2 {
            let (epoch, position) = (epoch(&postgres, &orders).await, Position::at(id(round)));
            let advance = Advance::new(orders.clone(), epoch, position, name("me"));
            fenced(postgres.advance(&advance).await.map(drop));
            if round % 8 == 0 {
                postgres.reset(&ResetCheckpoint::pause(orders.clone(), round % 16 == 0)).await.unwrap();
            }
        }
    }));
    for task in tasks {
        task.await.unwrap();
    }
    let epoch = store.postgres.load(&store.orders).await.unwrap().unwrap().epoch;
    store.postgres.note_attempts(&store.note(epoch, vec![], 1..=64)).await.unwrap();
    assert_eq!(store.attempts().await, []);
}
