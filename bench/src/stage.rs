//! The servers of a campaign, and the streams in them.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use tempfile::TempDir;

use crate::{
    Result,
    cli::All,
    env::{Env, FIELD, STREAM, Server},
    list::{Needs, Shape},
    support::{postgres::PostgresServer, server::RedisServer},
};

/// Ids are given, so that every loop can know them, and all have one length.
pub fn entry_id(nth: u64) -> String {
    format!("{}-0", 1_600_000_000_000 + nth)
}

/// Servers of one's own, started when they are needed first.
#[derive(Debug)]
pub struct Stage {
    redis_program: PathBuf,
    postgres_programs: PathBuf,
    redis: RedisServer,
    other: Option<RedisServer>,
    postgres: Option<PostgresServer>,
    dir: TempDir,
    filled: BTreeSet<String>,
    runs: AtomicU64,
}

impl Stage {
    pub fn open(args: &All) -> Result<Self> {
        Ok(Self {
            redis: RedisServer::try_start(&args.redis_server, &[])?,
            redis_program: args.redis_server.clone(),
            postgres_programs: args.postgres_bin.clone(),
            other: None,
            postgres: None,
            dir: TempDir::new()?,
            filled: BTreeSet::new(),
            runs: AtomicU64::new(0),
        })
    }

    /// What a run is told: the servers that it needs, a stream with that load, and a group that nobody had.
    pub fn env(&mut self, needs: Needs, shape: Shape, args: &All) -> Result<Env> {
        if needs.other && self.other.is_none() {
            self.other = Some(RedisServer::try_start(&self.redis_program, &[])?);
        }
        if needs.postgres && self.postgres.is_none() {
            // Commits wait for the disk, as they would elsewhere.
            self.postgres = Some(PostgresServer::try_start(&self.postgres_programs, &["fsync=on"])?);
        }
        let entries = match shape.rate {
            // A multiple of the batch: loops that parse nothing count batches.
            0 => shape.entries.unwrap_or(args.entries / shape.share).next_multiple_of(shape.batch as u64),
            rate => rate * args.seconds,
        };
        let stream = if shape.unfilled { STREAM.to_owned() } else { self.stream(entries, shape.payload)? };
        let server =
            |redis: &RedisServer| -> Result<Server> { Ok(Server { url: redis.url(), pid: redis.pid()? }) };
        let postgres = self.postgres.as_ref().filter(|_| needs.postgres);
        Ok(Env {
            redis: server(&self.redis)?,
            other: self.other.as_ref().filter(|_| needs.other).map(server).transpose()?,
            postgres: postgres
                .map(|p| {
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Server { url: p.url(), pid: p.pid()? })
                })
                .transpose()?,
            dir: self.dir.path().to_owned(),
            stream,
            group: format!("g{}", self.runs.fetch_add(1, Ordering::Relaxed)),
            entries,
            payload: shape.payload,
            batch: shape.batch,
            many: shape.many,
            rate: shape.rate,
        })
    }

    /// Takes away what a run has left, so that the next finds the server as it did.
    pub fn tidy(&self, env: &Env) -> Result {
        let mut redis = self.redis.connect()?;
        redis.run(&["XGROUP", "DESTROY", &env.stream, &env.group])?;
        let keys = redis.run(&["KEYS", "*"])?;
        for key in keys.list().iter().map(|key| key.text()).filter(|key| !self.filled.contains(key)) {
            redis.run(&["DEL", &key])?;
        }
        Ok(())
    }

    /// Takes away a stream that nobody reads any more.
    pub fn drop_streams(&mut self) -> Result {
        for stream in std::mem::take(&mut self.filled) {
            self.redis.cli(&["DEL", &stream])?;
        }
        Ok(())
    }

    /// A stream with so many entries of this size, filled if it is not there.
    fn stream(&mut self, entries: u64, payload: usize) -> Result<String> {
        let name = format!("{STREAM}-{entries}-{payload}");
        if self.filled.insert(name.clone()) {
            fill(&self.redis, &name, entries, payload)?;
        }
        Ok(name)
    }
}

/// Appends by pipelines of a thousand, or of a megabyte.
fn fill(redis: &RedisServer, stream: &str, entries: u64, payload: usize) -> Result {
    let mut socket = TcpStream::connect(redis.addr())?;
    let payload = "x".repeat(payload);
    let (len, size) = (stream.len(), payload.len());
    let at_once = (1_000_000 / (size as u64 + 100)).clamp(1, 1_000);
    let mut replies = Vec::new();
    for first in (0..entries).step_by(usize::try_from(at_once)?) {
        let mut request = String::new();
        let ids = first..entries.min(first + at_once);
        replies.resize(22 * usize::try_from(ids.end - ids.start)?, 0);
        for id in ids.map(entry_id) {
            request += &format!(
                "*5\r\n$4\r\nXADD\r\n${len}\r\n{stream}\r\n$15\r\n{id}\r\n$1\r\n{FIELD}\r\n${size}\r\n{payload}\r\n"
            );
        }
        socket.write_all(request.as_bytes())?;
        socket.read_exact(&mut replies)?;
        if !replies.starts_with(b"$15\r\n") {
            return Err(String::from_utf8_lossy(&replies).into_owned().into());
        }
    }
    Ok(())
}
