//! A large settle, whose acks are a command of their own in one transaction with the script.
//!
//! Lua makes a string of each id and an argument of each string, which takes a server about as long as the ack itself.

use std::slice;

use highwater::{
    EntryId, Epoch, Result, Subscription,
    backend::{Settle, Settled},
};

use crate::{
    backend::Redis,
    checkpoint::{Answer, read_answer, read_record},
    client::{Command, CommandOf, Connection, Driver, Fault, Reply, Value},
    commands::{self, Build},
    error::writing,
    reply,
    scripts::Script,
    settle,
    stream::acked,
};

/// From so many ids on it takes a server less, though it is two round trips and the script for the last id.
const IDS_MIN: usize = 256;

impl<D: Driver> Redis<D> {
    /// Acks all but the last id and settles the last one, unless the checkpoint changes after its epoch was seen. `None`: it did,
    /// or somebody else is at it, or the server would have none of it. What was acked then, if anything, is settled by the
    /// script as well.
    pub(crate) async fn settle_watched(
        &self,
        request: &Settle,
        ids: &[EntryId],
        keys: &[&str],
    ) -> Option<Result<Settled>> {
        let (last, others) = ids.split_last().filter(|_| ids.len() >= IDS_MIN)?;
        let (checkpoint, groups) = (keys[0], keys[1]);
        // Put together only where there is a connection to send them by.
        let steps = async |connection: &mut D::Connection| {
            let look = vec![
                CommandOf::<D>::new("WATCH").with(checkpoint).with(groups),
                CommandOf::<D>::new("HGETALL").with(checkpoint),
                CommandOf::<D>::new("HGET").with(checkpoint).with("epoch"),
                CommandOf::<D>::new("TYPE").with(groups),
            ];
            // Until here nothing was done that the script would not do as well.
            let Ok(replies) = connection.send_all(&D::Connection::batch(look)).await else { return Ok(None) };
            let arguments = settle::arguments(request, slice::from_ref(last));
            let settle = self.scripts.command(Script::Settle, keys, arguments);
            let (true, Some(settle)) = (is_of_epoch(replies, request.epoch), settle) else {
                // What is watched yet is forgotten with the next transaction, which it may stop.
                return Ok(Some(Reply::Nil));
            };
            let Subscription { stream, group } = &request.subscription;
            let mut change = vec![CommandOf::<D>::new("MULTI")];
            change.extend(commands::xacks::<CommandOf<D>>(stream.as_str(), group.as_str(), others));
            change.extend([settle, CommandOf::<D>::new("EXEC")]);
            let replies = connection.send_all(&D::Connection::batch(change)).await?;
            Ok(replies.into_iter().next_back().map(Value::open))
        };
        match self.link.alone(steps).await? {
            Ok(Some(Reply::List(replies))) => answer(replies).transpose(),
            Ok(_) => None,
            Err(fault) => Some(Err(writing("settle")(fault))),
        }
    }
}

/// Whether what was read while it is watched is sound, and the record has this epoch.
fn is_of_epoch<V: Value>(replies: Vec<V>, epoch: Epoch) -> bool {
    let replies: Result<Vec<V>, _> = replies.into_iter().map(Value::checked).collect();
    let Ok(Ok([_, record, stored, groups])) = replies.map(<[V; 4]>::try_from) else { return false };
    let stored = reply::optional_string(Some(stored)).map(|stored| stored.unwrap_or_else(|| "0".to_owned()));
    stored.is_ok_and(|stored| stored == epoch.to_string())
        && reply::string(groups).is_ok_and(|kind| kind == "set" || kind == "none")
        && read_record(Ok(record), "settle").is_ok()
}

/// What the transaction did. `None` if part of it failed, or the script settled nothing.
fn answer<V: Value>(replies: Vec<V>) -> Result<Option<Settled>> {
    let Ok(mut replies) = replies.into_iter().map(Value::checked).collect::<Result<Vec<_>, _>>() else {
        return Ok(None);
    };
    let Some(script) = replies.pop() else { return Ok(None) };
    let Ok(Answer::Done(parts)) = read_answer(script, "settle") else { return Ok(None) };
    let counts: Result<Vec<u64>, Fault> = replies.into_iter().map(reply::count).collect();
    let before: u64 = counts.map_err(writing("settle"))?.iter().sum();
    let (acked, position) = acked(parts, "settle")?;
    Ok(Some(Settled::new(before + acked, position)))
}
