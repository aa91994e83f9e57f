//! Ownership: epochs grow, leases run out, nobody ends another's.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    Epoch, ErrorKind, Position,
    backend::Acquired,
    conformance::support::{Checkpoints, LONG, SHORT, Verdict, consumer, eventually, fails, id},
};

/// The first owner gets an epoch above 0, and no position.
pub(super) async fn the_first_owner(t: Checkpoints) -> Verdict {
    let ownership = t.own("a", LONG).await?;
    assert!(ownership.epoch > Epoch(0));
    assert_eq!(ownership.position, None);
    assert_eq!(t.watermark().await?, None, "owning is no progress");
    Ok(())
}

/// Each owner gets a higher epoch than all before.
pub(super) async fn epochs_grow(t: Checkpoints) -> Verdict {
    let mut last = Epoch(0);
    for who in ["a", "b", "a", "c"] {
        let epoch = t.own(who, LONG).await?.epoch;
        assert!(epoch > last, "{epoch} after {last}");
        t.release(epoch).await?;
        last = epoch;
    }
    Ok(())
}

/// Epochs grow from where an owner of none, epoch 0, has advanced to.
pub(super) async fn an_owner_after_none(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    let ownership = t.own("a", LONG).await?;
    assert!(ownership.epoch > Epoch(0));
    assert_eq!(ownership.position, Some(Position::at(id(5))));
    fails(t.advance_to(Epoch(0), 9).await, ErrorKind::Fenced);
    Ok(())
}

/// An owner gets the position that is stored.
pub(super) async fn an_owner_gets_the_position(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    t.advance_to(first, 5).await?;
    t.release(first).await?;
    assert_eq!(t.own("b", LONG).await?.position, Some(Position::at(id(5))));
    Ok(())
}

/// While a lease stands, others are told whose and how long; the owner is not disturbed.
pub(super) async fn held(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    for _ in 0..2 {
        match t.acquire("b", LONG).await? {
            Acquired::Held { owner, remaining } => {
                assert_eq!(owner, Some(consumer("a")));
                assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
            }
            owned => panic!("the lease stands: {owned:?}"),
        }
    }
    assert!(t.advance_to(epoch, 5).await?.moved);
    t.renew(epoch, LONG).await?;
    Ok(())
}

/// Who owns a subscription may take it again, with a higher epoch.
pub(super) async fn an_owner_may_take_it_again(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    let second = t.own("a", LONG).await?.epoch;
    assert!(second > first);
    assert!(t.is_held("b").await?);
    Ok(())
}

/// When a lease has run out, another may take the subscription.
pub(super) async fn a_takeover(t: Checkpoints) -> Verdict {
    let first = t.own("a", SHORT).await?.epoch;
    eventually("a lease runs out", async || Ok(!t.is_held("b").await?)).await?;
    fails(t.advance_to(first, 5).await, ErrorKind::Fenced);
    fails(t.renew(first, LONG).await, ErrorKind::Fenced);
    assert!(t.is_held("a").await?, "the first is now the second");
    Ok(())
}

/// An owner whose lease has run out, and whom nobody has followed, may still advance, and renew.
pub(super) async fn nobody_followed(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", SHORT).await?.epoch;
    t.clock.sleep(SHORT * 2).await;
    assert!(t.advance_to(epoch, 5).await?.moved);
    t.renew(epoch, LONG).await?;
    assert!(t.is_held("b").await?);
    Ok(())
}

/// Renewing lengthens the lease.
pub(super) async fn renewing_lengthens(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", SHORT).await?.epoch;
    t.renew(epoch, LONG).await?;
    t.clock.sleep(SHORT * 2).await;
    assert!(t.is_held("b").await?);
    Ok(())
}

/// A renewal may also shorten: the lease lasts from now.
pub(super) async fn renewing_counts_from_now(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    t.renew(epoch, SHORT).await?;
    eventually("a shortened lease runs out", async || Ok(!t.is_held("b").await?)).await.map_err(Into::into)
}

