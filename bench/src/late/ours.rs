//! Consumers of ours, all on one connected store.

use std::{sync::Arc, time::Duration};

use highwater::{Consumer, Delivery, HandlerError, Ownership, Subscription};
use highwater_redis::{Client, Fred, Redis, RedisRs, RedisStore, Settings};

use super::{Gauge, Many, Running, under_load};
use crate::{
    Result,
    env::{Env, FIELD},
    list::Scenario,
    measure::Run,
};

#[derive(Debug, Clone, Copy)]
struct Ours {
    client: Client,
    ownership: Ownership,
    many: Many,
    is_calm: bool,
}

/// What a calm one does in the background, it does this seldom: takes over from the dead after half a minute, not three seconds.
const CALM: Duration = Duration::from_secs(10);

const SHARED: Ours =
    Ours { client: Client::RedisRs, ownership: Ownership::Shared, many: Many::Groups, is_calm: false };
const CROWD: Ours = Ours { many: Many::Consumers, ..SHARED };
const STREAMS: Ours = Ours { many: Many::Streams, ..SHARED };
const FRED: Ours = Ours { client: Client::Fred, ..SHARED };
const EXCLUSIVE: Ours = Ours { ownership: Ownership::Exclusive, ..SHARED };

pub fn one() -> Vec<Scenario> {
    vec![
        scenario("ours/shared/redis-rs", SHARED),
        scenario("ours/shared/fred", FRED),
        scenario("ours/exclusive/redis-rs", EXCLUSIVE),
        scenario("ours/exclusive/fred", Ours { client: Client::Fred, ..EXCLUSIVE }),
    ]
}

pub fn groups() -> Vec<Scenario> {
    vec![scenario("ours/100 groups/redis-rs", SHARED), scenario("ours/100 groups/fred", FRED)]
}

pub fn crowd() -> Vec<Scenario> {
    vec![
        scenario("ours/100 consumers/redis-rs", CROWD),
        scenario("ours/100 consumers/fred", Ours { client: Client::Fred, ..CROWD }),
    ]
}

pub fn many() -> Vec<Scenario> {
    vec![
        scenario("ours/1000 consumers of one group", CROWD),
        scenario("ours/1000 consumers of one group, calm", Ours { is_calm: true, ..CROWD }),
        scenario("ours/1000 streams, shared", STREAMS),
        scenario("ours/1000 streams, exclusive", Ours { many: Many::Streams, ..EXCLUSIVE }),
    ]
}

pub fn most() -> Vec<Scenario> {
    vec![
        scenario("ours/10000 streams, shared", STREAMS),
        scenario("ours/10000 streams, shared, calm", Ours { is_calm: true, ..STREAMS }),
        scenario("ours/10000 streams, exclusive", Ours { many: Many::Streams, ..EXCLUSIVE }),
    ]
}

pub fn polling() -> Vec<Scenario> {
    vec![
        scenario("ours/100 streams", STREAMS),
        scenario("ours/100 streams, calm", Ours { is_calm: true, ..STREAMS }),
    ]
}

fn scenario(name: &str, ours: Ours) -> Scenario {
    Scenario::new(name, move |env| run(ours, env))
}

async fn run(ours: Ours, env: Env) -> Result<Run> {
    let settings = Settings::new(&env.redis.url);
    match ours.client {
        Client::Fred => over(ours, Arc::new(Redis::<Fred>::open(settings).await?), env).await,
        _ => over(ours, Arc::new(Redis::<RedisRs>::open(settings).await?), env).await,
    }
}

async fn over<B: RedisStore>(ours: Ours, redis: Arc<B>, env: Env) -> Result<Run> {
    let one = format!("{}-late", env.group);
    let streams = match ours.many {
        Many::Streams => (0..env.many).map(|n| format!("{one}-{n}")).collect(),
        _ => vec![one],
    };
    let subscriptions = (0..usize::try_from(env.many)?)
        .map(|n| {
            let group = if ours.many == Many::Groups { format!("g{n}") } else { "g".to_owned() };
            Subscription::new(&streams[n % streams.len()], group)
        })
        .collect::<highwater::Result<Vec<_>>>()?;
    let groups = if ours.many == Many::Groups { env.many } else { 1 };
    under_load(env, streams, groups, async move |gauge| {
        let mut running = Running::new();
        for subscription in subscriptions {
            let builder = Consumer::fused(subscription, Arc::clone(&redis));
            let consumer =
                if ours.ownership == Ownership::Shared { builder.shared() } else { builder.exclusive() };
            let consumer = consumer.configure(|settings| {
                if ours.is_calm {
                    (settings.ttl, settings.block) = (3 * CALM, CALM);
                    (settings.claim_interval, settings.probe_interval) = (CALM, CALM);
                }
            });
            let consumer = consumer.build()?;
            let gauge = gauge.clone();
            let handler = move |delivery: Delivery| std::future::ready(take(&gauge, &delivery));
            running.spawn(async move {
                consumer.run(handler, std::future::pending::<()>()).await?;
                Ok(())
            });
        }
        Ok(running)
    })
    .await
}

fn take(gauge: &Gauge, delivery: &Delivery) -> Result<(), HandlerError> {
    let payload = delivery.fields().get(FIELD).ok_or("no payload")?;
    gauge.take(payload).map_err(HandlerError::stop)
}
