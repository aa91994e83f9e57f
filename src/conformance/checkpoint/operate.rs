//! What an operator does: pauses, and compare-and-set.

use tokio::task::JoinSet;

use crate::{
    Checkpoint, EntryId, Epoch, ErrorKind, Incarnation, Position, Result, SettledAhead,
    backend::{NoteAttempts, ResetCheckpoint},
    conformance::support::{Checkpoints, LONG, Verdict, consumer, fails, id, ids},
};

fn to(t: &Checkpoints, watermark: u64) -> ResetCheckpoint {
    ResetCheckpoint::new(t.subscription.clone(), Position::at(id(watermark)))
}

fn pause(t: &Checkpoints, paused: bool) -> ResetCheckpoint {
    ResetCheckpoint::pause(t.subscription.clone(), paused)
}

async fn stored(t: &Checkpoints) -> Result<Checkpoint> {
    let Some(checkpoint) = t.backend.load(&t.subscription).await? else { panic!("it is stored") };
    Ok(checkpoint)
}

async fn is_paused(t: &Checkpoints) -> Result<bool> {
    Ok(stored(t).await?.paused)
}

async fn reason(t: &Checkpoints) -> Result<Option<String>> {
    Ok(stored(t).await?.reason)
}

/// Without a position, all of the one that is stored stays.
pub(super) async fn without_a_position_it_stays(t: Checkpoints) -> Verdict {
    let rich = Position::at(id(5))
        .with_ahead(SettledAhead::new(id(9), ids([6])))
        .with_ordinal(Some(5))
        .with_incarnation(Some(Incarnation::new("life")?));
    t.advance(Epoch(0), &rich).await?;
    let mut before = Epoch(0);
    for paused in [true, false] {
        let epoch = t.backend.reset(&pause(&t, paused)).await?;
        let checkpoint = stored(&t).await?;
        assert_eq!((checkpoint.position, checkpoint.epoch), (rich.clone(), epoch));
        assert!(epoch > before, "each issues an epoch");
        before = epoch;
    }
    Ok(())
}

/// Where there is no checkpoint, one without a position is made at the beginning.
pub(super) async fn without_a_position_at_the_beginning(t: Checkpoints) -> Verdict {
    let epoch = t.backend.reset(&pause(&t, true)).await?;
    let checkpoint = stored(&t).await?;
    assert_eq!((checkpoint.position, checkpoint.paused), (Position::default(), true));
    assert!(epoch > Epoch(0) && checkpoint.epoch == epoch, "{epoch}");
    t.advance_to(epoch, 3).await?;
    assert_eq!(t.watermark().await?, Some(id(3)));
    Ok(())
}

/// G4: it fences like any reset.
pub(super) async fn g4_without_a_position_too(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    let epoch = t.backend.reset(&pause(&t, true)).await?;
    fails(t.advance_to(Epoch(0), 9).await, ErrorKind::Fenced);
    assert_eq!(t.watermark().await?, Some(id(5)));
    let owned = t.own("a", LONG).await?;
    assert!(owned.epoch > epoch);
    assert_eq!(owned.position, Some(Position::at(id(5))));
    Ok(())
}

/// A pause is in the record, from whatever it was before.
pub(super) async fn pauses(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    assert!(!is_paused(&t).await?, "nobody has asked for it");
    for _ in 0..2 {
        t.backend.reset(&pause(&t, true)).await?;
        assert!(is_paused(&t).await?);
    }
    Ok(())
}

/// It ends when it is ended.
pub(super) async fn ends_a_pause(t: Checkpoints) -> Verdict {
    t.backend.reset(&pause(&t, true)).await?;
    for _ in 0..2 {
        t.backend.reset(&pause(&t, false)).await?;
        assert!(!is_paused(&t).await?);
    }
    Ok(())
}

