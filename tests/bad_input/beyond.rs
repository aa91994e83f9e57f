//! A checkpoint beyond the end of its stream.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use highwater::{
    Consumer, Delivery, Epoch, ErrorKind, Position,
    backend::*,
    integrity::{Finding, ResetReason},
};
use tokio::{sync::Notify, time::timeout};

use super::place::*;

#[tokio::test]
async fn g18_a_checkpoint_beyond_the_end_of_the_stream_is_a_reset_and_changes_nothing() {
    for place in Place::all().await {
        place.fill(3).await;
        let sub = subscription();
        let advance = Advance::new(sub.clone(), Epoch(0), Position::at(id(1000)), consumer("c"));
        place.backend.advance(&advance).await.unwrap();
        for way in WAYS {
            let case = format!("{} {way:?}", place.name());
            let before = place.picture().await;
            let at = place.backend.load(&sub).await.unwrap().unwrap();
            let error = place.refuses(way).await;
            let words = [
                "does not belong to this stream",
                "reset the checkpoint",
                "`OnReset`",
                "watermark=`1000-0`",
                "last=`3-0`",
            ];
            assert_told(&case, &error, ErrorKind::Reset, &words);
            let Some(Finding::Reset(reset)) = error.finding() else { panic!("{error:?}") };
            assert_eq!((reset.reason, reset.last), (ResetReason::Behind, Some(id(3))), "{case}");
            if way == Way::Exclusive {
                // Its epoch is the mark of having been taken, and fences whoever had it before.
                let now = place.backend.load(&sub).await.unwrap().unwrap();
                assert_eq!((now.position, now.epoch), (at.position, at.epoch.next()), "{case}");
            } else {
                assert_eq!(place.picture().await, before, "{case}");
            }
        }
        // What the error says can be done, at once: nobody's lease is left behind.
        place.backend.reset(&ResetCheckpoint::new(sub.clone(), Position::at(id(1)))).await.unwrap();
        assert_eq!(handled(&place, 2).await, [2, 3], "{}: nothing was lost", place.name());
    }
}

#[tokio::test]
async fn g18_a_checkpoint_of_a_stream_that_is_not_there_is_a_reset() {
    for place in Place::all().await {
        place.fill(3).await;
        place.backend.remove(&Removal::Stream(stream())).await.unwrap();
        let before = place.picture().await;
        for way in [Way::Fused, Way::TwoStep] {
            let error = place.refuses(way).await;
            let words = ["restore the stream", "the stream does not exist", "last=`none`"];
            assert_told(format!("{} {way:?}", place.name()), &error, ErrorKind::Reset, &words);
        }
        assert_eq!(place.picture().await, before, "{}", place.name());
    }
}

/// Runs a consumer until it has handled so many entries.
async fn handled(place: &Place, count: usize) -> Vec<u64> {
    let (seen, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let handler = {
        let (seen, done) = (Arc::clone(&seen), Arc::clone(&done));
        move |delivery: Delivery| {
            let mut seen = seen.lock().unwrap();
            seen.push(delivery.id().ms);
            if seen.len() == count {
                done.notify_one();
            }
            async { Ok::<_, std::io::Error>(()) }
        }
    };
    let consumer = Consumer::fused(subscription(), place.backend.clone())
        .configure(|settings| settings.block = Duration::from_millis(50));
    let run = consumer.build().unwrap().run(handler, async move { done.notified().await });
    timeout(SOON, run).await.expect("it handles them").unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}
