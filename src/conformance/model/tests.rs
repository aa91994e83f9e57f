//! The model over memory, in paused time.

use tokio::runtime::{Builder, Runtime};

use super::{Sequences, Stores};
use crate::{Memory, conformance::tests::Rows};

pub(super) fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn the_guarantees_hold_over_memory_as_one_store() {
    run(async || {
        let memory = Memory::new();
        Stores::one(memory.clone()).fused_transactional(memory, Rows::default())
    });
}

#[test]
fn the_guarantees_hold_over_memory_as_two_stores() {
    run(async || {
        let checkpoints = Memory::new();
        Stores::two(Memory::new(), checkpoints.clone()).transactional(checkpoints, Rows::default())
    });
}

fn run(make: impl AsyncFn() -> Stores) {
    match Sequences::new(500).in_paused_time().run(&paused(), make) {
        Ok(summary) => println!("{summary:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
