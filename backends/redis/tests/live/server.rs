//! A server of its own for each test, and what the tests share.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use highwater::{ConsumerName, Delivery, EntryId, Fields, Position, StreamName, Subscription, backend::*};
use highwater_redis::Settings;
use tempfile::TempDir;

use crate::Redis;

pub(crate) struct Server {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(options: &[&str]) -> Self {
        // The port may be taken between asking for it and using it; then the server ends and another port is asked for.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut server = Self::spawn(port, options);
            if server.wait_until_up().await {
                return server;
            }
        }
        panic!("no server came up");
    }

    /// A sentinel that watches a master, under the name `m`, and asks for the password `watch`. It promotes a replica when
    /// it is told to, and not because the machine was slow.
    pub(crate) async fn sentinel_of(master: &Self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("sentinel.conf");
        let text = format!(
            "requirepass watch\nsentinel sentinel-pass watch\nsentinel monitor m 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds m 60000\nsentinel failover-timeout m 10000\n",
            master.port
        );
        std::fs::write(&conf, text).unwrap();
        Self::start_with(&[conf.to_str().unwrap(), "--sentinel"]).await
    }

    fn spawn(port: u16, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        // A file of settings comes first.
        let (file, options) = match options {
            [file, rest @ ..] if !file.starts_with("--") => (Some(file), rest),
            options => (None, options),
        };
        let process = Command::new(program)
            .args(file)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", dir.path().to_str().unwrap(), "--unixsocket", "socket"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { process, port, _dir: dir }
    }

    async fn wait_until_up(&mut self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        while self.process.try_wait().unwrap().is_none() {
            match client.get_multiplexed_async_connection().await {
                Err(error) if error.is_io_error() => {}
                // A server that asks for a password is up too.
                _ => return true,
            }
            tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>()).await.unwrap_err();
        }
        false
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn socket(&self) -> String {
        format!("redis+unix://{}/socket", self._dir.path().display())
    }

    pub(crate) async fn backend(&self) -> Redis {
        connect(self.url()).await.unwrap()
    }

    pub(crate) async fn impatient(&self) -> Redis {
        let settings = Settings::new(self.url()).block_slack(Duration::from_millis(300));
        Redis::open(settings.response_timeout(Duration::from_secs(1))).await.unwrap()
    }

    pub(crate) async fn raw(&self) -> Raw {
        self.raw_with(&self.url()).await
    }

    pub(crate) async fn raw_with(&self, url: &str) -> Raw {
        let client = redis::Client::open(url).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        Raw(client.get_multiplexed_async_connection_with_config(&config).await.unwrap())
    }

    /// Stops the process, and starts another one at the same port with nothing in it.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let port = self.port;
        *self = Self::spawn(port, &[]);
        assert!(self.wait_until_up().await, "the port is free again");
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The driver itself, for what the backend would not do.
#[derive(Clone)]
pub(crate) struct Raw(redis::aio::MultiplexedConnection);

impl Raw {
    pub(crate) async fn try_run<T: redis::FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        self.try_words(&words).await
    }

    async fn try_words<T: redis::FromRedisValue>(&self, words: &[String]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(&words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query_async(&mut self.0.clone()).await
    }

    /// Words that may hold spaces.
    pub(crate) async fn words<T: redis::FromRedisValue>(&self, words: &[String]) -> T {
        self.try_words(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) async fn run<T: redis::FromRedisValue>(&self, line: &str) -> T {
        self.try_run(line).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Waits until a replica has all that was written.
    pub(crate) async fn replicated(&self) {
        // Waiting is for what this very connection wrote, and for all before it.
        self.run::<()>("SET {s}written yes").await;
        assert_eq!(self.run::<u64>("WAIT 1 5000").await, 1, "there is a replica");
    }

    /// Everything in the server.
    pub(crate) async fn picture(&self) -> Vec<(String, redis::Value)> {
        let mut keys: Vec<String> = self.run("KEYS *").await;
        keys.sort_unstable();
        let mut all = Vec::new();
        for key in keys {
            let dump = self.run(&format!("DUMP {key}")).await;
            all.push((key, dump));
        }
        all
    }

    /// How many connections wait in a blocking command.
    pub(crate) async fn blocked(&self) -> usize {
        let clients: String = self.run("CLIENT LIST").await;
        clients.lines().filter(|line| line.contains(" flags=b")).count()
    }

    pub(crate) async fn until_blocked(&self, count: usize) {
        eventually(async || self.blocked().await == count).await;
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually(condition: impl AsyncFn() -> bool) {
    let check = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), check).await.expect("the condition comes true");
}

pub(crate) async fn connect(url: impl Into<String>) -> highwater::Result<Redis> {
    Redis::open(Settings::new(url)).await
}

pub(crate) fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

pub(crate) fn subscription() -> Subscription {
    Subscription::new("s", "g").unwrap()
}

pub(crate) fn name(name: &str) -> ConsumerName {
    ConsumerName::new(name).unwrap()
}

pub(crate) fn fields(value: &str) -> Fields {
    [("f", value.to_owned())].into_iter().collect()
}

/// Entries `first..=last` of the stream of [`subscription`].
pub(crate) async fn fill(redis: &Redis, first: u64, last: u64) {
    let entries = (first..=last).map(|ms| NewEntry::new(fields(&ms.to_string())).with_id(id(ms))).collect();
    for result in redis.append(&Append::new(stream("s"), entries)).await.unwrap() {
        result.unwrap();
    }
}

/// The stream with entries `1..=last` and its group at the beginning.
pub(crate) async fn filled(redis: &Redis, last: u64) {
    fill(redis, 1, last).await;
    assert!(redis.ensure_group(&EnsureGroup::new(subscription(), &Position::default())).await.unwrap());
}

pub(crate) async fn deliver(redis: &Redis, consumer: &str, limit: usize) -> Vec<EntryId> {
    let read = ReadGroup::new(subscription(), name(consumer), limit);
    redis.read_group(&read).await.unwrap().iter().map(Delivery::id).collect()
}

pub(crate) async fn acked(redis: &Redis, ids: impl IntoIterator<Item = u64>) -> Acked {
    let ids = ids.into_iter().map(id).collect();
    redis.ack(&Ack::new(subscription(), ids).count(true)).await.unwrap()
}

pub(crate) fn ids(range: impl IntoIterator<Item = u64>) -> Vec<EntryId> {
    range.into_iter().map(id).collect()
}
