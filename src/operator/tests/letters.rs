//! Dead letters.

use futures_util::future::join_all;

use super::*;
use crate::{
    DeathReason, Letter, LetterFilter, Letters, StreamName,
    backend::StreamBackendExt,
    clock::Timestamp,
    dead_letter_stream,
    layer::{Fault, Faults, Layer, Operation},
};

fn everything() -> LetterFilter {
    LetterFilter::default()
}

fn letters(memory: &Memory) -> Letters {
    Letters::new(subscription(), memory.clone()).unwrap()
}

fn graves() -> StreamName {
    dead_letter_stream(&subscription()).unwrap()
}

/// The letter of an entry as `with` appends it. Its key is that of all with the same parity.
fn letter(n: u64) -> Letter {
    Letter {
        subscription: subscription(),
        id: id(n),
        fields: Fields::from_iter([("n", n.to_string())]),
        reason: if n.is_multiple_of(3) { DeathReason::TimedOut } else { DeathReason::Rejected },
        error: format!("no customer {n}"),
        attempts: 1,
        crashes: 0,
        deliveries: 2,
        first_at: Timestamp::from_millis(n),
        last_at: Timestamp::from_millis(100 + n),
        consumer: ConsumerName::new("c").unwrap(),
        key: Some(n % 2),
    }
}

async fn bury(memory: &Memory, numbers: std::ops::RangeInclusive<u64>) {
    let new = |n| {
        let letter = letter(n);
        NewLetter::new(letter.id, letter.to_fields(), letter.fields.len()).with_key(letter.key)
    };
    let request = BuryLetters::new(subscription(), graves(), numbers.map(new).collect());
    for fate in memory.dead_letter(&request).await.unwrap() {
        assert_eq!(fate, Fate::Buried);
    }
}

async fn numbers(letters: &Letters, filter: &LetterFilter) -> Vec<u64> {
    let page = letters.list(filter, EntryId::ZERO, 1_000).await.unwrap();
    page.letters.iter().map(|filed| filed.letter.id.ms).collect()
}

