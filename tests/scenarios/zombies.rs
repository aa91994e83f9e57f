//! Owners that stood still, and came back when another one had followed them.

use std::{future::pending, sync::Arc, time::Duration};

use highwater::{
    ConsumerName, Delivery, ErrorKind, HandlerError, Ownership, Position,
    backend::{
        Acquire, Acquired, Advance, CheckpointBackend, Settlement, StreamBackend, TransactionalCheckpoint,
    },
    layer::{Layer, Retry, RetryPolicy},
};
use highwater_postgres::Settling;
use highwater_redis::Client;
use sqlx::{Connection, PgConnection};

use super::{
    rows::{Process, Rows, Stall, builder, fresh, insert},
    stage::*,
};
use crate::{
    delivery::{Place, Running},
    support::{TcpProxy, eventually},
};

const TTL: Duration = Duration::from_secs(1);

fn shorter(ownership: Ownership) -> impl Fn(&mut highwater::Settings) + Clone + Send + Sync + 'static {
    move |settings| {
        settings.ttl = TTL;
        settings.ownership = ownership;
    }
}

async fn stream() -> Arc<dyn StreamBackend> {
    client(Client::RedisRs).await
}

/// By whom each was written, in order of the entries.
async fn writers(rows: &Rows, subscription: &highwater::Subscription) -> Vec<(u64, String)> {
    let mut all = rows.all(subscription).await;
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t03_a_transaction_that_stood_still_past_its_lease_is_rolled_back() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let (rows, stream, subscription) = (Rows::new().await, stream().await, fresh());
        append_to(&stream, &subscription, 1..=15).await;
        let stall = Stall::at(11);
        let one = [subscription.clone()];
        let zombie = Process::start(&rows, &one, "zombie", shorter(ownership), &stall);
        // Between the user's write and the checkpoint's.
        stall.reached().await;
        let other = Process::start(&rows, &one, "other", shorter(ownership), &Stall::default());
        assert_eq!(rows.until(&subscription, 15).await, to(15), "{ownership:?}");
        stall.release();
        append_to(&stream, &subscription, 16..=20).await;
        rows.until(&subscription, 20).await;
        let stopped = other.stop().await;
        append_to(&stream, &subscription, 21..=25).await;
        rows.until(&subscription, 25).await;
        let report = zombie.stop().await[0];
        let writers = writers(&rows, &subscription).await;
        let numbers: Vec<_> = writers.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, to(25), "{ownership:?}: each once: {report:?} {stopped:?}");
        let of = |n: usize| writers[n - 1].1.as_str();
        assert_eq!((of(10), of(11), of(25)), ("zombie", "other", "zombie"), "{ownership:?}");
        if ownership == Ownership::Exclusive {
            assert_eq!((report.leases_lost, of(15), of(20)), (1, "other", "other"), "{report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_a_process_that_is_stopped_and_goes_on_writes_nothing_of_either_partition() {
    let (rows, stream) = (Rows::new().await, stream().await);
    let partitions = [fresh(), fresh()];
    for partition in &partitions {
        append_to(&stream, partition, 1..=15).await;
    }
    let stall = Stall::at(11);
    let exclusive = shorter(Ownership::Exclusive);
    let zombie = Process::start(&rows, &partitions, "zombie", exclusive.clone(), &stall);
    stall.reached().await;
    // Both stand still, wherever the other one was.
    let other = Process::start(&rows, &partitions, "other", exclusive, &Stall::default());
    for partition in &partitions {
        assert_eq!(rows.until(partition, 15).await, to(15));
    }
    stall.release();
    let standby = zombie.stop().await;
    assert!(standby.iter().map(|report| report.leases_lost).sum::<u64>() >= 1, "{standby:?}");
    for partition in &partitions {
        append_to(&stream, partition, 16..=20).await;
        assert_eq!(rows.until(partition, 20).await, to(20));
        let all = writers(&rows, partition).await;
        assert!(all[14..].iter().all(|(_, who)| who == "other"), "{all:?}");
    }
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_a_transaction_longer_than_the_lease_has_one_effect_beside_a_second_instance() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let (rows, stream, subscription) = (Rows::new().await, stream().await, fresh());
        append_to(&stream, &subscription, 1..=1).await;
        let mut stops = Vec::new();
        for who in ["first", "second"] {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let builder = builder(&rows, &subscription, ownership).await.configure(shorter(ownership));
            let run = insert(builder, who, |_| TTL * 3, async { drop(stopped.await) });
            stops.push((stop, tokio::spawn(run)));
        }
        rows.until(&subscription, 1).await;
        let mut delivered = 0;
        for (stop, run) in stops {
            stop.send(()).unwrap();
            delivered += run.await.unwrap().unwrap().delivered;
        }
        assert_eq!((rows.numbers(&subscription).await, delivered), (to(1), 1), "{ownership:?}");
    }
}

