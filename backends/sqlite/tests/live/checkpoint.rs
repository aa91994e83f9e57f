use std::time::Duration;

use highwater::{
    Attempts, EntryId, Epoch, ErrorKind, Incarnation, Position, SettledAhead, Subscription, backend::*,
    clock::fraction,
};
use highwater_sqlite::Sqlite;

use crate::support::*;

const LONG: Duration = Duration::from_secs(600);

fn advance(store: &Store, epoch: u64, ms: u64) -> Advance {
    Advance::new(store.orders.clone(), Epoch(epoch), Position::at(id(ms)), name("me"))
}

async fn acquire(store: &Store, owner: &str, ttl: Duration) -> Option<u64> {
    match store.sqlite.acquire(&Acquire::new(store.orders.clone(), name(owner), ttl)).await.unwrap() {
        Acquired::Owned(ownership) => Some(ownership.epoch.0),
        _ => None,
    }
}

async fn watermark(sqlite: &Sqlite, subscription: &Subscription) -> EntryId {
    sqlite.load(subscription).await.unwrap().unwrap().position.watermark
}

#[tokio::test]
async fn every_part_of_a_checkpoint_survives() {
    let store = Store::new().await;
    assert_eq!(store.sqlite.load(&store.orders).await.unwrap(), None);
    let position = Position::at(EntryId::new(u64::MAX - 1, u64::MAX))
        .with_ahead(SettledAhead::new(EntryId::MAX, [EntryId::new(u64::MAX, 3)]))
        .with_ordinal(Some(u64::MAX))
        .with_incarnation(Some(Incarnation::new("life").unwrap()));
    let request = Advance::new(store.orders.clone(), Epoch(0), position.clone(), name("me"));
    let advanced = store.sqlite.advance(&request).await.unwrap();
    assert_eq!(advanced, Advanced::new(true, position.watermark));
    assert_eq!(store.sqlite.advance(&request).await.unwrap(), Advanced::new(false, position.watermark));
    let loaded = store.another().await.load(&store.orders).await.unwrap().unwrap();
    assert_eq!((loaded.position, loaded.epoch, loaded.owner), (position, Epoch(0), Some(name("me"))));
    assert!(loaded.updated_at.as_millis() > 1_700_000_000_000);
}

#[tokio::test]
async fn g4_a_lower_epoch_has_no_effect_and_one_never_issued_is_refused() {
    let store = Store::new().await;
    assert_eq!(kind(store.sqlite.advance(&advance(&store, 7, 1)).await), ErrorKind::Invalid);
    assert_eq!(acquire(&store, "a", LONG).await, Some(1));
    assert_eq!(store.sqlite.load(&store.orders).await.unwrap(), None, "owned, and never advanced");
    assert_eq!(acquire(&store, "b", LONG).await, None);
    assert_eq!(acquire(&store, "a", LONG).await, Some(2), "its own lease does not stand in its way");
    for old in [0, 1] {
        assert_eq!(kind(store.sqlite.advance(&advance(&store, old, 9)).await), ErrorKind::Fenced);
        assert_eq!(
            kind(store.sqlite.renew(&Renew::new(store.orders.clone(), Epoch(old), LONG)).await),
            ErrorKind::Fenced
        );
        assert_eq!(
            kind(store.sqlite.release(&Release::new(store.orders.clone(), Epoch(old))).await),
            ErrorKind::Fenced
        );
    }
    assert_eq!(kind(store.sqlite.advance(&advance(&store, 3, 9)).await), ErrorKind::Invalid);
    assert!(store.sqlite.advance(&advance(&store, 2, 5)).await.unwrap().moved);
    store.sqlite.release(&Release::new(store.orders.clone(), Epoch(2))).await.unwrap();
    assert!(store.sqlite.advance(&advance(&store, 2, 6)).await.unwrap().moved, "nobody has followed yet");
    let acquired = store.sqlite.acquire(&Acquire::new(store.orders.clone(), name("b"), LONG)).await.unwrap();
    assert_eq!(acquired, Acquired::Owned(Grant::new(Epoch(3), Some(Position::at(id(6))))));
    assert_eq!(kind(store.sqlite.advance(&advance(&store, 2, 7)).await), ErrorKind::Fenced);
    assert_eq!(watermark(&store.sqlite, &store.orders).await, id(6));
}

