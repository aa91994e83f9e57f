//! Requests that no backend can grant, and entries that a producer refuses.

use std::time::Duration;

use highwater::{
    EntryId, Epoch, Error, ErrorKind, Fields, Position,
    backend::*,
    producer::{Producer, ProducerSettings, Retention},
};

use super::place::*;

async fn appended(place: &Place, new: NewEntry) -> Error {
    let mut results = place.backend.append(&Append::new(stream(), vec![new])).await.unwrap();
    results.remove(0).expect_err("it is refused")
}

#[tokio::test]
async fn g18_an_id_that_cannot_be_appended_is_refused() {
    for place in Place::all().await {
        place.fill(5).await;
        let before = place.picture().await;
        let new = |id| NewEntry::new(fields("v")).with_id(id);
        for bad in [id(5), id(4), EntryId::new(4, u64::MAX), EntryId::ZERO] {
            let case = format!("{} {bad}", place.name());
            assert_told(case, &appended(&place, new(bad)).await, ErrorKind::Invalid, &["id"]);
        }
        let empty = appended(&place, NewEntry::new(Fields::default())).await;
        assert_told(place.name(), &empty, ErrorKind::Invalid, &["at least one field"]);
        assert_eq!(place.picture().await, before, "{}", place.name());

        place
            .backend
            .append(&Append::new(stream(), vec![new(EntryId::MAX)]))
            .await
            .unwrap()
            .remove(0)
            .unwrap();
        let before = place.picture().await;
        let full = appended(&place, NewEntry::new(fields("v"))).await;
        assert_told(
            place.name(),
            &full,
            ErrorKind::Invalid,
            &["the stream has used its last id", "new stream"],
        );
        assert_eq!(place.picture().await, before, "{}", place.name());
    }
}

#[tokio::test]
async fn g18_a_read_of_nothing_is_refused() {
    for place in Place::all().await {
        place.fill(5).await;
        let before = place.picture().await;
        let (backend, sub) = (&place.backend, subscription());
        let errors = [
            backend.read(&Read::new(stream(), EntryId::ZERO, 0)).await.unwrap_err(),
            backend.read_group(&ReadGroup::new(sub.clone(), consumer("c"), 0)).await.unwrap_err(),
            backend.read_pending(&ReadPending::new(sub.clone(), consumer("c"), id(0), 0)).await.unwrap_err(),
            backend.claim(&Claim::new(sub, consumer("c"), 0, Duration::ZERO)).await.unwrap_err(),
        ];
        for error in errors {
            assert_told(place.name(), &error, ErrorKind::Invalid, &["at least one"]);
        }
        assert_eq!(place.picture().await, before, "{}", place.name());
    }
}

#[tokio::test]
async fn g18_an_epoch_that_was_never_issued_is_refused() {
    for place in Place::all().await {
        place.fill(5).await;
        let before = place.picture().await;
        let (backend, sub) = (&place.backend, subscription());
        let advance = Advance::new(sub.clone(), Epoch(7), Position::at(id(2)), consumer("c"));
        let settle = Settle::new(sub.clone(), vec![id(1)], Epoch(7), consumer("c"));
        let errors =
            [backend.advance(&advance).await.unwrap_err(), backend.settle(&settle).await.unwrap_err()];
        for error in errors {
            let words = ["never issued", "load the checkpoint", "epoch=`7`", "stored=`0`"];
            assert_told(place.name(), &error, ErrorKind::Invalid, &words);
        }
        let renew = backend.renew(&Renew::new(sub.clone(), Epoch(7), SOON)).await.unwrap_err();
        let release = backend.release(&Release::new(sub.clone(), Epoch(7))).await.unwrap_err();
        let reset = ResetCheckpoint::new(sub, Position::default()).expect(Epoch(7));
        let reset = backend.reset(&reset).await.unwrap_err();
        for error in [renew, release, reset] {
            assert_told(place.name(), &error, ErrorKind::Fenced, &["stored=`0`"]);
        }
        assert_eq!(place.picture().await, before, "{}", place.name());
    }
}

#[tokio::test]
async fn g18_an_oversized_payload_is_refused_and_takes_no_other_entry_with_it() {
    for place in Place::all().await {
        let mut settings = ProducerSettings::default();
        settings.retention = Retention::Forever;
        let producer = Producer::builder(stream(), place.stream()).settings(settings).build().unwrap();
        // Name and value count: a byte less is let through.
        let (large, largest) = (fields(vec![7; 1_000_000]), fields(vec![7; 999_999]));
        let before = place.picture().await;
        for (bad, words) in [
            (large.clone(), &["too large", "`payload_bytes_max`", "size=`1000001`", "limit=`1000000`"][..]),
            (Fields::default(), &["needs a field", "add one"]),
        ] {
            let error = producer.append(bad).await.unwrap_err();
            assert_told(place.name(), &error, ErrorKind::Invalid, words);
        }
        assert_eq!(place.picture().await, before, "{}", place.name());

        let batch = vec![fields("first"), large, largest.clone(), Fields::default(), fields("last")];
        let results = producer.append_many(batch).await.unwrap();
        assert_told(place.name(), results[1].as_ref().unwrap_err(), ErrorKind::Invalid, &["too large"]);
        assert_told(place.name(), results[3].as_ref().unwrap_err(), ErrorKind::Invalid, &["add one"]);
        let entries = place.backend.read(&Read::new(stream(), EntryId::ZERO, 10)).await.unwrap();
        let read: Vec<_> = entries.into_iter().map(|entry| (entry.id, entry.fields)).collect();
        let sent = [(0, fields("first")), (2, largest), (4, fields("last"))];
        let sent = sent.map(|(i, fields)| (*results[i].as_ref().unwrap(), fields));
        assert!(read == sent, "{}: {:?}", place.name(), results);
        assert_eq!(producer.stats().refused, 4);
        producer.close().await.unwrap();
    }
}
