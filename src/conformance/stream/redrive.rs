//! Taking letters out again.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    Delivery, EntryId, ErrorKind, Fields, Letter,
    backend::{Fate, NewEntry, Read, Redrive, RedriveLetter, Redriven},
    conformance::{
        letters::{again, letter_of, new_letter, odd, out_of},
        support::{LONG, Streams, Verdict, each_once, fails, fields, id, ids, soon},
    },
};

/// Buries entries of these ids under one key, and returns their letters.
async fn buried(t: &Streams, ms: impl IntoIterator<Item = u64>) -> crate::Result<Vec<(EntryId, Letter)>> {
    let letters = ms.into_iter().map(|ms| t.keyed(ms, 7)).collect();
    t.backend.dead_letter(&t.burial(letters)).await?;
    t.graves().await
}

/// The fields of all entries of the stream.
async fn fields_of(t: &Streams) -> crate::Result<Vec<Fields>> {
    let entries = t.backend.read(&Read::new(t.subscription.stream.clone(), EntryId::ZERO, 2000)).await?;
    Ok(entries.into_iter().map(|entry| entry.fields).collect())
}

fn appended(redriven: Redriven) -> EntryId {
    let Redriven::Appended(id) = redriven else { panic!("it was to be appended: {redriven:?}") };
    id
}

/// G11: the letter is out, and an entry of these fields is appended and delivered.
pub(super) async fn g11_appends_and_removes(t: Streams) -> Verdict {
    t.deliver(2).await?;
    t.bury("a", vec![t.letter(1), t.letter(2)]).await?;
    let graves = t.graves().await?;
    let redriven = t.redrive(vec![again(&graves[0])]).await?;
    let new = appended(redriven[0]);
    assert_eq!((redriven.len(), t.buried().await?), (1, ids([2])));
    assert_eq!(t.read(EntryId::ZERO, 10).await?, [id(1), id(2), new]);
    let delivered = t.backend.read_group(&t.reading("a", 10)).await?;
    assert_eq!(delivered.iter().map(Delivery::id).collect::<Vec<_>>(), [new]);
    assert_eq!(*delivered[0].fields(), fields("1"));
    Ok(())
}

/// G11: a letter is dropped where nothing is to be appended.
pub(super) async fn g11_drops(t: Streams) -> Verdict {
    t.append_at([1, 2]).await?;
    let graves = buried(&t, [1, 2]).await?;
    assert_eq!(t.redrive(vec![out_of(&graves[1])]).await?, [Redriven::Dropped]);
    assert_eq!((t.buried().await?, t.read(EntryId::ZERO, 10).await?), (ids([1]), ids([1, 2])));
    Ok(())
}

/// G11: repeated, nothing is appended: the letter is gone.
pub(super) async fn g11_once(t: Streams) -> Verdict {
    t.append_at([1, 2]).await?;
    let graves = buried(&t, [1, 2]).await?;
    let letters = vec![again(&graves[0]), out_of(&graves[1])];
    let first = t.redrive(letters.clone()).await?;
    assert_eq!(first, [Redriven::Appended(appended(first[0])), Redriven::Dropped]);
    for _ in 0..3 {
        assert_eq!(t.redrive(letters.clone()).await?, [Redriven::Gone; 2]);
    }
    assert_eq!(t.read(EntryId::ZERO, 10).await?, [id(1), id(2), appended(first[0])]);
    Ok(())
}

/// G11: a letter that is named twice is taken out once.
pub(super) async fn g11_once_in_one_call(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    let graves = buried(&t, [1]).await?;
    let redriven = t.redrive(vec![again(&graves[0]), again(&graves[0]), out_of(&graves[0])]).await?;
    assert_eq!(redriven[1..], [Redriven::Gone; 2]);
    assert_eq!(t.read(EntryId::ZERO, 10).await?, [id(1), appended(redriven[0])]);
    Ok(())
}

/// G11: what was never there is gone; nothing is appended and no stream is created.
pub(super) async fn g11_what_was_never_there(t: Streams) -> Verdict {
    let letter = RedriveLetter::new(id(1), id(1), Some(7)).append(Some(fields("1")));
    assert_eq!(t.redrive(vec![letter.clone()]).await?, [Redriven::Gone], "no letters");
    assert!(t.state().await.is_err(), "it was created");
    assert!(t.at(t.graveyard()).state().await.is_err(), "it was created");
    let graves = buried(&t, [5]).await?;
    assert_eq!(t.redrive(vec![letter]).await?, [Redriven::Gone], "another letter");
    assert!(t.state().await.is_err(), "it was created");
    assert_eq!((t.graves().await?, t.dead_keys().await?), (graves, vec![(7, 1)]));
    Ok(())
}

