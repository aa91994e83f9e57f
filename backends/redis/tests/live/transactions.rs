//! Effects, acks and the advance in one step: what is settled, once, and by whom.

use std::{sync::Arc, time::Duration};

use highwater::{EntryId, Epoch, ErrorKind, Outcome, Position, Result, SettledAhead, backend::*};
use highwater_redis::Effects;

use crate::{Redis, server::*};

const SETTLED: &str = "highwater:{s}:settled:1:s:g";

fn each(of: impl IntoIterator<Item = u64>) -> Settlement {
    Settlement::each(subscription(), Epoch(0), name("c"), ids(of))
}

fn with_epoch(mut settlement: Settlement, epoch: u64) -> Settlement {
    settlement.epoch = Epoch(epoch);
    settlement
}

/// Counts the commits that took place.
async fn count(redis: &Redis, settlement: &Settlement) -> Result<Committed> {
    let mut effects = Effects::default();
    effects.incr_by("{s}:count", 1);
    redis.commit(effects, settlement).await
}

async fn counted(server: &Server) -> u64 {
    server.raw().await.run::<Option<u64>>("GET {s}:count").await.unwrap_or(0)
}

async fn watermark(redis: &Redis) -> Option<EntryId> {
    redis.load(&subscription()).await.unwrap().map(|checkpoint| checkpoint.position.watermark)
}

async fn kept(server: &Server) -> u64 {
    server.raw().await.run(&format!("ZCARD {SETTLED}")).await
}

fn done(ms: Option<u64>) -> Committed {
    Committed::done(ms.map(id))
}

fn already(of: impl IntoIterator<Item = u64>) -> Committed {
    Committed::AlreadySettled(ids(of))
}

#[tokio::test]
async fn g9_an_entry_is_settled_once_with_a_position() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let up_to = |of: &[u64], to| each(of.iter().copied()).up_to(Position::at(id(to)).with_ordinal(Some(to)));
    assert_eq!(count(&redis, &up_to(&[1, 2], 2)).await.unwrap(), done(Some(2)));
    assert_eq!(count(&redis, &up_to(&[1, 2], 2)).await.unwrap(), already([1, 2]));
    assert_eq!(count(&redis, &up_to(&[2, 3], 3)).await.unwrap(), already([2]));
    assert_eq!(count(&redis, &up_to(&[10], 10)).await.unwrap(), done(Some(10)), "not by text");
    let ahead = Position::at(id(11)).with_ahead(SettledAhead::new(id(15), [id(12), id(14)]));
    assert_eq!(count(&redis, &each([11, 13, 15]).up_to(ahead.clone())).await.unwrap(), done(Some(11)));
    assert_eq!(redis.load(&subscription()).await.unwrap().unwrap().position, ahead);
    assert_eq!(count(&redis, &each(10..=16)).await.unwrap(), already([10, 11, 13, 15]));
    assert_eq!(redis.settled(&mut Effects::default(), &each(10..=16)).await.unwrap(), ids([10, 11, 13, 15]));
    assert_eq!((counted(&server).await, kept(&server).await), (3, 0));
}

#[tokio::test]
async fn g9_an_entry_is_settled_once_by_itself() {
    let server = Server::start().await;
    let redis = server.backend().await;
    assert_eq!(count(&redis, &each([3, 9])).await.unwrap(), done(None));
    assert_eq!(watermark(&redis).await, None);
    assert_eq!(count(&redis, &each([9])).await.unwrap(), already([9]));
    assert_eq!(count(&redis, &each([2, 3, 4])).await.unwrap(), already([3]));
    assert_eq!(count(&redis, &each([2, 10])).await.unwrap(), done(None));
    assert_eq!(redis.settled(&mut Effects::default(), &each(1..=11)).await.unwrap(), ids([2, 3, 9, 10]));
    assert_eq!((counted(&server).await, kept(&server).await), (2, 4));
    // What the watermark has passed goes, and is known to be settled all the same.
    redis.advance(&Advance::new(subscription(), Epoch(0), Position::at(id(9)), name("c"))).await.unwrap();
    assert_eq!(kept(&server).await, 1);
    assert_eq!(redis.settled(&mut Effects::default(), &each(8..=11)).await.unwrap(), ids([8, 9, 10]));
}

