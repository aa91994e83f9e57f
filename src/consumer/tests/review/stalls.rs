use super::*;

#[tokio::test(start_paused = true)]
async fn g6_a_group_that_goes_while_every_ack_waits_for_its_save_is_created_again() {
    let memory = Memory::new();
    append(&memory, 10_000).await;
    let (recorder, stop) = Recorder::until(10_000);
    let handler = {
        let recorder = recorder.clone();
        move |delivery: Delivery| {
            recorder.record(&delivery);
            async {
                Clock::new().sleep(Duration::from_millis(1)).await;
                Ok::<_, HandlerError>(())
            }
        }
    };
    let consumer = builder(&memory, Ownership::Shared)
        .configure(|settings| settings.checkpoint = CheckpointPolicy::EveryAck)
        .build()
        .unwrap();
    let run = tokio::spawn(consumer.run(handler, stop));
    until("it runs", async || recorder.seen().len() >= 100).await;
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    let ended = soon(async || run.is_finished()).await;
    assert!(ended, "it stands still after {}", recorder.seen().len());
    run.await.unwrap().unwrap();
    let seen = recorder.seen();
    let odd =
        seen.windows(2).position(|pair| pair[1] != pair[0] + 1).map(|at| &seen[at..(at + 5).min(seen.len())]);
    assert_eq!((seen.len(), odd), (10_000, None));
}

#[tokio::test(start_paused = true)]
async fn g6_a_group_that_goes_while_the_window_is_full_is_created_again() {
    let memory = Memory::new();
    append(&memory, 30).await;
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |delivery: Delivery| {
            seen.lock().unwrap().push(delivery.id().ms);
            async {
                Clock::new().sleep(Duration::from_millis(100)).await;
                Ok::<_, HandlerError>(())
            }
        }
    };
    let consumer = builder(&memory, Ownership::Shared)
        .configure(|settings| {
            settings.in_flight_entries_max = 10;
            settings.window_entries_max = 10;
            settings.checkpoint = CheckpointPolicy::Interval(Duration::from_secs(5));
        })
        .build()
        .unwrap();
    let (stop, stopped) = stopper();
    let run = tokio::spawn(consumer.run(handler, stopped));
    until("ten are handled", async || seen.lock().unwrap().len() == 10).await;
    Clock::new().sleep(Duration::from_secs(2)).await;
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    let all = soon(async || watermark(&memory).await == Some(id(30))).await;
    assert!(all, "it stands still after {:?}", seen.lock().unwrap());
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}
