//! Many at once.

use tokio::task::JoinSet;

use crate::{
    EntryId, Epoch,
    backend::{Committed, Settlement},
    conformance::{
        effects::Transactions,
        support::{Stop, Verdict, id, ids},
    },
};

/// G9: of two over the same entries exactly one takes place.
pub(super) async fn g9_one_takes_place(t: Transactions) -> Verdict {
    for ms in (10..200).step_by(10) {
        let settled = if ms % 20 == 0 {
            t.up_to(Epoch(0), &ids(ms..ms + 3))
        } else {
            t.each(Epoch(0), &ids(ms..ms + 3))
        };
        let (a, b) = (spawn(&t, settled.clone()), spawn(&t, settled.clone()));
        let outcomes = [joined(a).await?, joined(b).await?];
        let done = outcomes.iter().filter(|outcome| matches!(outcome, Committed::Done { .. })).count();
        assert_eq!(done, 1, "{outcomes:?}");
        assert!(outcomes.contains(&Committed::AlreadySettled(settled.ids)), "{outcomes:?}");
    }
    let rows = t.rows().await?;
    assert_eq!(rows, (10..200).step_by(10).flat_map(|ms| ids(ms..ms + 3)).collect::<Vec<_>>());
    Ok(())
}

/// G9: many settle the same entries in batches that overlap, while the checkpoint follows: each once, and none is missing.
pub(super) async fn g9_batches_overlap(t: Transactions) -> Verdict {
    const LAST: u64 = 60;
    let mut tasks = JoinSet::new();
    for n in 1..=4 {
        let t = t.clone();
        tasks.spawn(async move {
            for first in (1..=LAST).step_by(n as usize + 1) {
                let batch = ids(first..=LAST.min(first + n));
                settle_rest(&t, batch).await?;
            }
            Ok::<_, Stop>(())
        });
    }
    let watermarks = t.clone();
    tasks.spawn(async move {
        // Never past what is settled: else an entry below it would be taken for settled.
        let all = watermarks.each(Epoch(0), &ids(1..=LAST));
        loop {
            let settled = watermarks.settled(&all).await?;
            let watermark = settled.iter().zip(&all.ids).take_while(|(a, b)| a == b).count() as u64;
            watermarks.checkpoints.advance_to(Epoch(0), watermark).await?;
            if watermark == LAST {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    });
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    assert_eq!(t.rows().await?, ids(1..=LAST));
    assert_eq!(t.checkpoints.watermark().await?, Some(id(LAST)));
    Ok(())
}

/// G9: two that move the same checkpoint forward meet: each entry once, in whatever steps.
pub(super) async fn g9_positions_meet(t: Transactions) -> Verdict {
    let mut tasks = JoinSet::new();
    for step in [2, 3] {
        let t = t.clone();
        tasks.spawn(async move {
            loop {
                let at = t.checkpoints.watermark().await?.unwrap_or_default().ms;
                if at >= 40 {
                    return Ok::<_, Stop>(());
                }
                t.run(&t.up_to(Epoch(0), &ids(at + 1..=at + step))).await?;
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    let last = t.checkpoints.watermark().await?.unwrap_or_default().ms;
    assert_eq!(t.rows().await?, ids(1..=last));
    Ok(())
}

/// Settles of a batch what is not settled yet.
async fn settle_rest(t: &Transactions, mut batch: Vec<EntryId>) -> Result<(), Stop> {
    while !batch.is_empty() {
        match t.run(&t.each(Epoch(0), &batch)).await? {
            Committed::Done { .. } => return Ok(()),
            Committed::AlreadySettled(settled) => {
                assert!(!settled.is_empty(), "none of {batch:?} is settled, and it did not take place");
                batch.retain(|id| !settled.contains(id));
            }
        }
    }
    Ok(())
}

type Running = tokio::task::JoinHandle<Result<Committed, Stop>>;

fn spawn(t: &Transactions, settlement: Settlement) -> Running {
    let t = t.clone();
    tokio::spawn(async move { t.run(&settlement).await })
}

async fn joined(task: Running) -> Result<Committed, Stop> {
    task.await.expect("the task does not panic")
}