/// A pause, and why, survive all that consumers do.
pub(super) async fn a_pause_survives_what_consumers_do(t: Checkpoints) -> Verdict {
    let epoch = t.backend.reset(&pause(&t, true).because("repair")?).await?;
    let stands = async |after: &str| {
        let checkpoint = stored(&t).await?;
        assert_eq!((checkpoint.paused, checkpoint.reason.as_deref()), (true, Some("repair")), "{after}");
        Ok::<_, crate::Error>(())
    };
    t.advance_to(epoch, 5).await?;
    stands("an advance").await?;
    let owned = t.own("a", LONG).await?.epoch;
    stands("a takeover").await?;
    t.renew(owned, LONG).await?;
    stands("a renewal").await?;
    t.advance_to(owned, 6).await?;
    stands("an owner's advance").await?;
    let note = NoteAttempts::new(t.subscription.clone(), owned, vec![crate::Attempts::new(id(7))], vec![]);
    t.backend.note_attempts(&note).await?;
    stands("a note").await?;
    t.release(owned).await?;
    stands("a release").await?;
    assert_eq!(t.watermark().await?, Some(id(6)));
    Ok(())
}

/// A reset that does not speak of it leaves a pause as it is.
pub(super) async fn a_pause_survives_a_reset_to_a_position(t: Checkpoints) -> Verdict {
    t.backend.reset(&pause(&t, true)).await?;
    t.backend.reset(&to(&t, 5)).await?;
    assert!(is_paused(&t).await?);
    t.backend.reset(&pause(&t, false)).await?;
    t.backend.reset(&to(&t, 3)).await?;
    assert!(!is_paused(&t).await?);
    Ok(())
}

/// One request may do both.
pub(super) async fn pauses_where_it_sets(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 9).await?;
    let mut both = to(&t, 3).because("both")?;
    both.paused = Some(true);
    t.backend.reset(&both).await?;
    let checkpoint = stored(&t).await?;
    assert_eq!((checkpoint.position, checkpoint.paused), (Position::at(id(3)), true));
    assert_eq!(checkpoint.reason.as_deref(), Some("both"));
    Ok(())
}

/// The list of a stream tells it as `load` does.
pub(super) async fn the_list_tells_a_pause(t: Checkpoints) -> Verdict {
    t.backend.reset(&pause(&t, true).because("repair")?).await?;
    let list = t.backend.list(&t.subscription.stream).await?;
    assert_eq!(list, [(t.subscription.group.clone(), stored(&t).await?)]);
    assert!(list[0].1.paused);
    Ok(())
}

/// The reason is in the record.
pub(super) async fn a_reason_is_kept(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    assert_eq!(reason(&t).await?, None);
    let epoch = t.backend.reset(&to(&t, 3).because("wrong currency")?).await?;
    t.advance_to(epoch, 4).await?;
    t.own("a", LONG).await?;
    assert_eq!(reason(&t).await?.as_deref(), Some("wrong currency"));
    Ok(())
}

/// The next reset brings its own reason, or none.
pub(super) async fn a_reason_goes_with_the_next_reset(t: Checkpoints) -> Verdict {
    t.backend.reset(&to(&t, 3).because("first")?).await?;
    t.backend.reset(&pause(&t, true).because("second")?).await?;
    assert_eq!(reason(&t).await?.as_deref(), Some("second"));
    t.backend.reset(&to(&t, 3)).await?;
    assert_eq!(reason(&t).await?, None);
    t.backend.reset(&to(&t, 3).because("third")?).await?;
    t.backend.reset(&pause(&t, false)).await?;
    assert_eq!(reason(&t).await?, None);
    Ok(())
}

/// Any text up to the limit comes back.
pub(super) async fn a_reason_of_any_text(t: Checkpoints) -> Verdict {
    let longest = ["x".repeat(128), "ä".repeat(64), "\u{1f4a3}".repeat(32)];
    let odd = [" two  spaces ", "'\"\\;--%_", "{\"a\":[1]}", "0", "false", "\u{a0}"].map(str::to_owned);
    for text in longest.into_iter().chain(odd) {
        t.backend.reset(&pause(&t, true).because(text.clone())?).await?;
        assert_eq!(reason(&t).await?, Some(text));
    }
    t.backend.reset(&pause(&t, true).because("")?).await?;
    assert_eq!(reason(&t).await?, None, "an empty one is none");
    Ok(())
}

