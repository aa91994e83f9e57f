//! G3, G8, G11 on real stores: what an operator does to a subscription, over every way to combine the stores.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use highwater::{
    Delivery, EntryId, ErrorKind, Fields, HandlerError, Letter, LetterFilter, Letters, Observation, Operator,
    Ownership, Report, SeekTo, Subscription,
    backend::{BuryLetters, Fate, NewLetter, StreamBackendExt},
    dead_letter_stream,
    operator::REDRIVEN_ID,
};
use highwater_postgres::Postgres;

use crate::{
    delivery::{AnyBuilder, Place, Running, Seen, places},
    support::{eventually, fresh_postgres_url},
};

const LIMIT: Duration = Duration::from_secs(20);

fn both() -> [Ownership; 2] {
    [Ownership::Shared, Ownership::Exclusive]
}

/// With checkpoints in PostgreSQL too.
async fn all_places() -> Vec<(&'static str, Place)> {
    let mut all = places().await;
    for (name, beside) in [("redis + postgres", 0), ("sqlite + postgres", 4)] {
        let postgres = Postgres::connect(&fresh_postgres_url().await).await.unwrap();
        postgres.ensure_schema().await.unwrap();
        all.push((name, Place::new(Arc::clone(&all[beside].1.stream), Arc::new(postgres))));
    }
    all
}

fn operator(place: &Place) -> Operator {
    Operator::new(place.subscription.clone(), Arc::clone(&place.stream), Arc::clone(&place.checkpoints))
}

fn builder(place: &Place, ownership: Ownership) -> AnyBuilder {
    place.builder(ownership).configure(|settings| {
        settings.probe_interval = Duration::from_millis(100);
        settings.ttl = Duration::from_millis(900);
    })
}

async fn ids(place: &Place) -> Vec<EntryId> {
    let entries = place.stream.entries_after(&place.subscription.stream, EntryId::ZERO, 1_000).await.unwrap();
    entries.iter().map(|entry| entry.id).collect()
}