#[tokio::test]
async fn a_lease_runs_out_by_the_clock_of_the_store() {
    let store = Store::new().await;
    let other = Subscription::new("orders", "other").unwrap();
    assert_eq!(
        kind(store.sqlite.renew(&Renew::new(other, Epoch(0), LONG)).await),
        ErrorKind::Fenced,
        "there is none"
    );
    acquire(&store, "a", LONG).await;
    let held = store.sqlite.acquire(&Acquire::new(store.orders.clone(), name("b"), LONG)).await.unwrap();
    match held {
        Acquired::Held { owner, remaining, .. } => {
            assert_eq!(owner, Some(name("a")));
            assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
        }
        other => panic!("{other:?}"),
    }
    store.sqlite.renew(&Renew::new(store.orders.clone(), Epoch(1), Duration::from_millis(1))).await.unwrap();
    until("the lease has run out", || async { acquire(&store, "b", LONG).await == Some(2) }).await;
}

#[tokio::test]
async fn only_a_reset_moves_back_and_it_takes_an_epoch() {
    let store = Store::new().await;
    store.sqlite.advance(&advance(&store, 0, 50)).await.unwrap();
    assert_eq!(store.sqlite.advance(&advance(&store, 0, 40)).await.unwrap(), Advanced::new(false, id(50)));
    acquire(&store, "a", LONG).await;
    let reset = ResetCheckpoint::new(store.orders.clone(), Position::at(id(10)));
    assert_eq!(kind(store.sqlite.reset(&reset).await), ErrorKind::Busy);
    assert_eq!(
        kind(store.sqlite.reset(&reset.clone().force(true).expect(Epoch(0))).await),
        ErrorKind::Fenced
    );
    assert_eq!(watermark(&store.sqlite, &store.orders).await, id(50), "nothing was changed");
    assert_eq!(store.sqlite.reset(&reset.force(true).expect(Epoch(1))).await.unwrap(), Epoch(2));
    let loaded = store.sqlite.load(&store.orders).await.unwrap().unwrap();
    assert_eq!((loaded.position.watermark, loaded.epoch, loaded.owner), (id(10), Epoch(2), None));
    assert_eq!(acquire(&store, "b", LONG).await, Some(3), "the lease has ended");
}

