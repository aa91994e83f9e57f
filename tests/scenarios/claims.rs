//! Who may take whose pending entries, and what becomes of those that are gone.

use std::{sync::Arc, time::Duration};

use highwater::{
    ConsumerName, Delivery, HandlerError, Ownership,
    backend::Removal,
    layer::{Fault, Faults, Layer, Operation},
};
use tokio::sync::Semaphore;

use super::stage::*;
use crate::{
    delivery::{Place, Running},
    support::{RedisServer, TcpProxy, eventually, unique},
};

const TTL: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t05_a_handler_longer_than_every_limit_of_idleness_is_called_once() {
    everywhere(async |case| {
        append(&case.place, 1..=3).await;
        let calls = Calls::default();
        let builder = case.builder().concurrency(3).configure(|settings| {
            settings.ttl = TTL;
            settings.claim_min_idle = Duration::from_millis(50);
        });
        let running = Running::start(builder, calls.slow(TTL * 3));
        until_watermark(&case.place, 3).await;
        let report = running.stop().await;
        calls.assert_once(case.name, 1..=3);
        assert_eq!((report.claimed, report.skipped, report.retried), (0, 0, 0), "{}", case.name);
    })
    .await;
}

/// Handlers of one pool: one at a time, in whatever partition.
fn pooled(calls: &Calls, pool: &Arc<Semaphore>, time: Duration) -> impl highwater::Handler {
    let (calls, pool) = (calls.clone(), Arc::clone(pool));
    move |delivery: Delivery| {
        calls.note(&delivery);
        let pool = Arc::clone(&pool);
        async move {
            let _turn = pool.acquire().await.map_err(HandlerError::retry)?;
            tokio::time::sleep(time).await;
            Ok::<_, HandlerError>(())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t06_a_partition_that_waits_for_a_busy_pool_is_not_taken() {
    everywhere(async |case| {
        let mut second = Place::new(case.place.stream.clone(), case.place.checkpoints.clone());
        second.subscription.group = case.place.subscription.group.clone();
        let places = [&case.place, &second];
        let pool = Arc::new(Semaphore::new(1));
        let (calls, others) = ([Calls::default(), Calls::default()], Calls::default());
        let shorter = |place: &Place| {
            place.builder(case.ownership).configure(quick).configure(|settings| settings.ttl = TTL)
        };
        let mut running = Vec::new();
        for (place, calls) in places.iter().zip(&calls) {
            append(place, 1..=1).await;
            running.push(Running::start(shorter(place), pooled(calls, &pool, TTL * 3)));
            calls.until("it waits for its turn", 1).await;
        }
        running.extend(places.map(|place| Running::start(shorter(place), others.stuck_at([]))));
        for place in places {
            until_watermark(place, 1).await;
        }
        for running in running {
            running.stop().await;
        }
        for calls in calls {
            assert_eq!(calls.numbers(), [1], "{} {:?}", case.name, case.ownership);
        }
        assert_eq!(others.numbers(), [0u64; 0], "{} {:?}: nothing was taken", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t07_an_ack_that_fails_is_repeated_until_nothing_is_pending() {
    wherever(Ownership::Shared, async |mut case| {
        let faults = Faults::new();
        case.place.stream = Arc::new(faults.clone().wrap(case.place.stream));
        append(&case.place, 1..=5).await;
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 5).await;
        let before = faults.calls(Operation::Ack);
        for fault in [Fault::Before, Fault::Before, Fault::After] {
            faults.next(Operation::Ack, fault);
        }
        append(&case.place, 6..=10).await;
        until_watermark(&case.place, 10).await;
        assert!(faults.calls(Operation::Ack) >= before + 4, "{}", case.name);
        assert_eq!(group(&case.place).await.pending, 0, "{}", case.name);
        let report = running.stop().await;
        assert_eq!((report.settled, report.unsaved), (10, 0), "{}", case.name);
        assert_eq!(calls.numbers(), to(10), "{}: no handler is called again for an ack", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t07_an_ack_whose_connection_is_gone_is_repeated_until_nothing_is_pending() {
    for client in highwater_redis::Client::ALL {
        let server = RedisServer::start();
        let proxy = TcpProxy::start(server.addr()).await;
        let direct = of(client_of(client, &server.url()).await);
        let place = of(client_of(client, &proxy.url()).await);
        let place = Place { subscription: direct.subscription.clone(), ..place };
        append(&direct, 1..=5).await;
        let calls = Calls::default();
        let running = Running::start(place.builder(Ownership::Shared).configure(quick), calls.slow(TTL / 2));
        calls.until("it is being handled", 1).await;
        proxy.refuse(true);
        proxy.cut();
        for_a_time(TTL).await;
        assert_eq!(group(&direct).await.pending, 5, "{client}: no ack came through");
        proxy.refuse(false);
        until_watermark(&direct, 5).await;
        assert_eq!(group(&direct).await.pending, 0, "{client}");
        let report = running.stop().await;
        assert_eq!((report.settled, report.unsaved), (5, 0), "{client}");
        assert_eq!(calls.numbers(), to(5), "{client}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_pending_entries_that_were_deleted_leave_the_list_and_never_reach_a_handler() {
    for same_name in [false, true] {
        wherever(Ownership::Shared, async |case| {
            append(&case.place, 1..=10).await;
            let name = ConsumerName::new(unique("consumer")).unwrap();
            let held = Calls::default();
            let killed =
                Running::start(case.builder().name(name.clone()).concurrency(10), held.stuck_at(1..=10));
            held.until("it holds all", 10).await;
            killed.abort();
            let gone = Removal::Entries(case.place.subscription.stream.clone(), [3, 4, 9].map(id).into());
            assert_eq!(case.place.stream.remove(&gone).await.unwrap(), 3);
            let (calls, told) = (Calls::default(), Told::default());
            let builder = case.skipping().observer(told.observer());
            let builder = if same_name { builder.name(name) } else { builder };
            let running = Running::start(builder, calls.stuck_at([]));
            until_watermark(&case.place, 10).await;
            assert_eq!(group(&case.place).await.pending, 0, "{}", case.name);
            let report = running.stop().await;
            assert_eq!(calls.numbers(), [1, 2, 5, 6, 7, 8, 10], "{} {same_name}", case.name);
            assert!(report.gaps >= 1, "{}: {report:?}", case.name);
            assert!(told.count("Gap(") >= 1, "{}", case.name);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t19_what_a_claimer_held_when_it_died_goes_on_to_two_others_once_each() {
    wherever(Ownership::Shared, async |case| {
        append(&case.place, 1..=40).await;
        let stuck = || (Calls::default(), case.builder().concurrency(40));
        let (first, builder) = stuck();
        let dead = Running::start(builder, first.stuck_at(1..=40));
        first.until("it holds all", 40).await;
        dead.abort();
        let (second, builder) = stuck();
        let told = Told::default();
        let claimer = Running::start(builder.observer(told.observer()), second.stuck_at(1..=40));
        eventually("it has claimed all", LIMIT, async || told.sum("Claimed(") == 40).await;
        claimer.abort();
        let calls = Calls::default();
        let running = [0, 1].map(|_| Running::start(case.builder(), calls.slow(Duration::from_millis(5))));
        let killed = std::time::Instant::now();
        until_watermark(&case.place, 40).await;
        assert!(killed.elapsed() < Duration::from_secs(8), "{}: {:?}", case.name, killed.elapsed());
        for running in running {
            running.stop().await;
        }
        calls.assert_once(case.name, 1..=40);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t19_a_claim_whose_reply_was_lost_is_found_by_who_made_it() {
    wherever(Ownership::Shared, async |mut case| {
        append(&case.place, 1..=10).await;
        let held = Calls::default();
        let dead = Running::start(case.builder().concurrency(10), held.stuck_at(1..=10));
        held.until("it holds all", 10).await;
        dead.abort();
        let faults = Faults::new();
        case.place.stream = Arc::new(faults.clone().wrap(case.place.stream));
        // It takes effect each time; no answer comes back.
        faults.always(Operation::Claim, Fault::After);
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 10).await;
        running.stop().await;
        calls.assert_once(case.name, 1..=10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t37_one_abandoned_entry_behind_many_of_the_living_is_found_one_at_a_time() {
    wherever(Ownership::Shared, async |case| {
        append(&case.place, 1..=31).await;
        let (alive, dead, calls) = (Calls::default(), Calls::default(), Calls::default());
        let few = |entries: usize| {
            case.builder().concurrency(entries).configure(|settings| {
                (settings.read_entries_max, settings.in_flight_entries_max) = (entries, entries);
            })
        };
        let living = Running::start(few(30), alive.stuck_at(1..=30));
        alive.until("it holds 30", 30).await;
        let killed = Running::start(few(1), dead.stuck_at([31]));
        dead.until("it holds the last", 1).await;
        killed.abort();
        let running = Running::start(few(1), calls.stuck_at([]));
        eventually("it is found", Duration::from_secs(10), async || calls.numbers() == [31]).await;
        eventually("it is acked", LIMIT, async || group(&case.place).await.pending == 30).await;
        running.stop().await;
        assert_eq!(alive.numbers().len(), 30, "{}: nothing of the living was touched", case.name);
        living.abort();
    })
    .await;
}
