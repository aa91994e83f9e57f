//! Servers and processes that go and come back, and stops in the middle of something.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use highwater::{
    Backoff, Delivery, Fields, HandlerError, Outcome, Ownership, Producer, Subscription,
    backend::{Append, NewEntry, StreamBackend},
    clock::{Clock, Timestamp},
};
use highwater_redis::{Client, Redis};

use super::{
    rows::{Rows, builder, fresh, insert},
    stage::*,
};
use crate::{
    delivery::{Place, Running, number},
    support::{RedisServer, TcpProxy, eventually, process::Guarded, shared_redis_url},
};

fn both() -> [Ownership; 2] {
    [Ownership::Shared, Ownership::Exclusive]
}

fn fields(n: u64) -> Fields {
    Fields::from_iter([("n", n.to_string())])
}

const PROCESS: &str = "HIGHWATER_SCENARIO_PROCESS";

/// Not a test: what [`s02_...`](s02_kills_in_rotation_lose_nothing_and_double_nothing) starts as a process and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_process() {
    let Ok(told) = std::env::var(PROCESS) else { return };
    let told: Vec<_> = told.split('|').collect();
    let [redis, database, stream, ownership] = told[..] else { panic!("{told:?}") };
    let ownership = if ownership == "exclusive" { Ownership::Exclusive } else { Ownership::Shared };
    let stream_store: Arc<dyn StreamBackend> = client_of(Client::RedisRs, redis).await;
    let store = Rows { url: database.to_owned() }.store().await;
    let subscription = Subscription::new(stream, "group").unwrap();
    let builder = highwater::Consumer::builder(subscription, stream_store, store).configure(quick);
    let builder = builder.configure(|settings| {
        settings.ttl = Duration::from_secs(1);
        settings.ownership = ownership;
    });
    let end = insert(builder, "process", |_| Duration::from_millis(2), std::future::pending::<()>()).await;
    panic!("{end:?}");
}