async fn consume(place: &Place, ownership: Ownership) -> (Vec<u64>, Report) {
    let seen = Seen::default();
    let running = Running::start(builder(place, ownership), seen.handler());
    place.until_all_settled().await;
    let report = running.stop().await;
    (seen.numbers(), report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_a_seek_back_replays_all_from_there_in_every_combination() {
    for ownership in both() {
        for (name, place) in all_places().await {
            place.append(60).await;
            consume(&place, ownership).await;
            let before = place.checkpoints.load(&place.subscription).await.unwrap().unwrap();
            let to = ids(&place).await[19];
            let epoch = operator(&place).seek(SeekTo::Id(to), "a bug in the handler").await.unwrap();
            let after = place.checkpoints.load(&place.subscription).await.unwrap().unwrap();
            assert!(epoch > before.epoch && epoch == after.epoch, "{name} {ownership:?}");
            assert_eq!((after.position.watermark, after.paused), (to, false), "{name} {ownership:?}");
            assert_eq!(after.reason.as_deref(), Some("a bug in the handler"), "{name} {ownership:?}");
            let (seen, report) = consume(&place, ownership).await;
            assert_eq!(seen, (21..=60).collect::<Vec<_>>(), "{name} {ownership:?}");
            assert_eq!((report.settled, report.skipped), (40, 0), "{name} {ownership:?}");
            let status = operator(&place).status().await.unwrap();
            assert_eq!((status.finding, status.consumers_alive()), (None, 0), "{name} {ownership:?}");

            operator(&place).seek(SeekTo::End, "").await.unwrap();
            place.append(1).await;
            assert_eq!(consume(&place, ownership).await.0, [1], "{name} {ownership:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_the_living_are_not_moved_unless_it_is_forced_in_every_combination() {
    for ownership in both() {
        for (name, place) in all_places().await {
            place.append(20).await;
            let seen = Seen::default();
            let running = Running::start(builder(&place, ownership), seen.handler());
            place.until_all_settled().await;
            let to = ids(&place).await[9];
            let before = place.checkpoints.load(&place.subscription).await.unwrap().unwrap();
            for refused in [operator(&place).seek(SeekTo::Id(to), "").await, operator(&place).pause("").await]
            {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy, "{name} {ownership:?}");
            }
            let unchanged = place.checkpoints.load(&place.subscription).await.unwrap().unwrap();
            assert_eq!((unchanged.epoch, unchanged.paused), (before.epoch, false), "{name} {ownership:?}");
            operator(&place).force(true).seek(SeekTo::Id(to), "").await.unwrap();
            eventually("it comes again", LIMIT, async || seen.numbers().len() >= 30).await;
            place.until_all_settled().await;
            running.stop().await;
            let again: Vec<_> = (1..=20).chain(11..=20).collect();
            assert_eq!(seen.numbers(), again, "{name} {ownership:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g8_a_pause_survives_restarts_in_every_combination() {
    for ownership in both() {
        for (name, place) in all_places().await {
            place.append(5).await;
            let (seen, paused) = (Seen::default(), Arc::new(AtomicU64::new(0)));
            let start = || {
                let paused = Arc::clone(&paused);
                let builder = builder(&place, ownership).observer(
                    move |_: &Subscription, observation: &Observation<'_>| {
                        if let Observation::Paused { reason } = observation {
                            assert_eq!(*reason, Some("a migration"));
                            paused.fetch_add(1, Ordering::Relaxed);
                        }
                    },
                );
                Running::start(builder, seen.handler())
            };
            let running = start();
            place.until_all_settled().await;
            operator(&place).force(true).pause("a migration").await.unwrap();
            eventually("it stands by", LIMIT, async || paused.load(Ordering::Relaxed) == 1).await;
            place.append(5).await;
            running.stop().await;
            let running = start();
            eventually("the next one too", LIMIT, async || paused.load(Ordering::Relaxed) == 2).await;
            assert_eq!(seen.numbers().len(), 5, "{name} {ownership:?}");
            eventually("nobody counts as alive", LIMIT, async || {
                operator(&place).status().await.unwrap().consumers_alive() == 0
            })
            .await;
            operator(&place).resume().await.unwrap();
            place.until_all_settled().await;
            running.stop().await;
            assert_eq!(seen.numbers(), [1, 2, 3, 4, 5, 1, 2, 3, 4, 5], "{name} {ownership:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_of_many_that_skip_an_entry_one_does_in_every_combination() {
    for ownership in both() {
        for (name, place) in all_places().await {
            place.append(5).await;
            consume(&place, ownership).await;
            place.append(5).await;
            let next = ids(&place).await[5];
            let operator = operator(&place);
            let skipped = join_all((0..100).map(|_| operator.skip(next, "poison"))).await;
            let (done, refused): (Vec<_>, Vec<_>) = skipped.into_iter().partition(|skipped| skipped.is_ok());
            assert_eq!(done.len(), 1, "{name} {ownership:?}");
            for refused in refused {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Fenced, "{name} {ownership:?}");
            }
            assert_eq!(consume(&place, ownership).await.0, [2, 3, 4, 5], "{name} {ownership:?}");
        }
    }
}

/// Fields of a letter, as a consumer writes them: `Letter` says how.
fn letter(place: &Place, id: EntryId, n: u64) -> NewLetter {
    let about = [
        ("n", n.to_string()),
        ("dead.stream", place.subscription.stream.to_string()),
        ("dead.group", place.subscription.group.to_string()),
        ("dead.id", id.to_string()),
        ("dead.reason", "rejected".to_owned()),
        ("dead.error", "no such customer".to_owned()),
        ("dead.attempts", "1".to_owned()),
        ("dead.crashes", "0".to_owned()),
        ("dead.deliveries", "1".to_owned()),
        ("dead.first_at", "1".to_owned()),
        ("dead.last_at", "2".to_owned()),
        ("dead.consumer", "c".to_owned()),
        ("dead.key", format!("{:016x}", n % 2)),
    ];
    NewLetter::new(id, Fields::from_iter(about), 1).with_key(Some(n % 2))
}

async fn bury(place: &Place, count: usize) -> Vec<EntryId> {
    place.append(count as u64).await;
    let mut ids = ids(place).await;
    let ids = ids.split_off(ids.len() - count);
    let letters = ids.iter().zip(1..).map(|(&id, n)| letter(place, id, n)).collect();
    let from = dead_letter_stream(&place.subscription).unwrap();
    let request = BuryLetters::new(place.subscription.clone(), from, letters);
    let fates = place.stream.dead_letter(&request).await.unwrap();
    assert_eq!(fates, vec![Fate::Buried; count]);
    ids
}

async fn stream_places() -> Vec<(&'static str, Place)> {
    let mut all = places().await;
    all.retain(|(name, _)| ["redis + same redis", "sqlite + same sqlite", "memory + redis"].contains(name));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g11_a_redrive_is_idempotent_on_every_stream_store() {
    for (name, place) in stream_places().await {
        let original = bury(&place, 250).await;
        let last = *original.last().unwrap();
        let letters = Letters::new(place.subscription.clone(), Arc::clone(&place.stream)).unwrap();
        let everything = LetterFilter::default();
        let reports = join_all((0..8).map(|_| letters.redrive(&everything))).await;
        let done: u64 = reports.into_iter().map(|report| report.unwrap().done).sum();
        assert_eq!(done, 250, "{name}");
        let again = place.stream.entries_after(&place.subscription.stream, last, 1_000).await.unwrap();
        let mut ids: Vec<EntryId> = again
            .iter()
            .map(|entry| {
                std::str::from_utf8(entry.fields.get(REDRIVEN_ID).unwrap()).unwrap().parse().unwrap()
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, original, "{name}: each once");
        assert!(letters.list(&everything, EntryId::ZERO, 10).await.unwrap().letters.is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g10_letters_go_straight_to_a_handler_in_order_on_every_stream_store() {
    for (name, place) in stream_places().await {
        let original = bury(&place, 9).await;
        let letters = Letters::new(place.subscription.clone(), Arc::clone(&place.stream)).unwrap();
        let seen = Seen::default();
        let (record, third) = (seen.handler(), original[2]);
        let handler = move |delivery: Delivery| {
            let fails = delivery.id() == third;
            let recorded = record(delivery);
            async move {
                recorded.await?;
                if fails { Err(HandlerError::retry("not yet")) } else { Ok(()) }
            }
        };
        let everything = LetterFilter::default();
        let report = letters.redrive_to(&everything, &handler).await.unwrap();
        assert_eq!(seen.numbers(), [1, 2, 3, 4, 6, 8], "{name}");
        assert_eq!((report.done, report.failed, report.held_back), (5, 1, 3), "{name}");
        let left = letters.list(&everything, EntryId::ZERO, 10).await.unwrap().letters;
        let left: Vec<_> =
            left.into_iter().map(|filed| filed.letter).map(|letter: Letter| letter.id).collect();
        assert_eq!(left, [2, 4, 6, 8].map(|at| original[at]), "{name}");
        assert_eq!(letters.forget(&everything).await.unwrap().done, 4, "{name}");
    }
}
