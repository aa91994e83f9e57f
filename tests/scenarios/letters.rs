//! Entries that cannot be handled: where they go, and what goes on around them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use highwater::{
    Backoff, DeadLetters, DeathReason, Delivery, EntryId, ErrorKind, Fields, HandlerError, Letter, Ownership,
    backend::{Append, NewEntry, StreamBackendExt},
    codec::{Json, PAYLOAD_FIELD},
    dead_letter_stream,
    layer::{Fault, Faults, Layer, Operation},
    typed,
};

use super::stage::*;
use crate::{
    delivery::{AnyBuilder, Place, Running, number},
    support::eventually,
};

pub async fn letters(place: &Place) -> Vec<Letter> {
    let stream = dead_letter_stream(&place.subscription).unwrap();
    let entries = place.stream.entries_after(&stream, EntryId::ZERO, 10_000).await.unwrap();
    entries.iter().map(|entry| Letter::from_entry(entry).unwrap()).collect()
}

/// Id and reason of each letter, in order of ids.
async fn reasons(place: &Place) -> Vec<(u64, DeathReason)> {
    let mut reasons: Vec<_> = letters(place).await.iter().map(|l| (l.id.ms, l.reason)).collect();
    reasons.sort_by_key(|(n, _)| *n);
    reasons
}

/// Entries with these fields, by their ids.
async fn append_fields(place: &Place, entries: impl IntoIterator<Item = (u64, Fields)>) {
    let entries = entries.into_iter().map(|(n, fields)| NewEntry::new(fields).with_id(id(n))).collect();
    let request = Append::new(place.subscription.stream.clone(), entries);
    for appended in place.stream.append(&request).await.unwrap() {
        appended.unwrap();
    }
}

/// A hundred numbers as JSON, of which one is something else.
async fn append_numbers(place: &Place, bad: u64, instead: Fields) {
    let fields = |n: u64| {
        if n == bad { instead.clone() } else { Fields::from_iter([(PAYLOAD_FIELD, n.to_string())]) }
    };
    append_fields(place, (1..=100).map(|n| (n, fields(n)))).await;
}