/// Blocks its thread at each of these numbers, as a handler does that never awaits.
fn blocking(calls: &Calls, at: u64, time: Duration) -> impl highwater::Handler {
    let calls = calls.clone();
    move |delivery: Delivery| {
        if calls.note(&delivery) == at {
            std::thread::sleep(time);
        }
        std::future::ready(Ok::<_, HandlerError>(()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn t32_a_handler_that_blocks_its_thread_keeps_what_it_holds_where_there_are_others() {
    everywhere(async |case| {
        append(&case.place, 1..=2).await;
        let (calls, others) = (Calls::default(), Calls::default());
        let builder = || case.builder().configure(shorter(case.ownership));
        // A runtime of its own, so that as many threads block as there are cases.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let consumer = builder().build().unwrap();
        let blocks = runtime.spawn(consumer.run(blocking(&calls, 1, TTL * 3), pending::<()>()));
        calls.until("it blocks", 1).await;
        let beside = Running::start(builder(), others.stuck_at([]));
        until_watermark(&case.place, 2).await;
        beside.stop().await;
        blocks.abort();
        runtime.shutdown_background();
        let mut all = calls.numbers();
        all.extend(others.numbers());
        assert_eq!((calls.numbers()[0], all), (1, vec![1, 2]), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t32_an_owner_whose_only_thread_was_blocked_advances_nothing_and_frees_nothing() {
    wherever(Ownership::Exclusive, async |case| {
        append(&case.place, 1..=3).await;
        let (calls, others) = (Calls::default(), Calls::default());
        let told = Told::default();
        let builder = || case.builder().configure(shorter(Ownership::Exclusive));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let consumer = builder().observer(told.observer()).build().unwrap();
        let handler = blocking(&calls, 1, TTL * 3);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(consumer.run(handler, async { drop(stopped.await) }))
        });
        calls.until("it blocks", 1).await;
        let other = Running::start(builder(), others.stuck_at([]));
        until_watermark(&case.place, 3).await;
        eventually("it sees that it is over", LIMIT, async || told.count("Lost") == 1).await;
        stop.send(()).unwrap();
        eventually("it ends", LIMIT, async || thread.is_finished()).await;
        let report = thread.join().unwrap().unwrap();
        assert_eq!((report.leases_lost, report.watermark), (1, None), "{}: {report:?}", case.name);
        // Its own clock told it that the rest of what it held was not its any more.
        assert_eq!(calls.numbers(), [1], "{}", case.name);
        assert_eq!(others.numbers(), to(3), "{}", case.name);
        let third = ConsumerName::new("third").unwrap();
        let acquire = Acquire::new(case.place.subscription.clone(), third, TTL);
        // A connection that the runtime of that thread had made went with it: the next call makes another.
        let retry = Retry::new(RetryPolicy::default()).wrap(case.place.checkpoints.clone());
        let acquired = retry.acquire(&acquire).await.unwrap();
        assert!(matches!(acquired, Acquired::Held { .. }), "{}: {acquired:?}", case.name);
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_a_loser_whose_store_failed_does_not_free_the_lease_of_who_followed() {
    wherever(Ownership::Exclusive, async |case| {
        let acquire = |name: &str, ttl| {
            Acquire::new(case.place.subscription.clone(), ConsumerName::new(name).unwrap(), ttl)
        };
        let store = &case.place.checkpoints;
        let Acquired::Owned(loser) = store.acquire(&acquire("loser", Duration::ZERO)).await.unwrap() else {
            panic!("nobody else is there")
        };
        let Acquired::Owned(thief) = store.acquire(&acquire("thief", LIMIT)).await.unwrap() else {
            panic!("the lease has run out")
        };
        let name = ConsumerName::new("loser").unwrap();
        let late = Advance::new(case.place.subscription.clone(), loser.epoch, Position::at(id(7)), name);
        assert_eq!(store.advance(&late).await.unwrap_err().kind(), ErrorKind::Fenced);
        let release = highwater::backend::Release::new(case.place.subscription.clone(), loser.epoch);
        assert_eq!(store.release(&release).await.unwrap_err().kind(), ErrorKind::Fenced);
        let held = store.acquire(&acquire("third", LIMIT)).await.unwrap();
        assert!(matches!(held, Acquired::Held { .. }), "{}: {held:?}", case.name);
        let name = ConsumerName::new("thief").unwrap();
        let advance = Advance::new(case.place.subscription.clone(), thief.epoch, Position::at(id(1)), name);
        assert!(store.advance(&advance).await.unwrap().moved, "{}", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_long_user_transaction_makes_a_takeover_wait_and_both_go_on() {
    let (rows, subscription) = (Rows::new().await, fresh());
    let (old, new) = (rows.store().await, rows.store().await);
    let acquire = |name: &str, ttl| Acquire::new(subscription.clone(), ConsumerName::new(name).unwrap(), ttl);
    let Acquired::Owned(grant) = old.acquire(&acquire("old", Duration::ZERO)).await.unwrap() else {
        panic!("nobody else is there")
    };
    let up_to = |n| {
        let name = ConsumerName::new("old").unwrap();
        Settlement::each(subscription.clone(), grant.epoch, name, vec![id(n)]).up_to(Position::at(id(n)))
    };
    let mut conn = PgConnection::connect(&rows.url).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    let Settling::Provisional(settled) = old.settle_in(&mut tx, &up_to(1)).await.unwrap() else {
        panic!("it was not settled before")
    };
    let takeover = tokio::spawn({
        let (new, acquire) = (Arc::clone(&new), acquire("new", LIMIT));
        async move { new.acquire(&acquire).await }
    });
    // The row is locked as long as this takes.
    sqlx::raw_sql("SELECT pg_sleep(0.8)").execute(&mut *tx).await.unwrap();
    assert!(!takeover.is_finished(), "it waits");
    tx.commit().await.unwrap();
    settled.confirm().await.unwrap();
    let Acquired::Owned(next) = takeover.await.unwrap().unwrap() else { panic!("the lease has run out") };
    let watermark = next.position.map(|position| position.watermark);
    assert_eq!(watermark, Some(id(1)), "it sees what it waited for");
    // Both go on at the same time: one is fenced, and nobody waits for the other.
    let tx = old.begin().await.unwrap();
    let renew = highwater::backend::Renew::new(subscription.clone(), next.epoch, LIMIT);
    let late = up_to(2);
    let both = async { tokio::join!(old.commit(tx, &late), new.renew(&renew)) };
    let (late, renewed) = tokio::time::timeout(Duration::from_secs(4), both).await.expect("no deadlock");
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Fenced);
    renewed.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s19_a_handler_that_is_stuck_on_a_lost_partition_holds_up_no_other() {
    wherever(Ownership::Exclusive, async |case| {
        let mut second = Place::new(case.place.stream.clone(), case.place.checkpoints.clone());
        second.subscription.group = case.place.subscription.group.clone();
        append(&case.place, 1..=1).await;
        let (stuck, flowing, told) = (Calls::default(), Calls::default(), Told::default());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let consumer = case.builder().observer(told.observer()).build().unwrap();
        let run = runtime.spawn(consumer.run(blocking(&stuck, 1, TTL * 2), async { drop(stopped.await) }));
        let other = second.builder(Ownership::Exclusive).configure(quick).build().unwrap();
        let other = runtime.spawn(other.run(flowing.stuck_at([]), pending::<()>()));
        stuck.until("it is stuck", 1).await;
        // The lease is lost, as an operator takes it.
        let reset =
            highwater::backend::ResetCheckpoint::new(case.place.subscription.clone(), Position::at(id(1)));
        case.place.checkpoints.reset(&reset.force(true)).await.unwrap();
        append(&second, 1..=20).await;
        let start = std::time::Instant::now();
        until_watermark(&second, 20).await;
        assert!(start.elapsed() < TTL * 3 / 2, "{}: {:?}", case.name, start.elapsed());
        eventually("it learns of it", LIMIT, async || told.count("Lost") == 1).await;
        append(&case.place, 2..=2).await;
        until_watermark(&case.place, 2).await;
        stop.send(()).unwrap();
        let report = run.await.unwrap().unwrap();
        assert_eq!((stuck.numbers(), report.leases_lost), (to(2), 1), "{}: {report:?}", case.name);
        other.abort();
        runtime.shutdown_background();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_an_owner_without_its_store_fences_itself_and_takes_part_again() {
    let (rows, stream, subscription) = (Rows::new().await, stream().await, fresh());
    let url: sqlx::postgres::PgConnectOptions = rows.url.parse().unwrap();
    let server = format!("{}:{}", url.get_host(), url.get_port());
    let proxy = TcpProxy::start(server.parse().unwrap()).await;
    let through = Rows { url: rows.url.replace(&server, &proxy.addr().to_string()) };
    assert_ne!(through.url, rows.url);
    let exclusive = shorter(Ownership::Exclusive);
    let told = Told::default();
    let mut runs = Vec::new();
    append_to(&stream, &subscription, 1..=5).await;
    for (who, rows_of) in [("first", &through), ("second", &rows)] {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let builder =
            builder(rows_of, &subscription, Ownership::Exclusive).await.configure(exclusive.clone());
        let builder = if who == "first" { builder.observer(told.observer()) } else { builder };
        runs.push((
            stop,
            tokio::spawn(insert(builder, who, |_| Duration::ZERO, async { drop(stopped.await) })),
        ));
        rows.until(&subscription, 5).await;
    }
    proxy.stall(true);
    append_to(&stream, &subscription, 6..=10).await;
    rows.until(&subscription, 10).await;
    eventually("it fences itself", LIMIT, async || told.count("Lost") == 1).await;
    for_a_time(TTL).await;
    proxy.stall(false);
    eventually("it takes part again", LIMIT, async || told.count("StandingBy") >= 1).await;
    let (stop, run) = runs.pop().unwrap();
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
    append_to(&stream, &subscription, 11..=15).await;
    rows.until(&subscription, 15).await;
    let (stop, run) = runs.pop().unwrap();
    stop.send(()).unwrap();
    let report = run.await.unwrap().unwrap();
    let by = |who: &str, from: u64| (from..from + 5).map(|n| (n, who.to_owned())).collect::<Vec<_>>();
    let expected = [by("first", 1), by("second", 6), by("first", 11)].concat();
    assert_eq!(writers(&rows, &subscription).await, expected, "{report:?}");
    assert_eq!(report.leases_lost, 1, "{report:?}");
}