/// G18: a reason that is too long or holds control characters is refused.
pub(super) async fn g18_a_reason_that_is_none(t: Checkpoints) -> Verdict {
    for text in ["x".repeat(129), "ä".repeat(65), "a\tb".to_owned(), "\n".to_owned(), "\0".to_owned()] {
        fails(pause(&t, true).because(text), ErrorKind::Invalid);
    }
    Ok(())
}

/// G4: while a lease stands, a pause is refused and changes nothing.
pub(super) async fn g4_refused_while_owned(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    fails(t.backend.reset(&pause(&t, true)).await, ErrorKind::Busy);
    assert_eq!(t.backend.load(&t.subscription).await?, None, "no record was made up");
    t.advance_to(epoch, 9).await?;
    fails(t.backend.reset(&pause(&t, true).because("refused")?).await, ErrorKind::Busy);
    fails(t.backend.reset(&pause(&t, true).expect_watermark(id(9))).await, ErrorKind::Busy);
    let checkpoint = stored(&t).await?;
    assert_eq!((checkpoint.paused, checkpoint.reason, checkpoint.epoch), (false, None, epoch));
    assert!(t.advance_to(epoch, 10).await?.moved, "the owner is not disturbed");
    Ok(())
}

/// G4: with force it is not refused, and the owner is fenced.
pub(super) async fn g4_forced_while_owned(t: Checkpoints) -> Verdict {
    let owned = t.own("a", LONG).await?.epoch;
    t.advance_to(owned, 9).await?;
    let epoch = t.backend.reset(&pause(&t, true).force(true)).await?;
    assert!(epoch > owned);
    fails(t.advance_to(owned, 10).await, ErrorKind::Fenced);
    fails(t.renew(owned, LONG).await, ErrorKind::Fenced);
    fails(t.release(owned).await, ErrorKind::Fenced);
    let checkpoint = stored(&t).await?;
    assert_eq!((checkpoint.paused, checkpoint.position.watermark), (true, id(9)));
    assert!(t.own("b", LONG).await?.epoch > epoch, "the lease has ended");
    Ok(())
}

/// G4: where another watermark is stored than the caller believes, nothing is changed.
pub(super) async fn g4_of_another_watermark(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    let before = stored(&t).await?;
    for wrong in [EntryId::ZERO, id(4), EntryId::new(5, 1), EntryId::MAX] {
        fails(t.backend.reset(&to(&t, 9).expect_watermark(wrong)).await, ErrorKind::Fenced);
        let wrong = pause(&t, true).because("refused")?.expect_watermark(wrong);
        fails(t.backend.reset(&wrong).await, ErrorKind::Fenced);
    }
    assert_eq!(stored(&t).await?, before);
    t.backend.reset(&to(&t, 9).expect_watermark(id(5))).await?;
    fails(t.backend.reset(&to(&t, 9).expect_watermark(id(5))).await, ErrorKind::Fenced);
    t.backend.reset(&pause(&t, true).expect_watermark(id(9))).await?;
    assert_eq!((t.watermark().await?, is_paused(&t).await?), (Some(id(9)), true));
    Ok(())
}

/// G4: force is about the lease alone.
pub(super) async fn g4_of_another_watermark_by_force(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    t.advance_to(epoch, 5).await?;
    fails(t.backend.reset(&to(&t, 9).expect_watermark(id(4)).force(true)).await, ErrorKind::Fenced);
    assert!(t.advance_to(epoch, 6).await?.moved, "the owner is not disturbed");
    t.backend.reset(&to(&t, 3).expect_watermark(id(6)).force(true)).await?;
    assert_eq!(t.watermark().await?, Some(id(3)));
    Ok(())
}

