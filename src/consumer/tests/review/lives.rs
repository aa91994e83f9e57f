use super::*;
use crate::ConsumerName;

/// What another consumer holds of a stream that was made anew with the same ids, while one that handled them before cannot reach
/// the checkpoint store.
async fn held_by_the_next(policy: CheckpointPolicy) -> Option<u64> {
    let (memory, store, faults) = (Memory::new(), Memory::new(), Faults::new());
    append(&memory, 1).await;
    let consumer = |name: &str, faults: &Faults| {
        Consumer::builder(subscription(), memory.clone(), faults.clone().wrap(store.clone()))
            .name(ConsumerName::new(name).unwrap())
            .configure(|settings| {
                settings.on_reset = OnReset::FromBeginning;
                settings.checkpoint = policy;
            })
    };
    let (recorder, stop) = Recorder::until(usize::MAX);
    let handler = {
        let (recorder, faults) = (recorder.clone(), faults.clone());
        move |delivery: Delivery| {
            recorder.record(&delivery);
            faults.all(Fault::Before);
            std::future::ready(Ok::<_, HandlerError>(()))
        }
    };
    let away = tokio::spawn(consumer("away", &faults).build().unwrap().run(handler, stop));
    until("it is handled", async || !recorder.seen().is_empty()).await;
    Clock::new().sleep(Duration::from_millis(500)).await;
    memory.remove(&Removal::Stream(stream())).await.unwrap();
    append(&memory, 1).await;
    let called = Arc::<Mutex<Vec<u64>>>::default();
    let handler = {
        let called = Arc::clone(&called);
        move |delivery: Delivery| {
            called.lock().unwrap().push(delivery.id().ms);
            std::future::pending::<Result<(), HandlerError>>()
        }
    };
    let next = consumer("next", &Faults::new()).build().unwrap();
    let next = tokio::spawn(next.run(handler, std::future::pending::<()>()));
    until("the next one holds it", async || !called.lock().unwrap().is_empty()).await;
    Clock::new().sleep(Duration::from_secs(30)).await;
    faults.clear();
    Clock::new().sleep(Duration::from_secs(30)).await;
    let held = pending(&memory).await;
    away.abort();
    next.abort();
    held
}

#[tokio::test(start_paused = true)]
async fn g8_what_was_handled_of_a_stream_that_is_gone_is_not_acked_in_the_next_one() {
    // Its first save has failed, or it has noticed before that is due.
    for policy in [CheckpointPolicy::EveryAck, CheckpointPolicy::Interval(Duration::from_secs(20))] {
        for seed in 0..20 {
            crate::clock::seed(seed);
            assert_eq!(held_by_the_next(policy).await, Some(1), "{policy:?} {seed}");
        }
    }
}