#[tokio::test]
async fn all_checkpoints_of_a_stream_are_listed_and_outlive_it() {
    let store = Store::new().await;
    store.append([1]).await;
    for (group, ms) in [("b", 2), ("a", 1)] {
        let subscription = Subscription::new("orders", group).unwrap();
        let request = Advance::new(subscription, Epoch(0), Position::at(id(ms)), name("me"));
        store.sqlite.advance(&request).await.unwrap();
    }
    acquire(&store, "never advanced", LONG).await;
    store.sqlite.remove(&Removal::Stream(store.orders.stream.clone())).await.unwrap();
    let listed = store.sqlite.list(&store.orders.stream).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|(group, c)| (group.as_str(), c.position.watermark.ms)).collect();
    assert_eq!(listed, [("a", 1), ("b", 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_a_watermark_never_moves_back_under_concurrent_writers() {
    let store = Store::new().await;
    let writers: Vec<_> = [store.sqlite.clone(), store.another().await, store.another().await]
        .into_iter()
        .enumerate()
        .map(|(n, sqlite)| {
            let orders = store.orders.clone();
            tokio::spawn(async move {
                let mut seen = EntryId::ZERO;
                for step in 0..60u64 {
                    let ms = step * 3 + n as u64 + (fraction() * 50.0) as u64;
                    let request = Advance::new(orders.clone(), Epoch(0), Position::at(id(ms)), name("me"));
                    let stored = sqlite.advance(&request).await.unwrap().watermark;
                    assert!(stored >= seen && stored >= id(ms), "{stored} after {seen}, told {ms}");
                    seen = watermark(&sqlite, &orders).await;
                    assert!(seen >= stored, "what was stored is seen");
                }
                seen
            })
        })
        .collect();
    for writer in writers {
        let seen = writer.await.unwrap();
        assert!(watermark(&store.sqlite, &store.orders).await >= seen);
    }
}

#[tokio::test]
async fn g18_a_record_that_cannot_be_read_is_left_as_it_is() {
    for (damage, says) in [
        ("ahead = 'garbage'", "settled-ahead"),
        ("watermark = '1-x'", "watermark"),
        ("epoch = '-1'", "number"),
        ("owner = char(10)", "name"),
        ("paused = 'no'", "paused"),
        ("reason = char(10)", "not valid"),
        ("lease_owner = char(10)", "name"),
        ("version = '2'", "upgrade"),
        ("version = ''", "version"),
    ] {
        let store = Store::new().await;
        store.sqlite.advance(&advance(&store, 0, 5)).await.unwrap();
        let mut raw = store.raw().await;
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE highwater_checkpoint SET {damage}")))
            .execute(&mut raw)
            .await
            .unwrap();
        let image = "SELECT hex(group_concat(epoch || watermark || ahead || owner || version || updated_at || lease_until)) FROM highwater_checkpoint";
        let before: String = sqlx::query_scalar(image).fetch_one(&mut raw).await.unwrap();

        let sqlite = &store.sqlite;
        let error = sqlite.load(&store.orders).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
        assert!(error.to_string().contains(says), "{damage}: {error}");
        let orders = || store.orders.clone();
        let kinds = [
            kind(sqlite.list(&store.orders.stream).await),
            kind(sqlite.advance(&advance(&store, 0, 6)).await),
            kind(sqlite.acquire(&Acquire::new(orders(), name("a"), LONG)).await),
            kind(sqlite.renew(&Renew::new(orders(), Epoch(0), LONG)).await),
            kind(sqlite.release(&Release::new(orders(), Epoch(0))).await),
            kind(sqlite.reset(&ResetCheckpoint::new(orders(), Position::default()).force(true)).await),
            kind(sqlite.settle(&Settle::new(orders(), vec![], Epoch(0), name("a"))).await),
        ];
        assert_eq!(kinds, [ErrorKind::Corrupt; 7], "{damage}");
        let after: String = sqlx::query_scalar(image).fetch_one(&mut raw).await.unwrap();
        assert_eq!(before, after, "{damage}");
    }
}

#[tokio::test]
async fn settling_acks_and_advances_or_does_neither() {
    let store = Store::new().await;
    store.append(1..=10).await;
    store.ensure_group(0).await;
    store.read_group("me", 10).await;
    acquire(&store, "me", LONG).await;
    let settle = |ids: &[u64], epoch| {
        let ids = ids.iter().copied().map(id).collect();
        Settle::new(store.orders.clone(), ids, Epoch(epoch), name("me")).count(true)
    };
    let settled = store.sqlite.settle(&settle(&[1, 2, 3], 1)).await.unwrap();
    let position = settled.position.clone().unwrap();
    assert_eq!((settled.acked, position.watermark, position.ordinal), (3, id(4).prev().unwrap(), Some(3)));
    assert_eq!(store.sqlite.load(&store.orders).await.unwrap().unwrap().position, position);
    assert_eq!(store.sqlite.settle(&settle(&[1, 2, 3], 1)).await.unwrap().acked, 0, "again is harmless");

    assert_eq!(kind(store.sqlite.settle(&settle(&[4], 0)).await), ErrorKind::Fenced);
    assert_eq!(store.state().await.group.unwrap().pending, 7, "a fenced owner acks nothing");
    let settled = store.sqlite.settle(&settle(&[4, 5, 6, 7, 8, 9, 10], 1)).await.unwrap();
    assert_eq!(settled.position.unwrap().watermark, id(10));

    store.sqlite.remove(&Removal::Group(store.orders.clone())).await.unwrap();
    let gone = store.sqlite.settle(&settle(&[10], 1)).await.unwrap();
    assert_eq!((gone.acked, gone.position), (0, None));
    assert_eq!(watermark(&store.sqlite, &store.orders).await, id(10));
    assert_eq!(kind(store.sqlite.settle(&settle(&[10], 0)).await), ErrorKind::Fenced);
}

#[tokio::test]
async fn one_refused_request_does_not_fail_those_that_share_its_commit() {
    let store = Store::new().await;
    acquire(&store, "me", LONG).await;
    // Side by side, so that most of them meet in the queue.
    let requests: Vec<_> = (1..=200u64).map(|n| advance(&store, n % 2, n)).collect();
    let answers =
        futures_util::future::join_all(requests.iter().map(|request| store.sqlite.advance(request))).await;
    for (request, answer) in requests.iter().zip(answers) {
        match request.epoch {
            Epoch(1) => assert!(answer.unwrap().watermark >= request.position.watermark),
            _ => assert_eq!(kind(answer), ErrorKind::Fenced),
        }
    }
    assert_eq!(watermark(&store.sqlite, &store.orders).await, id(199));
}

#[tokio::test]
async fn an_operator_pauses_and_seeks_by_comparing_and_attempts_go_with_the_position() {
    let store = Store::new().await;
    let orders = || store.orders.clone();
    let sqlite = &store.sqlite;
    let note = |epoch, set, clear: Vec<EntryId>| NoteAttempts::new(orders(), Epoch(epoch), set, clear);
    let all = LoadAttempts::all(orders());
    let mut tried = Attempts::new(id(3));
    tried.failures = 2;
    sqlite.note_attempts(&note(0, vec![tried.clone(), Attempts::new(id(2))], vec![id(2)])).await.unwrap();
    assert_eq!(sqlite.load(&store.orders).await.unwrap(), None, "this is no checkpoint yet");
    assert_eq!(store.another().await.attempts(&all).await.unwrap(), [tried.clone()]);
    assert_eq!(kind(sqlite.note_attempts(&note(1, vec![], vec![id(3)])).await), ErrorKind::Invalid);

    let pause = ResetCheckpoint::pause(orders(), true).because("a bad deploy").unwrap();
    assert_eq!(kind(sqlite.reset(&pause.clone().expect_watermark(id(1))).await), ErrorKind::Fenced);
    assert_eq!(sqlite.reset(&pause.expect_watermark(EntryId::ZERO)).await.unwrap(), Epoch(1));
    let paused = store.another().await.load(&store.orders).await.unwrap().unwrap();
    assert_eq!((paused.paused, paused.reason.as_deref()), (true, Some("a bad deploy")));
    assert_eq!((paused.position, paused.epoch), (Position::default(), Epoch(1)));
    assert_eq!(kind(sqlite.note_attempts(&note(0, vec![], vec![id(3)])).await), ErrorKind::Fenced);
    sqlite.advance(&advance(&store, 1, 2)).await.unwrap();
    assert!(sqlite.load(&store.orders).await.unwrap().unwrap().paused, "an advance ends no pause");
    assert_eq!(sqlite.attempts(&all).await.unwrap(), [tried], "nor does it forget");
    assert_eq!(sqlite.reset(&ResetCheckpoint::pause(orders(), false)).await.unwrap(), Epoch(2));
    let resumed = sqlite.load(&store.orders).await.unwrap().unwrap();
    assert_eq!((resumed.paused, resumed.reason, resumed.position.watermark), (false, None, id(2)));
    assert_eq!(resumed.owner, Some(name("me")));
    assert_eq!(sqlite.attempts(&all).await.unwrap().len(), 1);
    let seek = ResetCheckpoint::new(orders(), Position::at(id(2))).expect_watermark(id(2));
    assert_eq!(sqlite.reset(&seek).await.unwrap(), Epoch(3));
    assert_eq!(sqlite.attempts(&all).await.unwrap(), []);
}