/// G4: both parts of the watermark count, with all their bits.
pub(super) async fn g4_watermarks_are_whole(t: Checkpoints) -> Verdict {
    let (near, top) = (EntryId::new(u64::MAX, u64::MAX - 1), EntryId::MAX);
    t.advance(Epoch(0), &Position::at(near)).await?;
    fails(t.backend.reset(&pause(&t, true).expect_watermark(top)).await, ErrorKind::Fenced);
    fails(t.backend.reset(&pause(&t, true).expect_watermark(id(u64::MAX - 1))).await, ErrorKind::Fenced);
    t.backend.reset(&pause(&t, true).expect_watermark(near)).await?;
    assert!(is_paused(&t).await?);
    Ok(())
}

/// G4: where there is no checkpoint, it stands at the beginning.
pub(super) async fn g4_the_beginning_is_expected_of_none(t: Checkpoints) -> Verdict {
    fails(t.backend.reset(&to(&t, 5).expect_watermark(id(1))).await, ErrorKind::Fenced);
    assert_eq!(t.backend.load(&t.subscription).await?, None, "no record was made up");
    t.backend.reset(&to(&t, 5).expect_watermark(EntryId::ZERO)).await?;
    assert_eq!(t.watermark().await?, Some(id(5)));
    let owned = t.of(crate::Subscription::new(t.subscription.stream.to_string(), "owned")?);
    let epoch = owned.own("a", LONG).await?.epoch;
    owned.release(epoch).await?;
    fails(owned.backend.reset(&pause(&owned, true).expect_watermark(id(1))).await, ErrorKind::Fenced);
    owned.backend.reset(&pause(&owned, true).expect_watermark(EntryId::ZERO)).await?;
    assert!(is_paused(&owned).await?);
    Ok(())
}

/// G4: where both epoch and watermark are expected, both must be right.
pub(super) async fn g4_of_both(t: Checkpoints) -> Verdict {
    let epoch = t.backend.reset(&to(&t, 5)).await?;
    let wrong = [(epoch, id(6)), (epoch.next(), id(5)), (Epoch(0), id(5))];
    for (epoch, watermark) in wrong {
        let reset = to(&t, 9).expect(epoch).expect_watermark(watermark);
        fails(t.backend.reset(&reset).await, ErrorKind::Fenced);
    }
    assert_eq!((t.watermark().await?, stored(&t).await?.epoch), (Some(id(5)), epoch));
    t.backend.reset(&to(&t, 9).expect(epoch).expect_watermark(id(5))).await?;
    assert_eq!(t.watermark().await?, Some(id(9)));
    Ok(())
}

/// G4: of many that expect the same epoch at once, one takes effect.
pub(super) async fn g4_side_by_side(t: Checkpoints) -> Verdict {
    let epoch = t.backend.reset(&to(&t, 5)).await?;
    let resets = (1..=8).map(|n| if n % 2 == 0 { to(&t, 100 + n) } else { pause(&t, true) });
    let (won, issued) = race(&t, resets.map(|reset| reset.expect(epoch)).collect()).await?;
    assert_eq!((won, stored(&t).await?.epoch), (1, issued));
    Ok(())
}

/// G4: of many that skip the same entry at once, one does.
pub(super) async fn g4_one_skips(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    for from in 5..10 {
        let skip = to(&t, from + 1).expect_watermark(id(from));
        let (won, _) = race(&t, vec![skip; 8]).await?;
        assert_eq!((won, t.watermark().await?), (1, Some(id(from + 1))));
    }
    let epoch = stored(&t).await?.epoch;
    assert!(t.advance(epoch, &Position::at(id(99))).await?.moved);
    assert_eq!(stored(&t).await?.owner, Some(consumer("owner")));
    Ok(())
}

/// How many took effect, of those that run at once, and the last epoch of them. The others are fenced.
async fn race(t: &Checkpoints, resets: Vec<ResetCheckpoint>) -> Result<(usize, Epoch)> {
    let mut tasks = JoinSet::new();
    for reset in resets {
        let backend = t.backend.clone();
        tasks.spawn(async move { backend.reset(&reset).await });
    }
    let (mut won, mut issued) = (0, Epoch(0));
    while let Some(result) = tasks.join_next().await {
        match result.expect("the task does not panic") {
            Ok(epoch) => (won, issued) = (won + 1, issued.max(epoch)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}"),
        }
    }
    Ok((won, issued))
}
