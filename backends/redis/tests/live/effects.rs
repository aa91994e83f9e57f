//! Each effect, and that one which is refused takes all others with it.

use std::time::Duration;

use highwater::{EntryId, Epoch, ErrorKind, Outcome, Result, backend::*};
use highwater_redis::{Effects, key_beside};

use crate::{Redis, server::*};

async fn commit(redis: &Redis, effects: Effects, ms: u64) -> Result<Committed> {
    redis.commit(effects, &Settlement::each(subscription(), Epoch(0), name("c"), ids([ms]))).await
}

/// Commits what is written, at an entry of its own.
async fn write(redis: &Redis, ms: u64, fill: impl FnOnce(&mut Effects)) -> Result<Committed> {
    let mut effects = Effects::default();
    fill(&mut effects);
    commit(redis, effects, ms).await
}

#[tokio::test]
async fn every_effect_is_carried_out() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    write(&redis, 1, |effects| {
        effects.set("a", "v").set_for("b", [0, 255], Duration::from_secs(60)).incr_by("n", i64::MIN);
        effects.incr_by("n", i64::MAX).incr_by("n", 43).hash_set("h", "f", "7").hash_incr_by("h", "f", -9);
        effects
            .hash_set("h", "g", "x")
            .hash_del("h", "g")
            .set_add("s2", "m")
            .set_add("s2", "o")
            .set_remove("s2", "m");
        effects.sorted_add("z", "m", 0.1).sorted_incr_by("z", "m", 1e300).sorted_add("z", "o", -0.5);
        effects.sorted_add("z", "p", 2.0).sorted_remove("z", "p");
        effects.list_push_left("l", "2").list_push_left("l", "1").list_push_right("l", "3");
        effects.set("gone", "v").del("gone").set_add("gone", "v").set("gone", "5").incr_by("gone", 2);
        effects.set("brief", "v").expire("brief", Duration::from_secs(60)).expire("none", Duration::ZERO);
        effects.append_with_id("x", EntryId::new(5, 5), &fields("v")).append("x", &fields("w"));
        assert_eq!((effects.len(), effects.is_empty()), (30, false));
    })
    .await
    .unwrap();
    assert_eq!(raw.run::<String>("GET a").await, "v");
    assert_eq!(raw.run::<Vec<u8>>("GET b").await, [0, 255]);
    assert!((1..=60_000).contains(&raw.run::<i64>("PTTL b").await));
    assert!((1..=60_000).contains(&raw.run::<i64>("PTTL brief").await));
    assert_eq!(raw.run::<i64>("GET n").await, 42);
    assert_eq!(raw.run::<Vec<String>>("HGETALL h").await, ["f", "-2"]);
    assert_eq!(raw.run::<Vec<String>>("SMEMBERS s2").await, ["o"]);
    assert_eq!(
        raw.run::<Vec<(String, f64)>>("ZRANGE z 0 -1 WITHSCORES").await,
        [("o".to_owned(), -0.5), ("m".to_owned(), 1e300)]
    );
    assert_eq!(raw.run::<Vec<String>>("LRANGE l 0 -1").await, ["1", "2", "3"]);
    assert_eq!(raw.run::<i64>("GET gone").await, 7);
    assert_eq!(raw.run::<u64>("EXISTS none").await, 0);
    let entries = redis.read(&Read::new(stream("x"), EntryId::ZERO, 9)).await.unwrap();
    assert_eq!(
        (entries.len(), entries[0].id, &*entries[1].fields.get("f").unwrap().clone()),
        (2, EntryId::new(5, 5), &b"w"[..])
    );
    assert!(entries[1].id.ms > 1_600_000_000_000, "the server's clock");
}

type Fill = fn(&mut Effects);

