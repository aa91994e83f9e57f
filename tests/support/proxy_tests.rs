//! The proxy itself, before lines, Redis and PostgreSQL.

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::support::{PostgresServer, RedisServer, TcpProxy};

/// A server that answers each line with `<line>!`, and the lines that it got.
async fn shouting() -> (TcpProxy, watch::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (heard, hears) = watch::channel(String::new());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let heard = heard.clone();
            tokio::spawn(async move {
                let mut chunk = [0; 1024];
                while let Ok(n @ 1..) = client.read(&mut chunk).await {
                    let line = String::from_utf8_lossy(&chunk[..n]).into_owned();
                    heard.send_modify(|all| all.push_str(&line));
                    client.write_all(format!("{line}!").as_bytes()).await.unwrap();
                }
            });
        }
    });
    (TcpProxy::start(addr).await, hears)
}

async fn say(client: &mut TcpStream, line: &str) -> io::Result<String> {
    client.write_all(line.as_bytes()).await?;
    let mut chunk = [0; 1024];
    match client.read(&mut chunk).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(String::from_utf8_lossy(&chunk[..n]).into_owned()),
    }
}

#[tokio::test]
async fn it_forwards_cuts_and_refuses() {
    let (proxy, _) = shouting().await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut client, "a").await.unwrap(), "a!");
    proxy.cut();
    assert!(say(&mut client, "b").await.is_err());
    let mut open = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut open, "c").await.unwrap(), "c!");
    proxy.refuse(true);
    let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(say(&mut refused, "d").await.is_err());
    assert_eq!(say(&mut open, "e").await.unwrap(), "e!");
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_stall_is_silence_and_loses_nothing() {
    let (proxy, _) = shouting().await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut client, "a").await.unwrap(), "a!");
    proxy.stall(true);
    let answer = timeout(Duration::from_millis(100), say(&mut client, "b")).await;
    assert!(answer.is_err(), "neither an answer nor an end: {answer:?}");
    proxy.stall(false);
    let mut chunk = [0; 16];
    let n = client.read(&mut chunk).await.unwrap();
    assert_eq!(&chunk[..n], b"b!");
    proxy.delay(Duration::from_millis(40));
    let start = Instant::now();
    assert_eq!(say(&mut client, "c").await.unwrap(), "c!");
    assert!(start.elapsed() >= Duration::from_millis(80), "there and back");
}

#[tokio::test]
async fn a_lost_reply_was_carried_out() {
    let (proxy, heard) = shouting().await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.lose_reply_to("needle");
    assert_eq!(say(&mut client, "hay").await.unwrap(), "hay!");
    // In two pieces, as a long command may come.
    assert_eq!(say(&mut client, "nee").await.unwrap(), "nee!");
    assert!(say(&mut client, "dle").await.is_err());
    proxy.triggered(1).await;
    assert_eq!(*heard.borrow(), "hayneedle");
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut again, "needle").await.unwrap(), "needle!", "it happens once");
    assert_eq!(proxy.triggers(), 1);
}

#[tokio::test]
async fn a_reply_can_be_cut_in_the_middle() {
    let (proxy, _) = shouting().await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.cut_after_reply_bytes(5);
    assert_eq!(say(&mut client, "ab").await.unwrap(), "ab!");
    assert_eq!(say(&mut client, "cd").await.unwrap(), "cd");
    assert!(say(&mut client, "ef").await.is_err());
    proxy.triggered(1).await;
}

#[tokio::test]
async fn a_redis_command_is_carried_out_and_its_reply_lost() {
    let server = RedisServer::start();
    let proxy = TcpProxy::start(server.addr()).await;
    assert!(proxy.url().starts_with("redis://127.0.0.1:"));
    proxy.lose_reply_to("INCR");
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(say(&mut client, "INCR counter\r\n").await.is_err());
    assert_eq!(server.cli(&["GET", "counter"]).unwrap().int(), Some(1));
}

#[tokio::test]
async fn half_open_is_silence_for_those_that_are_there_and_others_work() {
    let (proxy, heard) = shouting().await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut client, "a").await.unwrap(), "a!");
    proxy.half_open();
    let mut other = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut other, "b").await.unwrap(), "b!");
    let answer = timeout(Duration::from_millis(100), say(&mut client, "c")).await;
    assert!(answer.is_err(), "neither an answer nor an end: {answer:?}");
    assert_eq!(*heard.borrow(), "ab", "the server hears nothing of it");
    proxy.cut();
    assert!(say(&mut client, "d").await.is_err());
}

#[tokio::test]
async fn new_connections_go_to_another_target() {
    let (proxy, heard) = shouting().await;
    let (other, others) = shouting().await;
    let mut before = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut before, "a").await.unwrap(), "a!");
    proxy.retarget(other.addr());
    let mut behind = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut behind, "b").await.unwrap(), "b!");
    assert_eq!(say(&mut before, "c").await.unwrap(), "c!");
    assert_eq!((heard.borrow().as_str(), others.borrow().as_str()), ("ac", "b"));
}

/// Options that lead a client of a database through a proxy.
fn through(proxy: &TcpProxy) -> PgConnectOptions {
    let url = format!("postgres://postgres@{}/postgres", proxy.addr());
    url.parse().unwrap()
}

#[tokio::test]
async fn a_statement_of_postgres_is_carried_out_and_its_reply_lost() {
    let server = PostgresServer::start();
    server.sql("CREATE TABLE kept (n int)").unwrap();
    let proxy = TcpProxy::start(server.addr()).await;
    let mut client = through(&proxy).connect().await.unwrap();
    proxy.lose_reply_to("INSERT INTO kept");
    let insert = sqlx::raw_sql("INSERT INTO kept VALUES (7)").execute(&mut client).await;
    assert!(insert.is_err(), "{insert:?}");
    proxy.triggered(1).await;
    assert_eq!(server.sql("SELECT n FROM kept").unwrap(), "7");
}

#[tokio::test]
async fn postgres_is_cut_stalled_and_half_open() {
    let server = PostgresServer::start();
    let proxy = TcpProxy::start(server.addr()).await;
    let mut client = through(&proxy).connect().await.unwrap();
    proxy.stall(true);
    let silent = timeout(Duration::from_millis(100), sqlx::raw_sql("SELECT 1").execute(&mut client)).await;
    assert!(silent.is_err(), "neither an answer nor an end");
    proxy.stall(false);
    let mut client = through(&proxy).connect().await.unwrap();
    proxy.half_open();
    let silent = timeout(Duration::from_millis(100), sqlx::raw_sql("SELECT 1").execute(&mut client)).await;
    assert!(silent.is_err(), "neither an answer nor an end");
    let mut client = through(&proxy).connect().await.unwrap();
    sqlx::raw_sql("SELECT 1").execute(&mut client).await.unwrap();
    proxy.cut();
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut client).await.is_err());
}
