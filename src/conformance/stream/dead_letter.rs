//! Burying entries: a letter for each, and its ack, in one step.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    DeathReason, EntryId, ErrorKind, Fields, Letter, StreamName, Subscription,
    backend::{BuryLetters, Fate, NewEntry, NewLetter, Read, Trim, TrimLimit},
    conformance::{
        letters::{letter_of, new_letter, odd},
        support::{LONG, Streams, Verdict, consumer, fails, fields, id, ids, soon},
    },
};

const BURIED: Fate = Fate::Buried;
const NOT_HELD: Fate = Fate::NotHeld;

fn letters(t: &Streams, ms: impl IntoIterator<Item = u64>) -> Vec<NewLetter> {
    ms.into_iter().map(|ms| t.letter(ms)).collect()
}

/// G11: the letter is appended as it was given, and the entry is acked.
pub(super) async fn g11_appends_and_acks(t: Streams) -> Verdict {
    t.deliver(3).await?;
    let letter = letter_of(&t.subscription, id(2), fields("2"));
    assert_eq!(t.bury("a", vec![new_letter(&letter)]).await?, [BURIED]);
    let graves = t.graves().await?;
    assert_eq!(graves.iter().map(|(_, letter)| letter).collect::<Vec<_>>(), [&letter]);
    assert_eq!(t.pending("a").await?, ids([1, 3]), "the others are still pending");
    assert_eq!(t.read(EntryId::ZERO, 10).await?, ids(1..=3), "the stream stays as it is");
    Ok(())
}

/// G11: letters lie in the order of the request, and behind those of earlier calls.
pub(super) async fn g11_keeps_the_order(t: Streams) -> Verdict {
    t.deliver(5).await?;
    assert_eq!(t.bury("a", letters(&t, [3, 1])).await?, [BURIED; 2]);
    assert_eq!(t.bury("a", letters(&t, [5, 2])).await?, [BURIED; 2]);
    assert_eq!(t.buried().await?, ids([3, 1, 5, 2]));
    Ok(())
}

/// G11: a buried entry is settled: it holds the watermark no more.
pub(super) async fn g11_the_watermark_follows(t: Streams) -> Verdict {
    t.deliver(3).await?;
    t.ack(&ids([1, 3])).await?;
    assert_eq!(t.position(&[]).await?.watermark, id(2).prev().unwrap_or_default());
    t.bury("a", letters(&t, [2])).await?;
    assert_eq!(t.position(&[]).await?.watermark, id(3));
    assert_eq!(t.group_state().await?.pending, 0);
    Ok(())
}

/// G11: repeated, nothing is appended, and the answer is the same.
pub(super) async fn g11_once(t: Streams) -> Verdict {
    t.deliver(3).await?;
    for _ in 0..3 {
        assert_eq!(t.bury("a", letters(&t, [1, 2])).await?, [BURIED; 2]);
    }
    assert_eq!(t.bury("a", letters(&t, [2, 3, 3])).await?, [BURIED; 3], "in one call too");
    assert_eq!(t.buried().await?, ids([1, 2, 3]));
    Ok(())
}

/// G11: the fields of the entry tell that it lies there, whatever else the letter says this time.
pub(super) async fn g11_once_with_another_account(t: Streams) -> Verdict {
    t.deliver(1).await?;
    let first = letter_of(&t.subscription, id(1), fields("1"));
    let reason = DeathReason::CrashLoop;
    let later = Letter { reason, attempts: 9, error: "another".to_owned(), ..first.clone() };
    for letter in [&first, &later] {
        assert_eq!(t.bury("a", vec![new_letter(letter)]).await?, [BURIED]);
    }
    let graves = t.graves().await?;
    assert_eq!(graves.iter().map(|(_, letter)| letter).collect::<Vec<_>>(), [&first], "it stays as it is");
    Ok(())
}

/// G11: fields of any bytes lie there untouched, and are known again.
pub(super) async fn g11_any_bytes(t: Streams) -> Verdict {
    let entry = t.append_all(vec![NewEntry::new(odd())]).await?.remove(0)?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 1).await?;
    let letter = new_letter(&letter_of(&t.subscription, entry, odd()));
    for _ in 0..2 {
        assert_eq!(t.bury("a", vec![letter.clone()]).await?, [BURIED]);
    }
    let lying = t.backend.read(&Read::new(t.graveyard(), EntryId::ZERO, 10)).await?;
    assert_eq!(lying.iter().map(|entry| &entry.fields).collect::<Vec<_>>(), [&letter.fields]);
    Ok(())
}