/// Without a record, or under another epoch than the stored one, there is nothing to renew.
pub(super) async fn renewing_is_fenced(t: Checkpoints) -> Verdict {
    fails(t.renew(Epoch(1), LONG).await, ErrorKind::Fenced);
    let epoch = t.own("a", LONG).await?.epoch;
    fails(t.renew(epoch.next(), LONG).await, ErrorKind::Fenced);
    let second = t.own("a", LONG).await?.epoch;
    fails(t.renew(epoch, LONG).await, ErrorKind::Fenced);
    t.renew(second, LONG).await?;
    Ok(())
}

/// Who releases makes way at once, and its epoch stays used.
pub(super) async fn releasing_makes_way(t: Checkpoints) -> Verdict {
    let first = t.own("a", LONG).await?.epoch;
    t.release(first).await?;
    t.release(first).await?;
    assert!(t.own("b", LONG).await?.epoch > first, "repeating is harmless, and the epoch is not given again");
    Ok(())
}

/// Without a record, or under another epoch than the stored one, there is nothing to release.
pub(super) async fn releasing_is_fenced(t: Checkpoints) -> Verdict {
    fails(t.release(Epoch(1)).await, ErrorKind::Fenced);
    let epoch = t.own("a", LONG).await?.epoch;
    fails(t.release(epoch.next()).await, ErrorKind::Fenced);
    assert!(t.is_held("b").await?);
    Ok(())
}

/// The release of an owner that lost the subscription does not free the lease of the one that took it.
pub(super) async fn the_loser_frees_nothing(t: Checkpoints) -> Verdict {
    let loser = t.own("a", SHORT).await?.epoch;
    eventually("a lease runs out", async || Ok(!t.is_held("thief").await?)).await?;
    fails(t.release(loser).await, ErrorKind::Fenced);
    assert!(t.is_held("c").await?, "the thief's lease stands");
    Ok(())
}

/// Releasing moves nothing.
pub(super) async fn releasing_keeps_the_position(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    t.advance_to(epoch, 5).await?;
    t.release(epoch).await?;
    assert_eq!(t.watermark().await?, Some(id(5)));
    assert!(t.advance_to(epoch, 6).await?.moved, "nobody has followed");
    Ok(())
}

/// T-39: of many that start at once where there is no record, one owns the subscription.
pub(super) async fn t39_a_cold_start(t: Checkpoints) -> Verdict {
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let t = t.clone();
        tasks.spawn(async move {
            let acquired = t.acquire(&format!("c{n}"), LONG).await?;
            if let Acquired::Owned(ownership) = &acquired {
                t.advance_to(ownership.epoch, 100 + n).await?;
            }
            Ok::<_, crate::Error>(acquired)
        });
    }
    let mut owners = Vec::new();
    while let Some(acquired) = tasks.join_next().await {
        if let Acquired::Owned(ownership) = acquired.expect("the task does not panic")? {
            owners.push(ownership);
        }
    }
    assert_eq!(owners.len(), 1, "{owners:?}");
    t.renew(owners[0].epoch, Duration::from_secs(60)).await?;
    Ok(())
}

/// G4: of many that take over at once when a lease has run out, one owns the subscription.
pub(super) async fn g4_a_contested_takeover(t: Checkpoints) -> Verdict {
    let first = t.own("a", SHORT).await?.epoch;
    t.clock.sleep(SHORT * 2).await;
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let t = t.clone();
        tasks.spawn(async move { t.acquire(&format!("c{n}"), LONG).await });
    }
    let mut owned = 0;
    while let Some(acquired) = tasks.join_next().await {
        owned += u32::from(matches!(acquired.expect("the task does not panic")?, Acquired::Owned(_)));
    }
    assert_eq!(owned, 1);
    fails(t.advance_to(first, 5).await, ErrorKind::Fenced);
    Ok(())
}
