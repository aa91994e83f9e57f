//! A stream of any length, and as much to read of each.

use std::sync::{Arc, OnceLock};

use highwater::{Consumer, Delivery};
use highwater_redis::Redis;

use super::{Ours, check, handlers::Count, subscription};
use crate::{
    Result,
    env::Env,
    measure::{Run, now},
    raw,
};

/// A short stream is read until so many entries came in all.
const ENTRIES_MIN: u64 = 200_000;

impl Ours {
    /// Reads the stream to its end, for one subscription after another. The time is from the first handler to the last: what it
    /// takes to start and to stop would be all that the shortest stream shows.
    pub async fn again_and_again(self, env: Env) -> Result<Run> {
        let redis = Arc::new(Redis::connect(&env.redis.url).await?);
        let times = ENTRIES_MIN.div_ceil(env.entries);
        let meter = Env { entries: env.entries * times, ..env.clone() }.start()?;
        let mut wall_ns = 0;
        for time in 0..times {
            wall_ns +=
                self.once(&redis, &Env { group: format!("{}-{time}", env.group), ..env.clone() }).await?;
        }
        Ok(Run { wall_ns, ..meter.stop()? })
    }

    async fn once(self, redis: &Arc<Redis>, env: &Env) -> Result<u64> {
        let builder = Consumer::fused(subscription(env)?, Arc::clone(redis));
        let consumer = self.configured(builder, env).build()?;
        let (count, first) = (Count::new(env), Arc::new(OnceLock::new()));
        let handler = {
            let (handle, first) = (count.per_entry(), Arc::clone(&first));
            move |delivery: Delivery| {
                first.get_or_init(now);
                handle(delivery)
            }
        };
        let mut last = 0;
        let all = count.all();
        consumer
            .run(handler, async {
                all.await;
                last = now();
            })
            .await?;
        count.check()?;
        check::at_the_end(Arc::clone(redis), env).await?;
        raw::destroy_group(env).await?;
        Ok(last - first.get().ok_or("nothing came")?)
    }
}
