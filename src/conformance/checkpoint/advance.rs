//! Advancing: fenced, monotonic, idempotent.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::{
    EntryId, Epoch, ErrorKind,
    conformance::support::{Checkpoints, LONG, Verdict, fails, id},
};

/// Without a record, epoch 0 creates it.
pub(super) async fn creates_the_record(t: Checkpoints) -> Verdict {
    let advanced = t.advance_to(Epoch(0), 5).await?;
    assert!(advanced.moved);
    assert_eq!((advanced.watermark, t.watermark().await?), (id(5), Some(id(5))));
    Ok(())
}

/// The watermark moves forward.
pub(super) async fn moves_forward(t: Checkpoints) -> Verdict {
    for watermark in [5, 6, 100] {
        let advanced = t.advance_to(Epoch(0), watermark).await?;
        assert_eq!((advanced.moved, advanced.watermark), (true, id(watermark)));
        assert_eq!(t.watermark().await?, Some(id(watermark)));
    }
    Ok(())
}

/// Repeating an advance changes nothing and succeeds.
pub(super) async fn is_idempotent(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    let stored = t.backend.load(&t.subscription).await?;
    for _ in 0..3 {
        let advanced = t.advance_to(Epoch(0), 5).await?;
        assert_eq!((advanced.moved, advanced.watermark), (false, id(5)));
    }
    assert_eq!(t.backend.load(&t.subscription).await?, stored);
    Ok(())
}

/// G3: a lower position is no error, changes nothing, and learns what is stored.
pub(super) async fn g3_never_back(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    for lower in [EntryId::ZERO, EntryId::new(4, u64::MAX)] {
        let advanced = t.advance(Epoch(0), &crate::Position::at(lower)).await?;
        assert_eq!((advanced.moved, advanced.watermark), (false, id(5)));
    }
    assert_eq!(t.watermark().await?, Some(id(5)));
    Ok(())
}

/// G3: ids are compared as numbers: `9-0` is before `10-0`, and `5-9` before `5-10`.
pub(super) async fn g3_ids_are_not_compared_as_text(t: Checkpoints) -> Verdict {
    let order = [id(9), id(10), id(99), EntryId::new(99, 9), EntryId::new(99, 10), EntryId::new(100, 0)];
    for at in order {
        assert!(t.advance(Epoch(0), &crate::Position::at(at)).await?.moved, "{at}");
    }
    for at in order {
        assert!(!t.advance(Epoch(0), &crate::Position::at(at)).await?.moved, "{at}");
    }
    Ok(())
}

/// Watermarks go up to the last that two `u64` can hold.
pub(super) async fn up_to_the_end_of_u64(t: Checkpoints) -> Verdict {
    let edges = [
        EntryId::new(0, 1),
        EntryId::new(0, u64::MAX),
        EntryId::new(1, 0),
        EntryId::new(i64::MAX as u64, u64::MAX),
        EntryId::new(i64::MAX as u64 + 1, 0),
        EntryId::new(u64::MAX, u64::MAX - 1),
        EntryId::MAX,
    ];
    for at in edges {
        let advanced = t.advance(Epoch(0), &crate::Position::at(at)).await?;
        assert_eq!((advanced.moved, advanced.watermark, t.watermark().await?), (true, at, Some(at)));
    }
    Ok(())
}

/// G4: a lower epoch than the issued one is fenced, though the position is higher, and changes nothing.
pub(super) async fn g4_fenced(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    t.advance_to(first, 5).await?;
    t.release(first).await?;
    let second = t.own("b", LONG).await?.epoch;
    fails(t.advance_to(first, 9).await, ErrorKind::Fenced);
    fails(t.advance_to(Epoch(0), 9).await, ErrorKind::Fenced);
    assert_eq!(t.watermark().await?, Some(id(5)));
    assert!(t.advance_to(second, 6).await?.moved);
    fails(t.advance_to(first, 9).await, ErrorKind::Fenced);
    Ok(())
}

