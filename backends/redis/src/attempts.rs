//! What is remembered of attempts: a hash beside the checkpoint, from the id of an entry to the text.

use highwater::{
    Attempts, EntryId, Error, ErrorKind, Result, Subscription,
    backend::{LoadAttempts, NoteAttempts},
};

use crate::{
    backend::Redis,
    checkpoint::{Answer, wrong_epoch},
    client::{Arguments, Command, CommandOf, Driver, Fault, Value},
    commands::{Build, Push},
    error::{reading, writing},
    keys,
    packed::Packed,
    reply,
    scripts::Script,
};

impl<D: Driver> Redis<D> {
    pub(crate) async fn load_attempts(&self, request: &LoadAttempts) -> Result<Vec<Attempts>> {
        let subscription = &request.subscription;
        let on = Some(subscription.stream.as_str());
        let key = keys::attempts(subscription);
        let found = match &request.ids {
            Some(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                ids.dedup();
                if ids.is_empty() {
                    return Ok(Vec::new());
                }
                let mut command = CommandOf::<D>::new("HMGET").with(&key);
                ids.iter().for_each(|&id| command.push_id(id));
                self.link.run(on, &command).await.and_then(|texts| of_ids(&ids, texts))
            }
            None => self.link.run(on, &CommandOf::<D>::new("HGETALL").with(&key)).await.and_then(all),
        };
        let found = found.map_err(|fault| match &fault {
            Fault::Server(text) if text.starts_with("WRONGTYPE") => {
                unreadable(subscription).with_source(&**text)
            }
            _ => reading("attempts")(fault),
        })?;
        let mut attempts = Vec::with_capacity(found.len());
        for (id, text) in found {
            let id = EntryId::from_bytes(id.as_bytes())
                .ok_or_else(|| unreadable(subscription).with("id", id.escape_debug()))?;
            attempts.push(Attempts::decode(id, &text)?);
        }
        attempts.sort_unstable_by_key(|attempts| attempts.id);
        Ok(attempts)
    }

    pub(crate) async fn keep_attempts(&self, request: &NoteAttempts) -> Result<()> {
        let NoteAttempts { subscription, epoch, set, clear, .. } = request;
        let arguments = |packed: &mut Packed| {
            packed.push_number(epoch.0);
            packed.push_number(set.len() as u64);
            for attempts in set {
                packed.push_id(attempts.id);
                packed.arg(attempts.encode().as_bytes());
            }
            clear.iter().for_each(|&id| packed.push_id(id));
        };
        match self.record_script(Script::NoteAttempts, subscription, "note_attempts", arguments).await? {
            Answer::Done(mut parts) => {
                let how = reply::optional_string(parts.next()).map_err(writing("note_attempts"))?;
                if how.as_deref() == Some("done") { Ok(()) } else { Err(unreadable(subscription)) }
            }
            Answer::Fenced(stored) => Err(wrong_epoch(*epoch, stored)),
            Answer::Held(..) => Err(writing("note_attempts")(Fault::Unreadable("how it went"))),
        }
    }
}

/// Ids and texts.
type Found = Vec<(String, String)>;

fn all<V: Value>(value: V) -> Result<Found, Fault> {
    let texts: Vec<String> =
        reply::list(value)?.into_iter().map(reply::string).collect::<Result<_, Fault>>()?;
    let mut texts = texts.into_iter();
    Ok(std::iter::from_fn(|| Some((texts.next()?, texts.next()?))).collect())
}

fn of_ids<V: Value>(ids: &[EntryId], value: V) -> Result<Found, Fault> {
    let mut found = Found::new();
    for (id, text) in ids.iter().zip(reply::list(value)?) {
        found.extend(reply::optional_string(Some(text))?.map(|text| (id.to_string(), text)));
    }
    Ok(found)
}

fn unreadable(subscription: &Subscription) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the key of the attempts holds something else: look at it, then restore it or delete the key",
    )
    .with("key", keys::attempts(subscription))
}
