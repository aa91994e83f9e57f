//! Resets: the only way back.

use crate::{
    Epoch, ErrorKind, Position, Result,
    backend::ResetCheckpoint,
    conformance::support::{Checkpoints, LONG, SHORT, Verdict, eventually, fails, id, ids},
};

fn to(t: &Checkpoints, watermark: u64) -> ResetCheckpoint {
    ResetCheckpoint::new(t.subscription.clone(), Position::at(id(watermark)))
}

async fn reset(t: &Checkpoints, watermark: u64) -> Result<Epoch> {
    t.backend.reset(&to(t, watermark)).await
}

/// G3: a reset moves back, and everybody before it is fenced.
pub(super) async fn g3_moves_back(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 9).await?;
    let epoch = reset(&t, 3).await?;
    assert!(epoch > Epoch(0));
    assert_eq!(t.watermark().await?, Some(id(3)));
    fails(t.advance_to(Epoch(0), 10).await, ErrorKind::Fenced);
    assert_eq!(t.watermark().await?, Some(id(3)));
    assert!(t.advance_to(epoch, 4).await?.moved);
    Ok(())
}

/// A reset leaves nothing of the position before: neither what was settled ahead, nor ordinal, nor the stream's life.
pub(super) async fn replaces_the_position(t: Checkpoints) -> Verdict {
    let rich = Position::at(id(5))
        .with_ahead(crate::SettledAhead::new(id(9), ids([6])))
        .with_ordinal(Some(5))
        .with_incarnation(Some(crate::Incarnation::new("old")?));
    t.advance(Epoch(0), &rich).await?;
    reset(&t, 5).await?;
    assert_eq!(t.position().await?, Some(Position::at(id(5))));
    let epoch = t.backend.reset(&ResetCheckpoint::new(t.subscription.clone(), rich.clone())).await?;
    let Some(stored) = t.backend.load(&t.subscription).await? else { panic!("it is stored") };
    assert_eq!((stored.position, stored.epoch), (rich, epoch));
    Ok(())
}

/// A reset also moves forward, and creates the record where there is none.
pub(super) async fn creates_the_record(t: Checkpoints) -> Verdict {
    let first = reset(&t, 5).await?;
    assert!(first > Epoch(0));
    assert_eq!(t.watermark().await?, Some(id(5)));
    let second = reset(&t, 9).await?;
    assert!(second > first, "each issues an epoch");
    assert_eq!(t.watermark().await?, Some(id(9)));
    Ok(())
}

/// The next owner gets a higher epoch than the reset, and its position.
pub(super) async fn the_next_owner(t: Checkpoints) -> Verdict {
    let epoch = reset(&t, 5).await?;
    let ownership = t.own("a", LONG).await?;
    assert!(ownership.epoch > epoch);
    assert_eq!(ownership.position, Some(Position::at(id(5))));
    Ok(())
}

/// While a lease stands, a reset is refused and changes nothing.
pub(super) async fn refused_while_owned(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    t.advance_to(epoch, 9).await?;
    fails(reset(&t, 3).await, ErrorKind::Busy);
    fails(t.backend.reset(&to(&t, 3).expect(epoch)).await, ErrorKind::Busy);
    assert_eq!(t.watermark().await?, Some(id(9)));
    assert!(t.advance_to(epoch, 10).await?.moved, "the owner is not disturbed");
    Ok(())
}

/// With force it is not refused, and the owner is fenced.
pub(super) async fn forced_while_owned(t: Checkpoints) -> Verdict {
    let owned = t.own("a", LONG).await?.epoch;
    t.advance_to(owned, 9).await?;
    let epoch = t.backend.reset(&to(&t, 3).force(true)).await?;
    assert!(epoch > owned);
    fails(t.advance_to(owned, 10).await, ErrorKind::Fenced);
    fails(t.renew(owned, LONG).await, ErrorKind::Fenced);
    fails(t.release(owned).await, ErrorKind::Fenced);
    assert_eq!(t.watermark().await?, Some(id(3)));
    Ok(())
}

/// A forced reset ends the lease: another may own the subscription at once.
pub(super) async fn ends_the_lease(t: Checkpoints) -> Verdict {
    t.own("a", LONG).await?;
    let epoch = t.backend.reset(&to(&t, 3).force(true)).await?;
    assert!(t.own("b", LONG).await?.epoch > epoch);
    Ok(())
}

/// When the lease was released, or has run out, a reset is not refused.
pub(super) async fn after_the_lease(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    t.release(epoch).await?;
    reset(&t, 3).await?;
    t.own("a", SHORT).await?;
    eventually("a lease runs out", async || match reset(&t, 4).await {
        Ok(_) => Ok(true),
        Err(busy) if busy.kind() == ErrorKind::Busy => Ok(false),
        Err(error) => Err(error),
    })
    .await?;
    assert_eq!(t.watermark().await?, Some(id(4)));
    Ok(())
}

/// A reset that expects another epoch than the stored one is refused and changes nothing.
pub(super) async fn of_another_epoch(t: Checkpoints) -> Verdict {
    fails(t.backend.reset(&to(&t, 3).expect(Epoch(7))).await, ErrorKind::Fenced);
    assert_eq!(t.watermark().await?, None);
    let first = reset(&t, 5).await?;
    let second = t.backend.reset(&to(&t, 6).expect(first)).await?;
    fails(t.backend.reset(&to(&t, 7).expect(first)).await, ErrorKind::Fenced);
    fails(t.backend.reset(&to(&t, 7).expect(second.next())).await, ErrorKind::Fenced);
    fails(t.backend.reset(&to(&t, 7).expect(first).force(true)).await, ErrorKind::Fenced);
    assert_eq!(t.watermark().await?, Some(id(6)));
    assert!(t.advance_to(second, 8).await?.moved);
    Ok(())
}

/// T-35: of an advance and a reset that run side by side, either the advance came first or it is fenced.
pub(super) async fn t35_beside_an_advance(t: Checkpoints) -> Verdict {
    let mut epoch = reset(&t, 1).await?;
    for round in 1..=10 {
        let (advanced, issued) = tokio::join!(t.advance_to(epoch, 100 + round), reset(&t, round));
        epoch = issued?;
        if let Err(error) = advanced {
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
        }
        assert_eq!(t.watermark().await?, Some(id(round)), "the reset was the last to take effect");
    }
    Ok(())
}
