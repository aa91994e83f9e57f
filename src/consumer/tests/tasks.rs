//! In which task a handler is called.

use super::*;

#[tokio::test(start_paused = true)]
async fn few_in_strict_order_need_no_task_of_their_own_once_their_handler_is_known_to_end_at_once() {
    let sink = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
    let _collecting = tracing::subscriber::set_default(sink);
    // How many entries come together, how many handlers may run at once, and whether they wait.
    for (together, lanes, waits, at_home) in
        [(1, 1, false, true), (1, 1, true, false), (1, 2, false, false), (40, 1, false, false)]
    {
        let memory = Memory::new();
        append(&memory, together).await;
        let (recorder, stop) = Recorder::until(40);
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let handler = {
            let (recorder, tasks, memory) = (recorder.clone(), Arc::clone(&tasks), memory.clone());
            move |delivery: Delivery| {
                let (recorder, tasks, memory) = (recorder.clone(), Arc::clone(&tasks), memory.clone());
                async move {
                    if waits {
                        Clock::new().sleep(Duration::from_millis(1)).await;
                    }
                    let span = tracing::Span::current().metadata().map(|span| span.name());
                    assert_eq!(span, Some("consumer"), "what it logs says whose it is");
                    tasks.lock().unwrap().push(tokio::task::id());
                    recorder.record(&delivery);
                    if together == 1 {
                        append(&memory, 1).await;
                    }
                    Ok::<_, HandlerError>(())
                }
            }
        };
        let consumer = builder(&memory, Ownership::Shared).concurrency(lanes).build().unwrap();
        let running = tokio::spawn(consumer.run(handler, stop));
        let home = running.id();
        running.await.unwrap().unwrap();
        let tasks = tasks.lock().unwrap();
        assert_ne!(tasks[0], home, "nobody knows yet");
        let found = tasks[20..40].iter().all(|&task| (task == home) == at_home);
        assert!(found, "{together} together, {lanes} lanes, waits: {waits}");
    }
}
