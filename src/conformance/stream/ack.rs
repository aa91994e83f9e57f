//! Acks, and the position that they tell.

use std::time::Duration;

use crate::{
    EntryId,
    backend::{Ack, Trim, TrimLimit},
    conformance::support::{Streams, Verdict, id, ids},
};

/// `1-0` to `n-0`, all delivered to `a`.
async fn delivered(t: &Streams, n: u64) -> crate::Result<()> {
    t.append_at(1..=n).await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.read_group("a", 1000).await?, ids(1..=n));
    Ok(())
}

/// Below the first id of `ms`, above all entries before.
fn before(ms: u64) -> EntryId {
    id(ms).prev().expect("the cases start at 1-0")
}

/// Each ack counts once.
pub(super) async fn is_idempotent(t: Streams) -> Verdict {
    delivered(&t, 3).await?;
    assert_eq!(t.ack(&ids([1, 2])).await?.acked, 2);
    assert_eq!(t.ack(&ids([1, 2])).await?.acked, 0);
    assert_eq!(t.ack(&ids([1, 2, 3])).await?.acked, 1);
    Ok(())
}

/// An id that is named twice counts once.
pub(super) async fn the_same_id_twice(t: Streams) -> Verdict {
    delivered(&t, 2).await?;
    assert_eq!(t.ack(&ids([1, 1, 1])).await?.acked, 1);
    assert_eq!(t.pending("a").await?, ids([2]));
    Ok(())
}

/// In order, the watermark follows each ack.
pub(super) async fn in_order(t: Streams) -> Verdict {
    delivered(&t, 4).await?;
    for ms in 1..=3 {
        assert_eq!(t.position(&ids([ms])).await?.watermark, before(ms + 1));
    }
    assert_eq!(t.position(&ids([4])).await?.watermark, id(4), "nothing is pending");
    Ok(())
}

/// G2: out of order, the watermark waits for the first entry, and then covers them all.
pub(super) async fn g2_out_of_order(t: Streams) -> Verdict {
    delivered(&t, 4).await?;
    t.append_at([9]).await?;
    t.read_group("a", 1).await?;
    for ms in [4, 3, 2] {
        assert_eq!(t.position(&ids([ms])).await?.watermark, before(1), "1-0 is not acked");
    }
    assert_eq!(t.position(&ids([1])).await?.watermark, before(9), "all up to the next pending one");
    Ok(())
}

/// G2: with holes, the watermark stands before the first, and what is told to be settled ahead leaves each out.
pub(super) async fn g2_with_holes(t: Streams) -> Verdict {
    delivered(&t, 6).await?;
    t.ack(&ids([2, 4])).await?;
    let position = t.position(&ids([6])).await?;
    assert_eq!(position.watermark, before(1));
    for hole in ids([1, 3, 5]) {
        assert!(!position.settles(hole), "{hole} is not settled: {position:?}");
    }
    let position = t.position(&ids([1])).await?;
    assert_eq!(position.watermark, before(3));
    assert!(!position.settles(id(3)) && !position.settles(id(5)), "{position:?}");
    assert!(!position.settles(id(7)), "was never delivered: {position:?}");
    Ok(())
}

/// With very many holes, none counts as settled.
pub(super) async fn with_many_holes(t: Streams) -> Verdict {
    delivered(&t, 600).await?;
    let even: Vec<_> = ids((1..=600).filter(|ms| ms % 2 == 0));
    let position = t.position(&even).await?;
    assert_eq!(position.watermark, before(1));
    for odd in (1..=600).filter(|ms| ms % 2 == 1) {
        assert!(!position.settles(id(odd)), "{odd}-0 is not settled");
    }
    Ok(())
}

/// Without ids, an ack tells the position and changes nothing.
pub(super) async fn an_empty_one_tells_the_position(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(id(1)).await?;
    assert_eq!(t.position(&[]).await?.watermark, id(1), "nothing was delivered");
    t.read_group("a", 2).await?;
    assert_eq!(t.position(&[]).await?.watermark, before(2), "two are pending");
    t.ack(&ids([2, 3])).await?;
    assert_eq!(t.position(&[]).await?.watermark, id(3), "all delivered ones are acked");
    assert_eq!(t.group_state().await?.pending, 0);
    Ok(())
}

/// Without the group or the stream nothing is acked, no position is known, and nothing is created.
pub(super) async fn a_missing_group(t: Streams) -> Verdict {
    let acked = t.ack(&ids([1])).await?;
    assert_eq!((acked.acked, acked.position), (0, None), "no stream");
    assert!(t.state().await.is_err(), "it was created");
    t.append_at([1]).await?;
    let acked = t.ack(&ids([1])).await?;
    assert_eq!((acked.acked, acked.position), (0, None), "no group");
    assert_eq!(t.state().await?.group, None, "it was created");
    Ok(())
}

/// An ack of what was not delivered acks nothing, and never settles what is to come.
pub(super) async fn of_what_was_not_delivered(t: Streams) -> Verdict {
    t.append_at(1..=5).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 2).await?;
    let acked = t.ack(&ids([1, 2, 4, 99])).await?;
    assert_eq!(acked.acked, 2);
    assert_eq!(acked.position.map(|p| p.watermark), Some(id(2)), "no further than delivered");
    let acked = t.ack(&ids([99])).await?;
    assert_eq!((acked.acked, acked.position.map(|p| p.watermark)), (0, Some(id(2))));
    assert_eq!(t.read_group("a", 10).await?, ids(3..=5), "it is still delivered");
    Ok(())
}