#[tokio::test(start_paused = true)]
async fn g11_letters_are_listed_by_what_is_known_of_them() {
    let memory = with(1..=9).await;
    bury(&memory, 1..=9).await;
    let letters = letters(&memory);
    let time = Timestamp::from_millis;
    for (filter, expected) in [
        (everything(), vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (everything().id(id(4)).id(id(2)).id(id(99)), vec![2, 4]),
        (everything().reason(DeathReason::TimedOut), vec![3, 6, 9]),
        (everything().reason(DeathReason::TimedOut).key(1), vec![3, 9]),
        (everything().from(time(103)).until(time(105)), vec![3, 4]),
        (everything().error("customer 7"), vec![7]),
        (everything().error("none"), vec![]),
    ] {
        assert_eq!(numbers(&letters, &filter).await, expected, "{filter:?}");
    }
    // In pages, however few of them match.
    let (mut after, mut seen) = (Some(EntryId::ZERO), Vec::new());
    while let Some(from) = after {
        let page = letters.list(&everything().key(0), from, 3).await.unwrap();
        assert!(page.letters.len() <= 3);
        seen.extend(page.letters.iter().map(|filed| filed.letter.id.ms));
        after = page.next;
    }
    assert_eq!(seen, [2, 4, 6, 8]);
}

#[tokio::test(start_paused = true)]
async fn g11_what_is_no_letter_is_told_and_stays() {
    let memory = with(1..=3).await;
    bury(&memory, 1..=1).await;
    let odd = memory.append_one(&graves(), Fields::from_iter([("not", "a letter")])).await.unwrap();
    let stranger = Letter { subscription: Subscription::new("s", "other").unwrap(), ..letter(3) };
    memory.append_one(&graves(), stranger.to_fields()).await.unwrap();
    bury(&memory, 2..=2).await;
    let letters = letters(&memory);
    let page = letters.list(&everything(), EntryId::ZERO, 10).await.unwrap();
    assert_eq!((page.letters.len(), page.unreadable.len()), (2, 1));
    assert_eq!((page.unreadable[0].0, page.unreadable[0].1.kind()), (odd, ErrorKind::Corrupt));
    let report = letters.redrive(&everything()).await.unwrap();
    assert_eq!((report.done, report.unreadable), (2, 1));
    assert_eq!(memory.state(&graves()).await.unwrap().unwrap().len, 2, "it stays, and that of another group");
}

#[tokio::test(start_paused = true)]
async fn g11_a_redrive_is_idempotent_and_keeps_the_original_id() {
    let memory = with(1..=250).await;
    bury(&memory, 1..=250).await;
    let faults = Faults::new();
    faults.next(Operation::Redrive, Fault::After);
    faults.always(Operation::Read, Fault::Late(Duration::from_millis(10)));
    let letters = Letters::new(subscription(), faults.wrap(memory.clone())).unwrap();
    letters.redrive(&everything()).await.expect_err("the reply was lost");
    let everything = everything();
    let reports = join_all((0..5).map(|_| letters.redrive(&everything))).await;
    let done: u64 = reports.into_iter().map(|report| report.unwrap().done).sum();
    assert_eq!(done, 150, "a page of them was done before");
    let entries = memory.entries_after(&subscription().stream, id(250), 1_000).await.unwrap();
    let ids: Vec<_> = entries.iter().map(|entry| entry.fields.get(REDRIVEN_ID).unwrap().clone()).collect();
    assert_eq!(ids, (1..=250).map(|n| id(n).to_string()).collect::<Vec<_>>(), "each once, in order");
    let own: Vec<_> = entries[6].fields.iter().take(1).cloned().collect();
    assert_eq!(Fields::from(own), letter(7).fields);
    assert_eq!(entries[6].fields.get(REDRIVEN_FROM).unwrap(), graves().as_str());
    assert_eq!(memory.dead_keys(&DeadKeys::new(subscription(), graves())).await.unwrap(), []);

    // It fails again, and is redriven again: still the same entry.
    let again = Letter { id: entries[6].id, fields: entries[6].fields.clone(), ..letter(7) };
    let new = NewLetter::new(again.id, again.to_fields(), again.fields.len());
    memory.dead_letter(&BuryLetters::new(subscription(), graves(), vec![new])).await.unwrap();
    letters.redrive(&everything).await.unwrap();
    let last = memory.entries_after(&subscription().stream, entries[249].id, 10).await.unwrap();
    assert_eq!(last[0].fields, entries[6].fields);
}

#[tokio::test(start_paused = true)]
async fn g10_straight_to_a_handler_a_failure_holds_back_its_key() {
    let memory = with(1..=9).await;
    bury(&memory, 1..=9).await;
    let letters = letters(&memory);
    let called = Mutex::new(Vec::new());
    let called: &'static Mutex<Vec<u64>> = Box::leak(Box::new(called));
    let failing = |delivery: Delivery| {
        assert!(delivery.is_redelivery() && *delivery.fields() == letter(delivery.id().ms).fields);
        called.lock().unwrap().push(delivery.id().ms);
        assert_ne!(delivery.id().ms, 8, "a panic is a failure as well");
        async move { if delivery.id().ms == 3 { Err(HandlerError::retry("not yet")) } else { Ok(()) } }
    };
    let report = letters.redrive_to(&everything(), &failing).await.unwrap();
    assert_eq!(*called.lock().unwrap(), [1, 2, 3, 4, 6, 8]);
    assert_eq!((report.done, report.failed, report.held_back), (4, 2, 3));
    assert_eq!(numbers(&letters, &everything()).await, [3, 5, 7, 8, 9]);
    assert_eq!(memory.dead_keys(&DeadKeys::new(subscription(), graves())).await.unwrap(), [(0, 1), (1, 4)]);

    called.lock().unwrap().clear();
    let stopping = |delivery: Delivery| {
        let stops = delivery.id().ms == 5;
        assert_eq!(delivery.attempt, 2, "it has failed once");
        async move { if stops { Err(HandlerError::stop("the service is away")) } else { Ok(()) } }
    };
    let error = letters.redrive_to(&everything().id(id(3)).id(id(5)), &stopping).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(numbers(&letters, &everything()).await, [5, 7, 8, 9]);
    let fine = |delivery: Delivery| {
        called.lock().unwrap().push(delivery.id().ms);
        std::future::ready(Ok::<_, HandlerError>(()))
    };
    assert_eq!(letters.redrive_to(&everything(), &fine).await.unwrap().done, 4);
    assert_eq!(*called.lock().unwrap(), [5, 7, 8, 9]);
    assert_eq!(numbers(&letters, &everything()).await, [0u64; 0]);
    assert_eq!(memory.state(&subscription().stream).await.unwrap().unwrap().len, 9, "nothing was appended");
}

#[tokio::test(start_paused = true)]
async fn g10_with_parking_a_key_stays_in_order_while_it_is_redriven() {
    for ownership in both() {
        let memory = with(1..=9).await;
        let called: &'static Mutex<Vec<u64>> = Box::leak(Box::default());
        let builder = Consumer::fused(subscription(), memory.clone())
            .configure(|settings| {
                settings.ownership = ownership;
                settings.parked_entries_max = 100;
            })
            .keyed(2, |delivery| delivery.id().ms % 2);
        let rejecting = move |delivery: Delivery| {
            let rejected = delivery.id().ms == 1;
            if !rejected {
                called.lock().unwrap().push(delivery.id().ms);
            }
            async move { if rejected { Err(HandlerError::reject("poison")) } else { Ok(()) } }
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(builder.build().unwrap().run(rejecting, async { drop(stopped.await) }));
        let letters = letters(&memory);
        until("the key is parked", async || numbers(&letters, &everything()).await.len() == 5).await;
        let parked = everything().reason(DeathReason::Parked);
        assert_eq!(numbers(&letters, &parked).await, [3, 5, 7, 9], "{ownership:?}");

        // What comes in while a letter is handled follows into the letters, and is handled behind them the next time.
        let stream = memory.clone();
        let slow = move |delivery: Delivery| {
            let memory = stream.clone();
            async move {
                if delivery.id().ms == 9 {
                    append(&memory, 10..=11).await;
                    sleep(1).await;
                }
                called.lock().unwrap().push(delivery.id().ms);
                Ok::<_, HandlerError>(())
            }
        };
        assert_eq!(letters.redrive_to(&everything(), &slow).await.unwrap().done, 5);
        assert_eq!(numbers(&letters, &everything()).await, [11], "{ownership:?}");
        assert_eq!(letters.redrive_to(&everything(), &slow).await.unwrap().done, 1);
        append(&memory, 12..=13).await;
        until("it goes on without letters", async || called.lock().unwrap().len() == 13).await;
        let odd: Vec<_> = called.lock().unwrap().iter().copied().filter(|n| n % 2 == 1).collect();
        assert_eq!(odd, [1, 3, 5, 7, 9, 11, 13], "{ownership:?}");
        stop.send(()).unwrap();
        run.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_letter_that_cannot_be_removed_is_handled_again() {
    let memory = with(1..=2).await;
    bury(&memory, 1..=2).await;
    let faults = Faults::new();
    faults.next(Operation::Redrive, Fault::Before);
    let letters = Letters::new(subscription(), faults.wrap(memory.clone())).unwrap();
    let fine = |_: Delivery| std::future::ready(Ok::<_, HandlerError>(()));
    letters.redrive_to(&everything(), &fine).await.unwrap_err();
    assert_eq!(letters.redrive_to(&everything(), &fine).await.unwrap().done, 2);
}

#[tokio::test(start_paused = true)]
async fn g11_letters_are_forgotten_by_choice() {
    let memory = with(1..=9).await;
    let letters = letters(&memory);
    assert_eq!(letters.forget(&everything()).await.unwrap(), RedriveReport::default(), "there is no stream");
    bury(&memory, 1..=9).await;
    let report = letters.forget(&everything().reason(DeathReason::TimedOut)).await.unwrap();
    assert_eq!(report.done, 3);
    assert_eq!(numbers(&letters, &everything()).await, [1, 2, 4, 5, 7, 8]);
    assert_eq!(memory.state(&subscription().stream).await.unwrap().unwrap().len, 9);
}
