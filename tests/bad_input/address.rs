//! Where a backend is said to be, and who may use it.

use std::{net::TcpListener, path::Path};

use highwater::{Error, ErrorKind};
use highwater_redis::{Client, Redis, Settings, connect_with};
use highwater_sqlite::Sqlite;

use super::place::*;
use crate::support::RedisServer;

/// Why nothing is there. Every client says the same.
async fn unreachable(url: impl Into<String>) -> Error {
    let settings = Settings::new(url).connect_timeout(SOON / 4);
    let [error, other] = [Client::RedisRs, Client::Fred].map(|client| connect_with(settings.clone(), client));
    let [error, other] = [error.await, other.await].map(|it| it.expect_err("it cannot be connected to"));
    let said = |error: &Error| (error.kind(), error.retry(), error.outcome(), error.to_string());
    assert_eq!(said(&error), said(&other), "{error:?} {other:?}");
    error
}

#[tokio::test]
async fn g18_a_url_that_cannot_be_read_says_how_to_write_one() {
    for url in [
        "",
        "localhost",
        "localhost:6379",
        "redis:",
        "redis://",
        "http://localhost",
        "rediss+unix:///socket",
        "redis://host:port",
        "redis://host:99999",
        "redis://[bad",
        "redis://host/db",
        "redis://host/99999999999999999999",
        "redis://host/0?protocol=resp9",
        "redis://host?protcol=resp3",
        "redis://host,other",
        "redis://host#insecure",
        "redis-sentinel://host",
        "redis-cluster://host/1",
    ] {
        let error = unreachable(url).await;
        assert_told(url, &error, ErrorKind::Invalid, &["`redis://[user:password@]host[:port][/db]`"]);
    }
}

#[tokio::test]
async fn g18_a_server_that_is_not_there_is_unavailable() {
    // The port was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none");
    for url in [format!("redis://127.0.0.1:{port}"), format!("redis+unix://{}", socket.display())] {
        let error = unreachable(&*url).await;
        assert_told(&url, &error, ErrorKind::Unavailable, &["is it running", "is the address right"]);
        assert!(std::error::Error::source(&error).is_some(), "what the system says: {error:?}");
    }
}

#[tokio::test]
async fn g18_a_wrong_user_password_or_database_is_refused() {
    let server = RedisServer::start_with(&["--requirepass", "right", "--databases", "4"]);
    let addr = server.addr();
    let words = ["refused the user or the password", "correct the URL"];
    for user in ["", ":wrong@", "nobody:right@", "default:wrong@"] {
        let error = unreachable(format!("redis://{user}{addr}")).await;
        assert_told(user, &error, ErrorKind::Denied, &words);
    }
    Redis::connect(format!("redis://:right@{addr}/3")).await.unwrap();
    for number in ["4", "-1"] {
        let error = unreachable(format!("redis://:right@{addr}/{number}")).await;
        assert_told(number, &error, ErrorKind::Invalid, &["no database of this number", "correct the URL"]);
    }
    let error = unreachable(format!("redis://:right@{addr}/2147483648")).await;
    assert_told("not even a number of a database", &error, ErrorKind::Invalid, &["out of range", "connect"]);

    // A password where none is asked for is a mistake too: of the password, or of the server.
    let open = Place::redis().await;
    // `fred` keeps that to itself.
    let error = Redis::connect(format!("redis://:right@{}", open.server().addr())).await.unwrap_err();
    assert_told("no password needed", &error, ErrorKind::Denied, &words);
}

async fn not_opened(path: impl AsRef<Path>) -> Error {
    Sqlite::open(path).await.expect_err("it cannot be opened")
}

#[tokio::test]
async fn g18_a_path_that_is_no_database_says_why_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    let text = "this is no database. ".repeat(100);
    std::fs::write(at("text.db"), &text).unwrap();
    let invalid = ErrorKind::Invalid;
    for (path, kind, words) in [
        (at("none/test.db"), invalid, &["the directory", "does not exist", "create it first"][..]),
        (at("text.db/test.db"), invalid, &["create it first"]),
        (at("folder"), invalid, &["is a directory", "give the path of a file"]),
        ("".into(), invalid, &["give the path of a file"]),
        (":memory:".into(), invalid, &["cannot be shared or resumed"]),
        (at("text.db"), ErrorKind::Corrupt, &["no sound SQLite database", "restore it", "another path"]),
        (at("nul\0.db"), invalid, &["path"]),
    ] {
        let error = not_opened(&path).await;
        assert_told(path.display(), &error, kind, words);
    }
    assert!(!at("none").exists());
    assert_eq!(std::fs::read_to_string(at("text.db")).unwrap(), text);
}

#[tokio::test]
async fn g18_a_schema_that_is_not_ours_says_what_to_do_and_stays() {
    for (change, kind, words) in [
        ("UPDATE highwater_schema SET version = 7", ErrorKind::Corrupt, &["upgrade", "version=`7`"][..]),
        ("UPDATE highwater_schema SET version = 0", ErrorKind::Corrupt, &["version", "backup"]),
        ("DELETE FROM highwater_schema", ErrorKind::Corrupt, &["version", "backup"]),
    ] {
        let place = Place::sqlite().await;
        place.fill(3).await;
        let mut sql = place.sql().await;
        sqlx::query(change).execute(&mut sql).await.unwrap();
        let before = place.picture().await;
        let path: String =
            sqlx::query_scalar("SELECT file FROM pragma_database_list").fetch_one(&mut sql).await.unwrap();
        assert_told(change, &not_opened(path).await, kind, words);
        assert_eq!(place.picture().await, before, "{change}");
    }
}

#[tokio::test]
async fn g18_tables_that_went_are_missing_and_a_consumer_says_so() {
    let place = Place::sqlite().await;
    place.fill(3).await;
    sqlx::query("DROP TABLE highwater_checkpoint").execute(&mut place.sql().await).await.unwrap();
    let before = place.picture().await;
    let words = ["the tables of the database are gone", "open it again"];
    let error = place.store().load(&subscription()).await.unwrap_err();
    assert_told("load", &error, ErrorKind::Missing, &words);
    for way in [Way::TwoStep, Way::Exclusive] {
        assert_told(format!("{way:?}"), &place.refuses(way).await, ErrorKind::Missing, &words);
    }
    assert_eq!(place.picture().await, before);
}