/// G11: entries are appended, and answers given, in the order of the request; a letter that is gone holds up none.
pub(super) async fn g11_keeps_the_order(t: Streams) -> Verdict {
    t.append_at([9]).await?;
    let graves = buried(&t, 1..=5).await?;
    t.redrive(vec![out_of(&graves[1])]).await?;
    let letters = vec![again(&graves[4]), again(&graves[1]), again(&graves[0]), out_of(&graves[2])];
    let redriven = t.redrive(letters).await?;
    assert_eq!(redriven[1], Redriven::Gone);
    assert_eq!(redriven[3], Redriven::Dropped);
    let new = [appended(redriven[0]), appended(redriven[2])];
    assert!(new.is_sorted_by(|a, b| a < b), "{new:?}");
    assert_eq!(fields_of(&t).await?, [fields("9"), fields("5"), fields("1")]);
    assert_eq!(t.buried().await?, ids([4]));
    Ok(())
}

/// G11: fields of any bytes are appended untouched.
pub(super) async fn g11_any_bytes(t: Streams) -> Verdict {
    let letter = new_letter(&letter_of(&t.subscription, id(1), odd()));
    t.backend.dead_letter(&t.burial(vec![letter])).await?;
    t.redrive(vec![again(&t.graves().await?[0])]).await?;
    assert_eq!(fields_of(&t).await?, [odd()]);
    Ok(())
}

/// G11: where the entry cannot be appended, its letter stays, and can be taken out later.
pub(super) async fn g11_a_failed_append_keeps_the_letter(t: Streams) -> Verdict {
    // This stream has used its last id.
    t.append_all(vec![NewEntry::new(fields("last")).with_id(EntryId::MAX)]).await?.remove(0)?;
    let graves = buried(&t, [1]).await?;
    fails(t.redrive(vec![again(&graves[0])]).await, ErrorKind::Invalid);
    assert_eq!((t.graves().await?, t.dead_keys().await?), (graves.clone(), vec![(7, 1)]));
    assert_eq!(t.redrive(vec![out_of(&graves[0])]).await?, [Redriven::Dropped]);
    Ok(())
}

/// G11: the stream itself has no letters of its own: nothing is taken out of it.
pub(super) async fn g11_into_the_stream_itself_is_invalid(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    let letter = RedriveLetter::new(id(1), id(1), None);
    for letter in [letter.clone(), letter.append(Some(fields("1")))] {
        let request = Redrive::new(t.subscription.clone(), t.subscription.stream.clone(), vec![letter]);
        fails(t.backend.redrive(&request).await, ErrorKind::Invalid);
    }
    assert_eq!(t.read(EntryId::ZERO, 10).await?, ids([1]));
    Ok(())
}

/// G11: the stream of the letters stays when the last one is out: whoever reads it goes on.
pub(super) async fn g11_the_stream_of_the_letters_stays(t: Streams) -> Verdict {
    let morgue = t.at(t.graveyard());
    let graves = buried(&t, [1]).await?;
    morgue.ensure_at(EntryId::ZERO).await?;
    t.redrive(vec![out_of(&graves[0])]).await?;
    let state = morgue.state().await?;
    assert_eq!((state.len, state.last_id), (0, graves[0].0));
    assert!(state.group.is_some(), "its groups stay");
    let graves = buried(&t, [2]).await?;
    assert!(graves[0].0 > state.last_id, "an id is not given again");
    assert_eq!(morgue.read_group("m", 10).await?, [graves[0].0]);
    Ok(())
}

/// G11: an entry whose letter is out may be buried again, as when a handler that it was redriven to failed.
pub(super) async fn g11_the_entry_may_die_again(t: Streams) -> Verdict {
    let first = buried(&t, [1]).await?;
    t.redrive(vec![out_of(&first[0])]).await?;
    assert_eq!(t.backend.dead_letter(&t.burial(vec![t.keyed(1, 7)])).await?, [Fate::Buried]);
    let second = t.graves().await?;
    assert_eq!((second.len(), t.dead_keys().await?), (1, vec![(7, 1)]));
    assert_eq!(t.redrive(vec![out_of(&first[0])]).await?, [Redriven::Gone], "the first one");
    assert_eq!(t.redrive(vec![again(&second[0])]).await?.len(), 1);
    assert_eq!(fields_of(&t).await?, [fields("1")]);
    Ok(())
}

/// G11: taking out the letter of an entry of another life of the stream leaves the one that has its id now known.
pub(super) async fn g11_the_new_letter_of_a_reused_id_is_known(t: Streams) -> Verdict {
    let new = new_letter(&letter_of(&t.subscription, id(1), fields("another")));
    t.backend.dead_letter(&t.burial(vec![t.letter(1), new.clone()])).await?;
    let graves = t.graves().await?;
    assert_eq!(t.redrive(vec![out_of(&graves[0])]).await?, [Redriven::Dropped]);
    assert_eq!(t.backend.dead_letter(&t.burial(vec![new])).await?, [Fate::Buried]);
    assert_eq!(t.graves().await?, [graves[1].clone()]);
    Ok(())
}

