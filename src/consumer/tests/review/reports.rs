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