/// Each that must be refused, and what is said.
const REFUSED: &[(&str, Fill)] = &[
    ("another type", |e| _ = e.incr_by("hash", 1)),
    ("another type", |e| _ = e.hash_set("string", "f", "v")),
    ("another type", |e| _ = e.hash_del("list", "f")),
    ("another type", |e| _ = e.hash_incr_by("set", "f", 1)),
    ("another type", |e| _ = e.set_add("string", "m")),
    ("another type", |e| _ = e.set_remove("sorted", "m")),
    ("another type", |e| _ = e.sorted_add("string", "m", 1.0)),
    ("another type", |e| _ = e.sorted_incr_by("set", "m", 1.0)),
    ("another type", |e| _ = e.sorted_remove("hash", "m")),
    ("another type", |e| _ = e.list_push_left("stream", "v")),
    ("another type", |e| _ = e.list_push_right("hash", "v")),
    ("another type", |e| _ = e.append("list", &fields("v"))),
    ("another type", |e| _ = e.set("new", "v").list_push_left("new", "v")),
    ("another type", |e| _ = e.del("hash").set_add("hash", "m").hash_set("hash", "f", "v")),
    ("no integer", |e| _ = e.incr_by("string", 1)),
    ("no integer", |e| _ = e.hash_incr_by("hash", "f", 1)),
    ("no integer", |e| _ = e.set("new", "+1").incr_by("new", 1)),
    ("no integer", |e| _ = e.set("new", "01").incr_by("new", 1)),
    ("no integer", |e| _ = e.set("new", "").incr_by("new", 1)),
    ("no integer", |e| _ = e.set("new", "9223372036854775808").incr_by("new", -1)),
    ("no integer", |e| _ = e.hash_set("new", "f", "1.0").hash_incr_by("new", "f", 1)),
    ("leaves the range", |e| _ = e.incr_by("max", 1)),
    ("leaves the range", |e| _ = e.incr_by("new", i64::MAX).incr_by("new", i64::MAX)),
    ("leaves the range", |e| _ = e.incr_by("new", i64::MIN).incr_by("new", -1)),
    ("leaves the range", |e| _ = e.hash_incr_by("new", "f", i64::MAX).hash_incr_by("new", "f", 1)),
    ("not above the last", |e| _ = e.append_with_id("stream", EntryId::new(10, 0), &fields("v"))),
    ("not above the last", |e| _ = e.append_with_id("new", EntryId::ZERO, &fields("v"))),
    ("not above the last", |e| {
        _ = e.append("new", &fields("v")).append_with_id("new", EntryId::new(9, 0), &fields("v"));
    }),
    ("its last id", |e| _ = e.append("full", &fields("v"))),
    ("its last id", |e| {
        _ = e.append_with_id("new", EntryId::MAX, &fields("v")).append("new", &fields("v"));
    }),
    ("1 to 1000 fields", |e| _ = e.append("new", &std::iter::empty::<(String, String)>().collect())),
    ("must be finite", |e| _ = e.sorted_add("new", "m", f64::NAN)),
    ("must be finite", |e| _ = e.sorted_incr_by("new", "m", f64::INFINITY)),
    ("belongs to the checkpoints", |e| _ = e.del("highwater:{s}:checkpoint:1:s:g")),
    ("the stream that is consumed", |e| _ = e.append("s", &fields("v"))),
    ("too many effects", |e| {
        for _ in 0..200_000 {
            e.list_push_left("new", "v");
        }
    }),
];

#[tokio::test]
async fn g9_one_effect_that_is_refused_takes_all_with_it() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    filled(&redis, 1).await;
    deliver(&redis, "c", 1).await;
    for line in [
        "SET string text",
        "SET spare text",
        "SET max 9223372036854775807",
        "HSET hash f text",
        "RPUSH list v",
        "SADD set m",
        "ZADD sorted 1 m",
        "XADD stream 10-0 f v",
        "XADD full 18446744073709551615-18446744073709551615 f v",
    ] {
        raw.run::<redis::Value>(line).await;
    }
    let before = raw.picture().await;
    let good: [Fill; 3] = [
        |e| _ = e.incr_by("good", 1),
        |e| _ = e.del("spare").list_push_left("spare", "v"),
        |e| _ = e.append("log", &fields("v")),
    ];
    for (i, (said, bad)) in REFUSED.iter().enumerate() {
        // At every place among others.
        for place in 0..=good.len() {
            let mut effects = Effects::default();
            good[..place].iter().for_each(|fill| fill(&mut effects));
            bad(&mut effects);
            good[place..].iter().for_each(|fill| fill(&mut effects));
            let settlement =
                Settlement::each(subscription(), Epoch(0), name("c"), ids([1])).fused(place % 2 == 0);
            let result = redis.commit(effects, &settlement).await;
            let case = format!("refusal {i} ({said}) at {place}");
            let error = result.expect_err(&case);
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Handler, Outcome::NotApplied), "{case}");
            assert!(error.to_string().contains(said), "{case}: {error}");
            assert_eq!(raw.picture().await, before, "{case}");
        }
    }
}

#[tokio::test]
async fn a_refusal_names_the_effect() {
    let server = Server::start().await;
    let redis = server.backend().await;
    server.raw().await.run::<()>("SET text v").await;
    let error = write(&redis, 1, |e| _ = e.set("a", "secret").incr_by("text", 1)).await.unwrap_err();
    let about = ["effect", "command", "key"].map(|name| error.context(name).unwrap());
    assert_eq!(about, ["2", "INCRBY", "text"]);
    assert!(!format!("{error:?}").contains("secret"));
    let error = write(&redis, 1, |e| _ = e.set("a", "v").set("highwater:{x}:y", "v")).await.unwrap_err();
    assert_eq!((error.context("effect"), error.context("key")), (Some("2"), Some("highwater:{x}:y")));
}

#[tokio::test]
async fn in_a_cluster_keys_lie_in_the_slot_of_the_stream() {
    let server =
        Server::start_with(&["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]).await;
    let raw = server.raw().await;
    let slots: Vec<String> = (0..16384).map(|slot| slot.to_string()).collect();
    let assign: Vec<String> = ["CLUSTER", "ADDSLOTS"].map(str::to_owned).into_iter().chain(slots).collect();
    raw.words::<()>(&assign).await;
    eventually(async || raw.run::<String>("CLUSTER INFO").await.contains("cluster_state:ok")).await;
    let redis = server.backend().await;
    let total = key_beside(&stream("s"), "total");
    write(&redis, 1, |e| _ = e.incr_by(&total, 5)).await.unwrap();
    assert_eq!(raw.run::<u64>(&format!("GET {total}")).await, 5);
    let error = write(&redis, 2, |e| _ = e.incr_by(&total, 1).incr_by("elsewhere", 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("key")), (ErrorKind::Handler, Some("elsewhere")), "{error}");
    assert!(error.to_string().contains("key_beside"), "{error}");
    assert_eq!(raw.run::<u64>(&format!("GET {total}")).await, 5);
}
