//! With fred, the reply taken apart by hand.

use bytes::Bytes;
use bytes_utils::Str;
use fred::{
    clients::Client,
    interfaces::{ClientLike, StreamsInterface},
    types::{Value, config::Config},
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{Result, env::Env, measure::Run};

/// Batches that may wait between a reader and who takes them.
const WAITING: usize = 2;

/// One `XREADGROUP`, then one `XACK`.
pub async fn seq(env: Env) -> Result<Run> {
    let client = group(&env).await?;
    let meter = env.start()?;
    let mut seen = 0;
    while seen < env.entries {
        let ids = ids(read_group(&env, &client).await?, &env)?;
        seen += ack(&env, &client, ids).await?;
    }
    meter.stop()
}

/// One client only reads. The reply is taken apart and acked by another one.
pub async fn two_clients(env: Env) -> Result<Run> {
    let (client, other) = (group(&env).await?, connect(&env).await?);
    let (sender, mut replies) = mpsc::channel::<Value>(WAITING);
    let meter = env.start()?;
    let told = env.clone();
    let taker: JoinHandle<Result> = tokio::spawn(async move {
        while let Some(reply) = replies.recv().await {
            ack(&told, &other, ids(reply, &told)?).await?;
        }
        Ok(())
    });
    for _ in 0..env.entries / env.batch as u64 {
        if sender.send(read_group(&env, &client).await?).await.is_err() {
            break;
        }
    }
    drop(sender);
    taker.await??;
    meter.stop()
}

async fn connect(env: &Env) -> Result<Client> {
    let client = Client::new(Config::from_url(&env.redis.url)?, None, None, None);
    client.init().await?;
    Ok(client)
}

async fn group(env: &Env) -> Result<Client> {
    let client = connect(env).await?;
    client.xgroup_create::<(), _, _, _>(&env.stream, &*env.group, "0", false).await?;
    Ok(client)
}

async fn read_group(env: &Env, client: &Client) -> Result<Value> {
    let count = Some(env.batch as u64);
    Ok(client.xreadgroup(&*env.group, "c", count, None, false, &env.stream, ">").await?)
}

async fn ack(env: &Env, client: &Client, ids: Vec<Str>) -> Result<u64> {
    let sent = ids.len() as u64;
    let acked: u64 = client.xack(&env.stream, &*env.group, ids).await?;
    if acked == sent { Ok(acked) } else { Err(format!("{acked} of {sent} were acked").into()) }
}

/// Takes a reply apart, and looks at each payload.
fn ids(reply: Value, env: &Env) -> Result<Vec<Str>> {
    let stream = array(reply).and_then(|mut streams| streams.pop()).and_then(array);
    let entries = stream.and_then(|parts| parts.into_iter().nth(1)).and_then(array);
    let mut ids = Vec::with_capacity(env.batch);
    for entry in entries.ok_or("the stream is too short")? {
        let mut parts = array(entry).ok_or("not an entry")?.into_iter();
        let (Some(id), Some(words)) = (parts.next(), parts.next().and_then(array)) else {
            return Err("not an entry".into());
        };
        let fields: Vec<Bytes> = words.into_iter().filter_map(Value::into_bytes).collect();
        if fields.get(1).is_none_or(|payload| payload.len() != env.payload) {
            return Err("an entry has another payload".into());
        }
        ids.push(id.into_bytes_str().ok_or("an id that is no text")?);
    }
    Ok(ids)
}

fn array(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(values) = value { Some(values) } else { None }
}
