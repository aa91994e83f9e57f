//! With redis-rs: as its guide shows, and as fast as it goes.

use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Client, Value, aio::MultiplexedConnection, cmd, pipe, streams::StreamReadReply,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::CHECKPOINT;
use crate::{
    Result,
    env::{Env, FIELD},
    measure::Run,
};

/// Batches that may wait between a reader and who takes them.
const WAITING: usize = 2;

/// An id and the fields, without a copy of either.
pub type Lean = Vec<(Bytes, Vec<(Bytes, Bytes)>)>;

/// `XREADGROUP` with the typed reply, then one `XACK`.
pub async fn group_typed(env: Env) -> Result<Run> {
    let mut redis = group(&env).await?;
    let meter = env.start()?;
    let mut seen = 0;
    while seen < env.entries {
        let reply: StreamReadReply = read_group(&env, "c").query_async(&mut redis).await?;
        let entries = reply.keys.iter().flat_map(|key| &key.ids);
        let mut ids = Vec::with_capacity(env.batch);
        for entry in entries {
            match entry.map.get(FIELD) {
                Some(Value::BulkString(payload)) if payload.len() == env.payload => ids.push(&*entry.id),
                _ => return Err("an entry has another payload".into()),
            }
        }
        ack(&mut redis, &env, &ids).await?;
        seen += ids.len() as u64;
    }
    meter.stop()
}

/// The same, and the reply is taken apart by hand.
pub async fn group_lean(env: Env) -> Result<Run> {
    let mut redis = group(&env).await?;
    let meter = env.start()?;
    sequential(&env, &mut redis, "c", &mut 0).await?;
    meter.stop()
}

/// Two of these loops at once in one group.
pub async fn group_two_readers(env: Env) -> Result<Run> {
    let (mut one, mut two) = (group(&env).await?, connect(&env).await?);
    let meter = env.start()?;
    let half = env.clone();
    let second = tokio::spawn(async move {
        let mut seen = 0;
        sequential(&half, &mut two, "d", &mut seen).await.map(|()| seen)
    });
    let mut first = 0;
    sequential(&env, &mut one, "c", &mut first).await?;
    let seen = first + second.await??;
    if seen != env.entries {
        return Err(format!("{seen} of {} entries came", env.entries).into());
    }
    meter.stop()
}

/// One connection only reads. The reply is taken apart and acked by another task and connection.
pub async fn group_two_connections(env: Env) -> Result<Run> {
    two_connections(env, false).await
}

/// The same, and a checkpoint rides with the ack.
pub async fn group_two_connections_checkpoint(env: Env) -> Result<Run> {
    two_connections(env, true).await
}

async fn two_connections(env: Env, with_checkpoint: bool) -> Result<Run> {
    let (mut redis, mut other) = (group(&env).await?, connect(&env).await?);
    let (sender, mut replies) = mpsc::channel::<Value>(WAITING);
    let script = load(&mut other).await?;
    let checkpoint = format!("{}:checkpoint", env.group);
    let meter = env.start()?;
    let told = env.clone();
    let taker: JoinHandle<Result> = tokio::spawn(async move {
        while let Some(reply) = replies.recv().await {
            let batch = lean(reply, &told)?;
            let ids: Vec<&[u8]> = batch.iter().map(|(id, _)| &**id).collect();
            let mut pipe = pipe();
            pipe.cmd("XACK").arg(&told.stream).arg(&told.group).arg(&ids);
            if with_checkpoint && let Some(last) = ids.last() {
                pipe.cmd("EVALSHA").arg(&script).arg(1).arg(&checkpoint).arg(*last).ignore();
            }
            let (acked,): (usize,) = pipe.query_async(&mut other).await?;
            all_acked(acked, ids.len())?;
        }
        Ok(())
    });
    // Counted by what was asked for, so that nothing is taken apart here: every read is full.
    for _ in 0..env.entries / env.batch as u64 {
        let reply: Value = read_group(&env, "c").query_async(&mut redis).await?;
        if sender.send(reply).await.is_err() {
            break;
        }
    }
    drop(sender);
    taker.await??;
    let run = meter.stop()?;
    if with_checkpoint {
        at_the_end(&mut redis, &env).await?;
    }
    Ok(run)
}

/// `XREAD` alone: without a checkpoint it has nowhere to resume.
pub async fn read_lean(env: Env) -> Result<Run> {
    let mut redis = connect(&env).await?;
    let meter = env.start()?;
    let (mut seen, mut after) = (0, Bytes::from_static(b"0"));
    while seen < env.entries {
        let batch = read_after(&env, &mut redis, &after).await?;
        seen += batch.len() as u64;
        if let Some((last, _)) = batch.last() {
            after.clone_from(last);
        }
    }
    meter.stop()
}

