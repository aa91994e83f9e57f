//! Streams that lost entries, or are not the stream that the checkpoint was taken from.

use std::{future::pending, time::Duration};

use highwater::{
    EntryId, Error, ErrorKind, OnReset, Ownership, StartAt,
    backend::{Removal, Trim, TrimLimit},
    integrity::{Finding, Lost},
};

use super::stage::*;
use crate::{
    delivery::{AnyBuilder, Place, Running},
    support::{RedisServer, TcpProxy, eventually},
};

/// Consumes what is there up to this number, and stops.
async fn consume(case: &Case, n: u64) {
    let running = Running::start(case.builder(), Calls::default().stuck_at([]));
    until_watermark(&case.place, n).await;
    running.stop().await;
}

/// Why it does not run. It handles nothing.
async fn refused(case: &Case, builder: AnyBuilder) -> Error {
    let calls = Calls::default();
    let run = builder.build().unwrap().run(calls.stuck_at([]), pending::<()>());
    let error = tokio::time::timeout(LIMIT, run).await.expect("it ends").unwrap_err();
    assert_eq!(calls.numbers(), [0u64; 0], "{} {:?}", case.name, case.ownership);
    error
}

async fn trim(place: &Place, limit: TrimLimit) {
    place.stream.trim(&Trim::new(place.subscription.stream.clone(), limit)).await.unwrap();
}

