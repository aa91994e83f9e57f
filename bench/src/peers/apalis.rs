//! apalis-redis: no streams, but what people take for jobs.

use std::{sync::Arc, time::Duration};

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use serde::{Deserialize, Serialize};

use super::{Seen, Shared};
use crate::{Result, env::Env, list::Scenario, measure::Run, raw};

/// Its scripts take the server's time. Of more than some thousands that wait, one of them makes more arguments than it may,
/// and the worker ends.
const SHARE: u64 = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    d: String,
}

pub fn throughput() -> Vec<Scenario> {
    vec![
        Scenario::new("apalis-redis/batch 10", |env| run(env, 10)).share(SHARE),
        Scenario::new("apalis-redis/batch 100", |env| run(env, 100)).share(SHARE),
    ]
}

async fn run(env: Env, batch: usize) -> Result<Run> {
    let connection = apalis_redis::connect(&*env.redis.url).await?;
    let config = Config::default().queue(&env.group).batch_size(batch);
    let done = config.done_jobs_set();
    let mut storage = RedisStorage::new(connection).with_config(config);
    let job = Job { d: "x".repeat(env.payload) };
    for first in (0..env.entries).step_by(1_000) {
        let jobs = vec![job.clone(); usize::try_from((env.entries - first).min(1_000))?];
        storage.push_bulk(jobs).await.map_err(|error| error.to_string())?;
    }
    let seen: Shared = Arc::new(Seen::default());
    seen.expect(env.entries);
    let worker = WorkerBuilder::new("bench").backend(storage).data(Arc::clone(&seen)).build(take);
    let meter = env.start()?;
    let mut worker = tokio::spawn(worker.run());
    tokio::select! {
        () = seen.all.notified() => {}
        ended = &mut worker => return Err(format!("the worker has ended: {:?}", ended?).into()),
    }
    // The last ones are still to be acked.
    while raw::set_len(&env, &done).await? < env.entries {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let run = meter.stop()?;
    worker.abort();
    seen.check()?;
    Ok(run)
}

async fn take(job: Job, seen: Data<Shared>) -> std::result::Result<(), BoxDynError> {
    seen.more(u64::from(!job.d.is_empty()));
    Ok(())
}