/// G10: a key is free when its last letter is out.
pub(super) async fn g10_frees_the_key(t: Streams) -> Verdict {
    let graves = buried(&t, 1..=3).await?;
    assert_eq!(t.dead_keys().await?, [(7, 3)]);
    t.redrive(graves.iter().map(again).collect()).await?;
    assert_eq!(t.dead_keys().await?, []);
    Ok(())
}

/// G10: each that is out is counted down, from its own key alone.
pub(super) async fn g10_counts_down(t: Streams) -> Verdict {
    let others = vec![t.keyed(11, u64::MAX), t.keyed(12, 0), t.letter(13)];
    t.backend.dead_letter(&t.burial(others)).await?;
    let graves = buried(&t, 1..=3).await?;
    t.redrive(vec![out_of(&graves[3]), again(&graves[4])]).await?;
    assert_eq!(t.dead_keys().await?, [(0, 1), (7, 1), (u64::MAX, 1)]);
    t.redrive(vec![out_of(&graves[2]), out_of(&graves[0])]).await?;
    assert_eq!(t.dead_keys().await?, [(0, 1), (7, 1)]);
    Ok(())
}

/// G10: a letter that is gone is not counted down again.
pub(super) async fn g10_counts_down_once(t: Streams) -> Verdict {
    let graves = buried(&t, 1..=3).await?;
    for _ in 0..3 {
        t.redrive(vec![out_of(&graves[0]), out_of(&graves[0])]).await?;
        assert_eq!(t.dead_keys().await?, [(7, 2)]);
    }
    Ok(())
}

/// G11: where the stream is gone, it is created, as by an append.
pub(super) async fn g11_creates_the_stream(t: Streams) -> Verdict {
    t.append_at([1]).await?;
    let graves = buried(&t, [1]).await?;
    t.remove_stream().await?;
    let redriven = t.redrive(vec![again(&graves[0])]).await?;
    assert_eq!(t.read(EntryId::ZERO, 10).await?, [appended(redriven[0])]);
    Ok(())
}

/// G11: a thousand letters in one request are as good as any.
pub(super) async fn g11_many_at_once(t: Streams) -> Verdict {
    let graves = buried(&t, 1..=1000).await?;
    let redriven = t.redrive(graves.iter().map(again).collect()).await?;
    let new: Vec<_> = redriven.into_iter().map(appended).collect();
    assert_eq!(t.read(EntryId::ZERO, 2000).await?, new);
    let expected: Vec<_> = (1..=1000).map(|ms: u64| fields(&ms.to_string())).collect();
    assert!(fields_of(&t).await? == expected, "they are in order");
    assert_eq!((t.buried().await?, t.dead_keys().await?), (vec![], vec![]));
    Ok(())
}

/// G11: of many that take the same letters out at once, one appends each.
pub(super) async fn g11_side_by_side(t: Streams) -> Verdict {
    let graves = buried(&t, 1..=20).await?;
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let t = t.clone();
        let mut letters: Vec<_> = graves.iter().map(again).collect();
        // Half of them from the end, so that they meet.
        if n % 2 == 0 {
            letters.reverse();
        }
        tasks.spawn(async move {
            let mut mine = Vec::new();
            for letter in letters {
                let redriven = t.redrive(vec![letter]).await?;
                mine.extend(redriven.into_iter().filter(|redriven| *redriven != Redriven::Gone));
            }
            Ok::<_, crate::Error>(mine)
        });
    }
    let mut all = Vec::new();
    while let Some(mine) = tasks.join_next().await {
        all.extend(mine.expect("the task does not panic")?.into_iter().map(appended));
    }
    assert_eq!(all.len(), 20);
    each_once(all, &t.read(EntryId::ZERO, 100).await?);
    assert_eq!((t.buried().await?, t.dead_keys().await?), (vec![], vec![]));
    Ok(())
}

/// No letters are no work.
pub(super) async fn nothing_to_take_out(t: Streams) -> Verdict {
    assert_eq!(t.redrive(Vec::new()).await?, []);
    assert!(t.state().await.is_err(), "it was created");
    Ok(())
}

/// A group that is blocked on the stream wakes.
pub(super) async fn a_blocked_read_wakes(t: Streams) -> Verdict {
    t.ensure_at(EntryId::ZERO).await?;
    let graves = buried(&t, [1]).await?;
    let redrive = async {
        t.clock.sleep(Duration::from_millis(50)).await;
        t.redrive(vec![again(&graves[0])]).await
    };
    let read = async {
        loop {
            let deliveries = t.backend.read_group(&t.reading("a", 10).block(LONG)).await?;
            if let Some(delivery) = deliveries.first() {
                return Ok::<_, crate::Error>(delivery.id());
            }
        }
    };
    let (read, redriven) =
        soon("a redriven entry to a blocked reader", async { tokio::join!(read, redrive) }).await;
    assert_eq!(redriven?, [Redriven::Appended(read?)]);
    Ok(())
}
