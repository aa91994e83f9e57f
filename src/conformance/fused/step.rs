//! Effects, acks and advance in one step.

use tokio::task::JoinSet;

use crate::{
    EntryId, Epoch, ErrorKind,
    backend::Committed,
    conformance::{
        effects::Fused,
        support::{LONG, Stop, Verdict, fails, id, ids},
    },
};

/// The entries are acked and settled with the effects, and the checkpoint stands where the group does.
pub(super) async fn acks_and_advances(t: Fused) -> Verdict {
    t.deliver(5).await?;
    let watermark = t.settle(&ids([1, 2, 3])).await?;
    assert_eq!(Some(watermark), id(4).prev());
    assert_eq!(t.transactions.rows().await?, ids([1, 2, 3]));
    assert_eq!(t.streams.pending("a").await?, ids([4, 5]));
    assert_eq!(t.transactions.checkpoints.watermark().await?, Some(watermark));
    t.settle(&ids([4, 5])).await?;
    assert_eq!(t.transactions.checkpoints.watermark().await?, Some(id(5)));
    assert_eq!(t.streams.group_state().await?.pending, 0);
    Ok(())
}

/// G2: the checkpoint waits for the first hole, and what is settled above it stays settled.
pub(super) async fn g2_out_of_order(t: Fused) -> Verdict {
    t.deliver(5).await?;
    for ms in [4, 2, 3] {
        assert_eq!(Some(t.settle(&ids([ms])).await?), id(1).prev());
    }
    t.transactions.refused(&t.fused(Epoch(0), &ids(1..=5)), &ids([2, 3, 4])).await?;
    assert_eq!(t.streams.pending("a").await?, ids([1, 5]));
    assert_eq!(Some(t.settle(&ids([1])).await?), id(5).prev());
    t.transactions.refused(&t.fused(Epoch(0), &ids(1..=4)), &ids(1..=4)).await?;
    assert_eq!(t.transactions.rows().await?, ids(1..=4));
    Ok(())
}

/// G9: an entry is settled once, also when it was delivered again.
pub(super) async fn g9_once(t: Fused) -> Verdict {
    t.deliver(4).await?;
    t.settle(&ids([1, 3])).await?;
    // The group goes back to the checkpoint, as after it was lost.
    t.streams.remove_group().await?;
    t.streams.ensure_at(id(1)).await?;
    t.streams.read_group("a", 100).await?;
    t.transactions.refused(&t.fused(Epoch(0), &ids([2, 3, 4])), &ids([3])).await?;
    assert_eq!(t.streams.pending("a").await?, ids([2, 3, 4]), "what does not take place acks nothing");
    t.settle(&ids([2, 4])).await?;
    assert_eq!(t.transactions.rows().await?, ids(1..=4));
    Ok(())
}

/// G4: under another epoch nothing is acked, nothing is settled, and there is no effect.
pub(super) async fn g4_fenced_acks_nothing(t: Fused) -> Verdict {
    t.deliver(3).await?;
    fails(t.transactions.once(&t.fused(Epoch(1), &ids([1]))).await, ErrorKind::Invalid);
    t.transactions.checkpoints.own("a", LONG).await?;
    fails(t.transactions.once(&t.fused(Epoch(0), &ids([1, 2]))).await, ErrorKind::Fenced);
    assert_eq!(t.streams.group_state().await?.pending, 3);
    assert_eq!(t.transactions.rows().await?, []);
    assert_eq!(t.transactions.checkpoints.watermark().await?, None);
    Ok(())
}

/// A transaction that was dropped acks nothing.
pub(super) async fn a_dropped_one_leaves_nothing(t: Fused) -> Verdict {
    let delivered = t.deliver(3).await?;
    let mut tx = t.transactions.begin().await?;
    t.transactions.write(&mut tx, &delivered).await?;
    drop(tx);
    assert_eq!(t.streams.pending("a").await?, delivered);
    assert_eq!(t.transactions.rows().await?, []);
    t.settle(&delivered).await?;
    assert_eq!(t.transactions.rows().await?, delivered);
    Ok(())
}

/// G3, G9: many settle the same entries at once: each takes place once, and the checkpoint never moves back.
pub(super) async fn g9_side_by_side(t: Fused) -> Verdict {
    t.deliver(40).await?;
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let t = t.clone();
        tasks.spawn(async move {
            let mut seen = EntryId::ZERO;
            for ms in (1..=40).filter(|ms| ms % 4 == n || ms % 7 == n) {
                if let Committed::Done { watermark } =
                    t.transactions.run(&t.fused(Epoch(0), &ids([ms]))).await?
                {
                    let watermark = watermark.unwrap_or_default();
                    assert!(watermark >= seen, "it moved back from {seen} to {watermark}");
                    seen = watermark;
                }
            }
            Ok::<_, Stop>(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    assert_eq!(t.transactions.rows().await?, ids(1..=40));
    assert_eq!(t.transactions.checkpoints.watermark().await?, Some(id(40)));
    assert_eq!(t.streams.group_state().await?.pending, 0);
    Ok(())
}
