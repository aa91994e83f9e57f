//! Effects, acks and the advance in one step.

use async_trait::async_trait;
use highwater::{
    EntryId, Error, ErrorKind, Position, Result,
    backend::{Committed, Settlement, TransactionalCheckpoint},
};

use crate::{
    backend::Redis,
    checkpoint::{Answer, push_position, read_answer, wrong_epoch},
    client::{Arguments, Driver, Fault, Value},
    commands::Push,
    effects::Effects,
    error::{self, reading, writing},
    keys,
    packed::Packed,
    reply,
    scripts::Script,
    stream::{AHEAD_BYTES_MAX, ascending},
};

#[async_trait]
impl<D: Driver> TransactionalCheckpoint for Redis<D> {
    type Tx = Effects;

    async fn begin(&self) -> Result<Effects> {
        Ok(Effects::default())
    }

    async fn settled(&self, _: &mut Effects, request: &Settlement) -> Result<Vec<EntryId>> {
        let subscription = &request.subscription;
        let ids = ascending(&request.ids);
        let keys = [
            &*keys::checkpoint(subscription),
            &*keys::groups(&subscription.stream),
            &*keys::settled(subscription),
        ];
        let arguments = |packed: &mut Packed| ids.iter().for_each(|&id| packed.push_id(id));
        let value = self.script(Script::Settled, &keys, arguments).await.map_err(reading("settled"))?;
        match read_answer(value, "settled").map_err(|error| error.with("subscription", subscription))? {
            Answer::Done(parts) => parts.map(reply::id).collect::<Result<_, _>>().map_err(reading("settled")),
            _ => Err(reading("settled")(Fault::Unreadable("ids"))),
        }
    }

    async fn commit(&self, tx: Effects, request: &Settlement) -> Result<Committed> {
        let Settlement { subscription, epoch, owner, ids, position, fused, .. } = request;
        request.validate()?;
        let effects = tx.checked(&subscription.stream)?;
        let how = match (position, fused) {
            (Some(_), _) => "position",
            (None, false) => "each",
            (None, true) => "group",
        };
        let [checkpoint, groups, settled] =
            [keys::checkpoint(subscription), keys::groups(&subscription.stream), keys::settled(subscription)];
        // Where the group is elsewhere, the user may have no right to a key of that name.
        let stream = if how == "group" { subscription.stream.as_str() } else { &*settled };
        let ours = [&*checkpoint, &*groups, &*settled, stream];
        let keys: Vec<&str> = ours.into_iter().chain(effects.keys()).collect();
        let arguments = |packed: &mut Packed| {
            packed.arg(subscription.group.as_str().as_bytes());
            packed.push_number(epoch.0);
            packed.arg(owner.as_str().as_bytes());
            packed.arg(how.as_bytes());
            push_position(packed, position.as_ref().unwrap_or(&Position::default()));
            packed.push_number(AHEAD_BYTES_MAX as u64);
            effects.push_to(packed, ours.len() + 1);
            ids.iter().for_each(|&id| packed.push_id(id));
        };
        let value = self.script(Script::Effects, &keys, arguments).await.map_err(|fault| match &fault {
            Fault::Server(text) if text.starts_with("CROSSSLOT") => {
                effects.in_other_slot(&subscription.stream).unwrap_or_else(|| writing("commit")(fault))
            }
            _ => writing("commit")(fault),
        })?;
        match read_answer(value, "commit").map_err(|error| error.with("subscription", subscription))? {
            Answer::Done(parts) => committed(parts, &effects),
            Answer::Fenced(stored) => Err(wrong_epoch(*epoch, stored)),
            Answer::Held(..) => Err(writing("commit")(Fault::Unreadable("how a commit ended"))),
        }
    }
}

fn committed<V: Value>(mut parts: impl Iterator<Item = V>, effects: &Effects) -> Result<Committed> {
    let error = writing("commit");
    let missing = || error(Fault::Unreadable("how a commit ended"));
    let mut next = || parts.next().ok_or_else(missing);
    match &*reply::bytes(next()?).map_err(&error)? {
        b"done" => Ok(Committed::done(reply::optional_id(next()?).map_err(&error)?)),
        b"settled" => {
            let ids = parts.map(reply::id).collect::<Result<_, _>>();
            Ok(Committed::AlreadySettled(ids.map_err(&error)?))
        }
        b"refused" => {
            let number = reply::count(next()?).map_err(&error)?;
            let why = reply::bytes(next()?).map_err(&error)?;
            Err(effects.refused_by_server(usize::try_from(number).unwrap_or(0), &why))
        }
        b"denied" => {
            let command = reply::string(next()?).map_err(&error)?.to_lowercase();
            Err(Error::new(ErrorKind::Denied, error::NO_RIGHT)
                .with("operation", "commit")
                .with("command", command))
        }
        _ => Err(missing()),
    }
}
