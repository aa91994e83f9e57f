//! Loops with redis-rs: a connection for each reader that blocks.

use std::{collections::BTreeSet, time::Duration};

use redis::{Value, aio::MultiplexedConnection, cmd};
use tokio::time;

use super::{Gauge, Many, Running, under_load};
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
    consumer: String,
    wait: Wait,
}

/// What a loop does where there is nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// By a connection of its own.
    Block,
    /// All look by one connection.
    Poll,
    PollAlone,
}

pub fn one() -> Vec<Scenario> {
    vec![Scenario::new("raw/redis-rs", |env| run(env, Many::Groups, Wait::Block))]
}

pub fn groups() -> Vec<Scenario> {
    vec![Scenario::new("raw/100 groups, a connection each", |env| run(env, Many::Groups, Wait::Block))]
}

pub fn crowd() -> Vec<Scenario> {
    vec![Scenario::new("raw/100 consumers, a connection each", |env| run(env, Many::Consumers, Wait::Block))]
}

pub fn many() -> Vec<Scenario> {
    vec![Scenario::new("raw/1000 streams, a blocked connection each", |env| {
        run(env, Many::Streams, Wait::Block)
    })]
}

pub fn polling() -> Vec<Scenario> {
    vec![
        Scenario::new("raw/100 streams, polled every 100 ms", |env| run(env, Many::Streams, Wait::Poll)),
        Scenario::new("raw/100 streams, polled by a connection each", |env| {
            run(env, Many::Streams, Wait::PollAlone)
        }),
        Scenario::new("raw/100 streams, a blocked connection each", |env| {
            run(env, Many::Streams, Wait::Block)
        }),
    ]
}

async fn run(env: Env, many: Many, wait: Wait) -> Result<Run> {
    let name = format!("{}-late", env.group);
    let each = |n| Loop {
        stream: if many == Many::Streams { format!("{name}-{n}") } else { name.clone() },
        group: if many == Many::Groups { format!("g{n}") } else { "g".to_owned() },
        consumer: format!("c{n}"),
        wait,
    };
    let loops: Vec<_> = (0..env.many).map(each).collect();
    let mut streams: Vec<_> = loops.iter().map(|each| each.stream.clone()).collect();
    streams.dedup();
    let groups = if many == Many::Groups { env.many } else { 1 };
    let told = env.clone();
    under_load(env, streams, groups, async move |gauge| {
        let mut running = Running::new();
        let mut shared = connect(&told).await?;
        create(&loops, &mut shared).await?;
        for each in loops {
            let redis = if wait == Wait::Poll { shared.clone() } else { connect(&told).await? };
            running.spawn(read(each, redis, told.clone(), gauge.clone()));
        }
        Ok(running)
    })
    .await
}

/// Creates each group once.
async fn create(loops: &[Loop], redis: &mut MultiplexedConnection) -> Result {
    let places: BTreeSet<_> = loops.iter().map(|each| (&each.stream, &each.group)).collect();
    for (stream, group) in places {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(stream).arg(group).arg("0").arg("MKSTREAM");
        create.query_async::<()>(redis).await?;
    }
    Ok(())
}

async fn read(each: Loop, mut redis: MultiplexedConnection, env: Env, gauge: Gauge) -> Result {
    loop {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&each.group).arg(&each.consumer).arg("COUNT").arg(100);
        if each.wait == Wait::Block {
            read.arg("BLOCK").arg(1_000);
        }
        let reply: Value = read.arg("STREAMS").arg(&each.stream).arg(">").query_async(&mut redis).await?;
        if reply == Value::Nil {
            if each.wait != Wait::Block {
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
