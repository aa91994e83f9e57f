//! omniqueue, which asks for each entry and acks each.

use std::time::Duration;

use omniqueue::backends::{RedisBackend, RedisConfig};

use crate::{Result, env::Env, list::Scenario, measure::Run, raw};

/// Its round trips are what it costs.
const SHARE: u64 = 50;

pub fn throughput() -> Vec<Scenario> {
    vec![
        Scenario::new("omniqueue/receive", |env| run(env, false)).share(SHARE),
        Scenario::new("omniqueue/receive_all 1000", |env| run(env, true)).share(SHARE),
    ]
}

async fn run(env: Env, all: bool) -> Result<Run> {
    // It deletes what it acks: a stream of its own.
    let stream = format!("{}-omniqueue", env.group);
    raw::fill(&env, &stream, "payload", &"x".repeat(env.payload)).await?;
    raw::create_group(&env, &stream).await?;
    let config = RedisConfig {
        dsn: env.redis.url.clone(),
        max_connections: 8,
        reinsert_on_nack: false,
        queue_key: stream.clone(),
        delayed_queue_key: format!("{stream}::delayed"),
        delayed_lock_key: format!("{stream}::delayed_lock"),
        consumer_group: env.group.clone(),
        consumer_name: "c".to_owned(),
        payload_key: "payload".to_owned(),
        ack_deadline_ms: 60_000,
        dlq_config: None,
        sentinel_config: None,
    };
    let (_producer, mut consumer) = RedisBackend::builder(config).build_pair().await?;
    let meter = env.start()?;
    let mut seen = 0;
    while seen < env.entries {
        let deliveries = if all {
            consumer.receive_all(env.batch, Duration::from_secs(1)).await?
        } else {
            vec![consumer.receive().await?]
        };
        for delivery in deliveries {
            if delivery.borrow_payload().is_none_or(|payload| payload.len() != env.payload) {
                return Err("an entry has another payload".into());
            }
            delivery.ack().await.map_err(|(error, _)| error)?;
            seen += 1;
        }
    }
    let run = meter.stop()?;
    raw::is_empty(&env, &stream).await?;
    Ok(run)
}
