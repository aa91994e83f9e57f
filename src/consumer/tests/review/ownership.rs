use super::*;
use crate::{ConsumerName, ErrorKind};

#[tokio::test(start_paused = true)]
async fn g13_two_live_owners_under_one_name_are_refused() {
    let memory = Memory::new();
    append(&memory, 20).await;
    let calls: Arc<Mutex<Vec<u64>>> = Arc::default();
    let consumer = || {
        let calls = Arc::clone(&calls);
        let handler = move |delivery: Delivery| {
            calls.lock().unwrap().push(delivery.id().ms);
            async {
                Clock::new().sleep(Duration::from_secs(1)).await;
                Ok::<_, HandlerError>(())
            }
        };
        let consumer = builder(&memory, Ownership::Exclusive).name(ConsumerName::new("c").unwrap()).build();
        tokio::spawn(consumer.unwrap().run(handler, std::future::pending::<()>()))
    };
    let runs = [consumer(), consumer()];
    Clock::new().sleep(Duration::from_secs(120)).await;
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls, to(20), "each was handled once, by one of the two");
    let mut refused = 0;
    for run in runs {
        if run.is_finished() {
            assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
            refused += 1;
        } else {
            run.abort();
        }
    }
    assert_eq!(refused, 1, "a typed error");
}

#[tokio::test(start_paused = true)]
async fn g16_an_owner_whose_store_is_silent_fences_itself_when_its_lease_is_over() {
    let (memory, store) = (Memory::new(), Memory::new());
    append(&memory, 1_000).await;
    let faults = Faults::new();
    let calls: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
    let clock = Clock::started();
    let handler = |who: &'static str| {
        let calls = Arc::clone(&calls);
        move |delivery: Delivery| {
            calls.lock().unwrap().push((delivery.id().ms, who));
            async {
                Clock::new().sleep(Duration::from_millis(100)).await;
                Ok::<_, HandlerError>(())
            }
        }
    };
    let first =
        Consumer::builder(subscription(), memory.clone(), faults.clone().wrap(store.clone())).exclusive();
    let first = tokio::spawn(first.build().unwrap().run(handler("first"), std::future::pending::<()>()));
    clock.sleep(Duration::from_millis(10_500)).await;
    let second = Consumer::builder(subscription(), memory.clone(), store.clone()).exclusive();
    let second = tokio::spawn(second.build().unwrap().run(handler("second"), std::future::pending::<()>()));
    faults.all(Fault::Hang);
    clock.sleep(Duration::from_secs(20)).await;
    let calls = calls.lock().unwrap().clone();
    let taken = calls.iter().position(|(_, who)| *who == "second").expect("the second one takes over");
    let late = calls[taken..].iter().filter(|(_, who)| *who == "first").count();
    assert!(late <= 1, "{late} handlers began on the first after the second had the lease");
    first.abort();
    second.abort();
}
