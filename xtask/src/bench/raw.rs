//! The loops that one would write with the driver alone: no checkpoint, no claims, no resume.

use redis::{
    AsyncConnectionConfig, Client, Value, aio::MultiplexedConnection, cmd, pipe, streams::StreamReadReply,
};

use super::{BATCH, PAYLOAD, STREAM};
use crate::Result;

/// A connection that waits for a reply as long as it takes: the driver's default gives up after 500 ms.
pub async fn connect(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Appends the entries that all loops read.
pub async fn fill(url: &str, entries: u64) -> Result {
    let mut connection = connect(url).await?;
    let payload = [b'x'; PAYLOAD];
    let mut left = entries;
    while left > 0 {
        let batch = left.min(BATCH as u64);
        let mut pipe = pipe();
        for _ in 0..batch {
            pipe.cmd("XADD").arg(STREAM).arg("*").arg("d").arg(&payload[..]).ignore();
        }
        pipe.query_async::<()>(&mut connection).await?;
        left -= batch;
    }
    Ok(())
}

/// `XREADGROUP COUNT 1000` with the typed reply, then one `XACK` for all of it.
pub async fn read_group(mut connection: MultiplexedConnection, group: &str, entries: u64) -> Result {
    cmd("XGROUP").arg("CREATE").arg(STREAM).arg(group).arg("0").query_async::<()>(&mut connection).await?;
    let mut seen = 0;
    while seen < entries {
        let reply: StreamReadReply = cmd("XREADGROUP")
            .arg("GROUP")
            .arg(group)
            .arg("raw")
            .arg("COUNT")
            .arg(BATCH)
            .arg("STREAMS")
            .arg(STREAM)
            .arg(">")
            .query_async(&mut connection)
            .await?;
        let ids = check(&reply)?;
        let mut ack = cmd("XACK");
        ack.arg(STREAM).arg(group).arg(&ids);
        let acked: u64 = ack.query_async(&mut connection).await?;
        if acked != ids.len() as u64 {
            return Err(format!("{acked} of {} were acked", ids.len()).into());
        }
        seen += acked;
    }
    Ok(())
}

/// `XREAD COUNT 1000` with the typed reply, each after the last id.
pub async fn read(mut connection: MultiplexedConnection, entries: u64) -> Result {
    let mut seen = 0;
    let mut after = "0".to_owned();
    while seen < entries {
        let reply = next(&mut connection, &after).await?;
        let ids = check(&reply)?;
        seen += ids.len() as u64;
        (*ids.last().ok_or("the stream is too short")?).clone_into(&mut after);
    }
    Ok(())
}

/// A batch after an id.
pub async fn next(connection: &mut MultiplexedConnection, after: &str) -> Result<StreamReadReply> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(BATCH).arg("STREAMS").arg(STREAM).arg(after);
    Ok(read.query_async(connection).await?)
}

/// The ids, of which there must be some, each with the whole payload.
pub fn check(reply: &StreamReadReply) -> Result<Vec<&str>> {
    let entries = reply.keys.iter().flat_map(|key| &key.ids);
    let ids: Vec<_> = entries
        .map(|entry| match entry.map.get("d") {
            Some(Value::BulkString(payload)) if payload.len() == PAYLOAD => Ok(entry.id.as_str()),
            other => Err(format!("entry {} has the wrong payload: {other:?}", entry.id)),
        })
        .collect::<std::result::Result<_, _>>()?;
    if ids.is_empty() { Err("the stream is too short".into()) } else { Ok(ids) }
}
