//! The producer over a backend that can be held up, made to fail, and asked what it saw.

mod batches;
mod double;
mod failures;
mod lifecycle;
mod retention;

use std::sync::Arc;

use super::{Producer, ProducerSettings, Retention};
use crate::{
    EntryId, Fields, StreamName,
    backend::{Read, StreamBackend},
    memory::Memory,
};

use double::Double;

fn stream() -> StreamName {
    StreamName::new("s").unwrap()
}

fn fields(n: impl ToString) -> Fields {
    [("n", n.to_string())].into_iter().collect()
}

/// No trimming: what it does to the calls of the backend is in `retention` alone.
fn settings() -> ProducerSettings {
    ProducerSettings { retention: Retention::Forever, ..ProducerSettings::default() }
}

fn producer(double: &Arc<Double>, settings: ProducerSettings) -> Producer<Arc<Double>> {
    Producer::builder(stream(), Arc::clone(double)).settings(settings).build().unwrap()
}

/// What the stream holds, as the numbers that `fields` made of it.
async fn held(memory: &Memory) -> Vec<String> {
    let entries = memory.read(&Read::new(stream(), EntryId::ZERO, usize::MAX)).await.unwrap();
    let number = |fields: &Fields| String::from_utf8(fields.get("n").unwrap().to_vec()).unwrap();
    entries.iter().map(|entry| number(&entry.fields)).collect()
}

/// Lets other tasks run until this holds.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came true");
}

/// Lets every other task run as far as it can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
