//! sea-streamer-redis, both of its versions, whose interfaces are alike.

use std::time::Duration;

use crate::list::Scenario;

/// The ways in which it commits what was acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// As it comes: acks for itself five seconds after the delivery, and leaves what is younger pending.
    Default,
    /// What it recommends for at-least-once.
    Rolling { batch: usize },
    /// The same, and consumers of one group compete.
    Balanced,
    /// Its fastest safe way: a commit after each batch, awaited.
    Manual,
}

pub fn throughput() -> Vec<Scenario> {
    let rolling = |batch| Commit::Rolling { batch };
    let ways = [
        ("default", Commit::Default),
        ("rolling", rolling(100)),
        ("rolling 1000", rolling(1_000)),
        ("manual 1000", Commit::Manual),
    ];
    let each = |(name, commit): (&str, Commit)| {
        [
            Scenario::new(&format!("sea-streamer 0.5/{name}"), move |env| stable::run(env, commit)),
            Scenario::new(&format!("sea-streamer 1.0-rc/{name}"), move |env| preview::run(env, commit)),
        ]
    };
    ways.into_iter().flat_map(each).collect()
}

/// A consumer in each group, in the way that it recommends for at-least-once.
pub fn late(name: &str) -> Vec<Scenario> {
    vec![
        Scenario::new(&format!("sea-streamer 0.5/{name}"), |env| stable::late(env, false)),
        Scenario::new(&format!("sea-streamer 1.0-rc/{name}"), |env| preview::late(env, false)),
    ]
}

/// All consumers in one group.
pub fn crowd() -> Vec<Scenario> {
    vec![
        Scenario::new("sea-streamer 0.5/100 consumers", |env| stable::late(env, true)),
        Scenario::new("sea-streamer 1.0-rc/100 consumers", |env| preview::late(env, true)),
    ]
}

/// Its end waits for a heartbeat of ten seconds where it has nothing to read.
const END: Duration = Duration::from_secs(3);

macro_rules! version {
    ($module:ident, $redis:ident, $types:ident) => {
        mod $module {
            use $redis::{
                AutoCommit, AutoStreamReset, RedisConnectOptions, RedisConsumer, RedisConsumerOptions,
                RedisStreamer,
            };
            use $types::{
                Buffer, Consumer, ConsumerGroup, ConsumerMode, ConsumerOptions, Message, StreamKey, Streamer,
            };

            use super::{Commit, END};
            use crate::{
                Result,
                env::{Env, FIELD},
                late::{Gauge, Running, under_load},
                measure::Run,
                raw,
            };

            pub(super) async fn run(env: Env, commit: Commit) -> Result<Run> {
                let mut consumer = connect(&env, commit).await?;
                let meter = env.start()?;
                for seen in 1..=env.entries {
                    let message = consumer.next().await?;
                    if message.message().as_bytes().len() != env.payload {
                        return Err("an entry has another payload".into());
                    }
                    if commit != Commit::Default {
                        consumer.ack(&message)?;
                    }
                    if commit == Commit::Manual && seen % env.batch as u64 == 0 {
                        consumer.commit()?.await?;
                    }
                }
                let mut run = meter.stop()?;
                // What its end takes is not counted.
                if commit == Commit::Manual {
                    raw::nothing_pending(&env).await?;
                } else {
                    drop(tokio::time::timeout(END, consumer.end()).await);
                    run.more.insert("pending".into(), raw::pending(&env).await? as f64);
                }
                Ok(run)
            }

            pub(super) async fn late(env: Env, is_crowd: bool) -> Result<Run> {
                let stream = format!("{}-late", env.group);
                let told = Env { stream: stream.clone(), ..env.clone() };
                let groups = if is_crowd { 1 } else { env.many };
                under_load(env, vec![stream], groups, async move |gauge| {
                    let mut running = Running::new();
                    for n in 0..told.many {
                        let env = Env { group: format!("g{}", n % groups), ..told.clone() };
                        let commit = if is_crowd { Commit::Balanced } else { Commit::Rolling { batch: 100 } };
                        let consumer = connect(&env, commit).await?;
                        running.spawn(consume(consumer, gauge.clone()));
                    }
                    Ok(running)
                })
                .await
            }

            async fn consume(consumer: RedisConsumer, gauge: Gauge) -> Result {
                loop {
                    let message = consumer.next().await?;
                    gauge.take(message.message().as_bytes())?;
                    consumer.ack(&message)?;
                }
            }

            async fn connect(env: &Env, commit: Commit) -> Result<RedisConsumer> {
                let mut options = RedisConnectOptions::default();
                options.set_message_field(FIELD);
                let streamer =
                    RedisStreamer::connect(env.redis.url.trim_end_matches('/').parse()?, options).await?;
                let mode = if commit == Commit::Balanced {
                    ConsumerMode::LoadBalanced
                } else {
                    ConsumerMode::Resumable
                };
                let mut options = RedisConsumerOptions::new(mode);
                options.set_consumer_group(ConsumerGroup::new(&env.group))?;
                options.set_auto_stream_reset(AutoStreamReset::Earliest);
                options.set_mkstream(true);
                match commit {
                    Commit::Default => {}
                    Commit::Rolling { batch } => {
                        options.set_auto_commit(AutoCommit::Rolling);
                        options.set_batch_size(batch);
                    }
                    Commit::Balanced => {
                        options.set_auto_commit(AutoCommit::Rolling);
                    }
                    Commit::Manual => {
                        options.set_auto_commit(AutoCommit::Disabled);
                        options.set_batch_size(env.batch);
                    }
                }
                Ok(streamer.create_consumer(&[StreamKey::new(&env.stream)?], options).await?)
            }
        }
    };
}

version!(stable, sea_streamer_05, sea_streamer_types_05);
version!(preview, sea_streamer_10, sea_streamer_types_10);