fn json(seen: &Arc<Mutex<Vec<u64>>>) -> impl highwater::Handler + use<> {
    let seen = Arc::clone(seen);
    typed::<Json, u64, _, _, _>(move |n: u64, _: Delivery| {
        seen.lock().unwrap().push(n);
        std::future::ready(Ok::<_, HandlerError>(()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t08_an_undecodable_entry_among_100_goes_to_the_letters_and_holds_up_no_instance() {
    everywhere(async |case| {
        append_numbers(&case.place, 38, Fields::from_iter([(PAYLOAD_FIELD, "{")])).await;
        let seen = Arc::default();
        let few = || case.builder().configure(|settings| settings.read_entries_max = 10);
        let running = [0, 1].map(|_| Running::start(few(), json(&seen)));
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(100)).await;
        let reports = join_all(running.map(Running::stop)).await;
        let mut numbers = seen.lock().unwrap().clone();
        numbers.sort_unstable();
        let expected: Vec<_> = (1..=100).filter(|n| *n != 38).collect();
        assert_eq!(numbers, expected, "{} {:?}", case.name, case.ownership);
        assert_eq!(reasons(&case.place).await, [(38, DeathReason::Undecodable)], "{}", case.name);
        assert_eq!(reports.iter().map(|report| report.dead_lettered).sum::<u64>(), 1, "{}", case.name);
        if case.ownership == Ownership::Shared {
            assert_eq!(group(&case.place).await.pending, 0, "{}", case.name);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_an_entry_without_the_field_is_seen_and_leaves_the_pending_list() {
    everywhere(async |case| {
        let other = Fields::from_iter([("body", "7")]);
        append_numbers(&case.place, 50, other.clone()).await;
        let (seen, told) = (Arc::default(), Told::default());
        let running = Running::start(case.builder().observer(told.observer()), json(&seen));
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(100)).await;
        running.stop().await;
        assert_eq!(seen.lock().unwrap().len(), 99, "{} {:?}", case.name, case.ownership);
        let letters = letters(&case.place).await;
        assert_eq!(letters.len(), 1, "{} {:?}", case.name, case.ownership);
        assert_eq!((letters[0].id, &letters[0].fields), (id(50), &other), "{}: untouched", case.name);
        assert_eq!(told.count("DeadLettered"), 1, "{}: and told", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t21_a_process_that_is_killed_is_no_failure_of_the_entry_it_handled() {
    everywhere(async |case| {
        append(&case.place, 1..=3).await;
        let once = || case.builder().configure(|settings| settings.attempts_max = 1);
        let killed = Calls::default();
        let running = Running::start(once(), killed.stuck_at([2]));
        killed.until("it is in the handler", 2).await;
        eventually("the first is saved", LIMIT, async || {
            let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap();
            checkpoint.is_some_and(|checkpoint| checkpoint.position.settles(id(1)))
        })
        .await;
        running.abort();
        let calls = Calls::default();
        let running = Running::start(once(), calls.stuck_at([]));
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(3)).await;
        let report = running.stop().await;
        assert_eq!(calls.numbers(), [2, 3], "{} {:?}", case.name, case.ownership);
        assert_eq!((reasons(&case.place).await, report.dead_lettered), (vec![], 0), "{}", case.name);
    })
    .await;
}

pub fn rejects<F: Fn(u64) -> bool + Send + Sync + 'static>(
    calls: &Calls,
    bad: F,
) -> impl highwater::Handler + use<F> {
    let calls = calls.clone();
    move |delivery: Delivery| {
        let is_bad = bad(calls.note(&delivery));
        let result = if is_bad { Err(HandlerError::reject("no such customer")) } else { Ok(()) };
        std::future::ready(result)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t22_without_its_letter_an_entry_is_not_acked_and_both_take_place_once_it_can_be_written() {
    everywhere(async |mut case| {
        let faults = Faults::new();
        case.place.stream = Arc::new(faults.clone().wrap(case.place.stream));
        faults.always(Operation::DeadLetter, Fault::Before);
        append(&case.place, 1..=5).await;
        let (calls, told) = (Calls::default(), Told::default());
        let running = Running::start(case.builder().observer(told.observer()), rejects(&calls, |n| n == 2));
        eventually("it is tried again", LIMIT, async || faults.calls(Operation::DeadLetter) > 3).await;
        let checkpoint = case.place.checkpoints.load(&case.place.subscription).await.unwrap();
        assert!(!checkpoint.is_some_and(|checkpoint| checkpoint.position.settles(id(2))), "{}", case.name);
        if case.ownership == Ownership::Shared {
            assert_eq!(group(&case.place).await.first_pending.map(|first| first <= id(2)), Some(true));
        }
        assert!(told.count("Unavailable") >= 3, "{}: it is told", case.name);
        assert_eq!(reasons(&case.place).await, [], "{}", case.name);
        faults.clear();
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(5)).await;
        running.stop().await;
        assert_eq!(reasons(&case.place).await, [(2, DeathReason::Rejected)], "{}", case.name);
        calls.assert_once(case.name, 1..=5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t22_a_sink_that_fails_acks_nothing() {
    everywhere(async |case| {
        append(&case.place, 1..=3).await;
        let (calls, kept) = (Calls::default(), Arc::new(Mutex::new((0, Vec::new()))));
        let taken = Arc::clone(&kept);
        let sink = DeadLetters::sink(move |letter: Letter| {
            let mut kept = taken.lock().unwrap();
            kept.0 += 1;
            let refused = kept.0 <= 3;
            if !refused {
                kept.1.push(letter.id.ms);
            }
            async move {
                if refused {
                    return Err(highwater::Error::new(ErrorKind::Unavailable, "the mailbox is full"));
                }
                Ok(())
            }
        });
        let running = Running::start(case.builder().dead_letters(sink), rejects(&calls, |n| n == 2));
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(3)).await;
        running.stop().await;
        assert_eq!(*kept.lock().unwrap(), (4, vec![2]), "{} {:?}", case.name, case.ownership);
        calls.assert_once(case.name, 1..=3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t23_letters_do_not_go_round_in_circles() {
    everywhere(async |case| {
        let itself = DeadLetters::Stream(case.place.subscription.stream.clone());
        let error = case.builder().dead_letters(itself).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        append(&case.place, 1..=1).await;
        let calls = Calls::default();
        let running = Running::start(case.builder(), rejects(&calls, |_| true));
        eventually("it is dead-lettered", LIMIT, async || letters(&case.place).await.len() == 1).await;
        running.stop().await;
        // Whoever consumes the letters, and fails with one: it goes one stream further, once, and back to none.
        let mut of_letters = Place::new(case.place.stream.clone(), case.place.checkpoints.clone());
        of_letters.subscription = highwater::Subscription::new(
            dead_letter_stream(&case.place.subscription).unwrap().as_str(),
            "letters",
        )
        .unwrap();
        let (again, told) = (Calls::default(), Told::default());
        let builder = of_letters.builder(case.ownership).configure(quick).observer(told.observer());
        let running = Running::start(builder, rejects(&again, |_| true));
        eventually("it is dead-lettered again", LIMIT, async || told.count("DeadLettered") == 1).await;
        for_a_time(Duration::from_millis(500)).await;
        running.stop().await;
        assert_eq!((calls.numbers(), again.numbers()), (vec![1], vec![1]), "{}: once each", case.name);
        assert_eq!(
            (letters(&case.place).await.len(), letters(&of_letters).await.len()),
            (1, 1),
            "{}",
            case.name
        );
        assert_eq!(
            state(&case.place).await.entries_added.unwrap_or(1),
            1,
            "{}: nothing came back",
            case.name
        );
    })
    .await;
}

/// Entries of keys: the first letter of each text is its key.
pub async fn append_keys(place: &Place, from: u64, keys: &str) {
    let fields =
        |(n, key): (u64, char)| (n, Fields::from_iter([("n", n.to_string()), ("key", key.to_string())]));
    append_fields(place, (from..).zip(keys.chars()).map(fields)).await;
}

pub fn keyed(builder: AnyBuilder) -> AnyBuilder {
    builder.keyed(4, |delivery| delivery.fields().get("key").cloned())
}

/// When each call of an entry began, and when it ended.
type Times = Arc<Mutex<Vec<(u64, Instant)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t24_a_retry_stays_before_the_later_entries_of_its_key_and_holds_back_no_other() {
    everywhere(async |case| {
        append_keys(&case.place, 1, "abababbb").await;
        let times: Times = Arc::default();
        let noted = Arc::clone(&times);
        let handler = move |delivery: Delivery| {
            let n = number(&delivery);
            noted.lock().unwrap().push((n, Instant::now()));
            let fails = n == 1;
            async move { if fails { Err(HandlerError::retry("not yet")) } else { Ok(()) } }
        };
        let wait = Duration::from_millis(400);
        let builder = keyed(case.builder()).configure(|settings| {
            settings.retry =
                Backoff { first: wait, factor: 1.0, max: wait, jitter: 0.0, ..Backoff::default() };
            settings.attempts_max = 3;
        });
        let running = Running::start(builder, handler);
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(8)).await;
        running.stop().await;
        let times = times.lock().unwrap().clone();
        let order =
            |of: &[u64]| -> Vec<u64> { times.iter().map(|(n, _)| *n).filter(|n| of.contains(n)).collect() };
        assert_eq!(order(&[1, 3, 5]), [1, 1, 1, 3, 5], "{} {:?}", case.name, case.ownership);
        assert_eq!(order(&[2, 4, 6, 7, 8]), [2, 4, 6, 7, 8], "{} {:?}", case.name, case.ownership);
        let last_b = times.iter().find(|(n, _)| *n == 8).unwrap().1;
        let second_a = times.iter().filter(|(n, _)| *n == 1).nth(1).unwrap().1;
        assert!(last_b < second_a, "{} {:?}: b does not wait for a", case.name, case.ownership);
        assert_eq!(reasons(&case.place).await, [(1, DeathReason::Exhausted)], "{}", case.name);
    })
    .await;
}

/// How often each entry was in a batch that was handled.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<BTreeMap<u64, u64>>>);

fn batches(
    handled: &Handled,
    bad: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> impl highwater::BatchHandler {
    let handled = handled.clone();
    move |batch: Vec<Delivery>| {
        let numbers: Vec<_> = batch.iter().map(number).collect();
        let failed = numbers.iter().position(|n| bad(*n));
        // Those before it are handled.
        for n in &numbers[..failed.unwrap_or(numbers.len())] {
            *handled.0.lock().unwrap().entry(*n).or_default() += 1;
        }
        std::future::ready(match failed {
            Some(index) => Err(HandlerError::retry(format!("entry {} is bad", numbers[index])).at(index)),
            None => Ok(()),
        })
    }
}

async fn run_batches(case: &Case, count: u64, bad: impl Fn(u64) -> bool + Send + Sync + 'static) -> Handled {
    append(&case.place, 1..=count).await;
    let handled = Handled::default();
    let builder = case.builder().configure(|settings| settings.attempts_max = 3);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let consumer = builder.build().unwrap();
    let run = tokio::spawn(consumer.run_batches(batches(&handled, bad), async { drop(stopped.await) }));
    eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(count)).await;
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
    handled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_of_a_batch_of_100_the_38th_is_given_up_and_the_rest_is_handled_once() {
    everywhere(async |case| {
        let handled = run_batches(&case, 100, |n| n == 38).await;
        let expected: BTreeMap<_, _> = (1..=100).filter(|n| *n != 38).map(|n| (n, 1)).collect();
        assert_eq!(*handled.0.lock().unwrap(), expected, "{} {:?}", case.name, case.ownership);
        let letters = letters(&case.place).await;
        assert_eq!(letters.len(), 1, "{} {:?}", case.name, case.ownership);
        let letter = &letters[0];
        assert_eq!((letter.id, letter.reason, letter.attempts), (id(38), DeathReason::Exhausted, 3));
        assert_eq!(
            (&letter.subscription, letter.error.as_str()),
            (&case.place.subscription, "entry 38 is bad")
        );
        assert_eq!(letter.fields, Fields::from_iter([("n", "38")]), "{}: untouched", case.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_a_batch_of_nothing_but_bad_entries_goes_to_the_letters_one_by_one() {
    everywhere(async |case| {
        let handled = run_batches(&case, 5, |_| true).await;
        assert_eq!(handled.0.lock().unwrap().len(), 0, "{} {:?}", case.name, case.ownership);
        let expected: Vec<_> = (1..=5).map(|n| (n, DeathReason::Exhausted)).collect();
        assert_eq!(reasons(&case.place).await, expected, "{} {:?}", case.name, case.ownership);
    })
    .await;
}
