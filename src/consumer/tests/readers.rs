//! G5, G10: several reads at once are what one reader would have brought.

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
