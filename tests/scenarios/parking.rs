//! Entries of a key whose entry was dead-lettered follow it, in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use highwater::{DeathReason, Delivery, HandlerError, LetterFilter, Letters};

use super::{
    letters::{append_keys, keyed, letters, rejects},
    stage::*,
};
use crate::{
    delivery::{Running, number},
    support::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_later_entries_of_a_dead_key_are_parked_in_order_and_other_keys_flow() {
    everywhere(async |case| {
        append_keys(&case.place, 1, "abababab").await;
        let calls = Calls::default();
        let parks = || keyed(case.builder()).configure(|settings| settings.parked_entries_max = 100);
        let running = Running::start(parks(), rejects(&calls, |n| n == 1));
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(8)).await;
        running.stop().await;
        // The next process knows of it.
        append_keys(&case.place, 9, "ab").await;
        let running = Running::start(parks(), calls.stuck_at([]));
        eventually("all is settled", LIMIT, async || watermark(&case.place).await == Some(10)).await;
        running.stop().await;
        let mut numbers = calls.numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 4, 6, 8, 10], "{} {:?}", case.name, case.ownership);
        let told: Vec<_> = letters(&case.place).await.iter().map(|l| (l.id.ms, l.reason)).collect();
        use DeathReason::{Parked, Rejected};
        let expected = [(1, Rejected), (3, Parked), (5, Parked), (7, Parked), (9, Parked)];
        assert_eq!(told, expected, "{} {:?}: in order", case.name, case.ownership);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_where_no_more_may_be_parked_the_key_waits_and_nothing_is_dropped() {
    everywhere(async |case| {
        append_keys(&case.place, 1, "aaabbbaaab").await;
        let calls = Calls::default();
        let parks = keyed(case.builder()).configure(|settings| settings.parked_entries_max = 3);
        let running = Running::start(parks, rejects(&calls, |n| n == 1));
        eventually("b flows", LIMIT, async || calls.numbers().contains(&10)).await;
        eventually("no more is parked", LIMIT, async || letters(&case.place).await.len() == 3).await;
        for_a_time(Duration::from_millis(500)).await;
        assert_eq!(letters(&case.place).await.len(), 3, "{} {:?}", case.name, case.ownership);
        let waits = watermark(&case.place).await.unwrap_or_default();
        assert!(waits < 7, "{} {:?}: 7 is neither handled nor dropped: {waits}", case.name, case.ownership);
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_redrive_while_more_of_the_key_come_in_keeps_their_order() {
    const LAST: u64 = 24;
    everywhere(async |case| {
        append_keys(&case.place, 1, "abab").await;
        let (handled, broken) = (Calls::default(), Arc::new(AtomicBool::new(true)));
        let handler = || {
            let (handled, broken) = (handled.clone(), Arc::clone(&broken));
            move |delivery: Delivery| {
                let fails = number(&delivery) == 1 && broken.load(Ordering::Relaxed);
                if !fails {
                    handled.note(&delivery);
                }
                let result = if fails { Err(HandlerError::reject("no such customer")) } else { Ok(()) };
                std::future::ready(result)
            }
        };
        let parks = keyed(case.builder()).configure(|settings| settings.parked_entries_max = 100);
        let running = Running::start(parks, handler());
        eventually("both lie there", LIMIT, async || letters(&case.place).await.len() == 2).await;
        broken.store(false, Ordering::Relaxed);
        let filed = Letters::new(case.place.subscription.clone(), Arc::clone(&case.place.stream)).unwrap();
        let more = async {
            for n in 5..=LAST {
                append_keys(&case.place, n, "a").await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let redrive = eventually("all are handled", LIMIT, async || {
            filed.redrive_to(&LetterFilter::default(), &handler()).await.unwrap();
            handled.numbers().contains(&LAST)
        });
        tokio::join!(more, redrive);
        until_watermark(&case.place, LAST).await;
        running.stop().await;
        let of_a: Vec<_> = handled.numbers().into_iter().filter(|n| ![2, 4].contains(n)).collect();
        let expected: Vec<_> = [1, 3].into_iter().chain(5..=LAST).collect();
        assert_eq!(of_a, expected, "{} {:?}: in order, each once", case.name, case.ownership);
        assert_eq!(letters(&case.place).await.len(), 0, "{} {:?}", case.name, case.ownership);
    })
    .await;
}
