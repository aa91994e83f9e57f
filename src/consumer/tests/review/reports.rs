use futures_util::StreamExt;

use super::*;

#[tokio::test(start_paused = true)]
async fn g16_an_exclusive_owner_pauses_when_nothing_can_be_saved() {
    let memory = Memory::new();
    append(&memory, 5_000).await;
    let faults = Faults::new();
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let consumer = faulty(&memory, &faults, Ownership::Exclusive)
        .configure(|settings| {
            settings.in_flight_entries_max = 50;
            settings.window_entries_max = 100;
        })
        .build()
        .unwrap();
    let (stop, stopped) = stopper();
    faults.next(Operation::Advance, Fault::Delay(Duration::ZERO));
    faults.always(Operation::Advance, Fault::Before);
    let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
    Clock::new().sleep(Duration::from_secs(30)).await;
    let handled = recorder.seen().len();
    stop.send(()).unwrap();
    let report = run.await.unwrap().unwrap();
    assert!(handled <= 200, "{handled} are handled and not in the checkpoint, the window is 100");
    assert_eq!(report.unsaved as usize, handled);
}

#[tokio::test(start_paused = true)]
async fn the_report_counts_what_an_exclusive_owner_could_not_save() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 20).await;
        let faults = Faults::new();
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let (stop, stopped) = stopper();
        faults.next(Operation::Advance, Fault::Delay(Duration::ZERO));
        faults.next(Operation::Settle, Fault::Delay(Duration::ZERO));
        faults.always(Operation::Advance, Fault::Before);
        faults.always(Operation::Settle, Fault::Before);
        let run =
            tokio::spawn(faulty(&memory, &faults, ownership).build().unwrap().run(recorder.clone(), stopped));
        Clock::new().sleep(Duration::from_secs(30)).await;
        assert_eq!(recorder.seen().len(), 20);
        stop.send(()).unwrap();
        let report = run.await.unwrap().unwrap();
        assert_eq!((report.settled, report.unsaved), (20, 20), "{ownership:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g17_claims_keep_to_the_limits_of_what_is_in_flight() {
    let memory = Memory::new();
    let big = |n: u64| NewEntry::new(Fields::from_iter([("n", vec![0u8; 100_000])])).with_id(id(n));
    memory.append(&Append::new(stream(), (1..=500).map(big).collect())).await.unwrap();
    memory.ensure_group(&EnsureGroup::new(subscription(), &crate::Position::default())).await.unwrap();
    let dead = crate::ConsumerName::new("dead").unwrap();
    memory
        .heartbeat(&Heartbeat::new(subscription(), dead.clone(), Token(1), Duration::from_secs(3)))
        .await
        .unwrap();
    memory.read_group(&ReadGroup::new(subscription(), dead, 500)).await.unwrap();
    Clock::new().sleep(Duration::from_secs(10)).await;
    let most = Arc::new(Mutex::new(0));
    let observed = Arc::clone(&most);
    let consumer = builder(&memory, Ownership::Shared)
        .configure(|settings| settings.in_flight_bytes_max = 4_000_000)
        .observer(move |_: &Subscription, observation: &Observation<'_>| {
            if let Observation::Status(status) = observation {
                let mut most = observed.lock().unwrap();
                *most = status.in_flight.max(*most);
            }
        })
        .build()
        .unwrap();
    let handler = |_: Delivery| async {
        Clock::new().sleep(Duration::from_secs(10)).await;
        Ok::<_, HandlerError>(())
    };
    let run = tokio::spawn(consumer.run(handler, std::future::pending::<()>()));
    Clock::new().sleep(Duration::from_secs(5)).await;
    let most = *most.lock().unwrap();
    // The first batch, whose size nobody knows, may go over it.
    assert!(most <= 125, "{most} entries of 100 kB are in flight, the limit is 4 MB");
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn g15_a_stop_does_not_count_what_nobody_took_as_a_failure() {
    let memory = Memory::new();
    append(&memory, 3).await;
    let mut deliveries = builder(&memory, Ownership::Shared)
        .configure(|settings| (settings.attempts_max, settings.on_exhausted) = (1, OnExhausted::Stop))
        .build()
        .unwrap()
        .into_stream();
    deliveries.next().await.unwrap().unwrap().settle();
    // The second one waits in the stream.
    Clock::new().sleep(Duration::from_secs(1)).await;
    let report = deliveries.stop().await.expect("a graceful stop");
    assert_eq!(report.settled, 1);
}

#[tokio::test(start_paused = true)]
async fn the_report_does_not_call_abandoned_what_came_again_and_was_handled() {
    let memory = Memory::new();
    append(&memory, 3).await;
    let faults = Faults::new();
    let (recorder, stop) = Recorder::until(3);
    let handler = {
        let recorder = recorder.clone();
        move |delivery: Delivery| {
            let recorder = recorder.clone();
            async move {
                Clock::new().sleep(Duration::from_secs(10)).await;
                recorder.record(&delivery);
                Ok::<_, HandlerError>(())
            }
        }
    };
    let consumer = faulty(&memory, &faults, Ownership::Shared).concurrency(2).build().unwrap();
    let run = tokio::spawn(consumer.run(handler, stop));
    Clock::new().sleep(Duration::from_secs(1)).await;
    faults.always(Operation::Heartbeat, Fault::Before);
    Clock::new().sleep(Duration::from_secs(5)).await;
    faults.clear();
    let report = run.await.unwrap().unwrap();
    assert_eq!((report.settled, report.abandoned), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn g15_a_stop_keeps_to_its_deadline_when_no_store_answers() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let faults = Faults::new();
        let (stop, stopped) = stopper();
        let (recorder, _stop) = Recorder::until(usize::MAX);
        let consumer = faulty(&memory, &faults, ownership)
            .configure(|settings| settings.drain_timeout = Duration::from_millis(300))
            .build()
            .unwrap();
        let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
        assert!(soon(async || recorder.seen().len() == 1).await);
        Clock::new().sleep(Duration::from_millis(20)).await;
        faults.all(Fault::Hang);
        append(&memory, 1).await;
        let clock = Clock::started();
        stop.send(()).unwrap();
        run.await.unwrap().unwrap();
        assert!(clock.elapsed() <= Duration::from_millis(500), "{ownership:?}: {:?}", clock.elapsed());
    }
}

/// Sums the late acks.
#[derive(Clone, Default)]
struct LateAcks(Arc<std::sync::atomic::AtomicU64>);

impl Observer for LateAcks {
    fn observe(&self, _: &Subscription, observation: &Observation<'_>) {
        if let Observation::Advanced { late_acks, .. } = observation {
            self.0.fetch_add(*late_acks, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_no_late_acks() {
    let memory = Memory::new();
    append(&memory, 5).await;
    let late = LateAcks::default();
    let (recorder, stop) = Recorder::until(5);
    let handler = {
        let recorder = recorder.clone();
        move |delivery: Delivery| {
            recorder.record(&delivery);
            let rejects = delivery.id().ms.is_multiple_of(2);
            async move { if rejects { Err(HandlerError::reject("even")) } else { Ok(()) } }
        }
    };
    let consumer = builder(&memory, Ownership::Shared).observer(late.clone()).build().unwrap();
    let report = consumer.run(handler, stop).await.unwrap();
    assert_eq!((report.settled, report.dead_lettered, pending(&memory).await), (3, 2, Some(0)));
    assert_eq!(late.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(watermark(&memory).await, Some(id(5)));
}
