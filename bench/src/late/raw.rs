//! Loops with redis-rs: a connection for each reader that blocks.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time;

use super::{Gauge, Running, under_load};
use crate::{
    Result,
    env::Env,
    list::Scenario,
    measure::Run,
    raw::{connect, lean},
};

/// How often who does not wait looks.
const POLL: Duration = Duration::from_millis(100);

/// What a loop reads, and how it waits.
#[derive(Debug, Clone)]
struct Loop {
    stream: String,
    group: String,
    polls: bool,
}

pub fn one() -> Vec<Scenario> {
    vec![Scenario::new("raw/redis-rs", |env| run(env, true, false))]
}

pub fn groups() -> Vec<Scenario> {
    vec![Scenario::new("raw/100 groups, a connection each", |env| run(env, true, false))]
}

pub fn polling() -> Vec<Scenario> {
    vec![
        Scenario::new("raw/100 streams, polled every 100 ms", |env| run(env, false, true)),
        Scenario::new("raw/100 streams, a blocked connection each", |env| run(env, false, false)),
    ]
}

async fn run(env: Env, one_stream: bool, polls: bool) -> Result<Run> {
    let name = format!("{}-late", env.group);
    let loops: Vec<_> = (0..env.many)
        .map(|n| Loop {
            stream: if one_stream { name.clone() } else { format!("{name}-{n}") },
            group: format!("g{n}"),
            polls,
        })
        .collect();
    let streams = if one_stream { vec![name] } else { loops.iter().map(|l| l.stream.clone()).collect() };
    let groups = if one_stream { env.many } else { 1 };
    let told = env.clone();
    under_load(env, streams, groups, async move |gauge| {
        let mut running = Running::new();
        // Who polls does not block, so that all share one connection.
        let shared = connect(&told).await?;
        for each in loops {
            let redis = if each.polls { shared.clone() } else { connect(&told).await? };
            running.spawn(read(each, redis, told.clone(), gauge.clone()));
        }
        Ok(running)
    })
    .await
}

async fn read(each: Loop, mut redis: redis::aio::MultiplexedConnection, env: Env, gauge: Gauge) -> Result {
    let mut create = cmd("XGROUP");
    create.arg("CREATE").arg(&each.stream).arg(&each.group).arg("$").arg("MKSTREAM");
    create.query_async::<()>(&mut redis).await?;
    loop {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&each.group).arg("c").arg("COUNT").arg(100);
        if !each.polls {
            read.arg("BLOCK").arg(1_000);
        }
        let reply: Value = read.arg("STREAMS").arg(&each.stream).arg(">").query_async(&mut redis).await?;
        if reply == Value::Nil {
            if each.polls {
                time::sleep(POLL).await;
            }
            continue;
        }
        let batch = lean(reply, &env)?;
        for (_, fields) in &batch {
            gauge.take(&fields.first().ok_or("no field")?.1)?;
        }
        let ids: Vec<&[u8]> = batch.iter().map(|(id, _)| &**id).collect();
        cmd("XACK").arg(&each.stream).arg(&each.group).arg(&ids).query_async::<u64>(&mut redis).await?;
    }
}
