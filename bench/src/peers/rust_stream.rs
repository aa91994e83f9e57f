//! ruststream-fred, whose handlers get what JSON says.

use std::sync::LazyLock;

use ruststream_fred::stream::prelude::*;
use serde::Deserialize;

use super::{Seen, json};
use crate::{Result, env::Env, list::Scenario, measure::Run, raw};

/// The name is part of the handler.
const STREAM: &str = "rust-stream";
const GROUP: &str = "g";
/// Its default awaits each ack.
const SHARE: u64 = 20;

static SEEN: LazyLock<Seen> = LazyLock::new(Seen::default);

#[derive(Debug, Deserialize)]
struct Order {
    d: String,
}

#[subscriber(RedisStream::new(STREAM).group(GROUP))]
async fn one(order: &Order) -> HandlerOutcome {
    SEEN.more(u64::from(!order.d.is_empty()));
    HandlerOutcome::ack()
}

#[subscriber(RedisStream::new(STREAM).group(GROUP))]
async fn many(orders: &[Order]) -> HandlerOutcome {
    SEEN.more(orders.iter().filter(|order| !order.d.is_empty()).count() as u64);
    HandlerOutcome::ack()
}

/// The ways in which it settles.
#[derive(Debug, Clone, Copy)]
enum Way {
    Guide,
    Pipeline,
    Batch,
}

pub fn throughput() -> Vec<Scenario> {
    vec![
        Scenario::new("ruststream-fred/as its guide shows", |env| run(env, Way::Guide)).share(SHARE),
        Scenario::new("ruststream-fred/pipeline", |env| run(env, Way::Pipeline)),
        Scenario::new("ruststream-fred/batch 1000, pipeline", |env| run(env, Way::Batch)),
    ]
}

async fn run(env: Env, way: Way) -> Result<Run> {
    raw::fill(&env, STREAM, "_payload", &json(env.payload)).await?;
    let env = Env { stream: STREAM.to_owned(), group: GROUP.to_owned(), ..env };
    raw::create_group(&env, STREAM).await?;
    SEEN.expect(env.entries);
    let broker = RedisBroker::standalone(&env.redis.url);
    let app = RustStream::new(AppInfo::new("bench", "0.1.0")).with_broker(broker, |b| match way {
        Way::Guide => drop(b.include(one)),
        Way::Pipeline => drop(b.include(one.pipeline())),
        Way::Batch => drop(b.include(many.batch(nonzero!(1000)).pipeline())),
    });
    let meter = env.start()?;
    app.run_until(SEEN.all.notified()).await?;
    let run = meter.stop()?;
    SEEN.check()?;
    raw::group_is_done(&env).await?;
    Ok(run)
}