#[tokio::test]
async fn acks_effects_and_checkpoint_move_together() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 5).await;
    deliver(&redis, "c", 5).await;
    let fused = |of: &[u64]| each(of.iter().copied()).fused(true);
    let below = EntryId::new(0, u64::MAX);
    assert_eq!(count(&redis, &fused(&[2, 4])).await.unwrap(), Committed::done(Some(below)));
    assert_eq!(kept(&server).await, 2);
    assert_eq!(count(&redis, &fused(&[4, 5])).await.unwrap(), already([4]));
    let pending = async || {
        redis.inspect(&Inspect::subscription(&subscription())).await.unwrap().unwrap().group.unwrap().pending
    };
    assert_eq!(pending().await, 3);
    let ordinal = redis.capabilities().counts_entries.then_some(5);
    assert_eq!(count(&redis, &fused(&[1, 3, 5])).await.unwrap(), done(Some(5)));
    assert_eq!((pending().await, counted(&server).await, kept(&server).await), (0, 2, 0));
    let position = redis.load(&subscription()).await.unwrap().unwrap().position;
    assert_eq!(position, Position::at(id(5)).with_ordinal(ordinal));
    // A settle prunes as well.
    fill(&redis, 6, 7).await;
    deliver(&redis, "c", 2).await;
    count(&redis, &each([7])).await.unwrap();
    redis.settle(&Settle::new(subscription(), ids([6, 7]), Epoch(0), name("c"))).await.unwrap();
    assert_eq!((watermark(&redis).await, kept(&server).await), (Some(id(7)), 0));
}

#[tokio::test]
async fn g9_what_a_group_settles_is_kept_only_above_the_watermark() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 6).await;
    deliver(&redis, "c", 6).await;
    let fused = |of: &[u64]| each(of.iter().copied()).fused(true);
    let below = |ms: u64| Committed::done(Some(EntryId::new(ms - 1, u64::MAX)));
    assert_eq!(count(&redis, &fused(&[1, 2, 4, 6])).await.unwrap(), below(3));
    assert_eq!(kept(&server).await, 2);
    assert_eq!(count(&redis, &fused(&[3])).await.unwrap(), below(5));
    assert_eq!((counted(&server).await, kept(&server).await), (2, 1));
    for settled in [1, 2, 3, 4, 6] {
        assert_eq!(count(&redis, &fused(&[settled])).await.unwrap(), already([settled]));
    }
    assert_eq!(count(&redis, &fused(&[5])).await.unwrap(), done(Some(6)));
    assert_eq!((counted(&server).await, kept(&server).await), (3, 0));
}

#[tokio::test]
async fn g4_a_zombie_applies_nothing() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 2).await;
    deliver(&redis, "c", 2).await;
    redis.acquire(&Acquire::new(subscription(), name("new"), Duration::from_secs(60))).await.unwrap();
    for settlement in [each([1]), each([1]).fused(true), each([1]).up_to(Position::at(id(1)))] {
        let error = count(&redis, &settlement).await.unwrap_err();
        assert_eq!((error.kind(), error.context("stored")), (ErrorKind::Fenced, Some("1")));
        let error = count(&redis, &with_epoch(settlement, 2)).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied));
    }
    assert_eq!((counted(&server).await, kept(&server).await, watermark(&redis).await), (0, 0, None));
    let committed = count(&redis, &with_epoch(each([1, 2]).fused(true), 1)).await.unwrap();
    assert_eq!(committed, done(Some(2)));
}

#[tokio::test]
async fn g9_a_commit_that_nobody_waited_for_is_found() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    // The server holds back what writes, so the caller is gone before it is carried out.
    let raw = server.raw().await;
    raw.run::<()>("CLIENT PAUSE 10000 WRITE").await;
    let commit = tokio::spawn({
        let redis = redis.clone();
        async move { count(&redis, &each([1, 2])).await }
    });
    eventually(async || {
        let clients: String = raw.run("CLIENT LIST").await;
        clients.contains("cmd=evalsha")
    })
    .await;
    commit.abort();
    commit.await.unwrap_err();
    raw.run::<()>("CLIENT UNPAUSE").await;
    assert_eq!(count(&redis, &each([2])).await.unwrap(), already([2]));
    assert_eq!(counted(&server).await, 1);
}

