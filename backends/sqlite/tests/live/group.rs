use std::time::Duration;

use highwater::{EntryId, ErrorKind, Position, backend::*};

use crate::support::*;

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_group_moves_up_and_never_back() {
    let store = Store::new().await;
    assert!(store.ensure_group(0).await, "the stream is created with it");
    assert!(!store.ensure_group(0).await);
    store.append(1..=10).await;
    assert_eq!(store.read_group("a", 2).await, [1, 2]);
    assert!(!store.ensure_group(5).await);
    let group = store.state().await.group.unwrap();
    assert_eq!(
        (group.last_delivered, group.entries_read),
        (id(5), Some(5)),
        "counted, though nobody said so"
    );
    assert_eq!((group.pending, group.first_pending), (2, Some(id(1))), "pending entries stay");
    store.ensure_group(1).await;
    assert_eq!(store.read_group("a", 100).await, [6, 7, 8, 9, 10]);
    assert_eq!(store.read_group("a", 100).await, [0; 0]);
}

#[tokio::test]
async fn a_group_knows_how_many_entries_it_has_passed_where_that_can_be_known() {
    let store = Store::new().await;
    store.append(1..=10).await;
    store.sqlite.trim(&Trim::new(store.orders.stream.clone(), TrimLimit::Below(id(6)))).await.unwrap();
    store.ensure_group(3).await;
    assert_eq!(
        store.state().await.group.unwrap().entries_read,
        None,
        "3 is gone, and its neighbours with it"
    );
    let told = EnsureGroup::new(store.orders.clone(), &Position::at(id(4)).with_ordinal(Some(4)));
    store.sqlite.ensure_group(&told).await.unwrap();
    assert_eq!(store.state().await.group.unwrap().entries_read, Some(4));
    store.ensure_group(5).await;
    assert_eq!(store.state().await.group.unwrap().entries_read, None);
    store.ensure_group(6).await;
    assert_eq!(store.state().await.group.unwrap().entries_read, Some(6));
    store.ensure_group(99).await;
    assert_eq!(
        store.state().await.group.unwrap().entries_read,
        None,
        "what comes up to there is not known yet"
    );
}

