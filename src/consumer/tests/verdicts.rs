//! What a handler may say of an entry, and what the policies make of it.

use super::{
    dead::{letters, remembered, run_to},
    *,
};
use crate::ErrorKind;

#[tokio::test(start_paused = true)]
async fn verdicts_say_when_and_whether_it_comes_again() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let (clock, seen) = (Clock::started(), Arc::clone(&times));
    let handler = move |delivery: Delivery| {
        let (now, seen) = (clock.elapsed(), Arc::clone(&seen));
        async move {
            seen.lock().unwrap().push(now.as_secs());
            match delivery.attempt {
                1 => Err(HandlerError::retry_after(Duration::from_secs(3_600), "later")),
                2 => Err(HandlerError::retry_now("now")),
                _ => Err(HandlerError::stop("the database is not ours any more")),
            }
        }
    };
    let consumer = builder(&memory, Ownership::Exclusive).build().unwrap();
    let error = consumer.run(handler, std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(*times.lock().unwrap(), [0, 3_600, 3_600]);
    assert_eq!(remembered(&memory).await[0].failures, 2, "a stop is no failure");
    assert_eq!(letters(&memory).await, []);
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_given_up_after_its_time_or_skipped_by_policy() {
    let memory = Memory::new();
    append(&memory, 2).await;
    let handler = |delivery: Delivery| async move { if delivery.id().ms == 1 { Err("no") } else { Ok(()) } };
    let builder = builder(&memory, Ownership::Shared).configure(|settings| {
        (settings.attempts_max, settings.on_exhausted) = (u32::MAX, OnExhausted::Skip);
        settings.retry_elapsed_max = Some(Duration::from_secs(60));
    });
    let report = run_to(&memory, builder, handler, 2).await;
    assert_eq!((report.given_up, report.settled), (1, 1), "{report:?}");
    assert!(report.retried > 5, "{report:?}");
    assert_eq!(letters(&memory).await, []);
}
