//! An entry that is stuck for the whole run, and others that go on beside it.

use std::sync::Arc;

use highwater::{Consumer, Delivery, HandlerError};
use highwater_redis::Redis;

use super::{check, handlers::Count, subscription};
use crate::{Result, env::Env, measure::Run, stage::entry_id};

const HANDLERS: usize = 8;

/// Handles the first entry when all others are handled, if it is to be stuck.
pub async fn run(env: Env, is_stuck: bool) -> Result<Run> {
    let redis = Arc::new(Redis::connect(&env.redis.url).await?);
    let consumer = Consumer::fused(subscription(&env)?, Arc::clone(&redis))
        .concurrency(HANDLERS)
        // By default it pauses after 65,536 entries behind one that is stuck.
        .configure(|settings| {
            settings.window_entries_max = usize::try_from(env.entries).unwrap_or(usize::MAX)
        })
        .build()?;
    let (count, others) = (Count::new(&env), Count::of(&env, env.entries - 1));
    let first: highwater::EntryId = entry_id(0).parse()?;
    let handler = {
        let (count, others) = (count.clone(), others.clone());
        move |delivery: Delivery| {
            let (count, others) = (count.clone(), others.clone());
            async move {
                let is_first = delivery.id() == first;
                if is_first && is_stuck {
                    others.all().await;
                }
                let delivery = [delivery];
                if !is_first {
                    others.take(&delivery)?;
                }
                Ok::<_, HandlerError>(count.take(&delivery)?)
            }
        }
    };
    let meter = env.start()?;
    consumer.run(handler, count.all()).await?;
    let run = meter.stop()?;
    count.check()?;
    check::at_the_end(redis, &env).await?;
    check::nothing_pending(&env).await?;
    Ok(run)
}