fn process(rows: &Rows, subscription: &Subscription, ownership: Ownership) -> Guarded {
    let ownership = if ownership == Ownership::Exclusive { "exclusive" } else { "shared" };
    let told = [&shared_redis_url(), &rows.url, subscription.stream.as_str(), ownership].join("|");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "scenarios::outages::s02_process"]).env(PROCESS, told);
    Guarded::spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_kills_in_rotation_lose_nothing_and_double_nothing() {
    let run = async |ownership| {
        let (rows, subscription) = (Rows::new().await, fresh());
        let stream: Arc<dyn StreamBackend> = client(Client::RedisRs).await;
        let mut processes: Vec<_> = (0..3).map(|_| process(&rows, &subscription, ownership)).collect();
        for round in 0..5u64 {
            append_to(&stream, &subscription, round * 100 + 1..=round * 100 + 100).await;
            // In the middle of the work of this round.
            rows.until(&subscription, (round * 100 + 30) as usize).await;
            let victim = &mut processes[(round % 3) as usize];
            victim.kill();
            *victim = process(&rows, &subscription, ownership);
        }
        rows.until(&subscription, 500).await;
        drop(processes);
        assert_eq!(rows.numbers(&subscription).await, to(500), "{ownership:?}: each once");
    };
    join_all(both().map(run)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_from_four_to_eight_to_two_owners_in_traffic_keeps_order_and_loses_nothing() {
    let redis = client(Client::Fred).await;
    let places: Vec<_> = (0..4).map(|_| of(Arc::clone(&redis))).collect();
    let (idle, traffic) = places.split_last().unwrap();
    let (calls, idle_calls, told) = ([(); 3].map(|()| Calls::default()), Calls::default(), Told::default());
    append(idle, 1..=7).await;
    let instance = || -> Vec<Running> {
        let configured =
            |place: &Place| place.builder(Ownership::Exclusive).configure(quick).observer(told.observer());
        let busy = traffic
            .iter()
            .zip(&calls)
            .map(|(place, calls)| Running::start(configured(place), calls.slow(Duration::from_micros(500))));
        busy.chain([Running::start(configured(idle), idle_calls.stuck_at([]))]).collect()
    };
    let mut instances: Vec<_> = (0..4).map(|_| instance()).collect();
    until_watermark(idle, 7).await;
    for round in 0..10u64 {
        for place in traffic {
            append(place, round * 50 + 1..=round * 50 + 50).await;
        }
        match round {
            2 => instances.extend((0..4).map(|_| instance())),
            // The oldest go first: owners are among them.
            4..=6 => {
                for running in instances.drain(..2).flatten().collect::<Vec<_>>() {
                    running.stop().await;
                }
            }
            _ => for_a_time(Duration::from_millis(30)).await,
        }
    }
    assert_eq!(instances.len(), 2);
    for place in traffic {
        until_watermark(place, 500).await;
    }
    for running in instances.into_iter().flatten() {
        running.stop().await;
    }
    for calls in calls {
        assert_eq!(calls.numbers(), to(500), "in order, each once");
    }
    assert_eq!((idle_calls.numbers(), watermark(idle).await), (to(7), Some(7)), "it keeps its position");
    assert!(told.count("Acquired") <= 4 * 8, "{} handoffs", told.count("Acquired"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_a_hundred_publishers_and_two_restarts_lose_nothing_and_make_no_hot_loop() {
    const EACH: u64 = 40;
    for client in Client::ALL {
        let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let redis = client_of(client, &server.url()).await;
        let place = of(redis);
        let calls = Calls::default();
        let running = Running::start(place.builder(Ownership::Shared).configure(quick), calls.stuck_at([]));
        let producer = Producer::new(place.subscription.stream.clone(), Arc::clone(&place.stream)).unwrap();
        let publishers: Vec<_> = (0..100)
            .map(|publisher| {
                let producer = producer.clone();
                tokio::spawn(async move {
                    for n in publisher * EACH..(publisher + 1) * EACH {
                        while producer.append(fields(n)).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                })
            })
            .collect();
        for part in [3, 2] {
            calls.until("so much is there", (100 * EACH / part) as usize).await;
            server.kill();
            server.restart().unwrap();
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
        eventually("all are handled", LIMIT, async || {
            calls.numbers().into_iter().collect::<BTreeSet<_>>().len() as u64 == 100 * EACH
        })
        .await;
        eventually("all is settled", LIMIT, async || place.all_settled().await).await;
        let report = running.stop().await;
        assert!(report.reconnects < 60, "{client}: no hot loop: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_a_stop_in_the_middle_of_an_hours_backoff_is_immediate_and_the_entry_comes_again() {
    everywhere(async |case| {
        append(&case.place, 1..=2).await;
        let (failing, calls, told) = (Calls::default(), Calls::default(), Told::default());
        let hour = Duration::from_secs(3_600);
        let builder = case.builder().observer(told.observer()).configure(|settings| {
            settings.retry = Backoff { first: hour, max: hour, ..Backoff::default() };
        });
        let noted = failing.clone();
        let fails = move |delivery: Delivery| {
            noted.note(&delivery);
            std::future::ready(Err::<(), _>(HandlerError::retry("not now")))
        };
        let running = Running::start(builder, fails);
        eventually("it waits", LIMIT, async || told.count("Retried") == 1).await;
        let start = Instant::now();
        running.stop().await;
        assert!(start.elapsed() < Duration::from_millis(500), "{}: {:?}", case.name, start.elapsed());
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 2).await;
        running.stop().await;
        assert_eq!((failing.numbers(), calls.numbers()), (vec![1], to(2)), "{}", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t34_a_stop_waits_for_what_is_in_a_handler_and_starts_nothing_more() {
    everywhere(async |case| {
        append(&case.place, 1..=10).await;
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.slow(Duration::from_millis(400)));
        calls.until("the second is in the handler", 2).await;
        let start = Instant::now();
        let report = running.stop().await;
        assert!(start.elapsed() < Duration::from_secs(2), "{}: {:?}", case.name, start.elapsed());
        assert_eq!((report.settled, report.unsaved, calls.numbers()), (2, 0, to(2)), "{}", case.name);
        assert_eq!(watermark(&case.place).await, Some(2), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t34_a_stop_gives_up_a_handler_at_its_deadline_and_the_entry_comes_again() {
    everywhere(async |case| {
        append(&case.place, 1..=3).await;
        let (stuck, calls) = (Calls::default(), Calls::default());
        let deadline = Duration::from_millis(400);
        let builder = case.builder().configure(|settings| settings.drain_timeout = deadline);
        let running = Running::start(builder, stuck.stuck_at([2]));
        until_watermark(&case.place, 1).await;
        stuck.until("it is stuck", 2).await;
        let start = Instant::now();
        running.stop().await;
        let took = start.elapsed();
        assert!(took >= deadline && took < deadline * 3, "{}: {took:?}", case.name);
        // The lease and the entries were given up, so nobody waits for a time to live.
        let start = Instant::now();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 3).await;
        assert!(start.elapsed() < TTL, "{} {:?}: {:?}", case.name, case.ownership, start.elapsed());
        running.stop().await;
        assert_eq!(calls.numbers(), [2, 3], "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_twenty_cold_starts_at_once_have_one_effect_an_entry_and_no_error() {
    let run = async |ownership| {
        let (rows, subscription) = (Rows { url: crate::support::fresh_postgres_url().await }, fresh());
        let stream: Arc<dyn StreamBackend> = client(Client::RedisRs).await;
        append_to(&stream, &subscription, 1..=60).await;
        // Nobody has made the tables of the checkpoints.
        let ready = join_all((0..20).map(async |_| {
            let store = rows.store().await;
            store.ensure_schema().await
        }))
        .await;
        assert!(ready.iter().all(Result::is_ok), "{ready:?}");
        rows.create().await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let builders = join_all((0..20).map(|_| builder(&rows, &subscription, ownership))).await;
        let runs = builders.into_iter().map(|builder| {
            let mut stopped = stopped.clone();
            let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
            tokio::spawn(insert(builder, "one of them", |_| Duration::from_millis(5), stopped))
        });
        let runs: Vec<_> = runs.collect();
        rows.until(&subscription, 60).await;
        stop.send_replace(true);
        for run in runs {
            run.await.unwrap().unwrap();
        }
        assert_eq!(rows.numbers(&subscription).await, to(60), "{ownership:?}: each once");
    };
    for ownership in both() {
        run(ownership).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t20_an_append_whose_reply_was_lost_is_told_and_a_chosen_id_makes_it_safe_to_repeat() {
    for client in Client::ALL {
        let server = RedisServer::start();
        let proxy = TcpProxy::start(server.addr()).await;
        let place = of(client_of(client, &proxy.url()).await);
        append(&place, 1..=1).await;
        proxy.lose_reply_to("lost-reply");
        let entry = NewEntry::new(Fields::from_iter([("n", "2"), ("how", "lost-reply")])).with_id(id(2));
        let request = Append::new(place.subscription.stream.clone(), vec![entry]);
        let first = place.stream.append(&request).await.and_then(|mut each| each.pop().unwrap());
        assert_eq!(first.unwrap_err().outcome(), Outcome::Unknown, "{client}");
        let again = place.stream.append(&request).await.unwrap().pop().unwrap().unwrap_err();
        assert_eq!(again.kind(), highwater::ErrorKind::Invalid, "{client}: it is there: {again}");
        assert_eq!(state(&place).await.len, 2, "{client}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t20_an_append_that_was_repeated_has_one_effect_by_a_key_of_the_users() {
    let (rows, subscription) = (Rows::new().await, fresh());
    rows.unique().await;
    let server = RedisServer::start();
    let proxy = TcpProxy::start(server.addr()).await;
    let redis = Arc::new(Redis::connect(&proxy.url()).await.unwrap());
    let producer = Producer::new(subscription.stream.clone(), Arc::clone(&redis)).unwrap();
    producer.append(fields(1)).await.unwrap();
    proxy.lose_reply_to("XADD");
    let error = producer.append(fields(2)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    producer.append(fields(2)).await.unwrap();
    producer.append(fields(3)).await.unwrap();
    let stream: Arc<dyn StreamBackend> = redis;
    let place =
        Place { subscription: subscription.clone(), ..Place::new(Arc::clone(&stream), postgres().await) };
    assert_eq!(state(&place).await.len, 4, "it is in the stream twice");
    let store = rows.store().await;
    let consumer =
        highwater::Consumer::builder(subscription.clone(), stream, store).exclusive().configure(quick);
    let consumer = consumer.build().unwrap();
    let name = subscription.stream.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = tokio::spawn(consumer.run_transactional(
        move |tx, delivery: Delivery| {
            let name = name.clone();
            Box::pin(async move {
                let insert =
                    "INSERT INTO effects (stream, n, who) VALUES ($1, $2, 'me') ON CONFLICT DO NOTHING";
                let insert = sqlx::query(insert).bind(name.as_str()).bind(number(&delivery).cast_signed());
                insert.execute(&mut **tx).await.map(drop)
            })
        },
        async { drop(stopped.await) },
    ));
    assert_eq!(rows.until(&subscription, 3).await, to(3));
    stop.send(()).unwrap();
    assert!(run.await.unwrap().unwrap().settled >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t31_a_clock_that_is_minutes_wrong_takes_no_lease_and_loses_none() {
    everywhere(async |case| {
        let now = Clock::new().now();
        let skew = Duration::from_mins(5);
        let clocks = [
            Timestamp::from_millis(now.since(Timestamp::from_millis(0).plus(skew)).as_millis() as u64),
            now.plus(skew),
        ];
        let clocks = clocks.map(Clock::at);
        let run = async |(holds, follows): (usize, usize)| {
            let place = Place::new(case.place.stream.clone(), case.place.checkpoints.clone());
            append(&place, 1..=2).await;
            let builder =
                |clock: usize| place.builder(case.ownership).configure(quick).clock(clocks[clock].clone());
            let (held, others) = (Calls::default(), Calls::default());
            let holder = Running::start(builder(holds), held.stuck_at([1]));
            held.until("it is held", 1).await;
            let follower = Running::start(builder(follows), others.stuck_at([]));
            for_a_time(TTL * 3).await;
            let kept = others.numbers();
            assert!(!kept.contains(&1), "{} {:?}: {kept:?}", case.name, case.ownership);
            holder.abort();
            let killed = Instant::now();
            until_watermark(&place, 2).await;
            assert!(killed.elapsed() < Duration::from_secs(5), "{}: {:?}", case.name, killed.elapsed());
            follower.stop().await;
            others.assert_once(case.name, 1..=2);
        };
        join_all([run((0, 1)), run((1, 0))]).await;
    })
    .await;
}