/// `XREAD`, and a checkpoint on another connection under the next read.
pub async fn read_lean_checkpoint(env: Env) -> Result<Run> {
    let (mut redis, mut other) = (connect(&env).await?, connect(&env).await?);
    let script = load(&mut other).await?;
    let checkpoint = format!("{}:checkpoint", env.group);
    let meter = env.start()?;
    let (mut seen, mut after) = (0, Bytes::from_static(b"0"));
    let mut saved: Option<JoinHandle<redis::RedisResult<u8>>> = None;
    while seen < env.entries {
        let batch = read_after(&env, &mut redis, &after).await?;
        seen += batch.len() as u64;
        if let Some((last, _)) = batch.last() {
            after.clone_from(last);
        }
        if let Some(saved) = saved.take() {
            saved.await??;
        }
        let (mut other, hash) = (other.clone(), script.clone());
        let (checkpoint, last) = (checkpoint.clone(), after.clone());
        saved = Some(tokio::spawn(async move {
            cmd("EVALSHA").arg(hash).arg(1).arg(checkpoint).arg(&last[..]).query_async(&mut other).await
        }));
    }
    if let Some(saved) = saved {
        saved.await??;
    }
    let run = meter.stop()?;
    at_the_end(&mut redis, &env).await?;
    Ok(run)
}

/// The design that started this project: a batch is read, and each entry acked and put into a checkpoint, each awaited.
pub async fn one_by_one(env: Env) -> Result<Run> {
    let mut redis = group(&env).await?;
    let checkpoint = format!("{}:checkpoint", env.group);
    let meter = env.start()?;
    let mut seen = 0;
    while seen < env.entries {
        for (id, _) in lean(read_group(&env, "c").query_async(&mut redis).await?, &env)? {
            ack(&mut redis, &env, &[&*id]).await?;
            cmd("SET").arg(&checkpoint).arg(&id[..]).query_async::<()>(&mut redis).await?;
            seen += 1;
        }
    }
    let run = meter.stop()?;
    at_the_end(&mut redis, &env).await?;
    Ok(run)
}

/// Reads until nothing is left, or all has come.
async fn sequential(env: &Env, redis: &mut MultiplexedConnection, consumer: &str, seen: &mut u64) -> Result {
    while *seen < env.entries {
        let reply: Value = read_group(env, consumer).query_async(redis).await?;
        if reply == Value::Nil {
            break;
        }
        let batch = lean(reply, env)?;
        let ids: Vec<&[u8]> = batch.iter().map(|(id, _)| &**id).collect();
        ack(redis, env, &ids).await?;
        *seen += ids.len() as u64;
    }
    Ok(())
}

/// A connection that waits as long as it takes: the driver's default gives up on a reply after 500 ms.
pub async fn connect(env: &Env) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    Ok(Client::open(&*env.redis.url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

async fn group(env: &Env) -> Result<MultiplexedConnection> {
    let mut redis = connect(env).await?;
    let mut create = cmd("XGROUP");
    create.arg("CREATE").arg(&env.stream).arg(&env.group).arg("0");
    create.query_async::<()>(&mut redis).await?;
    Ok(redis)
}

/// The digest by which the server knows the script from now on.
async fn load(redis: &mut MultiplexedConnection) -> Result<String> {
    Ok(cmd("SCRIPT").arg("LOAD").arg(CHECKPOINT).query_async(redis).await?)
}

fn read_group(env: &Env, consumer: &str) -> redis::Cmd {
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg(&env.group).arg(consumer).arg("COUNT").arg(env.batch);
    read.arg("STREAMS").arg(&env.stream).arg(">");
    read
}

async fn read_after(env: &Env, redis: &mut MultiplexedConnection, after: &[u8]) -> Result<Lean> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(env.batch).arg("STREAMS").arg(&env.stream).arg(after);
    lean(read.query_async(redis).await?, env)
}

async fn ack(redis: &mut MultiplexedConnection, env: &Env, ids: &[impl redis::ToRedisArgs]) -> Result {
    let acked = cmd("XACK").arg(&env.stream).arg(&env.group).arg(ids).query_async(redis).await?;
    all_acked(acked, ids.len())
}

fn all_acked(acked: usize, of: usize) -> Result {
    if acked == of && of > 0 { Ok(()) } else { Err(format!("{acked} of {of} were acked").into()) }
}

/// The checkpoint must be at the last entry.
async fn at_the_end(redis: &mut MultiplexedConnection, env: &Env) -> Result {
    let checkpoint: String = cmd("GET").arg(format!("{}:checkpoint", env.group)).query_async(redis).await?;
    let last = crate::stage::entry_id(env.entries - 1);
    if checkpoint == last {
        Ok(())
    } else {
        Err(format!("the checkpoint is at {checkpoint}, not at {last}").into())
    }
}

/// Takes a reply apart, and looks at each payload.
pub fn lean(reply: Value, env: &Env) -> Result<Lean> {
    let Some(Value::Array(stream)) = array(reply).and_then(|mut streams| streams.pop()) else {
        return Err("the stream is too short".into());
    };
    let entries = stream.into_iter().nth(1).and_then(array).ok_or("not a reply to a read")?;
    let mut batch = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut parts = array(entry).ok_or("not an entry")?.into_iter();
        let (Some(Value::BulkString(id)), Some(Value::Array(words))) = (parts.next(), parts.next()) else {
            return Err("not an entry".into());
        };
        let mut fields = Vec::with_capacity(words.len() / 2);
        let mut words = words.into_iter();
        while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) =
            (words.next(), words.next())
        {
            fields.push((Bytes::from(name), Bytes::from(value)));
        }
        if fields.first().is_none_or(|(_, payload)| payload.len() != env.payload) {
            return Err("an entry has another payload".into());
        }
        batch.push((Bytes::from(id), fields));
    }
    Ok(batch)
}

fn array(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(values) = value { Some(values) } else { None }
}