#[tokio::test]
async fn g9_side_by_side_every_entry_is_settled_once() {
    let server = Server::start().await;
    let redis = Arc::new(server.backend().await);
    let last = 120u64;
    filled(&redis, last).await;
    deliver(&redis, "c", 1000).await;
    let tasks: Vec<_> = (0..16u64)
        .map(|task| {
            let redis = redis.clone();
            tokio::spawn(async move {
                // Batches that overlap those of the others, in another order.
                for n in 0..40 {
                    let first = 1 + (n * 7 + task * 13) % (last - 3);
                    let batch: Vec<u64> = (first..=first + task % 4).collect();
                    let mut effects = Effects::default();
                    for n in &batch {
                        effects.list_push_right("{s}:list", n.to_string());
                    }
                    redis.commit(effects, &each(batch).fused(task % 2 == 0)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 1..=last {
        let mut effects = Effects::default();
        effects.list_push_right("{s}:list", n.to_string());
        redis.commit(effects, &each([n]).fused(true)).await.unwrap();
    }
    let mut listed: Vec<u64> = server.raw().await.run("LRANGE {s}:list 0 -1").await;
    listed.sort_unstable();
    assert_eq!(listed, (1..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reset_forgets_what_was_settled() {
    let server = Server::start().await;
    let redis = server.backend().await;
    count(&redis, &each([3, 9])).await.unwrap();
    redis.reset(&ResetCheckpoint::new(subscription(), Position::at(id(1)))).await.unwrap();
    assert_eq!(kept(&server).await, 0);
    assert_eq!(count(&redis, &each([3])).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(count(&redis, &with_epoch(each([3]), 1)).await.unwrap(), done(None));
    assert_eq!(count(&redis, &with_epoch(each([1]), 1)).await.unwrap(), already([1]));
}

#[tokio::test]
async fn without_a_group_entries_are_settled_all_the_same() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    redis.remove(&Removal::Group(subscription())).await.unwrap();
    assert_eq!(count(&redis, &each([2]).fused(true)).await.unwrap(), done(None));
    redis.remove(&Removal::Stream(stream("s"))).await.unwrap();
    assert_eq!(count(&redis, &each([3]).fused(true)).await.unwrap(), done(None));
    assert_eq!(count(&redis, &each([2, 3]).fused(true)).await.unwrap(), already([2, 3]));
    // The group begins anew at the checkpoint, and delivers what was settled: it is found, and acked.
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    assert_eq!(redis.settled(&mut Effects::default(), &each(1..=3)).await.unwrap(), ids([2, 3]));
    redis.settle(&Settle::new(subscription(), ids([2, 3]), Epoch(0), name("c"))).await.unwrap();
    assert_eq!(count(&redis, &each([1]).fused(true)).await.unwrap(), done(Some(3)));
    assert_eq!((counted(&server).await, kept(&server).await), (3, 0));
}

#[tokio::test]
async fn the_greatest_ids_are_told_apart() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let max = u64::MAX;
    let ids = |seqs: &[u64]| -> Vec<EntryId> { seqs.iter().map(|&seq| EntryId::new(max, seq)).collect() };
    let settlement = |seqs: &[u64]| Settlement::each(subscription(), Epoch(0), name("c"), ids(seqs));
    assert_eq!(count(&redis, &settlement(&[9, 10, max - 1])).await.unwrap(), done(None));
    assert_eq!(count(&redis, &settlement(&[8, max])).await.unwrap(), done(None), "one number to Lua");
    assert_eq!(
        count(&redis, &settlement(&[7, 8, max - 2, max])).await.unwrap(),
        Committed::AlreadySettled(ids(&[8, max]))
    );
    let to = |id| Advance::new(subscription(), Epoch(0), Position::at(id), name("c"));
    redis.advance(&to(EntryId::new(max, max - 1))).await.unwrap();
    assert_eq!(kept(&server).await, 1);
    redis.advance(&to(EntryId::MAX)).await.unwrap();
    assert_eq!((kept(&server).await, counted(&server).await), (0, 2));
}

#[tokio::test]
async fn large_batches_are_one_step() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 2500).await;
    deliver(&redis, "c", 2500).await;
    for (how, batch) in [(false, 1..=1200u64), (true, 1201..=2400)] {
        let mut effects = Effects::default();
        for n in batch.clone() {
            effects.hash_incr_by("{s}:hash", n.to_string(), 1).append("{s}:log", &fields("v"));
        }
        redis.commit(effects, &each(batch.clone()).fused(how)).await.unwrap();
        assert_eq!(count(&redis, &each(batch.clone())).await.unwrap(), already(batch));
    }
    let raw = server.raw().await;
    assert_eq!(raw.run::<u64>("HLEN {s}:hash").await, 2400);
    assert_eq!(raw.run::<u64>("XLEN {s}:log").await, 2400);
    assert_eq!((kept(&server).await, watermark(&redis).await), (2400, Some(EntryId::new(0, u64::MAX))));
}

#[tokio::test]
async fn g18_what_cannot_be_settled_is_refused() {
    let server = Server::start().await;
    let redis = server.backend().await;
    let raw = server.raw().await;
    assert_eq!(count(&redis, &each([])).await.unwrap_err().kind(), ErrorKind::Invalid);
    raw.run::<()>(&format!("SET {SETTLED} text")).await;
    assert_eq!(count(&redis, &each([1])).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let error = redis.settled(&mut Effects::default(), &each([1])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    raw.run::<()>(&format!("DEL {SETTLED}")).await;
    raw.run::<()>("SET s text").await;
    assert_eq!(count(&redis, &each([1]).fused(true)).await.unwrap_err().kind(), ErrorKind::Invalid);
    let checkpoint = "highwater:{s}:checkpoint:1:s:g";
    raw.run::<()>(&format!("HSET {checkpoint} v 2")).await;
    assert_eq!(count(&redis, &each([1])).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(counted(&server).await, 0);
    assert_eq!(raw.run::<u64>("DBSIZE").await, 2);
}

#[tokio::test]
async fn g16_at_the_memory_limit_nothing_of_a_transaction_takes_place() {
    let server = Server::start().await;
    let redis = server.backend().await;
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    let raw = server.raw().await;
    raw.run::<()>("SET {s}:old v").await;
    let before = server.raw().await.picture().await;
    raw.run::<()>("CONFIG SET maxmemory 1").await;
    for settlement in [each([1]), each([1]).fused(true), each([1]).up_to(Position::at(id(1)))] {
        let mut effects = Effects::default();
        // What frees memory comes first, and opens the door to nothing.
        effects.del("{s}:old").set("{s}:new", "v");
        let error = redis.commit(effects, &settlement).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied),
            "{error:?}"
        );
        assert_eq!(server.raw().await.picture().await, before);
    }
    assert_eq!(redis.settled(&mut Effects::default(), &each([1])).await.unwrap(), []);
    // What begins below the limit is carried out, however far it goes beyond.
    let used: String = raw.run("INFO memory").await;
    let used: u64 =
        used.lines().find_map(|l| l.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    raw.run::<()>(&format!("CONFIG SET maxmemory {}", used + (8 << 20))).await;
    let mut effects = Effects::default();
    for n in 0..32 {
        effects.set(format!("{{s}}:{n}"), vec![b'v'; 1 << 20]);
    }
    match redis.commit(effects, &each([1]).fused(true)).await {
        Ok(committed) => {
            assert_eq!(raw.run::<u64>("EXISTS {s}:old {s}:0 {s}:31").await, 3, "{committed:?}");
        }
        // The arguments themselves were too large.
        Err(error) => {
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
            raw.run::<()>("CONFIG SET maxmemory 0").await;
            assert_eq!(server.raw().await.picture().await, before);
        }
    }
}

#[tokio::test]
async fn g18_without_a_right_nothing_of_a_transaction_takes_place() {
    let server = Server::start().await;
    let redis = server.backend().await;
    if !redis.capabilities().counts_entries {
        println!("not applicable: a server before 7.0 cannot be asked what a user may do");
        return;
    }
    filled(&redis, 3).await;
    deliver(&redis, "c", 3).await;
    let before = server.raw().await.picture().await;
    let raw = server.raw().await;
    for denied in
        ["-incrby", "-rpush", "-hset", "-hdel", "-sadd", "-zadd", "-xack", "-xinfo", "-zremrangebylex"]
    {
        let user = format!("ACL SETUSER limited reset on >secret ~* &* +@all {denied}");
        raw.run::<()>(&user).await;
        let limited = connect(server.url().replace("//", "//limited:secret@")).await.unwrap();
        let mut effects = Effects::default();
        effects.incr_by("{s}:count", 1).list_push_right("{s}:list", "v");
        let error = limited.commit(effects, &each([1]).fused(true)).await.unwrap_err();
        let about = (error.kind(), error.outcome(), error.context("command"));
        assert_eq!(about, (ErrorKind::Denied, Outcome::NotApplied, Some(&denied[1..])));
        assert_eq!(server.raw().await.picture().await, before);
    }
}