async fn remove_stream(place: &Place) {
    let removal = Removal::Stream(place.subscription.stream.clone());
    assert_eq!(place.stream.remove(&removal).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_a_trim_between_checkpoint_and_resume_is_a_gap_of_90() {
    everywhere(async |case| {
        append(&case.place, 1..=10).await;
        consume(&case, 10).await;
        append(&case.place, 11..=110).await;
        trim(&case.place, TrimLimit::Len(10)).await;
        let error = refused(&case, case.builder()).await;
        assert_eq!(error.kind(), ErrorKind::Gap, "{}: {error}", case.name);
        let Some(Finding::Gap(gap)) = error.finding() else { panic!("{error:?}") };
        let found = (gap.after, gap.before, gap.lost);
        assert_eq!(found, (id(10), Some(id(101)), Lost::Exactly(90)), "{} {:?}", case.name, case.ownership);
        let calls = Calls::default();
        let running = Running::start(case.skipping(), calls.stuck_at([]));
        until_watermark(&case.place, 110).await;
        let report = running.stop().await;
        assert_eq!(calls.numbers(), (101..=110).collect::<Vec<_>>(), "{} {:?}", case.name, case.ownership);
        assert_eq!((report.settled, report.gaps), (10, 1), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_a_trim_before_a_running_consumer_is_a_gap_of_90() {
    for skip in [false, true] {
        everywhere(async |case| {
            append(&case.place, 1..=110).await;
            let (calls, told) = (Calls::default(), Told::default());
            // It holds ten, and the rest has to be read yet.
            let builder = if skip { case.skipping() } else { case.builder() };
            let builder = builder.observer(told.observer()).configure(|settings| {
                (settings.read_entries_max, settings.in_flight_entries_max) = (10, 10);
            });
            let consumer = builder.build().unwrap();
            let (open, handler) = gated(&calls, |_| true);
            let run = tokio::spawn(consumer.run(handler, pending::<()>()));
            eventually("it holds ten", LIMIT, async || told.sum("Delivered(") == 10).await;
            trim(&case.place, TrimLimit::Len(10)).await;
            open.send_replace(true);
            eventually("it is told", LIMIT, async || told.count("Gap(") > 0).await;
            let gap = told.all("Gap(").remove(0);
            // Who shares is told what the pending entries tell, which is less.
            let exact = gap.contains("Exactly(90)") || case.ownership == Ownership::Shared;
            assert!(gap.contains("before: Some(101-0)") && exact, "{}: {gap}", case.name);
            if skip {
                until_watermark(&case.place, 110).await;
                let expected: Vec<_> = (1..=10).chain(101..=110).collect();
                assert_eq!(calls.numbers(), expected, "{} {:?}", case.name, case.ownership);
                run.abort();
            } else {
                let error = run.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Gap, "{}: {error}", case.name);
                assert!(calls.numbers().iter().all(|n| *n <= 10), "{}", case.name);
            }
        })
        .await;
    }
}

/// A group of which somebody else reads as well, over a trim: the server then counts too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t13_the_lag_is_never_more_than_there_is() {
    for client in highwater_redis::Client::ALL {
        let server = RedisServer::start();
        let place = of(client_of(client, &server.url()).await);
        append(&place, 1..=5).await;
        let (stream, group) = (place.subscription.stream.as_str(), place.subscription.group.as_str());
        let run = |command: &[&str]| assert!(!server.cli(command).unwrap().is_error(), "{command:?}");
        let read = || run(&["XREADGROUP", "GROUP", group, "other", "COUNT", "1", "STREAMS", stream, ">"]);
        run(&["XGROUP", "CREATE", stream, group, "0"]);
        read();
        run(&["XTRIM", stream, "MAXLEN", "1"]);
        read();
        run(&["XACK", stream, group, "1-0", "5-0"]);
        let told = Told::default();
        let builder = place.builder(Ownership::Shared).configure(quick).observer(told.observer());
        let running = Running::start(builder, Calls::default().stuck_at([]));
        eventually("it has measured", LIMIT, async || told.count("Status") > 3).await;
        running.stop().await;
        let lag = |status: &String| status.contains("lag: Some(0)") || status.contains("lag: None");
        assert!(told.all("Status").iter().all(lag), "{client}: {:?}", told.all("Status"));
        assert!(told.all("Status").last().unwrap().contains("lag: Some(0)"), "{client}: nothing is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t15_the_first_start_begins_with_what_is_there() {
    everywhere(async |case| {
        append(&case.place, 1..=5).await;
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        until_watermark(&case.place, 5).await;
        running.stop().await;
        assert_eq!(calls.numbers(), to(5), "{} {:?}", case.name, case.ownership);
        // Where that is not wanted, it is said, and the checkpoint decides from then on.
        let place = Place::new(case.place.stream.clone(), case.place.checkpoints.clone());
        let case = Case { place, ..case };
        append(&case.place, 1..=5).await;
        let (first, second) = (Calls::default(), Calls::default());
        let at_end = || case.builder().configure(|settings| settings.start = StartAt::End);
        let running = Running::start(at_end(), first.stuck_at([]));
        until_watermark(&case.place, 5).await;
        running.abort();
        append(&case.place, 6..=8).await;
        let running = Running::start(at_end(), second.stuck_at([]));
        until_watermark(&case.place, 8).await;
        running.stop().await;
        assert_eq!(second.numbers(), [6, 7, 8], "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t16_a_group_that_is_destroyed_at_50_of_100_goes_on_with_51_and_is_told_once() {
    wherever(Ownership::Shared, async |case| {
        append(&case.place, 1..=50).await;
        let (calls, told) = (Calls::default(), Told::default());
        let running = Running::start(case.builder().observer(told.observer()), calls.stuck_at([]));
        until_watermark(&case.place, 50).await;
        let created = told.count("GroupCreated");
        let removal = Removal::Group(case.place.subscription.clone());
        assert_eq!(case.place.stream.remove(&removal).await.unwrap(), 1);
        append(&case.place, 51..=100).await;
        until_watermark(&case.place, 100).await;
        let report = running.stop().await;
        assert_eq!(calls.numbers(), to(100), "{}", case.name);
        assert_eq!(told.count("GroupCreated"), created + 1, "{}", case.name);
        assert!(told.all("GroupCreated")[created].contains("at: 50-0"), "{}", case.name);
        assert!(report.reconnects < 20, "{}: no hot loop: {report:?}", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_a_stream_that_was_made_anew_with_lower_ids_is_refused_or_read_from_its_beginning() {
    everywhere(async |case| {
        append(&case.place, 1_000..=1_010).await;
        consume(&case, 1_010).await;
        remove_stream(&case.place).await;
        append(&case.place, 1..=5).await;
        let error = refused(&case, case.builder()).await;
        assert_eq!(error.kind(), ErrorKind::Reset, "{} {:?}: {error}", case.name, case.ownership);
        assert_eq!(watermark(&case.place).await, Some(1_010), "{}: it stays as it is", case.name);
        let calls = Calls::default();
        let anew = case.builder().configure(|settings| settings.on_reset = OnReset::FromBeginning);
        let running = Running::start(anew, calls.stuck_at([]));
        until_watermark(&case.place, 5).await;
        running.stop().await;
        assert_eq!(calls.numbers(), to(5), "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_a_stream_that_goes_under_a_blocked_read_is_told_though_nothing_wakes_it() {
    for again in [false, true] {
        everywhere(async |case| {
            append(&case.place, 1_000..=1_010).await;
            let calls = Calls::default();
            let consumer = case.builder().build().unwrap();
            let run = tokio::spawn(consumer.run(calls.stuck_at([]), pending::<()>()));
            until_watermark(&case.place, 1_010).await;
            remove_stream(&case.place).await;
            if again {
                append(&case.place, 1..=5).await;
            }
            let ended = tokio::time::timeout(Duration::from_secs(5), run).await;
            let error = ended.expect("in time").unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reset, "{} {:?}: {error}", case.name, case.ownership);
            assert_eq!(calls.numbers(), (1_000..=1_010).collect::<Vec<_>>(), "{}", case.name);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_a_stream_made_anew_under_a_running_consumer_is_read_from_its_beginning() {
    everywhere(async |case| {
        append(&case.place, 1_000..=1_010).await;
        let calls = Calls::default();
        let anew = case.builder().configure(|settings| settings.on_reset = OnReset::FromBeginning);
        let running = Running::start(anew, calls.stuck_at([]));
        until_watermark(&case.place, 1_010).await;
        remove_stream(&case.place).await;
        append(&case.place, 1..=5).await;
        until_watermark(&case.place, 5).await;
        append(&case.place, 6..=9).await;
        until_watermark(&case.place, 9).await;
        running.stop().await;
        let expected: Vec<_> = (1_000..=1_010).chain(1..=9).collect();
        assert_eq!(calls.numbers(), expected, "{} {:?}", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_retention_past_a_hole_is_a_gap_and_the_other_hole_still_comes() {
    everywhere(async |case| {
        append(&case.place, 1..=20).await;
        let held = Calls::default();
        let killed = Running::start(case.builder().concurrency(8), held.stuck_at([2, 4]));
        held.until("all are called", 20).await;
        eventually("the rest is saved", LIMIT, async || {
            let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap();
            checkpoint.is_some_and(|checkpoint| checkpoint.position.settles(id(20)))
        })
        .await;
        killed.abort();
        trim(&case.place, TrimLimit::Below(id(4))).await;
        // A dead one's pending entries are looked at when they are claimed.
        let calls = Calls::default();
        let run = case.builder().build().unwrap().run(calls.stuck_at([]), pending::<()>());
        let error = tokio::time::timeout(LIMIT, run).await.expect("it ends").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap, "{} {:?}: {error}", case.name, case.ownership);
        let Some(Finding::Gap(gap)) = error.finding() else { panic!("{error:?}") };
        assert!(gap.after < id(2) && gap.lost.count() == 1, "{}: {gap:?}", case.name);
        let again = Calls::default();
        let running = Running::start(case.skipping(), again.stuck_at([]));
        until_watermark(&case.place, 20).await;
        let report = running.stop().await;
        let mut numbers = calls.numbers();
        numbers.extend(again.numbers());
        assert_eq!(numbers, [4], "{} {:?}", case.name, case.ownership);
        assert_eq!(report.gaps, 1, "{} {:?}", case.name, case.ownership);
    })
    .await;
}

/// A server that lost what came after its last snapshot, as a replica does that lagged behind. The checkpoint is elsewhere.
async fn failed_over(ownership: Ownership, client: highwater_redis::Client) -> (Case, RedisServer) {
    let mut server = RedisServer::start();
    let stream = client_of(client, &server.url()).await;
    let case = Case { name: client.name(), place: Place::new(stream, postgres().await), ownership };
    append(&case.place, 1..=50).await;
    consume(&case, 50).await;
    assert_eq!(server.cli(&["SAVE"]).unwrap().text(), "OK");
    append(&case.place, 51..=70).await;
    consume(&case, 70).await;
    server.kill();
    server.restart().unwrap();
    eventually("it is back", LIMIT, async || {
        let inspect = highwater::backend::Inspect::subscription(&case.place.subscription);
        case.place.stream.inspect(&inspect).await.is_ok()
    })
    .await;
    (case, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_failover_that_lost_the_tail_is_told_and_new_entries_of_those_ids_are_not_ignored() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        for client in highwater_redis::Client::ALL {
            let (case, _server) = failed_over(ownership, client).await;
            assert_eq!(state(&case.place).await.last_id, id(50), "the tail is lost");
            append(&case.place, 51..=60).await;
            let error = refused(&case, case.builder()).await;
            assert_eq!(error.kind(), ErrorKind::Reset, "{} {ownership:?}: {error}", case.name);
            let calls = Calls::default();
            let end = case.builder().configure(|settings| settings.on_reset = OnReset::FromEnd);
            let running = Running::start(end, calls.stuck_at([]));
            until_watermark(&case.place, 60).await;
            append(&case.place, 61..=65).await;
            until_watermark(&case.place, 65).await;
            running.stop().await;
            let again = calls.numbers();
            assert!(again.ends_with(&[61, 62, 63, 64, 65]), "{} {ownership:?}: {again:?}", case.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_failover_under_a_running_consumer_is_told() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        for client in highwater_redis::Client::ALL {
            let mut server = RedisServer::start();
            let stream = client_of(client, &server.url()).await;
            let case = Case { name: client.name(), place: Place::new(stream, postgres().await), ownership };
            append(&case.place, 1..=50).await;
            let calls = Calls::default();
            let anew = case.builder().configure(|settings| settings.on_reset = OnReset::FromBeginning);
            let running = Running::start(anew, calls.stuck_at([]));
            until_watermark(&case.place, 50).await;
            assert_eq!(server.cli(&["SAVE"]).unwrap().text(), "OK");
            append(&case.place, 51..=70).await;
            until_watermark(&case.place, 70).await;
            server.kill();
            server.restart().unwrap();
            let run = |n: u64| {
                let id = id(n).to_string();
                let stream = case.place.subscription.stream.as_str();
                server.cli(&["XADD", stream, &id, "n", &n.to_string()]).unwrap()
            };
            assert_eq!(run(51).text(), "51-0");
            until_watermark(&case.place, 51).await;
            assert_eq!(run(52).text(), "52-0");
            until_watermark(&case.place, 52).await;
            running.stop().await;
            let expected: Vec<_> = (1..=70).chain(1..=52).collect();
            assert_eq!(calls.numbers(), expected, "{} {ownership:?}", case.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_entries_with_ids_of_the_clock_follow_a_lost_tail_and_none_is_missed() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let (case, server) = failed_over(ownership, highwater_redis::Client::RedisRs).await;
        let stream = case.place.subscription.stream.as_str();
        // More than were lost: neither the last id nor the count tells.
        for n in 100..140 {
            server.cli(&["XADD", stream, "*", "n", &n.to_string()]).unwrap();
        }
        let calls = Calls::default();
        let running = Running::start(case.builder(), calls.stuck_at([]));
        eventually("all are handled", LIMIT, async || calls.numbers().len() >= 40).await;
        eventually("all is settled", LIMIT, async || case.place.all_settled().await).await;
        running.stop().await;
        let numbers = calls.numbers();
        assert_eq!(numbers, (100..140).collect::<Vec<_>>(), "{ownership:?}");
        assert!(watermark(&case.place).await > Some(EntryId::new(70, 0).ms));
    }
}

/// What a handler holds may leave the stream: it is handled all the same, and nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_what_is_in_a_handler_when_it_is_trimmed_is_no_gap() {
    for reconnect in [false, true] {
        for ownership in [Ownership::Shared, Ownership::Exclusive] {
            let server = RedisServer::start();
            let proxy = TcpProxy::start(server.addr()).await;
            let place = of(client_of(highwater_redis::Client::RedisRs, &server.url()).await);
            let through = of(client_of(highwater_redis::Client::RedisRs, &proxy.url()).await);
            let through = Place { subscription: place.subscription.clone(), ..through };
            append(&place, 1..=5).await;
            let (calls, told) = (Calls::default(), Told::default());
            let (open, handler) = gated(&calls, |_| true);
            let builder = through.builder(ownership).configure(quick).observer(told.observer());
            let running = Running::start(builder.concurrency(5), handler);
            calls.until("it holds five", 5).await;
            trim(&place, TrimLimit::Len(0)).await;
            if reconnect {
                proxy.cut();
                eventually("it connects again", LIMIT, async || told.count("Unavailable") > 0).await;
            }
            for_a_time(Duration::from_millis(500)).await;
            open.send_replace(true);
            append(&place, 6..=7).await;
            until_watermark(&place, 7).await;
            let report = running.stop().await;
            let case = format!("{ownership:?} {reconnect}");
            calls.assert_once(&case, 1..=7);
            assert_eq!((told.count("Gap("), report.gaps), (0, 0), "{case}");
        }
    }
}