/// G4: an ack by a consumer that lost the entry is harmless: the entry was handled, whoever holds it.
pub(super) async fn g4_late_by_another(t: Streams) -> Verdict {
    delivered(&t, 2).await?;
    assert_eq!(t.claim("b", 10, Duration::ZERO).await?.len(), 2);
    assert_eq!(t.ack(&ids([1])).await?.acked, 1, "by whomever");
    assert_eq!(t.pending("b").await?, ids([2]));
    assert_eq!(t.ack(&ids([1])).await?.acked, 0, "then by the other");
    Ok(())
}

/// Where the group was created anew before what is acked, the position stays where the group stands.
pub(super) async fn of_a_group_created_anew_before(t: Streams) -> Verdict {
    delivered(&t, 5).await?;
    t.remove_group().await?;
    t.ensure_at(id(2)).await?;
    let acked = t.ack(&ids([4, 5])).await?;
    assert_eq!((acked.acked, acked.position.map(|p| p.watermark)), (0, Some(id(2))));
    assert_eq!(t.read_group("a", 10).await?, ids(3..=5));
    Ok(())
}

/// Where the group was created anew further on, a late ack does not settle what lies between.
pub(super) async fn of_a_group_created_anew_behind(t: Streams) -> Verdict {
    t.append_at(1..=9).await?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 3).await?;
    t.remove_group().await?;
    t.ensure_at(id(9)).await?;
    let acked = t.ack(&ids([1, 3])).await?;
    assert_eq!((acked.acked, acked.position.map(|p| p.watermark)), (0, Some(id(3))));
    Ok(())
}

/// An entry that left the stream while pending holds the watermark until it is acked.
pub(super) async fn a_deleted_entry_holds_the_watermark(t: Streams) -> Verdict {
    delivered(&t, 3).await?;
    t.remove(&ids([1])).await?;
    assert_eq!(t.position(&ids([2, 3])).await?.watermark, before(1));
    let acked = t.ack(&ids([1])).await?;
    assert_eq!(acked.acked, 1);
    assert_eq!(t.position(&[]).await?.watermark, id(3));
    Ok(())
}

/// Where nothing is pending, the ordinal is known if it was asked for, also after trimming.
pub(super) async fn knows_the_ordinal(t: Streams) -> Verdict {
    t.needs_counts()?;
    delivered(&t, 5).await?;
    t.append_at([6, 7]).await?;
    let ack = |range| Ack::new(t.subscription.clone(), ids(range)).count(true);
    let position = t.backend.ack(&ack(1..=5)).await?.position.unwrap_or_default();
    assert_eq!((position.watermark, position.ordinal), (id(5), Some(5)));

    t.backend.trim(&Trim::new(t.subscription.stream.clone(), TrimLimit::Len(2))).await?;
    t.read_group("a", 10).await?;
    let position = t.backend.ack(&ack(6..=7)).await?.position.unwrap_or_default();
    assert_eq!((position.watermark, position.ordinal), (id(7), Some(7)), "trimmed");
    Ok(())
}

/// Where something is pending, the ordinal is right, or unknown.
pub(super) async fn the_ordinal_is_right_or_unknown(t: Streams) -> Verdict {
    t.needs_counts()?;
    delivered(&t, 5).await?;
    for ms in 1..=4 {
        let ack = Ack::new(t.subscription.clone(), ids([ms])).count(true);
        let ordinal = t.backend.ack(&ack).await?.position.unwrap_or_default().ordinal;
        assert!(ordinal.is_none_or(|ordinal| ordinal == ms), "{ordinal:?}, not {ms}");
    }
    Ok(())
}

/// The position names the stream's life, where the backend does.
pub(super) async fn names_the_life_of_the_stream(t: Streams) -> Verdict {
    t.needs_incarnations()?;
    delivered(&t, 2).await?;
    let expected = t.state().await?.incarnation;
    assert_eq!(t.position(&ids([1])).await?.incarnation, expected, "pending");
    assert_eq!(t.position(&ids([2])).await?.incarnation, expected, "nothing pending");
    Ok(())
}

/// A thousand acks in one request are as good as any.
pub(super) async fn many_at_once(t: Streams) -> Verdict {
    delivered(&t, 1000).await?;
    let acked = t.ack(&ids(1..=1000)).await?;
    assert_eq!((acked.acked, acked.position.map(|p| p.watermark)), (1000, Some(id(1000))));
    Ok(())
}

/// G3: under acks that run side by side, no answer is further than what is acked, and the last one knows all.
pub(super) async fn side_by_side(t: Streams) -> Verdict {
    delivered(&t, 40).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..4 {
        let t = t.clone();
        // The first entry is acked last of all, by nobody here.
        let mine: Vec<_> = (2..=40).filter(|ms| ms % 4 == n).collect();
        tasks.spawn(async move {
            for ms in mine {
                let position = t.position(&ids([ms])).await?;
                assert_eq!(position.watermark, before(1));
                assert!(!position.settles(id(1)));
            }
            Ok::<_, crate::Error>(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    t.ack(&ids([1])).await?;
    assert_eq!(t.position(&[]).await?.watermark, id(40));
    Ok(())
}
