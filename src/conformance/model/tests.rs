//! The model over memory, in paused time.

use tokio::runtime::{Builder, Runtime};

use super::{Sequences, Stores};
use crate::Memory;

fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn the_guarantees_hold_over_memory_as_one_store() {
    run(async || Stores::one(Memory::new()));
}

#[test]
fn the_guarantees_hold_over_memory_as_two_stores() {
    run(async || Stores::two(Memory::new(), Memory::new()));
}

fn run(make: impl AsyncFn() -> Stores) {
    let start = std::time::Instant::now();
    match Sequences::new(500).patience(std::time::Duration::from_secs(3)).run(&paused(), make) {
        Ok(summary) => println!("{summary:?} {:?}", start.elapsed()),
        Err(failure) => panic!("{failure}"),
    }
}
