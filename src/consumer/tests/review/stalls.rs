use super::*;
use crate::{Position, consumer::lane::PerEntry};

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

#[tokio::test(start_paused = true)]
async fn g16_a_claim_whose_reply_is_lost_leaves_nothing_behind() {
    let memory = Memory::new();
    append(&memory, 5).await;
    memory.ensure_group(&EnsureGroup::new(subscription(), &crate::Position::default())).await.unwrap();
    let dead = crate::ConsumerName::new("dead").unwrap();
    memory
        .heartbeat(&Heartbeat::new(subscription(), dead.clone(), Token(1), Duration::from_secs(3)))
        .await
        .unwrap();
    memory.read_group(&ReadGroup::new(subscription(), dead, 5)).await.unwrap();
    Clock::new().sleep(Duration::from_secs(10)).await;
    let faults = Faults::new();
    faults.next(Operation::Claim, Fault::After);
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let consumer = faulty(&memory, &faults, Ownership::Shared).build().unwrap();
    let (stop, stopped) = stopper();
    let run = tokio::spawn(consumer.run(recorder.clone(), stopped));
    let all = soon(async || recorder.seen().len() == 5).await;
    assert!(all, "claimed, and never handled: {:?}, pending {:?}", recorder.seen(), pending(&memory).await);
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn g11_a_panic_before_the_handlers_future_is_contained_too() {
    /// Decodes before it returns its future.
    struct Hasty(Recorder);

    impl Handler for Hasty {
        fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), HandlerError>> + Send {
            self.0.record(&delivery);
            assert!(delivery.id().ms != 2 || delivery.attempt > 1, "cannot decode");
            async { Ok(()) }
        }
    }

    let memory = Memory::new();
    append(&memory, 5).await;
    let (recorder, stop) = Recorder::until(6);
    let consumer = builder(&memory, Ownership::Shared).build().unwrap();
    let run = tokio::spawn(consumer.run(Hasty(recorder.clone()), stop));
    let ended = soon(async || run.is_finished()).await;
    assert!(ended, "it stands still after {:?}", recorder.seen());
    run.await.unwrap().unwrap();
    assert_eq!(recorder.seen(), [1, 2, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn g6_what_comes_again_while_its_ack_is_on_its_way_is_acked_again() {
    let (memory, store, faults) = (Memory::new(), Memory::new(), Faults::new());
    append(&memory, 10).await;
    let consumer = Consumer::builder(subscription(), faults.clone().wrap(memory.clone()), store.clone());
    let (recorder, _stop) = Recorder::until(usize::MAX);
    let (stop, stopped) = stopper();
    faults.next(Operation::Ack, Fault::Delay(Duration::ZERO));
    faults.next(Operation::Ack, Fault::Late(Duration::from_secs(5)));
    let run = tokio::spawn(consumer.build().unwrap().run(recorder.clone(), stopped));
    assert!(soon(async || recorder.seen().len() == 10).await);
    Clock::new().sleep(Duration::from_secs(1)).await;
    assert_eq!((pending(&memory).await, watermark(&store).await), (Some(0), Some(EntryId::ZERO)));
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    Clock::new().sleep(Duration::from_secs(10)).await;
    append(&memory, 10).await;
    let all = soon(async || watermark(&store).await == Some(id(20))).await;
    assert!(
        all,
        "the checkpoint stays at {:?} with {:?} pending for ever; handled {:?}",
        watermark(&store).await,
        pending(&memory).await,
        recorder.seen().len()
    );
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
}

/// Found by the model: the new group knew nothing of the consumer until its keeper came round again.
#[tokio::test(start_paused = true)]
async fn g13_who_reads_from_a_group_that_another_one_created_is_known_to_live() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let (recorder, _never) = Recorder::until(usize::MAX);
    let reading = builder(&memory, Ownership::Shared).build().unwrap();
    let name = reading.name().clone();
    let running = tokio::spawn(reading.run(recorder.clone(), std::future::pending::<()>()));
    until("it is settled", async || watermark(&memory).await.is_some_and(|w| w.ms == 1)).await;
    memory.remove(&Removal::Group(subscription())).await.unwrap();
    let at = memory.load(&subscription()).await.unwrap().unwrap().position;
    memory.ensure_group(&EnsureGroup::new(subscription(), &at)).await.unwrap();
    append(&memory, 1).await;
    until("it reads from the new group", async || recorder.seen().len() == 2).await;
    // Another process under its name is refused only where the group knows that it lives.
    let stranger = Heartbeat::new(subscription(), name, Token(0), Duration::from_secs(3));
    let beat = memory.heartbeat(&stranger).await;
    assert_eq!(beat.unwrap_err().kind(), crate::ErrorKind::Busy);
    running.abort();
}

/// The reader comes back long before the keeper asks again, and what the one has found the other does not.
#[tokio::test(start_paused = true)]
async fn g13_a_heartbeat_that_had_run_out_is_reported_where_the_resume_path_finds_it() {
    let (memory, faults) = (Memory::new(), Faults::new());
    let ttl = Duration::from_secs(3_600);
    let lapsed: Arc<Mutex<u64>> = Arc::default();
    let count = Arc::clone(&lapsed);
    let consumer = faulty(&memory, &faults, Ownership::Shared)
        .configure(|settings| (settings.ttl, settings.reconnect.max) = (ttl, Duration::from_secs(1)))
        .observer(move |_: &Subscription, observation: &Observation<'_>| {
            *count.lock().unwrap() += u64::from(matches!(observation, Observation::Lapsed));
        })
        .build()
        .unwrap();
    let (recorder, _never) = Recorder::until(usize::MAX);
    let running = tokio::spawn(consumer.run(recorder.clone(), std::future::pending::<()>()));
    until("it takes part", async || pending(&memory).await.is_some()).await;
    faults.all(Fault::Before);
    Clock::new().sleep(ttl * 2).await;
    assert_eq!(*lapsed.lock().unwrap(), 0, "nobody could know yet");
    faults.clear();
    append(&memory, 1).await;
    until("it reads again", async || recorder.seen().len() == 1).await;
    assert_eq!(*lapsed.lock().unwrap(), 1);
    Clock::new().sleep(ttl / 2).await;
    assert_eq!(*lapsed.lock().unwrap(), 1, "the keeper finds that it stands");
    running.abort();
}

/// What was let go comes again by the resume path alone, and there may be no room to read until it has.
#[tokio::test(start_paused = true)]
async fn g16_a_read_that_the_resume_path_interrupts_goes_on_with_it() {
    let memory = Memory::new();
    append(&memory, 1).await;
    let end = Position::at(id(1));
    memory.ensure_group(&EnsureGroup::new(subscription(), &end)).await.unwrap();
    let context = builder(&memory, Ownership::Shared).build().unwrap().context;
    let handler = |_| async { Ok::<_, HandlerError>(()) };
    let lanes = Arc::new(PerEntry(handler, context.call_limit()));
    let mut reader = crate::consumer::reader::Reader::new(Arc::clone(&context), lanes, &end);
    assert!(!reader.next(8).await.unwrap().recovering, "nothing is pending");
    let ask = async {
        Clock::new().sleep(Duration::from_millis(1)).await;
        context.resume.notify_one();
    };
    let (batch, ()) = tokio::join!(reader.next(8), ask);
    let batch = batch.unwrap();
    assert!(batch.resumed.is_some() && batch.recovering, "{batch:?}");
}
