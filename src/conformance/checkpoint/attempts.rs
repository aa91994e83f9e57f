//! Attempts that are remembered.

use tokio::task::JoinSet;

use crate::{
    Attempts, DeathReason, Doom, EntryId, Epoch, ErrorKind, Position, Result, Subscription,
    backend::{LoadAttempts, NoteAttempts, ResetCheckpoint},
    clock::Timestamp,
    conformance::support::{Checkpoints, LONG, Verdict, fails, id, ids},
};

fn failed(id: EntryId, failures: u32) -> Attempts {
    Attempts { failures, first_at: Some(Timestamp::from_millis(7)), ..Attempts::new(id) }
}

/// One failure at each of these entries.
fn failures(ms: impl IntoIterator<Item = u64>) -> Vec<Attempts> {
    ms.into_iter().map(|ms| failed(id(ms), 1)).collect()
}

async fn note(t: &Checkpoints, epoch: Epoch, set: Vec<Attempts>, clear: Vec<EntryId>) -> Result<()> {
    t.backend.note_attempts(&NoteAttempts::new(t.subscription.clone(), epoch, set, clear)).await
}

async fn all(t: &Checkpoints) -> Result<Vec<Attempts>> {
    t.backend.attempts(&LoadAttempts::all(t.subscription.clone())).await
}

async fn of(t: &Checkpoints, ids: Vec<EntryId>) -> Result<Vec<Attempts>> {
    t.backend.attempts(&LoadAttempts::of(t.subscription.clone(), ids)).await
}

/// Where nothing was remembered, there is nothing.
pub(super) async fn none(t: Checkpoints) -> Verdict {
    assert_eq!(all(&t).await?, []);
    assert_eq!(of(&t, ids([1, 2])).await?, []);
    t.advance_to(Epoch(0), 5).await?;
    assert_eq!(all(&t).await?, []);
    Ok(())
}

/// Everything that is remembered of an entry comes back.
pub(super) async fn come_back(t: Checkpoints) -> Verdict {
    let extreme = Attempts {
        failures: u32::MAX,
        crashes: u32::MAX,
        first_at: Some(Timestamp::from_millis(u64::MAX)),
        ..Attempts::new(EntryId::MAX)
    };
    let mut noted = vec![
        Attempts { crashes: 2, ..Attempts::new(EntryId::new(0, 1)) },
        failed(id(1), 3),
        Attempts { crashes: 1, ..failed(id(2), 3) },
    ];
    for (ms, reason) in (3..).zip(DeathReason::ALL) {
        noted.push(Attempts { doom: Some(Doom::new(reason, "no such customer")), ..failed(id(ms), 5) });
    }
    noted.push(extreme);
    note(&t, Epoch(0), noted.clone(), Vec::new()).await?;
    assert_eq!(all(&t).await?, noted);
    Ok(())
}

/// The error may be any text.
pub(super) async fn of_any_text(t: Checkpoints) -> Verdict {
    let long = "ü".repeat(1000);
    let texts = ["", " ", "two  spaces ", "a\tb\nc\0", "'\"\\;--%_", "{\"a\":[1]}", "é\u{1f4a3}", &long];
    let doomed = |(ms, text): (u64, &&str)| {
        let doom = Some(Doom::new(DeathReason::Rejected, text));
        Attempts { doom, ..failed(id(ms), 1) }
    };
    let noted: Vec<_> = (1..).zip(&texts).map(doomed).collect();
    note(&t, Epoch(0), noted.clone(), Vec::new()).await?;
    assert_eq!(all(&t).await?, noted);
    Ok(())
}