/// G11: an entry that has the id of a buried one, in a stream that was created anew, gets a letter of its own.
pub(super) async fn g11_another_life_of_the_stream(t: Streams) -> Verdict {
    t.deliver(1).await?;
    t.bury("a", letters(&t, [1])).await?;
    t.remove_stream().await?;
    t.append_all(vec![NewEntry::new(fields("another")).with_id(id(1))]).await?.remove(0)?;
    t.ensure_at(EntryId::ZERO).await?;
    t.read_group("a", 1).await?;
    let another = letter_of(&t.subscription, id(1), fields("another"));
    for _ in 0..2 {
        assert_eq!(t.bury("a", vec![new_letter(&another)]).await?, [BURIED]);
    }
    let graves = t.graves().await?;
    let lying: Vec<_> = graves.iter().map(|(_, letter)| letter.fields.clone()).collect();
    assert_eq!(lying, [fields("1"), fields("another")]);
    assert_eq!(t.pending("a").await?, []);
    Ok(())
}

/// G11: the entry is told from others of its id by each of its bytes, and by where its names and values end.
pub(super) async fn g11_another_entry_of_the_same_id(t: Streams) -> Verdict {
    let one = |name: &'static str, value: &'static str| Fields::from_iter([(name, value)]);
    let entries = [
        one("ab", "c"),
        one("a", "bc"),
        one("ab", "d"),
        one("AB", "c"),
        Fields::from_iter([("ab", "c"), ("x", "1"), ("y", "2")]),
        Fields::from_iter([("ab", "c"), ("y", "2"), ("x", "1")]),
        Fields::from_iter([("ab", "c"), ("x", "1")]),
    ];
    for own in &entries {
        let letter = new_letter(&letter_of(&t.subscription, id(1), own.clone()));
        assert_eq!(t.backend.dead_letter(&t.burial(vec![letter])).await?, [BURIED]);
    }
    let graves = t.graves().await?;
    assert_eq!(graves.iter().map(|(_, letter)| letter.fields.clone()).collect::<Vec<_>>(), entries);
    Ok(())
}

/// G11: an entry that left the stream while it was pending can be buried.
pub(super) async fn g11_an_entry_that_left_the_stream(t: Streams) -> Verdict {
    t.deliver(2).await?;
    t.remove(&ids([1])).await?;
    t.backend.trim(&Trim::new(t.subscription.stream.clone(), TrimLimit::Len(0))).await?;
    assert_eq!(t.bury("a", letters(&t, [1, 2])).await?, [BURIED; 2]);
    assert_eq!((t.buried().await?, t.group_state().await?.pending), (ids([1, 2]), 0));
    Ok(())
}

/// G11: where the letter cannot be written, the entry is not acked, and can be buried later.
pub(super) async fn g11_a_failed_write_acks_nothing(t: Streams) -> Verdict {
    t.deliver(2).await?;
    // This stream has used its last id.
    let full = t.at(t.graveyard());
    full.append_all(vec![NewEntry::new(fields("last")).with_id(EntryId::MAX)]).await?.remove(0)?;
    fails(t.bury("a", letters(&t, [1, 2])).await, ErrorKind::Invalid);
    assert_eq!(full.read(EntryId::ZERO, 10).await?, [EntryId::MAX]);
    assert_eq!(t.pending("a").await?, ids([1, 2]));
    full.remove_stream().await?;
    assert_eq!(t.bury("a", letters(&t, [1, 2])).await?, [BURIED; 2], "it was not remembered as buried");
    assert_eq!(t.buried().await?, ids([1, 2]));
    Ok(())
}

/// G11: a stream cannot take its own dead letters; nothing is changed.
pub(super) async fn g11_in_the_stream_itself_is_invalid(t: Streams) -> Verdict {
    t.deliver(2).await?;
    let stream = t.subscription.stream.clone();
    let request = BuryLetters::new(t.subscription.clone(), stream, letters(&t, [1]));
    fails(t.backend.dead_letter(&request).await, ErrorKind::Invalid);
    fails(t.backend.dead_letter(&request.held_by(Some(consumer("a")))).await, ErrorKind::Invalid);
    assert_eq!(t.pending("a").await?, ids([1, 2]));
    assert_eq!(t.read(EntryId::ZERO, 10).await?, ids([1, 2]));
    Ok(())
}

/// G11: a thousand letters in one request are as good as any, also repeated.
pub(super) async fn g11_many_at_once(t: Streams) -> Verdict {
    t.deliver(1000).await?;
    for _ in 0..2 {
        assert_eq!(t.bury("a", letters(&t, 1..=1000)).await?, [BURIED; 1000]);
    }
    assert_eq!(t.buried().await?, ids(1..=1000));
    assert_eq!(t.group_state().await?.pending, 0);
    Ok(())
}

