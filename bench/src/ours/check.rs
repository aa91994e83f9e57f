//! What must hold after a run.

use highwater::backend::CheckpointBackend;

use super::subscription;
use crate::{Result, env::Env, raw, stage::entry_id};

/// The checkpoint says that all is settled.
pub async fn at_the_end(store: impl CheckpointBackend, env: &Env) -> Result {
    let checkpoint = store.load(&subscription(env)?).await?.ok_or("there is no checkpoint")?;
    let (watermark, last) = (checkpoint.position.watermark.to_string(), entry_id(env.entries - 1));
    if watermark == last {
        Ok(())
    } else {
        Err(format!("the checkpoint is at {watermark}, not at {last}").into())
    }
}

/// The group has delivered all, and nothing is pending.
pub async fn nothing_pending(env: &Env) -> Result {
    raw::nothing_pending(env).await
}
