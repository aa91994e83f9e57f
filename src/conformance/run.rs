//! Runs one case.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    Effects, checkpoint,
    effects::{Fused, Transactions},
    fused, settle, stream,
    support::{Checkpoints, Settles, Stop, Streams, Verdict},
    transactional,
};
use crate::backend::{AtomicSettle, CheckpointBackend, StreamBackend, TransactionalCheckpoint};

/// No case takes this long: one that does hangs.
const CASE_MAX: Duration = Duration::from_secs(60);

/// Runs the case of this name, as the test that [`stream_conformance!`](crate::stream_conformance) emits does.
///
/// # Panics
///
/// If the backend does not behave, or there is no such case.
pub fn run_stream<B: StreamBackend>(case: &str, make: impl AsyncFnOnce() -> B) {
    block_on(case, async {
        let streams = Streams::new(Arc::new(make().await), case);
        let verdict = stream::run(case, streams.clone()).await;
        streams.clean(&verdict).await;
        verdict
    });
}

/// Runs the case of this name, as the test that [`checkpoint_conformance!`](crate::checkpoint_conformance) emits does.
///
/// # Panics
///
/// If the backend does not behave, or there is no such case.
pub fn run_checkpoint<B: CheckpointBackend>(case: &str, make: impl AsyncFnOnce() -> B) {
    block_on(case, async { checkpoint::run(case, Checkpoints::new(Arc::new(make().await), case)).await });
}

/// Runs the case of this name, as the test that [`settle_conformance!`](crate::settle_conformance) emits does.
///
/// # Panics
///
/// If the backend does not behave, or there is no such case.
pub fn run_settle<B: AtomicSettle>(case: &str, make: impl AsyncFnOnce() -> B) {
    block_on(case, async {
        let settles = Settles::new(Arc::new(make().await), case);
        let verdict = settle::run(case, settles.clone()).await;
        settles.streams.clean(&verdict).await;
        verdict
    });
}

/// Runs the case of this name, as the test that [`transactional_conformance!`](crate::transactional_conformance) emits does.
///
/// # Panics
///
/// If the backend does not behave, or there is no such case.
pub fn run_transactional<B, E>(case: &str, make: impl AsyncFnOnce() -> (B, E))
where
    B: TransactionalCheckpoint,
    E: Effects<B::Tx>,
{
    block_on(case, async { transactional::run(case, Transactions::new(make().await, case)).await });
}

/// Runs the case of this name, as the test that [`fused_conformance!`](crate::fused_conformance) emits does.
///
/// # Panics
///
/// If the backend does not behave, or there is no such case.
pub fn run_fused<B, E>(case: &str, make: impl AsyncFnOnce() -> (B, E))
where
    B: TransactionalCheckpoint + StreamBackend,
    E: Effects<B::Tx>,
{
    block_on(case, async {
        let fused = Fused::new(make().await, case);
        let verdict = fused::run(case, fused.clone()).await;
        fused.streams.clean(&verdict).await;
        verdict
    });
}

fn block_on(case: &str, future: impl Future<Output = Verdict>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a test can start a runtime");
    match runtime.block_on(async { tokio::time::timeout(CASE_MAX, future).await }) {
        Ok(Ok(())) => {}
        #[expect(clippy::print_stdout, reason = "what was not tested must be seen in the output of the test")]
        Ok(Err(Stop::NotApplicable(reason))) => println!("not applicable: {case}: {reason}"),
        Ok(Err(Stop::Failed(error))) => panic!("{case}: {error:?}"),
        Err(_) => panic!("{case}: hangs"),
    }
}
