//! A transaction of another epoch does not take place.

use crate::{
    Epoch, ErrorKind, Position,
    backend::{Committed, ResetCheckpoint, Settlement},
    conformance::{
        effects::Transactions,
        support::{LONG, Verdict, fails, id, ids},
    },
};

/// G4: under a lower epoch than the issued one there is no effect, and the checkpoint stays.
pub(super) async fn g4_by_another_owner(t: Transactions) -> Verdict {
    let epoch = t.checkpoints.own("a", LONG).await?.epoch;
    t.done(&t.up_to(epoch, &ids([1]))).await?;
    t.checkpoints.own("a", LONG).await?;
    is_fenced(&t, epoch).await?;
    is_fenced(&t, Epoch(0)).await?;
    assert_eq!((t.rows().await?, t.checkpoints.watermark().await?), (ids([1]), Some(id(1))));
    Ok(())
}

/// G4: an owner that was overtaken while its transaction was open is fenced when it commits.
pub(super) async fn g4_while_it_was_open(t: Transactions) -> Verdict {
    let epoch = t.checkpoints.own("a", LONG).await?.epoch;
    for request in both(&t, epoch) {
        let mut tx = t.begin().await?;
        t.settled_in(&mut tx, &request).await?;
        t.checkpoints.own("a", LONG).await?;
        t.write(&mut tx, &request.ids).await?;
        fails(t.commit(tx, &request).await, ErrorKind::Fenced);
        assert_eq!((t.rows().await?, t.checkpoints.watermark().await?), (vec![], None));
    }
    Ok(())
}

/// G4: whoever takes the subscription beside a commit fences it, or begins behind it.
pub(super) async fn g4_beside_a_takeover(t: Transactions) -> Verdict {
    let mut epoch = t.checkpoints.own("a", LONG).await?.epoch;
    for ms in 1..=20 {
        let settlement = t.up_to(epoch, &ids([ms]));
        let (committed, grant) = tokio::join!(t.run(&settlement), t.checkpoints.own("a", LONG));
        let grant = grant?;
        let at = grant.position.map(|position| position.watermark).unwrap_or_default();
        match committed {
            Ok(committed) => assert_eq!((committed, at), (Committed::done(Some(id(ms))), id(ms))),
            Err(crate::conformance::support::Stop::Failed(error)) => {
                assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
                assert!(at < id(ms), "it begins at {at}, and the transaction was fenced");
                t.done(&t.up_to(grant.epoch, &ids([ms]))).await?;
            }
            Err(stop) => return Err(stop),
        }
        epoch = grant.epoch;
    }
    assert_eq!(t.rows().await?, ids(1..=20), "each once");
    Ok(())
}

/// G4: also by a reset, which forgets what was settled: under its epoch the same entries are settled anew.
pub(super) async fn g4_by_a_reset(t: Transactions) -> Verdict {
    t.done(&t.up_to(Epoch(0), &ids([1, 2]))).await?;
    let to = ResetCheckpoint::new(t.checkpoints.subscription.clone(), Position::at(id(1)));
    let epoch = t.checkpoints.backend.reset(&to).await?;
    is_fenced(&t, Epoch(0)).await?;
    assert_eq!(t.checkpoints.watermark().await?, Some(id(1)));
    t.refused(&t.up_to(epoch, &ids([1, 2])), &ids([1])).await?;
    t.done(&t.up_to(epoch, &ids([2]))).await?;
    assert_eq!(t.rows().await?, ids([1, 2, 2]));
    Ok(())
}

/// A reset forgets what was settled each by itself.
pub(super) async fn a_reset_clears(t: Transactions) -> Verdict {
    t.done(&t.each(Epoch(0), &ids([2, 4, 6]))).await?;
    let to = ResetCheckpoint::new(t.checkpoints.subscription.clone(), Position::at(id(3)));
    let epoch = t.checkpoints.backend.reset(&to).await?;
    t.refused(&t.each(epoch, &ids([2, 4])), &ids([2])).await?;
    t.done(&t.each(epoch, &ids([4, 6]))).await?;
    t.refused(&t.each(epoch, &ids([4, 5, 6])), &ids([4, 6])).await?;
    assert_eq!(t.rows().await?, ids([2, 4, 4, 6, 6]));
    Ok(())
}

/// An epoch that was never issued settles nothing.
pub(super) async fn a_made_up_epoch_is_invalid(t: Transactions) -> Verdict {
    for request in both(&t, Epoch(1)) {
        fails(t.once(&request).await, ErrorKind::Invalid);
    }
    let epoch = t.checkpoints.own("a", LONG).await?.epoch;
    for request in both(&t, epoch.next()) {
        fails(t.once(&request).await, ErrorKind::Invalid);
    }
    assert_eq!((t.rows().await?, t.checkpoints.watermark().await?), (vec![], None));
    Ok(())
}

/// G4: also where the entries are settled already: whoever was overtaken shall stop.
pub(super) async fn g4_fenced_where_all_is_settled(t: Transactions) -> Verdict {
    t.done(&t.up_to(Epoch(0), &ids(1..=9))).await?;
    t.checkpoints.own("a", LONG).await?;
    is_fenced(&t, Epoch(0)).await
}

async fn is_fenced(t: &Transactions, epoch: Epoch) -> Verdict {
    let rows = t.rows().await?;
    for request in both(t, epoch) {
        fails(t.once(&request).await, ErrorKind::Fenced);
    }
    assert_eq!(t.rows().await?, rows, "no effects");
    Ok(())
}

/// The epoch is checked before the kind of the settlement.
fn both(t: &Transactions, epoch: Epoch) -> [Settlement; 2] {
    [t.up_to(epoch, &ids([7, 8])), t.each(epoch, &ids([7, 8]))]
}
