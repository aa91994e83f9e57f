//! Acks and advance in one step.

use tokio::task::JoinSet;

use crate::{
    EntryId, Epoch, ErrorKind, Position,
    backend::Settle,
    conformance::support::{LONG, Settles, Verdict, consumer, fails, id, ids},
};

/// The entries are acked, and the checkpoint stands where the group does.
pub(super) async fn acks_and_advances(t: Settles) -> Verdict {
    t.deliver(5).await?;
    let settled = t.settle(Epoch(0), &ids([1, 2, 3])).await?;
    assert_eq!(settled.acked, 3);
    assert_eq!(t.streams.pending("a").await?, ids([4, 5]));
    let Some(position) = settled.position else { panic!("the group is there") };
    assert_eq!(position.watermark, id(4).prev().unwrap_or_default());
    assert_eq!(t.checkpoints.watermark().await?, Some(position.watermark));
    Ok(())
}

/// The position is the one that an ack tells. Where the watermark covers what was settled, it may say less of what is ahead.
pub(super) async fn tells_the_position_of_an_ack(t: Settles) -> Verdict {
    t.deliver(5).await?;
    for settled in [vec![2, 4], vec![1], vec![3, 5], vec![]] {
        let position = t.settle(Epoch(0), &ids(settled.clone())).await?.position;
        if t.streams.group_state().await?.pending > 0
            && let (Some(position), Some(acked)) = (position, t.streams.ack(&[]).await?.position)
        {
            let covers = settled.iter().all(|&ms| id(ms) <= position.watermark);
            let acked = if covers { acked.with_ahead(position.ahead.clone()) } else { acked };
            assert_eq!(position, acked, "after {settled:?}");
        }
    }
    assert_eq!(t.streams.position(&[]).await?.watermark, id(5));
    assert_eq!(t.checkpoints.watermark().await?, Some(id(5)));
    Ok(())
}

/// What is stored is the position that was told: ordinal and the stream's life included.
pub(super) async fn stores_what_it_tells(t: Settles) -> Verdict {
    t.deliver(3).await?;
    let settle = Settle::new(t.streams.subscription.clone(), ids(1..=3), Epoch(0), consumer("a"));
    let position = t.backend.settle(&settle.count(true)).await?.position;
    assert_eq!(t.checkpoints.position().await?, position);
    let Some(position) = position else { panic!("the group is there") };
    if t.streams.needs_counts().is_ok() {
        assert_eq!(position.ordinal, Some(3));
    }
    if t.streams.needs_incarnations().is_ok() {
        assert_eq!(position.incarnation, t.streams.state().await?.incarnation);
    }
    Ok(())
}

/// G2: the checkpoint waits for the first hole, and then covers all up to the next.
pub(super) async fn g2_out_of_order(t: Settles) -> Verdict {
    t.deliver(5).await?;
    for ms in [4, 3, 2] {
        t.settle(Epoch(0), &ids([ms])).await?;
        assert_eq!(t.checkpoints.watermark().await?, id(1).prev());
    }
    let Some(stored) = t.checkpoints.position().await? else { panic!("it is stored") };
    assert!(!stored.settles(id(1)) && !stored.settles(id(5)), "{stored:?}");
    t.settle(Epoch(0), &ids([1])).await?;
    assert_eq!(t.checkpoints.watermark().await?, id(5).prev());
    Ok(())
}

/// Repeating changes nothing and succeeds.
pub(super) async fn is_idempotent(t: Settles) -> Verdict {
    t.deliver(3).await?;
    let first = t.settle(Epoch(0), &ids([1, 2])).await?;
    let stored = t.checkpoints.position().await?;
    let second = t.settle(Epoch(0), &ids([1, 2])).await?;
    assert_eq!((first.acked, second.acked), (2, 0));
    assert_eq!(first.position, second.position);
    assert_eq!(t.checkpoints.position().await?, stored);
    Ok(())
}

/// G4: under a lower epoch than the issued one nothing is acked and nothing is stored.
pub(super) async fn g4_fenced_acks_nothing(t: Settles) -> Verdict {
    t.deliver(3).await?;
    let epoch = t.checkpoints.own("a", LONG).await?.epoch;
    fails(t.settle(Epoch(0), &ids([1, 2])).await, ErrorKind::Fenced);
    assert_eq!(t.streams.group_state().await?.pending, 3);
    assert_eq!(t.checkpoints.watermark().await?, None);
    t.settle(epoch, &ids([1])).await?;
    t.checkpoints.own("a", LONG).await?;
    fails(t.settle(epoch, &ids([2])).await, ErrorKind::Fenced);
    fails(t.settle(epoch, &[]).await, ErrorKind::Fenced);
    assert_eq!(t.streams.pending("a").await?, ids([2, 3]));
    assert_eq!(t.checkpoints.watermark().await?, id(2).prev());
    Ok(())
}