/// They come in the order of ids, which are numbers.
pub(super) async fn in_order(t: Checkpoints) -> Verdict {
    let half = i64::MAX as u64;
    let order = [
        EntryId::new(0, 1),
        EntryId::new(9, 9),
        EntryId::new(9, 10),
        id(10),
        id(99),
        id(100),
        EntryId::new(half, half + 1),
        EntryId::new(half, u64::MAX),
        id(half + 1),
        EntryId::MAX,
    ];
    let noted = order.iter().rev().map(|&id| failed(id, 1)).collect();
    note(&t, Epoch(0), noted, Vec::new()).await?;
    let found: Vec<_> = all(&t).await?.into_iter().map(|attempts| attempts.id).collect();
    assert_eq!(found, order);
    let found: Vec<_> = of(&t, order.iter().rev().copied().collect()).await?;
    assert_eq!(found.into_iter().map(|attempts| attempts.id).collect::<Vec<_>>(), order);
    Ok(())
}

/// Those at some entries come alone, each once; of the others nothing is remembered.
pub(super) async fn of_some_entries(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures(1..=9), Vec::new()).await?;
    assert_eq!(of(&t, ids([7, 2, 99, 2])).await?, failures([2, 7]));
    assert_eq!(of(&t, ids([99])).await?, []);
    Ok(())
}

/// No entries are not all of them.
pub(super) async fn of_no_entries(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures([1]), Vec::new()).await?;
    assert_eq!(of(&t, Vec::new()).await?, []);
    Ok(())
}

/// What is remembered takes the place of what was, of the same entry alone.
pub(super) async fn are_replaced(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures(1..=3), Vec::new()).await?;
    let doomed = Attempts { doom: Some(Doom::new(DeathReason::Exhausted, "enough")), ..failed(id(2), 5) };
    note(&t, Epoch(0), vec![doomed.clone()], Vec::new()).await?;
    assert_eq!(all(&t).await?, [failed(id(1), 1), doomed, failed(id(3), 1)]);
    note(&t, Epoch(0), vec![failed(id(2), 1)], Vec::new()).await?;
    assert_eq!(all(&t).await?, failures(1..=3), "also by less");
    Ok(())
}

/// What is to be forgotten goes, and nothing else; of the rest there need be nothing.
pub(super) async fn are_forgotten(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures(1..=4), Vec::new()).await?;
    note(&t, Epoch(0), Vec::new(), ids([2, 4, 99])).await?;
    assert_eq!(all(&t).await?, failures([1, 3]));
    note(&t, Epoch(0), failures([2]), Vec::new()).await?;
    assert_eq!(all(&t).await?, failures(1..=3), "it counts anew");
    Ok(())
}

/// Some are remembered and others forgotten in one step.
pub(super) async fn in_one_step(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures(1..=2), Vec::new()).await?;
    note(&t, Epoch(0), failures([3]), ids([1])).await?;
    assert_eq!(all(&t).await?, failures(2..=3));
    note(&t, Epoch(0), Vec::new(), Vec::new()).await?;
    assert_eq!(all(&t).await?, failures(2..=3), "nothing to do");
    Ok(())
}

/// Repeating changes nothing.
pub(super) async fn is_idempotent(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures([1]), Vec::new()).await?;
    for _ in 0..3 {
        note(&t, Epoch(0), failures([2]), ids([1])).await?;
        assert_eq!(all(&t).await?, failures([2]));
    }
    Ok(())
}

/// A thousand in one request are as good as any.
pub(super) async fn many_at_once(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures(1..=1000), Vec::new()).await?;
    assert_eq!(all(&t).await?, failures(1..=1000));
    assert_eq!(of(&t, ids(1..=1000)).await?.len(), 1000);
    note(&t, Epoch(0), failures(1001..=1002), ids(1..=1000)).await?;
    assert_eq!(all(&t).await?, failures(1001..=1002));
    Ok(())
}

