//! G5, G10: several reads at once are what one reader would have brought. When the next read comes.

use super::*;
use crate::layer::{Fault, Faults, Layer, Operation};

/// Reads by two readers, of ten entries each. What goes wrong with reads, from the first one on, is said.
async fn read_by_two(wrong: [Fault; 3]) -> (Faults, Vec<u64>) {
    let (memory, faults) = (Memory::new(), Faults::new());
    append(&memory, 103).await;
    for fault in wrong {
        faults.next(Operation::ReadGroup, fault);
    }
    let (recorder, stop) = Recorder::until(103);
    let store = Arc::new(faults.clone().wrap(Arc::new(memory.clone())));
    let consumer = Consumer::builder(subscription(), Arc::clone(&store), memory.clone());
    let consumer = consumer.configure(|settings| (settings.readers, settings.read_entries_max) = (2, 10));
    consumer.build().unwrap().run(recorder.clone(), stop).await.unwrap();
    assert_eq!(watermark(&memory).await, Some(EntryId::new(103, 0)));
    (faults, recorder.seen())
}

const FINE: Fault = Fault::Delay(Duration::ZERO);

#[tokio::test(start_paused = true)]
async fn g10_what_comes_out_of_order_is_put_in_order() {
    // The first read is small, since nobody knows how large entries are. Of the pair behind it, the first is overtaken.
    let (faults, seen) = read_by_two([FINE, Fault::Delay(Duration::from_millis(20)), FINE]).await;
    assert_eq!(seen, to(103));
    assert_eq!(faults.calls(Operation::ReadPending), 1, "nothing was read again");
    assert!(faults.calls(Operation::ReadGroup) >= 11);
}

#[tokio::test(start_paused = true)]
async fn g5_of_several_reads_the_one_without_an_answer_is_read_again_with_the_others() {
    for lost in [Fault::After, Fault::Before] {
        let (faults, seen) = read_by_two([FINE, lost, FINE]).await;
        assert_eq!(seen, to(103), "{lost:?}");
        assert!(faults.calls(Operation::ReadPending) > 1, "{lost:?}");
    }
}

/// How many reads had begun when each of forty entries was handled. At first there are so many; each handler appends the next.
async fn reads_before_each(at_first: u64, read_entries_max: usize) -> Vec<u64> {
    let (memory, faults) = (Memory::new(), Faults::new());
    faults.always(Operation::ReadGroup, Fault::Delay(Duration::from_millis(1)));
    append(&memory, at_first).await;
    let (recorder, stop) = Recorder::until(40);
    let reads = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let (recorder, memory) = (recorder.clone(), memory.clone());
        let (faults, reads) = (faults.clone(), Arc::clone(&reads));
        move |delivery: Delivery| {
            reads.lock().unwrap().push(faults.calls(Operation::ReadGroup));
            recorder.record(&delivery);
            let memory = memory.clone();
            async move {
                if delivery.id().ms >= at_first {
                    append(&memory, 1).await;
                }
                Ok::<_, HandlerError>(())
            }
        }
    };
    let store = Arc::new(faults.clone().wrap(Arc::new(memory.clone())));
    let consumer = Consumer::builder(subscription(), store, memory);
    let consumer = consumer.configure(|settings| settings.read_entries_max = read_entries_max);
    consumer.build().unwrap().run(handler, stop).await.unwrap();
    assert_eq!(recorder.seen()[..40], to(40));
    Arc::into_inner(reads).unwrap().into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn where_little_comes_it_goes_before_the_next_read_once_the_handler_is_known_to_end_at_once() {
    assert_eq!(reads_before_each(1, 100).await[30..40], to(40)[30..]);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_more_it_is_read_ahead() {
    // The first read is small in any case.
    let second = reads_before_each(40, 2).await[1];
    assert!(second > 2, "{second} reads before the second entry");
}
