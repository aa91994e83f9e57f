//! G18: a password appears in no log line, and in no form of any error, setting, builder or backend.

use std::{fmt::Debug, future::pending, sync::Arc, time::Duration};

use highwater::{
    Consumer, Delivery, Epoch, Error, ErrorKind, HandlerError, OnExhausted, Position, Result, Subscription,
    backend::*,
    layer::{Layer, Observe, Retry, RetryPolicy, Timeout},
    producer::Producer,
};
use highwater_redis::{Client, Settings, connect, connect_with};

use crate::support::{Logs, RedisServer};

/// Part of every secret here, and of nothing else; also where a secret is escaped.
const SECRET: &str = "hunter2";
const RIGHT: &str = "hunter2/@right";
const RIGHT_IN_URL: &str = "hunter2%2F%40right";

const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn assert_hidden(what: impl Debug) {
    for shown in [format!("{what:?}"), format!("{what:#?}")] {
        assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    }
}

/// Nothing of an error, all the way down, shows a secret.
#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_hidden(error);
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        assert!(!error.to_string().contains(SECRET), "a secret is shown: {error}");
        assert_hidden(error);
        next = error.source();
    }
}

/// A server with a user of its own, who may do everything.
fn server() -> RedisServer {
    let server = RedisServer::start();
    let allow = ["ACL", "SETUSER", "teller", "on", &format!(">{RIGHT}"), "~*", "&*", "+@all"];
    assert_eq!(server.cli(&allow).unwrap().text(), "OK");
    server
}

fn url(server: &RedisServer, password: &str) -> String {
    format!("redis://teller:{password}@{}", server.addr())
}

fn subscription() -> Subscription {
    Subscription::new("s", "g").unwrap()
}

async fn append(backend: &dyn StreamBackend) -> Result<()> {
    let new = NewEntry::new([("f", "v")].into_iter().collect());
    backend.append(&Append::new(subscription().stream, vec![new])).await?.remove(0).map(drop)
}

/// Runs a consumer whose handler refuses what it is given: it fails in one way or another.
async fn failure(backend: Arc<dyn AtomicSettle>) -> Error {
    let builder = Consumer::fused(subscription(), backend);
    let builder = builder.configure(|settings| settings.on_exhausted = OnExhausted::Stop);
    assert_hidden(&builder);
    let consumer = builder.build().unwrap();
    assert_hidden(&consumer);
    let handler =
        |delivery: Delivery| async move { Err::<(), _>(HandlerError::reject(delivery.id().to_string())) };
    tokio::time::timeout(SOON, consumer.run(handler, pending::<()>())).await.expect("it ends").unwrap_err()
}

#[tokio::test]
async fn g18_a_password_is_never_shown_while_all_goes_well() {
    for client in Client::ALL {
        hidden_while_all_goes_well(client).await;
    }
}

async fn hidden_while_all_goes_well(client: Client) {
    let logs = Logs::capture();
    let server = server();
    let settings = Settings::new(url(&server, RIGHT_IN_URL));
    assert_hidden(&settings);
    let redis = connect_with(settings, client).await.unwrap();
    assert_hidden(&redis);
    let layered = Timeout::new(SOON).wrap(redis);
    let layered = Observe::debug().wrap(Retry::new(RetryPolicy::default()).wrap(layered));
    assert_hidden(&layered);
    let backend: Arc<dyn AtomicSettle> = Arc::new(layered);

    let builder = Producer::builder(subscription().stream, backend.clone());
    assert_hidden(&builder);
    let producer = builder.build().unwrap();
    assert_hidden(&producer);
    producer.append([("f", "v")].into_iter().collect()).await.unwrap();
    producer.close().await.unwrap();

    let (stop, stopped) = tokio::sync::oneshot::channel();
    let stop = std::sync::Mutex::new(Some(stop));
    let handler = move |_: Delivery| {
        let stop = stop.lock().unwrap().take();
        async move { stop.map_or(Ok(()), |stop| stop.send(())).map_err(|()| "nobody waits") }
    };
    let consumer = Consumer::fused(subscription(), backend).build().unwrap();
    let run = consumer.run(handler, async { drop(stopped.await) });
    let report = tokio::time::timeout(SOON, run).await.unwrap().unwrap();
    assert_eq!(report.settled, 1);
    assert_hidden(report);

    let text = logs.text();
    for said in ["connected", "checkpoint advanced", "subscription=s/g", "batch sent"] {
        assert!(text.contains(said), "the log was collected: no {said:?} in {text}");
    }
    logs.assert_without(SECRET);
}