/// Consumers that share a subscription note side by side, and nobody loses another's.
pub(super) async fn side_by_side(t: Checkpoints) -> Verdict {
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let t = t.clone();
        tasks.spawn(async move {
            for step in 0..10 {
                let mine = 1 + step * 8 + n;
                note(&t, Epoch(0), failures([1000 + n, mine]), Vec::new()).await?;
            }
            note(&t, Epoch(0), Vec::new(), ids([1000 + n])).await
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    assert_eq!(all(&t).await?, failures(1..=80));
    Ok(())
}

/// Subscriptions whose names look alike are different ones.
pub(super) async fn subscriptions_do_not_share(t: Checkpoints) -> Verdict {
    let base = t.subscription.stream.to_string();
    let pairs =
        [("a", "b:c"), ("a:b", "c"), ("a", "b/c"), ("A", "b:c"), ("a", "B:c"), ("a", "b:c "), ("a%", "b:c")];
    let all_of: Vec<_> = pairs
        .iter()
        .map(|(stream, group)| Ok(t.of(Subscription::new(format!("{base}{stream}"), *group)?)))
        .collect::<Result<_>>()?;
    for (failures, one) in (1..).zip(&all_of) {
        assert_eq!(all(one).await?, [], "{} was written as another", one.subscription);
        note(one, Epoch(0), vec![failed(id(1), failures)], Vec::new()).await?;
    }
    for (failures, one) in (1..).zip(&all_of) {
        assert_eq!(all(one).await?, [failed(id(1), failures)], "{}", one.subscription);
    }
    note(&all_of[0], Epoch(0), Vec::new(), ids([1])).await?;
    assert_eq!(all(&all_of[1]).await?, [failed(id(1), 2)]);
    Ok(())
}

/// Attempts alone are no checkpoint: nothing is settled, and nobody is listed.
pub(super) async fn make_no_checkpoint(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures([1]), Vec::new()).await?;
    assert_eq!(t.backend.load(&t.subscription).await?, None);
    assert_eq!(t.backend.list(&t.subscription.stream).await?, []);
    assert_eq!(t.own("a", LONG).await?.position, None);
    assert_eq!(all(&t).await?, failures([1]));
    Ok(())
}

/// G11: they survive whatever consumers do with the subscription, until they are forgotten.
pub(super) async fn g11_survive_what_consumers_do(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures([5]), Vec::new()).await?;
    t.advance_to(Epoch(0), 1).await?;
    let first = t.own("a", LONG).await?.epoch;
    assert_eq!(all(&t).await?, failures([5]), "another owner");
    t.renew(first, LONG).await?;
    t.advance_to(first, 2).await?;
    t.release(first).await?;
    let second = t.own("b", LONG).await?.epoch;
    t.advance_to(second, 9).await?;
    assert_eq!(all(&t).await?, failures([5]), "settled, and not forgotten yet");
    note(&t, second, Vec::new(), ids([5])).await?;
    assert_eq!(all(&t).await?, []);
    Ok(())
}

/// G11: a pause is no reason to forget.
pub(super) async fn g11_survive_a_reset_that_stays(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures([5]), Vec::new()).await?;
    for paused in [true, false] {
        t.backend.reset(&ResetCheckpoint::pause(t.subscription.clone(), paused)).await?;
        assert_eq!(all(&t).await?, failures([5]));
    }
    Ok(())
}

/// A new position, also the same one, forgets them: entries that come again count anew.
pub(super) async fn a_new_position_forgets_them(t: Checkpoints) -> Verdict {
    let other = t.of(Subscription::new(t.subscription.stream.to_string(), "other")?);
    note(&other, Epoch(0), failures([5]), Vec::new()).await?;
    let mut epoch = Epoch(0);
    for to in [3, 9, 9] {
        note(&t, epoch, failures([5, 12]), Vec::new()).await?;
        let reset = ResetCheckpoint::new(t.subscription.clone(), Position::at(id(to)));
        epoch = t.backend.reset(&reset).await?;
        assert_eq!(all(&t).await?, []);
    }
    assert_eq!(all(&other).await?, failures([5]), "of its own subscription");
    Ok(())
}

/// A reset that is refused forgets nothing.
pub(super) async fn a_refused_reset_keeps_them(t: Checkpoints) -> Verdict {
    let epoch = t.own("a", LONG).await?.epoch;
    note(&t, epoch, failures([5]), Vec::new()).await?;
    let reset = ResetCheckpoint::new(t.subscription.clone(), Position::at(id(9)));
    fails(t.backend.reset(&reset).await, ErrorKind::Busy);
    let reset = reset.force(true);
    fails(t.backend.reset(&reset.clone().expect(epoch.next())).await, ErrorKind::Fenced);
    fails(t.backend.reset(&reset.expect_watermark(id(1))).await, ErrorKind::Fenced);
    assert_eq!(all(&t).await?, failures([5]));
    Ok(())
}