#[tokio::test]
async fn without_a_group_there_is_a_typed_error() {
    let store = Store::new().await;
    for stream_exists in [false, true] {
        if stream_exists {
            store.append([1]).await;
        }
        let (orders, a) = (store.orders.clone(), name("a"));
        assert_eq!(
            kind(store.sqlite.read_group(&ReadGroup::new(orders.clone(), a.clone(), 1)).await),
            ErrorKind::Missing
        );
        let pending = ReadPending::new(orders.clone(), a.clone(), EntryId::ZERO, 1);
        assert_eq!(kind(store.sqlite.read_pending(&pending).await), ErrorKind::Missing);
        let claim = Claim::new(orders.clone(), a.clone(), 1, LONG);
        assert_eq!(kind(store.sqlite.claim(&claim).await), ErrorKind::Missing);
        assert_eq!(kind(store.beat("a", 1, LONG).await), ErrorKind::Missing);
        let acked = store.sqlite.ack(&Ack::new(orders.clone(), vec![id(1)])).await.unwrap();
        assert_eq!((acked.acked, acked.position), (0, None));
        assert_eq!(store.sqlite.leave(&Leave::new(orders.clone(), a, Token(1))).await.unwrap().pending, 0);
        assert_eq!(store.sqlite.remove(&Removal::Group(orders)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn pending_entries_are_read_again_and_counted_and_told_when_they_are_gone() {
    let store = Store::new().await;
    store.append(1..=4).await;
    store.ensure_group(0).await;
    assert_eq!(store.read_group("a", 3).await, [1, 2, 3]);
    assert_eq!(store.read_group("b", 3).await, [4]);
    store.sqlite.remove(&Removal::Entries(store.orders.stream.clone(), vec![id(2)])).await.unwrap();
    store.sqlite.trim(&Trim::new(store.orders.stream.clone(), TrimLimit::Below(id(2)))).await.unwrap();
    assert_eq!(store.read_pending("a").await, [(1, 1, false), (2, 1, false), (3, 2, true)]);
    assert_eq!(store.read_pending("a").await, [(1, 1, false), (2, 1, false), (3, 3, true)]);
    assert_eq!(store.read_pending("nobody").await, []);
    let after = |id, limit| ReadPending::new(store.orders.clone(), name("a"), id, limit);
    assert_eq!(summary(store.sqlite.read_pending(&after(id(1), 1)).await.unwrap()), [(2, 1, false)]);
    assert_eq!(store.sqlite.read_pending(&after(EntryId::MAX, 1)).await.unwrap(), []);
    assert_eq!(store.read_group("a", 3).await, [0; 0], "nothing new is delivered by it");
    assert_eq!(store.ack([1, 2]).await.0, 2, "they stay until they are acked");
}

#[tokio::test]
async fn g2_the_position_is_the_predecessor_of_the_smallest_pending_entry() {
    let store = Store::new().await;
    store.append(1..=6).await;
    store.ensure_group(0).await;
    store.read_group("a", 5).await;
    let just_below = |ms: u64| id(ms).prev().unwrap();
    for (acked, watermark, ordinal) in [
        (3, just_below(1), 0),
        (2, just_below(1), 0),
        (1, just_below(4), 3),
        (4, just_below(5), 4),
        (5, id(5), 5),
    ] {
        let (count, position) = store.ack([acked]).await;
        assert_eq!(
            (count, position.watermark, position.ordinal),
            (1, watermark, Some(ordinal)),
            "after {acked}"
        );
        assert_eq!(position.incarnation, store.state().await.incarnation);
    }
    assert_eq!(store.ack([]).await.1.watermark, id(5), "nothing asked: as far as was delivered");
    assert_eq!((store.ack([3]).await.0, store.ack([3]).await.1.watermark), (0, id(5)));
    assert_eq!(store.ack([6]).await.1.watermark, id(5), "6 was not delivered");
    assert_eq!(store.ack([3]).await.1.ordinal, Some(5));
}

#[tokio::test]
async fn a_counted_ack_with_nothing_pending_is_where_the_group_stands() {
    let store = Store::new().await;
    store.append(1..=5).await;
    store.ensure_group(0).await;
    store.read_group("a", 2).await;
    store.ensure_group(4).await;
    let (acked, position) = store.ack([1, 2, 2, 77]).await;
    assert_eq!((acked, position.watermark, position.ordinal), (2, id(4), Some(4)));
}

#[tokio::test]
async fn what_is_settled_ahead_is_told_with_its_holes() {
    let store = Store::new().await;
    store.append(1..=1000).await;
    store.ensure_group(0).await;
    store.read_group("a", 1000).await;
    let settled = |n: u64| n.is_multiple_of(10) || (4..8).contains(&n);
    let (_, position) = store.ack((1..=1000).filter(|&n| settled(n))).await;
    let told: Vec<_> = (1..=1000).filter(|&n| position.settles(id(n))).collect();
    assert!(told.iter().all(|&n| settled(n)), "{told:?}");
    assert_eq!(told[..5], [4, 5, 6, 7, 10], "at least the first holes are told");
    assert!(position.ahead.encode().len() < 900, "a checkpoint stays small: {}", position.ahead.encode());

    let (_, position) = store.ack((1..=1000).filter(|&n| n != 503)).await;
    assert_eq!((position.watermark, position.ordinal), (id(503).prev().unwrap(), Some(502)));
    let unsettled: Vec<_> = (1..=1000).filter(|&n| !position.settles(id(n))).collect();
    assert_eq!(unsettled, [503], "one hole, and all above it");
}

#[tokio::test]
async fn a_thousand_pending_in_a_row_are_one_hole_that_tells_nothing_ahead() {
    let store = Store::new().await;
    store.append(1..=1000).await;
    store.ensure_group(0).await;
    store.read_group("a", 1000).await;
    let (_, position) = store.ack([1, 1000]).await;
    assert!(!position.settles(id(1000)) || position.ahead.holes().len() == 1);
    assert!((2..1000).all(|n| !position.settles(id(n))));
}

#[tokio::test]
async fn g13_the_living_keep_and_the_dead_give() {
    let store = Store::new().await;
    store.append(1..=4).await;
    store.ensure_group(0).await;
    assert_eq!(store.beat("alive", 1, LONG).await.unwrap(), Beat::Fresh);
    assert_eq!(store.beat("dead", 2, Duration::from_millis(1)).await.unwrap(), Beat::Fresh);
    assert_eq!((store.read_group("alive", 1).await, store.read_group("dead", 1).await), (vec![1], vec![2]));
    assert_eq!(store.read_group("foreign", 1).await, [3]);
    assert_eq!(store.read_group("me", 1).await, [4]);

    until("the dead one's heartbeat has run out", || async {
        store.claim("me", LONG).await == [(2, 2, true)]
    })
    .await;
    assert_eq!(
        store.claim("me", LONG).await,
        [],
        "the living keep, and the idle time of the foreign one is short"
    );
    assert_eq!(store.claim("me", Duration::ZERO).await, [(3, 2, true)], "never its own, never of the living");
    assert_eq!(store.claim("other", Duration::ZERO).await, [(2, 3, true), (3, 3, true), (4, 2, true)]);
    assert_eq!(store.beat("dead", 2, LONG).await.unwrap(), Beat::Fresh, "it learns that it was dead");
    assert_eq!(store.read_pending("dead").await, []);
}

#[tokio::test]
async fn a_claim_goes_on_where_it_stopped() {
    let store = Store::new().await;
    store.append(1..=5).await;
    store.ensure_group(0).await;
    store.read_group("a", 5).await;
    store.sqlite.remove(&Removal::Entries(store.orders.stream.clone(), vec![id(3)])).await.unwrap();
    let mut claim = Claim::new(store.orders.clone(), name("b"), 2, Duration::ZERO);
    let mut seen = Vec::new();
    loop {
        let claimed = store.sqlite.claim(&claim).await.unwrap();
        seen.extend(summary(claimed.entries));
        let Some(next) = claimed.next else { break };
        claim = claim.from(next);
    }
    assert_eq!(seen, [(1, 2, true), (2, 2, true), (3, 2, false), (4, 2, true), (5, 2, true)]);
    assert_eq!(store.ack([3]).await.0, 1, "an entry that is gone stays pending until it is acked");
}

#[tokio::test]
async fn two_live_processes_cannot_share_a_name() {
    let store = Store::new().await;
    store.ensure_group(0).await;
    assert_eq!(store.beat("a", u64::MAX, LONG).await.unwrap(), Beat::Fresh);
    assert_eq!(store.beat("a", u64::MAX, LONG).await.unwrap(), Beat::Unbroken);
    assert_eq!(kind(store.beat("a", 2, LONG).await), ErrorKind::Busy);
    assert_eq!(
        store.beat("a", u64::MAX, Duration::from_millis(1)).await.unwrap(),
        Beat::Unbroken,
        "nothing was changed"
    );
    until("the heartbeat has run out", || async { store.beat("a", 2, LONG).await.ok() == Some(Beat::Fresh) })
        .await;
    let leave = |token| Leave::new(store.orders.clone(), name("a"), Token(token));
    store.sqlite.leave(&leave(u64::MAX)).await.unwrap();
    assert_eq!(store.beat("a", 2, LONG).await.unwrap(), Beat::Unbroken, "another process has the name");
    store.sqlite.leave(&leave(2)).await.unwrap();
    assert_eq!(store.beat("a", 3, LONG).await.unwrap(), Beat::Fresh);
}

#[tokio::test]
async fn what_one_leaves_behind_may_be_claimed_at_once() {
    let store = Store::new().await;
    store.append([1, 2]).await;
    store.ensure_group(0).await;
    store.beat("a", 1, LONG).await.unwrap();
    store.read_group("a", 1).await;
    store.read_group("foreign", 1).await;
    for (consumer, pending) in [("a", 1), ("foreign", 1), ("nobody", 0)] {
        let leave = Leave::new(store.orders.clone(), name(consumer), Token(1));
        assert_eq!(store.sqlite.leave(&leave).await.unwrap().pending, pending);
    }
    assert_eq!(store.claim("b", LONG).await, [(1, 2, true), (2, 2, true)]);
    let mut raw = store.raw().await;
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM highwater_consumer").fetch_all(&mut raw).await.unwrap();
    assert_eq!(names, ["b"], "the dead with nothing pending are removed");
}

#[tokio::test]
async fn a_removed_group_leaves_nothing_behind() {
    let store = Store::new().await;
    store.append([1, 2]).await;
    store.ensure_group(0).await;
    store.beat("a", 1, LONG).await.unwrap();
    store.read_group("a", 2).await;
    assert_eq!(store.sqlite.remove(&Removal::Group(store.orders.clone())).await.unwrap(), 1);
    assert!(store.ensure_group(1).await);
    assert_eq!(store.read_pending("a").await, []);
    assert_eq!(store.beat("a", 2, LONG).await.unwrap(), Beat::Fresh);
    assert_eq!(store.read_group("a", 9).await, [2]);
}