#[tokio::test]
async fn g18_a_password_is_never_shown_when_connecting_fails() {
    for client in Client::ALL {
        hidden_when_connecting_fails(client).await;
    }
}

async fn hidden_when_connecting_fails(client: Client) {
    let logs = Logs::capture();
    let mut server = server();
    let addr = server.addr();
    let refused = [
        (url(&server, "hunter2-wrong"), ErrorKind::Denied),
        (format!("redis://hunter2-nobody:{RIGHT_IN_URL}@{addr}"), ErrorKind::Denied),
        (format!("redis://:{RIGHT_IN_URL}@{addr}"), ErrorKind::Denied),
        (format!("{}/99", url(&server, RIGHT_IN_URL)), ErrorKind::Invalid),
        (format!("http://teller:{RIGHT_IN_URL}@{addr}"), ErrorKind::Invalid),
        (format!("teller:{RIGHT_IN_URL}@{addr}"), ErrorKind::Invalid),
        (format!("redis://teller:{RIGHT}@{addr}"), ErrorKind::Invalid),
        (format!("redis://teller:{RIGHT_IN_URL}@{addr}/hunter2"), ErrorKind::Invalid),
        (format!("redis://teller:{RIGHT_IN_URL}@[hunter2"), ErrorKind::Invalid),
        (format!("redis+unix:///none?user=teller&pass={RIGHT_IN_URL}"), ErrorKind::Unavailable),
        (RIGHT.to_owned(), ErrorKind::Invalid),
    ];
    // `fred` keeps to itself that a password was not asked for.
    let needless = format!("redis://:{RIGHT_IN_URL}@{addr}");
    for (url, kind) in refused.into_iter().filter(|(url, _)| client != Client::Fred || *url != needless) {
        assert_hidden(Settings::new(url.clone()));
        assert_error(&connect(url, client).await.expect_err("it cannot connect"), kind);
    }
    server.kill();
    let error = connect(url(&server, RIGHT_IN_URL), client).await.expect_err("nobody is there");
    assert_error(&error, ErrorKind::Unavailable);
    logs.assert_without(SECRET);
}

#[tokio::test]
async fn g18_a_password_is_never_shown_when_calls_fail() {
    for client in Client::ALL {
        hidden_when_calls_fail(client).await;
    }
}

async fn hidden_when_calls_fail(client: Client) {
    let logs = Logs::capture();
    let mut server = server();
    let redis = connect(url(&server, RIGHT_IN_URL), client).await.unwrap();
    let backend: Arc<dyn AtomicSettle> = Arc::new(Observe::debug().wrap(redis));
    append(&backend).await.unwrap();
    assert_error(&failure(backend.clone()).await, ErrorKind::Handler);

    let beyond = Position::at(highwater::EntryId::MAX);
    let owner = highwater::ConsumerName::unique();
    backend.advance(&Advance::new(subscription(), Epoch(0), beyond, owner)).await.unwrap();
    assert_error(&failure(backend.clone()).await, ErrorKind::Reset);

    server.cli(&["HSET", "highwater:{s}:checkpoint:1:s:g", "v", "2"]).unwrap();
    assert_error(&failure(backend.clone()).await, ErrorKind::Corrupt);

    server.cli(&["FLUSHALL"]).unwrap();
    server.cli(&["SET", "s", "no stream"]).unwrap();
    assert_error(&failure(backend.clone()).await, ErrorKind::Invalid);
    assert_error(&append(&backend).await.unwrap_err(), ErrorKind::Invalid);

    server.cli(&["FLUSHALL"]).unwrap();
    server.cli(&["ACL", "SETUSER", "teller", "-xadd", "-xreadgroup"]).unwrap();
    assert_error(&append(&backend).await.unwrap_err(), ErrorKind::Denied);
    assert_error(&failure(backend.clone()).await, ErrorKind::Denied);

    // The password is changed while it runs: the connection breaks, and the next is refused.
    server.cli(&["ACL", "SETUSER", "teller", "resetpass", ">hunter2-changed"]).unwrap();
    server.cli(&["CLIENT", "KILL", "USER", "teller"]).unwrap();
    assert_error(&failure(backend.clone()).await, ErrorKind::Denied);

    server.kill();
    assert_error(&append(&backend).await.unwrap_err(), ErrorKind::Unavailable);
    assert!(logs.text().contains("highwater"), "the log was collected");
    logs.assert_without(SECRET);
}