/// G4: under a lower epoch than the issued one nothing is remembered and nothing forgotten.
pub(super) async fn g4_fenced(t: Checkpoints) -> Verdict {
    note(&t, Epoch(0), failures([1]), Vec::new()).await?;
    let first = t.own("a", LONG).await?.epoch;
    fails(note(&t, Epoch(0), failures([2]), ids([1])).await, ErrorKind::Fenced);
    note(&t, first, failures([2]), Vec::new()).await?;
    let second = t.own("a", LONG).await?.epoch;
    fails(note(&t, first, vec![failed(id(2), 9)], ids([1])).await, ErrorKind::Fenced);
    fails(note(&t, first, failures([2]), Vec::new()).await, ErrorKind::Fenced);
    assert_eq!(all(&t).await?, failures(1..=2));
    note(&t, second, Vec::new(), ids([1])).await?;
    assert_eq!(all(&t).await?, failures([2]));
    Ok(())
}

/// G4: a reset fences too, so that what it forgot does not come back.
pub(super) async fn g4_fenced_after_a_reset(t: Checkpoints) -> Verdict {
    t.advance_to(Epoch(0), 5).await?;
    note(&t, Epoch(0), failures([7]), Vec::new()).await?;
    let reset = ResetCheckpoint::new(t.subscription.clone(), Position::at(id(3)));
    let epoch = t.backend.reset(&reset).await?;
    fails(note(&t, Epoch(0), failures([7]), Vec::new()).await, ErrorKind::Fenced);
    assert_eq!(all(&t).await?, []);
    note(&t, epoch, failures([7]), Vec::new()).await?;
    assert_eq!(all(&t).await?, failures([7]));
    Ok(())
}

/// An epoch that was never issued is refused, and nothing is changed.
pub(super) async fn a_made_up_epoch_is_invalid(t: Checkpoints) -> Verdict {
    fails(note(&t, Epoch(1), failures([1]), Vec::new()).await, ErrorKind::Invalid);
    assert_eq!(all(&t).await?, [], "no record");
    t.advance_to(Epoch(0), 5).await?;
    fails(note(&t, Epoch(1), failures([1]), Vec::new()).await, ErrorKind::Invalid);
    let epoch = t.own("a", LONG).await?.epoch;
    note(&t, epoch, failures([1]), Vec::new()).await?;
    fails(note(&t, epoch.next(), failures([2]), ids([1])).await, ErrorKind::Invalid);
    fails(note(&t, Epoch(u64::MAX), failures([2]), ids([1])).await, ErrorKind::Invalid);
    assert_eq!(all(&t).await?, failures([1]));
    Ok(())
}

/// G4: of a note and a takeover that run side by side, either the note came first or it is fenced.
pub(super) async fn g4_beside_a_takeover(t: Checkpoints) -> Verdict {
    let mut epoch = t.own("a", LONG).await?.epoch;
    for round in 1..=10 {
        let (noted, next) = tokio::join!(note(&t, epoch, failures([round]), vec![]), t.own("a", LONG));
        let remembered = of(&t, ids([round])).await?;
        match noted {
            Ok(()) => assert_eq!(remembered, failures([round])),
            Err(fenced) if fenced.kind() == ErrorKind::Fenced => assert_eq!(remembered, []),
            Err(error) => return Err(error.into()),
        }
        epoch = next?.epoch;
    }
    Ok(())
}

/// After it was closed, a backend answers with a typed error.
pub(super) async fn a_closed_backend_says_so(t: Checkpoints) -> Verdict {
    t.backend.close().await;
    fails(all(&t).await, ErrorKind::Closed);
    fails(note(&t, Epoch(0), failures([1]), Vec::new()).await, ErrorKind::Closed);
    Ok(())
}