/// Under an epoch that was never issued nothing is acked and nothing is stored.
pub(super) async fn a_made_up_epoch_acks_nothing(t: Settles) -> Verdict {
    t.deliver(3).await?;
    fails(t.settle(Epoch(1), &ids([1, 2])).await, ErrorKind::Invalid);
    assert_eq!(t.streams.group_state().await?.pending, 3);
    assert_eq!(t.checkpoints.watermark().await?, None);
    Ok(())
}

/// Without the group nothing is acked, no position is told, and the checkpoint stays as it is.
pub(super) async fn a_missing_group(t: Settles) -> Verdict {
    let settled = t.settle(Epoch(0), &ids([1])).await?;
    assert_eq!((settled.acked, settled.position), (0, None), "no stream");
    assert_eq!(t.checkpoints.watermark().await?, None, "no record was made up");
    t.deliver(3).await?;
    t.settle(Epoch(0), &ids([1])).await?;
    let stored = t.checkpoints.position().await?;
    t.streams.remove_group().await?;
    let settled = t.settle(Epoch(0), &ids([2])).await?;
    assert_eq!((settled.acked, settled.position), (0, None), "no group");
    assert_eq!(t.checkpoints.position().await?, stored);
    Ok(())
}

/// G5: what was settled ahead stays so while a group that was created anew has it pending again.
pub(super) async fn g5_what_is_pending_again_stays_settled(t: Settles) -> Verdict {
    t.deliver(6).await?;
    t.settle(Epoch(0), &ids([3, 5])).await?;
    t.streams.remove_group().await?;
    t.streams.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.streams.read_group("a", 10).await?, ids(1..=6));
    t.settle(Epoch(0), &ids([6])).await?;
    t.settle(Epoch(0), &ids([1])).await?;
    for settled in [vec![1, 3, 5, 6], vec![1, 2, 3, 5, 6]] {
        let Some(stored) = t.checkpoints.position().await? else { panic!("it is stored") };
        let found: Vec<_> = (1..=6).filter(|&ms| stored.settles(id(ms))).collect();
        assert_eq!(found, settled, "{stored:?}");
        t.settle(Epoch(0), &ids([2])).await?;
    }
    t.settle(Epoch(0), &ids([4])).await?;
    assert_eq!(t.checkpoints.watermark().await?, Some(id(6)));
    Ok(())
}

/// G3: where the checkpoint is further than the group, the entries are acked and the checkpoint stays.
pub(super) async fn g3_never_back(t: Settles) -> Verdict {
    t.deliver(5).await?;
    t.checkpoints.advance(Epoch(0), &Position::at(id(4))).await?;
    assert_eq!(t.settle(Epoch(0), &ids([1, 2])).await?.acked, 2);
    assert_eq!(t.checkpoints.watermark().await?, Some(id(4)));
    assert_eq!(t.streams.pending("a").await?, ids(3..=5));
    Ok(())
}

/// Without ids, the checkpoint comes up to where the group stands.
pub(super) async fn an_empty_one_advances(t: Settles) -> Verdict {
    t.deliver(3).await?;
    t.streams.ack(&ids(1..=3)).await?;
    let settled = t.settle(Epoch(0), &[]).await?;
    assert_eq!(settled.acked, 0);
    assert_eq!(t.checkpoints.watermark().await?, Some(id(3)));
    Ok(())
}

/// G3: of many that settle at once, none moves the checkpoint back, and in the end it covers all.
pub(super) async fn g3_side_by_side(t: Settles) -> Verdict {
    t.deliver(80).await?;
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let t = t.clone();
        tasks.spawn(async move {
            let mut seen = EntryId::ZERO;
            for ms in (1..=80).filter(|ms| ms % 8 == n) {
                t.settle(Epoch(0), &ids([ms])).await?;
                let stored = t.checkpoints.watermark().await?.unwrap_or_default();
                assert!(stored >= seen, "it moved back from {seen} to {stored}");
                seen = stored;
                tokio::task::yield_now().await;
            }
            Ok::<_, crate::Error>(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    t.settle(Epoch(0), &[]).await?;
    assert_eq!(t.checkpoints.watermark().await?, Some(id(80)));
    assert_eq!(t.streams.group_state().await?.pending, 0);
    Ok(())
}