/// G11: many that bury the same entries at once bury each once.
pub(super) async fn g11_side_by_side(t: Streams) -> Verdict {
    t.deliver(20).await?;
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let t = t.clone();
        tasks.spawn(async move {
            // Half of them from the end, so that they meet.
            for step in 1..=20 {
                let ms = if n % 2 == 0 { step } else { 21 - step };
                assert_eq!(t.bury("a", letters(&t, [ms])).await?, [BURIED]);
            }
            Ok::<_, crate::Error>(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("the task does not panic")?;
    }
    let mut buried = t.buried().await?;
    buried.sort_unstable();
    assert_eq!(buried, ids(1..=20));
    assert_eq!(t.group_state().await?.pending, 0);
    Ok(())
}

/// G4: what another consumer holds now is neither buried nor acked.
pub(super) async fn g4_held_by_another(t: Streams) -> Verdict {
    t.deliver(2).await?;
    assert_eq!(t.claim("b", 1, Duration::ZERO).await?.len(), 2);
    assert_eq!(t.bury("a", letters(&t, [1, 2])).await?, [NOT_HELD; 2]);
    assert_eq!(t.buried().await?, []);
    assert_eq!(t.pending("b").await?, ids([1, 2]));
    assert_eq!(t.bury("A", letters(&t, [1])).await?, [NOT_HELD], "names are told apart");
    assert_eq!(t.bury("b", letters(&t, [1])).await?, [BURIED]);
    Ok(())
}

/// G4: what is not pending, acked or never delivered, is not buried.
pub(super) async fn g4_not_pending(t: Streams) -> Verdict {
    t.deliver(2).await?;
    t.append_at([3]).await?;
    t.ack(&ids([1])).await?;
    assert_eq!(t.bury("a", letters(&t, [1, 3, 99])).await?, [NOT_HELD; 3]);
    assert_eq!(t.buried().await?, []);
    assert_eq!(t.read_group("a", 10).await?, ids([3]), "it is still delivered");
    Ok(())
}

/// G4: without the group or the stream nothing is pending; nothing is created.
pub(super) async fn g4_a_missing_group(t: Streams) -> Verdict {
    assert_eq!(t.bury("a", letters(&t, [1])).await?, [NOT_HELD], "no stream");
    assert!(t.state().await.is_err(), "it was created");
    t.deliver(1).await?;
    t.remove_group().await?;
    assert_eq!(t.bury("a", letters(&t, [1])).await?, [NOT_HELD], "no group");
    assert_eq!(t.state().await?.group, None, "it was created");
    assert_eq!(t.buried().await?, []);
    Ok(())
}

/// G4: of a burial and a claim that run side by side, one gets the entry.
pub(super) async fn g4_beside_a_claim(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    for ms in 1..=20 {
        t.append_at([ms]).await?;
        t.read_group("a", 1).await?;
        let bury = t.bury("a", letters(&t, [ms]));
        let claim = t.claim_once("b", id(ms), 1, Duration::ZERO);
        // Each begins as often as the other.
        let (fates, claimed) = if ms % 2 == 0 {
            tokio::join!(bury, claim)
        } else {
            let (claimed, fates) = tokio::join!(claim, bury);
            (fates, claimed)
        };
        let claimed = !claimed?.entries.is_empty();
        assert_eq!(fates?, [if claimed { NOT_HELD } else { BURIED }], "{ms}");
        assert_eq!(t.buried().await?.contains(&id(ms)), !claimed, "{ms}");
        assert_eq!(t.pending("b").await?.contains(&id(ms)), claimed, "{ms}");
    }
    Ok(())
}

/// G11: without a holder, an entry is buried that no group knows, and no group or stream is created for it.
pub(super) async fn g11_without_a_group(t: Streams) -> Verdict {
    t.append_at(1..=3).await?;
    let buried = t.backend.dead_letter(&t.burial(letters(&t, [2, 3]))).await?;
    assert_eq!(buried, [BURIED; 2]);
    assert_eq!(t.buried().await?, ids([2, 3]));
    assert_eq!(t.state().await?.group, None, "it was created");
    assert_eq!(t.read(EntryId::ZERO, 10).await?, ids(1..=3), "the stream stays as it is");
    Ok(())
}

/// G11: without a holder too, an entry is buried once.
pub(super) async fn g11_without_a_group_once(t: Streams) -> Verdict {
    t.append_at(1..=2).await?;
    for _ in 0..3 {
        assert_eq!(t.backend.dead_letter(&t.burial(letters(&t, [2, 1, 2]))).await?, [BURIED; 3]);
    }
    assert_eq!(t.buried().await?, ids([2, 1]));
    Ok(())
}

/// G11: an entry that lies there and is delivered once more, as after its group was created anew, is acked.
pub(super) async fn g11_one_that_lies_there_is_acked_for_whoever_holds_it(t: Streams) -> Verdict {
    t.deliver(2).await?;
    t.bury("a", letters(&t, [1])).await?;
    t.remove_group().await?;
    t.ensure_at(EntryId::ZERO).await?;
    assert_eq!(t.read_group("b", 10).await?, ids([1, 2]));
    assert_eq!(t.bury("b", letters(&t, [1])).await?, [BURIED]);
    assert_eq!((t.buried().await?, t.pending("b").await?), (ids([1]), ids([2])));
    Ok(())
}

/// G11: each letter has its own fate, in the order of the request; one that is not buried holds up none behind it.
pub(super) async fn g11_fates_in_order(t: Streams) -> Verdict {
    t.deliver(5).await?;
    t.ack(&ids([2])).await?;
    t.claim_once("b", id(4), 1, Duration::ZERO).await?;
    let fates = t.bury("a", letters(&t, [1, 2, 3, 4, 5])).await?;
    assert_eq!(fates, [BURIED, NOT_HELD, BURIED, NOT_HELD, BURIED]);
    assert_eq!((t.buried().await?, t.pending("b").await?), (ids([1, 3, 5]), ids([4])));
    Ok(())
}

/// Letters of several subscriptions lie in one stream, and are told apart.
pub(super) async fn subscriptions_do_not_share(t: Streams) -> Verdict {
    let into = t.graveyard();
    let beside = t.at(StreamName::new(format!("{{{}}}:a", t.subscription.stream))?);
    let all = [t.clone(), t.group("a:b"), t.group("A:b"), beside.group("b"), beside.group("a:b")];
    for one in &all {
        let request = BuryLetters::new(one.subscription.clone(), into.clone(), letters(one, [1]));
        assert_eq!(t.backend.dead_letter(&request).await?, [BURIED]);
        assert_eq!(t.backend.dead_letter(&request).await?, [BURIED]);
    }
    let lying: Vec<Subscription> =
        t.graves().await?.into_iter().map(|(_, letter)| letter.subscription).collect();
    assert_eq!(lying, all.map(|one| one.subscription));
    Ok(())
}

/// No letters are no work: nothing is created.
pub(super) async fn nothing_to_bury(t: Streams) -> Verdict {
    assert_eq!(t.bury("a", Vec::new()).await?, []);
    assert_eq!(t.backend.dead_letter(&t.burial(Vec::new())).await?, []);
    assert!(t.state().await.is_err(), "it was created");
    assert!(t.at(t.graveyard()).state().await.is_err(), "it was created");
    Ok(())
}

/// A read that is blocked on the letters wakes.
pub(super) async fn a_blocked_read_wakes(t: Streams) -> Verdict {
    t.deliver(1).await?;
    let bury = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.bury("a", letters(&t, [1])).await
    };
    let read = async {
        loop {
            let read = Read::new(t.graveyard(), EntryId::ZERO, 10).block(LONG);
            let entries = t.backend.read(&read).await?;
            if !entries.is_empty() {
                return Ok::<_, crate::Error>(entries.len());
            }
        }
    };
    let (read, buried) = soon("a letter to a blocked reader", async { tokio::join!(read, bury) }).await;
    assert_eq!((read?, buried?), (1, vec![BURIED]));
    Ok(())
}

/// A group that reads the letters wakes, and is delivered them as any entries.
pub(super) async fn a_blocked_group_wakes(t: Streams) -> Verdict {
    t.deliver(1).await?;
    let morgue = t.at(t.graveyard());
    morgue.ensure_at(EntryId::ZERO).await?;
    let bury = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.bury("a", letters(&t, [1])).await
    };
    let read = async {
        loop {
            let deliveries = t.backend.read_group(&morgue.reading("m", 10).block(LONG)).await?;
            if let Some(delivery) = deliveries.first() {
                return Ok::<_, crate::Error>(delivery.id());
            }
        }
    };
    let (read, buried) = soon("a letter to a blocked group", async { tokio::join!(read, bury) }).await;
    assert_eq!(buried?, [BURIED]);
    assert_eq!(morgue.pending("m").await?, [read?]);
    Ok(())
}

/// After it was closed, a backend answers with a typed error.
pub(super) async fn a_closed_backend_says_so(t: Streams) -> Verdict {
    t.backend.close().await;
    fails(t.bury("a", letters(&t, [1])).await, ErrorKind::Closed);
    fails(t.dead_keys().await, ErrorKind::Closed);
    let letter = crate::backend::RedriveLetter::new(id(1), id(1), None);
    fails(t.redrive(vec![letter]).await, ErrorKind::Closed);
    Ok(())
}
