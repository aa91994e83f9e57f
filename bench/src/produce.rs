//! Appending: a pipeline of `XADD`, and the producer of the library.

use highwater::{Fields, Producer, backend::StreamBackend};
use highwater_redis::{Client, Fred, Redis, RedisRs, Settings};
use redis::pipe;

use crate::{
    Result,
    env::{Env, FIELD},
    list::Scenario,
    measure::Run,
    raw,
};

pub fn scenarios() -> Vec<Scenario> {
    let each = |batch: usize| {
        let shape = |scenario: Scenario| {
            scenario.shaped(&format!("{batch}"), |shape| {
                (shape.batch, shape.unfilled) = (batch, true);
                shape.share = if batch < 100 { 20 } else { 1 };
            })
        };
        let list = [
            Scenario::new("raw/redis-rs/pipelined XADD", pipelined),
            Scenario::new("ours/append_many/redis-rs", |env| ours(env, Client::RedisRs)),
            Scenario::new("ours/append_many/fred", |env| ours(env, Client::Fred)),
        ];
        list.map(shape)
    };
    [1, 10, 100, 1_000].into_iter().flat_map(each).collect()
}

async fn pipelined(env: Env) -> Result<Run> {
    let stream = format!("{}-produced", env.group);
    let mut redis = raw::connect(&env).await?;
    let payload = "x".repeat(env.payload);
    let meter = env.start()?;
    for _ in 0..env.entries / env.batch as u64 {
        let mut pipe = pipe();
        for _ in 0..env.batch {
            pipe.cmd("XADD").arg(&stream).arg("*").arg(FIELD).arg(&payload);
        }
        let ids: Vec<String> = pipe.query_async(&mut redis).await?;
        if ids.len() != env.batch {
            return Err("an entry was refused".into());
        }
    }
    let run = meter.stop()?;
    raw::has_entries(&env, &stream).await?;
    Ok(run)
}

async fn ours(env: Env, client: Client) -> Result<Run> {
    let settings = Settings::new(&env.redis.url);
    match client {
        Client::Fred => append(Redis::<Fred>::open(settings).await?, env).await,
        _ => append(Redis::<RedisRs>::open(settings).await?, env).await,
    }
}

async fn append(redis: impl StreamBackend, env: Env) -> Result<Run> {
    let stream = format!("{}-produced", env.group);
    let producer = Producer::new(stream.parse()?, redis)?;
    let payload = bytes::Bytes::from("x".repeat(env.payload));
    let meter = env.start()?;
    for _ in 0..env.entries / env.batch as u64 {
        let batch = (0..env.batch).map(|_| Fields::from_iter([(FIELD, payload.clone())])).collect();
        producer.append_many(batch).await?.into_iter().collect::<highwater::Result<Vec<_>>>()?;
    }
    producer.flush().await?;
    let run = meter.stop()?;
    producer.close().await?;
    raw::has_entries(&env, &stream).await?;
    Ok(run)
}
