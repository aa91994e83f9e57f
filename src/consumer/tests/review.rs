//! Findings of a review: each of these failed when it was written.

mod failures;
mod gaps;
mod ledger;
mod lives;
mod ownership;
mod reports;
mod sequences;
mod simulation;
mod stalls;
mod transactions;

use super::*;
use crate::layer::{Fault, Faults, Layer, Operation};

fn stream() -> StreamName {
    subscription().stream
}

fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

/// A memory whose calls go wrong by `faults`.
fn faulty(
    memory: &Memory,
    faults: &Faults,
    ownership: Ownership,
) -> Builder<Arc<FaultyMemory>, Arc<FaultyMemory>> {
    Consumer::fused(subscription(), faults.clone().wrap(memory.clone()))
        .configure(|settings| settings.ownership = ownership)
}

type FaultyMemory = crate::layer::Layered<Memory, Faults>;

async fn pending(memory: &Memory) -> Option<u64> {
    let state = memory.inspect(&Inspect::subscription(&subscription())).await.unwrap()?;
    Some(state.group?.pending)
}

/// Whether it holds within a minute of paused time.
async fn soon(mut holds: impl AsyncFnMut() -> bool) -> bool {
    let clock = Clock::started();
    while clock.elapsed() < Duration::from_secs(60) {
        if holds().await {
            return true;
        }
        clock.sleep(Duration::from_millis(50)).await;
    }
    false
}
