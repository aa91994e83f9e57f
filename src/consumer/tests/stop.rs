//! G15: stops are prompt, bounded, and lose nothing.

use super::*;

#[tokio::test(start_paused = true)]
async fn g15_an_idle_stop_does_not_wait_for_the_blocked_read() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let (stop, stopped) = stopper();
        let consumer = builder(&memory, ownership)
            .configure(|settings| settings.block = Duration::from_secs(3_600))
            .build()
            .unwrap();
        let run = tokio::spawn(consumer.run(|_: Delivery| async { Ok::<_, HandlerError>(()) }, stopped));
        until("the entry is settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 1)).await;
        let clock = Clock::started();
        stop.send(()).unwrap();
        let report = run.await.unwrap().unwrap();
        assert!(clock.elapsed() < Duration::from_millis(200), "{:?}", clock.elapsed());
        assert_eq!((report.settled, report.abandoned, report.unsaved), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn g15_a_stop_waits_for_the_handler_and_starts_nothing_more() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 10).await;
        let (recorder, stop) = Recorder::until(3);
        let handler = {
            let recorder = recorder.clone();
            move |delivery: Delivery| {
                recorder.record(&delivery);
                async {
                    Clock::new().sleep(Duration::from_secs(2)).await;
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let report = builder(&memory, ownership).build().unwrap().run(handler, stop).await.unwrap();
        assert_eq!(recorder.seen(), [1, 2, 3]);
        assert_eq!(report.settled, 3, "the one that ran was let finish");
        assert_eq!(watermark(&memory).await.unwrap().ms, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn g15_a_handler_that_does_not_end_is_abandoned_at_the_deadline() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 2).await;
        let (recorder, stop) = Recorder::until(1);
        let handler = {
            let recorder = recorder.clone();
            move |delivery: Delivery| {
                recorder.record(&delivery);
                std::future::pending::<Result<(), HandlerError>>()
            }
        };
        let clock = Clock::started();
        let consumer = builder(&memory, ownership)
            .configure(|settings| settings.drain_timeout = Duration::from_secs(4))
            .build()
            .unwrap();
        let report = consumer.run(handler, stop).await.unwrap();
        assert!(clock.elapsed() >= Duration::from_secs(4) && clock.elapsed() < Duration::from_secs(5));
        assert_eq!((report.settled, report.abandoned), (0, 2), "the one that ran and the one behind it");
        let (again, stop) = Recorder::until(2);
        builder(&memory, ownership).build().unwrap().run(again.clone(), stop).await.unwrap();
        assert_eq!(again.seen(), [1, 2], "{ownership:?}: what was abandoned comes again");
    }
}

#[tokio::test(start_paused = true)]
async fn g15_a_stop_in_an_hours_backoff_is_immediate() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 1).await;
        let (recorder, stop) = Recorder::until(1);
        let handler = {
            let recorder = recorder.clone();
            move |delivery: Delivery| {
                recorder.record(&delivery);
                async { Err::<(), _>("down") }
            }
        };
        let consumer = builder(&memory, ownership)
            .configure(|settings| {
                settings.retry = crate::Backoff {
                    first: Duration::from_secs(3_600),
                    max: Duration::from_secs(3_600),
                    ..Default::default()
                };
            })
            .build()
            .unwrap();
        let clock = Clock::started();
        let report = consumer.run(handler, stop).await.unwrap();
        assert!(clock.elapsed() < Duration::from_millis(200));
        assert_eq!(report.settled, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn g14_a_dropped_run_loses_nothing() {
    for ownership in both() {
        let memory = Memory::new();
        append(&memory, 200).await;
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        for polls in [0, 1, 2, 3, 5, 8, 13, 21] {
            let recorded = Arc::clone(&seen);
            let handler = move |delivery: Delivery| {
                let recorded = Arc::clone(&recorded);
                async move {
                    tokio::task::yield_now().await;
                    recorded.lock().unwrap().push(delivery.id().ms);
                    Ok::<_, HandlerError>(())
                }
            };
            let mut run = Box::pin(
                builder(&memory, ownership).build().unwrap().run(handler, std::future::pending::<()>()),
            );
            for _ in 0..polls {
                let _ = futures_util::poll!(run.as_mut());
                tokio::task::yield_now().await;
            }
        }
        let (last, stop) = stopper();
        let recorded = Arc::clone(&seen);
        let handler = move |delivery: Delivery| {
            recorded.lock().unwrap().push(delivery.id().ms);
            async { Ok::<_, HandlerError>(()) }
        };
        let run = tokio::spawn(builder(&memory, ownership).build().unwrap().run(handler, stop));
        until("all are settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 200)).await;
        last.send(()).unwrap();
        run.await.unwrap().unwrap();
        let mut all = seen.lock().unwrap().clone();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, to(200), "{ownership:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g15_a_stop_comes_before_what_is_behind_a_handler_that_begins_to_block_its_thread() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let (recorder, stop) = Recorder::until(31);
    let handler = {
        let (recorder, memory) = (recorder.clone(), memory.clone());
        move |delivery: Delivery| {
            recorder.record(&delivery);
            let (n, memory) = (delivery.id().ms, memory.clone());
            async move {
                if n > 30 {
                    let clock = Clock::new();
                    while clock.elapsed() < Duration::from_millis(5) {
                        std::hint::spin_loop();
                    }
                } else {
                    append(&memory, if n == 30 { 16 } else { 1 }).await;
                }
                Ok::<_, HandlerError>(())
            }
        }
    };
    builder(&memory, Ownership::Shared).build().unwrap().run(handler, stop).await.unwrap();
    let handled = recorder.seen().len() - 30;
    assert!(handled < 8, "{handled} of sixteen were handled");
}