/// G4: also the same owner, after it took the subscription again, is fenced under its old epoch.
pub(super) async fn g4_the_same_owner_is_fenced(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    let second = t.own("a", LONG).await?.epoch;
    assert!(second > first);
    fails(t.advance_to(first, 5).await, ErrorKind::Fenced);
    assert!(t.advance_to(second, 5).await?.moved);
    Ok(())
}

/// G4: what is fenced stays so where the position is stored already: it must not ack.
pub(super) async fn g4_fenced_where_it_would_change_nothing(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    t.advance_to(first, 5).await?;
    t.own("a", LONG).await?;
    fails(t.advance_to(first, 5).await, ErrorKind::Fenced);
    fails(t.advance_to(first, 4).await, ErrorKind::Fenced);
    Ok(())
}

/// An epoch that was never issued is refused, and nothing is stored.
pub(super) async fn a_made_up_epoch_is_invalid(t: Checkpoints) -> Verdict {
    fails(t.advance_to(Epoch(1), 5).await, ErrorKind::Invalid);
    assert_eq!(t.watermark().await?, None, "no record");
    let epoch = t.own("a", LONG).await?.epoch;
    fails(t.advance_to(epoch.next(), 5).await, ErrorKind::Invalid);
    fails(t.advance_to(Epoch(u64::MAX), 5).await, ErrorKind::Invalid);
    assert_eq!(t.watermark().await?, None, "an owner, no position");
    t.advance_to(epoch, 5).await?;
    fails(t.advance_to(epoch.next(), 9).await, ErrorKind::Invalid);
    assert_eq!(t.watermark().await?, Some(id(5)));
    Ok(())
}

/// Who loads a checkpoint may advance it under the epoch that it loaded, whoever owned the subscription before.
pub(super) async fn under_a_loaded_epoch(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    t.advance_to(first, 5).await?;
    t.release(first).await?;
    let second = t.own("b", LONG).await?.epoch;
    t.release(second).await?;
    let Some(loaded) = t.backend.load(&t.subscription).await? else { panic!("it is stored") };
    assert!(t.advance_to(loaded.epoch, 6).await?.moved);
    Ok(())
}

/// G3: of many that advance at once the highest wins, and whoever looks on never sees it move back.
pub(super) async fn g3_side_by_side(t: Checkpoints) -> Verdict {
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let observer = {
        let (t, done) = (t.clone(), done.clone());
        tokio::spawn(async move {
            let mut seen = EntryId::ZERO;
            while !done.load(Ordering::Acquire) {
                let now = t.watermark().await?.unwrap_or_default();
                assert!(now >= seen, "it moved back from {seen} to {now}");
                seen = now;
                tokio::task::yield_now().await;
            }
            Ok::<_, crate::Error>(())
        })
    };
    let mut tasks = JoinSet::new();
    for n in 0..16 {
        let t = t.clone();
        tasks.spawn(async move {
            for step in 0..10 {
                let mine = 1 + step * 16 + n;
                let advanced = t.advance_to(Epoch(0), mine).await?;
                assert!(advanced.watermark >= id(mine), "what is stored covers {mine}: {advanced:?}");
            }
            Ok::<_, crate::Error>(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    done.store(true, Ordering::Release);
    observer.await.expect("the observer does not panic")?;
    assert_eq!(t.watermark().await?, Some(id(160)));
    Ok(())
}

/// G4: a stalled owner that advances while another takes over is fenced from the takeover on.
pub(super) async fn g4_beside_a_takeover(t: Checkpoints) -> Verdict {
    let mut epoch = t.own("a", LONG).await?.epoch;
    for round in 1..=10 {
        let (advanced, next) = tokio::join!(t.advance_to(epoch, round), t.own("a", LONG));
        let next = next?;
        let stored = t.watermark().await?;
        match advanced {
            // It came before the takeover: then the new owner has seen it.
            Ok(_) => assert_eq!(next.position.map(|p| p.watermark), Some(id(round))),
            Err(fenced) if fenced.kind() == ErrorKind::Fenced => assert_ne!(stored, Some(id(round))),
            Err(error) => return Err(error.into()),
        }
        epoch = next.epoch;
        t.advance_to(epoch, round).await?;
    }
    Ok(())
}
