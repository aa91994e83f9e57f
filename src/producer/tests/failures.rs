//! What is refused, what fails, and what nobody can tell.

use std::error::Error as _;

use futures_util::{future::join_all, poll};

use super::{
    double::Fate::{After, Before, Long, Panic, Short},
    *,
};
use crate::{ErrorKind, Outcome, Retry};

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_and_takes_nothing_with_it() {
    let double = Arc::new(Double::open());
    let producer = producer(&double, ProducerSettings { payload_bytes_max: 10, ..settings() });
    let limit = "x".repeat(9);
    let error = producer.append(fields(format!("{limit}x"))).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied));
    assert_eq!((error.context("size"), error.context("limit")), (Some("11"), Some("10")));
    assert!(double.batches().is_empty(), "nothing was sent");

    let many = vec![fields(&limit), fields(format!("{limit}x")), Fields::default(), fields("last")];
    let results = producer.append_many(many).await.unwrap();
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().err().map(crate::Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Invalid), Some(ErrorKind::Invalid), None]);
    assert_eq!(held(&double.memory).await, [limit.as_str(), "last"]);
    assert_eq!((producer.stats().refused, producer.stats().appended), (3, 2));
}

#[tokio::test]
async fn an_unknown_outcome_is_told_and_not_repeated() {
    let double = Arc::new(Double::open().with_fates([After, Before]));
    let producer = producer(&double, settings());
    let error = producer.append(fields("after")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    let error = producer.append(fields("before")).await.unwrap_err();
    assert_eq!((error.outcome(), error.retry()), (Outcome::NotApplied, Retry::Later));
    producer.append(fields("fine")).await.unwrap();
    assert_eq!(held(&double.memory).await, ["after", "fine"]);
    assert_eq!(*double.batches(), [1, 1, 1], "each was tried once");
    let stats = producer.stats();
    assert_eq!((stats.unknown, stats.failed, stats.appended), (1, 1, 1));
}

#[tokio::test]
async fn the_error_of_a_batch_reaches_all_of_it_with_its_source() {
    let double = Arc::new(Double::open().with_fates([After]));
    let producer = producer(&double, settings());
    for result in join_all((0..3).map(|n| producer.append(fields(n)))).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(error.source().unwrap().to_string(), "the script says so");
    }
    assert_eq!(*double.batches(), [3]);
    // The next batch is none the worse.
    producer.append(fields(3)).await.unwrap();
}

#[tokio::test]
async fn an_answer_of_another_length_harms_nobody() {
    let double = Arc::new(Double::open().with_fates([Short, Long]));
    let producer = producer(&double, settings());
    let results = producer.append_many(vec![fields(0), fields(1)]).await.unwrap();
    assert!(results[0].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Internal, Outcome::Unknown));

    let results = producer.append_many(vec![fields(2), fields(3)]).await.unwrap();
    assert!(results.len() == 2 && results.iter().all(Result::is_ok));
    assert_eq!((producer.stats().appended, producer.stats().unknown), (3, 1));
}

#[tokio::test]
async fn a_panic_of_the_backend_leaves_nobody_waiting() {
    let double = Arc::new(Double::gated().with_fates([Panic]));
    let producer = producer(&double, ProducerSettings { in_flight_entries_max: 2, ..settings() });
    let mut appends: Vec<_> = (0..3).map(|n| Box::pin(producer.append(fields(n)))).collect();
    for append in &mut appends {
        assert!(poll!(append).is_pending());
    }
    double.let_all_pass();
    let errors: Vec<_> = join_all(appends).await.into_iter().map(Result::unwrap_err).collect();
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Closed));
    let outcomes: Vec<_> = errors.iter().map(crate::Error::outcome).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Unknown, Outcome::NotApplied]);
    assert_eq!(producer.append(fields(3)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(producer.flush().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(producer.close().await.unwrap_err().kind(), ErrorKind::Closed);
}
