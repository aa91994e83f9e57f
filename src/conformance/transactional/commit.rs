//! Effects and checkpoint take place together, or neither does.

use std::{future::poll_fn, pin::pin, task::Poll};

use crate::{
    Epoch,
    backend::Committed,
    conformance::{
        effects::Transactions,
        support::{Verdict, id, ids},
    },
};

/// Entries that are settled each by itself are settled together with the effects, and not before.
pub(super) async fn effects_and_settled_entries(t: Transactions) -> Verdict {
    let (first, second) = (t.each(Epoch(0), &ids([2])), t.each(Epoch(0), &ids([3, 5])));
    t.done(&first).await?;
    assert_eq!(t.rows().await?, ids([2]));
    let mut tx = t.begin().await?;
    t.write(&mut tx, &second.ids).await?;
    assert_eq!(t.rows().await?, ids([2]), "nobody sees what is not committed");
    assert_eq!(t.settled(&second).await?, []);
    assert_eq!(t.commit(tx, &second).await?, Committed::done(None));
    assert_eq!(t.rows().await?, ids([2, 3, 5]));
    assert_eq!(t.settled(&t.each(Epoch(0), &ids(1..=6))).await?, ids([2, 3, 5]));
    Ok(())
}

/// With a position, the checkpoint moves together with the effects.
pub(super) async fn effects_and_checkpoint(t: Transactions) -> Verdict {
    let mut tx = t.begin().await?;
    let settlement = t.up_to(Epoch(0), &ids([1, 2, 3]));
    t.write(&mut tx, &settlement.ids).await?;
    assert_eq!((t.rows().await?, t.checkpoints.watermark().await?), (vec![], None));
    assert_eq!(t.commit(tx, &settlement).await?, Committed::done(Some(id(3))));
    assert_eq!(t.rows().await?, settlement.ids);
    assert_eq!(t.checkpoints.watermark().await?, Some(id(3)));
    Ok(())
}

/// A transaction that was dropped leaves neither effects nor settled entries, and holds up nobody.
pub(super) async fn a_dropped_one_leaves_nothing(t: Transactions) -> Verdict {
    let settlement = t.up_to(Epoch(0), &ids([1, 2]));
    for rows in [&[][..], &settlement.ids[..1], &settlement.ids] {
        let mut tx = t.begin().await?;
        t.write(&mut tx, rows).await?;
        t.settled_in(&mut tx, &settlement).await?;
        drop(tx);
        assert_eq!((t.rows().await?, t.settled(&settlement).await?), (vec![], vec![]));
        assert_eq!(t.checkpoints.watermark().await?, None);
    }
    t.done(&settlement).await?;
    assert_eq!(t.rows().await?, settlement.ids, "and it can be done again");
    Ok(())
}

/// A handler may have nothing to write.
pub(super) async fn without_effects(t: Transactions) -> Verdict {
    let tx = t.begin().await?;
    let settlement = t.up_to(Epoch(0), &ids([1]));
    assert_eq!(t.commit(tx, &settlement).await?, Committed::done(Some(id(1))));
    t.refused(&settlement, &ids([1])).await
}

/// G14: a commit that nobody waits for takes place entirely or not at all, and whoever follows learns which.
pub(super) async fn g14_a_dropped_one_is_whole(t: Transactions) -> Verdict {
    for (round, ms) in (1..=60).step_by(3).enumerate() {
        let settlement = t.up_to(Epoch(0), &ids(ms..ms + 3));
        let before = t.rows().await?;
        let mut tx = t.begin().await?;
        t.write(&mut tx, &settlement.ids).await?;
        {
            let mut commit = pin!(t.commit(tx, &settlement));
            for _ in 0..round {
                if poll_fn(|cx| Poll::Ready(commit.as_mut().poll(cx).is_ready())).await {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        match t.run(&settlement).await? {
            Committed::Done { watermark } => assert_eq!(watermark, Some(id(ms + 2))),
            Committed::AlreadySettled(before) => assert_eq!(before, settlement.ids, "all or nothing"),
        }
        assert_eq!(t.rows().await?, [before, settlement.ids].concat(), "each once");
    }
    Ok(())
}

/// Begins that nobody waits for hold up nobody.
pub(super) async fn g14_a_dropped_begin(t: Transactions) -> Verdict {
    for polls in 0..20 {
        let mut begin = pin!(t.begin());
        for _ in 0..polls {
            if poll_fn(|cx| Poll::Ready(begin.as_mut().poll(cx).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    t.done(&t.up_to(Epoch(0), &ids([1]))).await
}
