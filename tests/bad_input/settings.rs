//! Settings of every component.

use std::time::Duration;

use highwater::{
    CheckpointPolicy, Consumer, ErrorKind, Memory, Settings,
    producer::{Producer, ProducerSettings, Retention},
};
use highwater_redis::Redis;
use highwater_sqlite::Sqlite;

use super::place::{assert_told, stream, subscription};

const ZERO: Duration = Duration::ZERO;
const TWO_DAYS: Duration = Duration::from_hours(48);

#[test]
fn g18_each_bad_setting_of_a_consumer_is_named() {
    type Spoil = fn(&mut Settings);
    let bad: [(&str, Spoil); 23] = [
        ("attempts_max", |s| s.attempts_max = 0),
        ("read_entries_max", |s| s.read_entries_max = 0),
        ("in_flight_entries_max", |s| s.in_flight_entries_max = 0),
        ("in_flight_bytes_max", |s| s.in_flight_bytes_max = 0),
        ("window_entries_max", |s| s.window_entries_max = 1),
        ("block", |s| s.block = ZERO),
        ("block", |s| s.block = TWO_DAYS),
        ("probe_interval", |s| s.probe_interval = ZERO),
        ("ttl", |s| s.ttl = ZERO),
        ("ttl", |s| s.ttl = Duration::MAX),
        ("claim_interval", |s| s.claim_interval = ZERO),
        ("claim_min_idle", |s| s.claim_min_idle = ZERO),
        ("drain_timeout", |s| s.drain_timeout = Duration::MAX),
        ("checkpoint", |s| s.checkpoint = CheckpointPolicy::Entries(0)),
        ("checkpoint", |s| s.checkpoint = CheckpointPolicy::Bytes(0)),
        ("checkpoint", |s| s.checkpoint = CheckpointPolicy::Interval(ZERO)),
        ("checkpoint", |s| s.checkpoint = CheckpointPolicy::Interval(Duration::MAX)),
        ("retry", |s| s.retry.max = Duration::MAX),
        ("retry", |s| s.retry.jitter = 1.1),
        ("retry", |s| s.retry.factor = f64::NAN),
        ("retry", |s| s.retry.first = Duration::from_hours(1)),
        ("reconnect", |s| s.reconnect.first = ZERO),
        ("reconnect", |s| s.reconnect.factor = f64::INFINITY),
    ];
    for (setting, spoil) in bad {
        let build = || Consumer::fused(subscription(), Memory::new());
        let error = build().configure(spoil).build().expect_err(setting);
        assert_told(setting, &error, ErrorKind::Invalid, &[setting]);
    }
    let build = || Consumer::fused(subscription(), Memory::new());
    for builder in [build().concurrency(0), build().keyed(0, |d| d.id().ms), build().batch_entries_max(0)] {
        assert_told("lanes", &builder.build().unwrap_err(), ErrorKind::Invalid, &["at least 1"]);
    }
}

#[tokio::test]
async fn g18_a_batch_handler_and_lanes_exclude_each_other() {
    let consumer = Consumer::fused(subscription(), Memory::new()).concurrency(2).build().unwrap();
    let handler = |_| async { Ok::<_, std::io::Error>(()) };
    let error = consumer.run_batches(handler, std::future::pending::<()>()).await.unwrap_err();
    assert_told("lanes", &error, ErrorKind::Invalid, &["leave out `concurrency` and `keyed`"]);
}

#[tokio::test]
async fn g18_each_bad_setting_of_a_producer_is_named() {
    type Spoil = fn(&mut ProducerSettings);
    let bad: [(&str, Spoil); 9] = [
        ("payload_bytes_max", |s| s.payload_bytes_max = 0),
        ("batch_entries_max", |s| s.batch_entries_max = 0),
        ("batch_bytes_max", |s| s.batch_bytes_max = s.payload_bytes_max - 1),
        ("in_flight_entries_max", |s| s.in_flight_entries_max = 0),
        ("in_flight_entries_max", |s| s.in_flight_entries_max = usize::MAX),
        ("in_flight_bytes_max", |s| s.in_flight_bytes_max = s.batch_bytes_max - 1),
        ("in_flight_bytes_max", |s| s.in_flight_bytes_max = usize::MAX),
        ("retention", |s| s.retention = Retention::Age(Duration::from_micros(999))),
        ("retention", |s| s.retention = Retention::Len(0)),
    ];
    for (setting, spoil) in bad {
        let mut settings = ProducerSettings::default();
        spoil(&mut settings);
        let error = Producer::builder(stream(), Memory::new()).settings(settings).build().expect_err(setting);
        assert_told(setting, &error, ErrorKind::Invalid, &[": set "]);
        assert_eq!(error.context("setting"), Some(setting), "{error}");
    }
}

#[test]
fn g18_a_producer_outside_of_a_runtime_is_refused() {
    let error = Producer::new(stream(), Memory::new()).unwrap_err();
    assert_told("runtime", &error, ErrorKind::Invalid, &["tokio runtime", "build it inside one"]);
}

#[tokio::test]
async fn g18_each_bad_setting_of_redis_is_named() {
    // Nobody listens there, and nobody is asked.
    let settings = || highwater_redis::Settings::new("redis://127.0.0.1:1");
    for (setting, bad) in [
        ("response_timeout", settings().response_timeout(ZERO)),
        ("connect_timeout", settings().connect_timeout(ZERO)),
        ("block_slack", settings().block_slack(ZERO)),
        ("block_slack", settings().block_slack(Duration::MAX)),
    ] {
        let error = Redis::connect_with(bad).await.expect_err(setting);
        assert_told(setting, &error, ErrorKind::Invalid, &["above zero", setting]);
    }
}

#[tokio::test]
async fn g18_each_bad_setting_of_sqlite_is_named_and_no_file_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let settings = highwater_sqlite::Settings::default;
    for (setting, bad, range) in [
        ("busy_timeout", settings().busy_timeout(Duration::from_secs(601)), "0 to 10 min"),
        ("poll_interval", settings().poll_interval(ZERO), "1 ms to 10 s"),
        ("poll_interval", settings().poll_interval(Duration::from_secs(11)), "1 ms to 10 s"),
        ("max_bytes", settings().max_bytes(Some((1 << 20) - 1)), "at least 1 MiB"),
    ] {
        let error = Sqlite::open_with(&path, &bad).await.expect_err(setting);
        assert_told(setting, &error, ErrorKind::Invalid, &[setting, range]);
        assert!(!path.exists(), "{setting}");
    }
}
