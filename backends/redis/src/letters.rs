//! Dead letters: each is moved, counted and acked in one step.

use highwater::{
    Error, ErrorKind, Fields, Outcome, Result, StreamName, Subscription,
    backend::{BuryLetters, DeadKeys, Fate, NewLetter, Redrive, RedriveLetter, Redriven},
};

use crate::{
    backend::Redis,
    client::{Arguments, Driver, Fault, Value, ValueOf},
    commands::Push,
    error::{self, reading, writing},
    keys,
    packed::Packed,
    reply,
    scripts::Script,
    stream::NUMBER_MAX,
};

/// Most fields of a letter: what Lua can hand to a command.
const FIELDS_MAX: usize = 3900;
/// Most letters of one step, and most bytes of their fields unless one alone has more: others get their turn in between.
const LETTERS_MAX: usize = 100;
const BYTES_MAX: usize = 1 << 20;
/// Most keys that are counted in one step. The last letter of each is read.
const KEYS_MAX: u64 = 64;

impl<D: Driver> Redis<D> {
    pub(crate) async fn bury(&self, request: &BuryLetters) -> Result<Vec<Fate>> {
        let BuryLetters { subscription, into, holder, letters, parked_max, .. } = request;
        let place = Place::new(subscription, into, "dead_letter")?;
        for letter in letters {
            check_fields(&letter.fields)?;
        }
        let mut fates = Vec::with_capacity(letters.len());
        for step in steps(letters, |letter| Some(&letter.fields)) {
            let arguments = |packed: &mut Packed| {
                packed.arg(subscription.group.as_str().as_bytes());
                packed.arg(holder.as_ref().map_or("", |holder| holder.as_str()).as_bytes());
                packed.push_number((*parked_max).min(NUMBER_MAX));
                packed.push_number(step.len() as u64);
                step.iter().for_each(|letter| push_letter(packed, letter));
            };
            let answers = self.letters_script(Script::DeadLetter, &place, arguments).await;
            let answers = answers.map_err(|error| behind(error, fates.len()))?;
            for answer in answers {
                fates.push(fate(answer).map_err(writing(place.operation))?);
            }
        }
        Ok(fates)
    }

    pub(crate) async fn count_dead_keys(&self, request: &DeadKeys) -> Result<Vec<(u64, u64)>> {
        let place = Place::of(&request.subscription, &request.from, "dead_keys");
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let arguments = |packed: &mut Packed| {
                packed.arg(from.as_bytes());
                packed.push_number(KEYS_MAX);
            };
            let keys = place.keys.each_ref().map(String::as_str);
            let reply = self.script(Script::DeadKeys, &keys, arguments).await;
            let counted = reply.and_then(counted).map_err(|fault| place.fault(fault))?;
            found.extend(counted.0);
            match counted.1 {
                Some(key) => from = key,
                None => return Ok(found),
            }
        }
    }

    pub(crate) async fn redrive_letters(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        let Redrive { subscription, from, letters, .. } = request;
        let place = Place::new(subscription, from, "redrive")?;
        for fields in letters.iter().filter_map(|letter| letter.append.as_ref()) {
            check_fields(fields)?;
        }
        let mut redriven = Vec::with_capacity(letters.len());
        for step in steps(letters, |letter| letter.append.as_ref()) {
            let arguments = |packed: &mut Packed| {
                packed.push_number(step.len() as u64);
                step.iter().for_each(|letter| push_redriven(packed, letter));
            };
            let answers = self.letters_script(Script::Redrive, &place, arguments).await;
            let answers = answers.map_err(|error| behind(error, redriven.len()))?;
            for answer in answers {
                redriven.push(became(answer).map_err(writing(place.operation))?);
            }
        }
        Ok(redriven)
    }

    /// Runs a script that answers for each letter.
    async fn letters_script(
        &self,
        script: Script,
        place: &Place,
        arguments: impl FnOnce(&mut Packed),
    ) -> Result<impl Iterator<Item = ValueOf<D>>> {
        let error = writing(place.operation);
        let keys = place.keys.each_ref().map(String::as_str);
        let reply = self.script(script, &keys, arguments).await.map_err(|fault| place.fault(fault))?;
        let mut parts = reply::list(reply).map_err(&error)?.into_iter();
        match reply::optional_string(parts.next()).map_err(&error)?.as_deref() {
            Some("ok") => Ok(parts),
            Some("denied") => {
                let command = reply::optional_string(parts.next()).map_err(&error)?.unwrap_or_default();
                Err(Error::new(ErrorKind::Denied, error::NO_RIGHT)
                    .with("operation", place.operation)
                    .with("command", command.to_lowercase()))
            }
            _ => Err(error(Fault::Unreadable("what became of letters"))),
        }
    }
}

/// Where letters lie, and what is known of them beside.
struct Place {
    keys: [String; 4],
    in_one_slot: bool,
    operation: &'static str,
}

impl Place {
    fn new(subscription: &Subscription, letters: &StreamName, operation: &'static str) -> Result<Self> {
        if subscription.stream == *letters {
            let message = "the dead letters of a stream cannot be in the stream itself: name another one";
            return Err(Error::invalid(message).with("stream", letters));
        }
        Ok(Self::of(subscription, letters, operation))
    }

    fn of(subscription: &Subscription, letters: &StreamName, operation: &'static str) -> Self {
        let keys = [
            subscription.stream.to_string(),
            letters.to_string(),
            keys::letters(subscription, letters),
            keys::dead_keys(subscription, letters),
        ];
        let in_one_slot = keys::is_beside(&subscription.stream, letters.as_str());
        Self { keys, in_one_slot, operation }
    }

    fn fault(&self, fault: Fault) -> Error {
        match &fault {
            Fault::Server(text) if text.starts_with("CROSSSLOT") && !self.in_one_slot => Error::invalid(
                "in a cluster the dead letters must lie in the slot of the stream: name them by \
                 `dead_letter_stream`, give both names the same hash tag, or take the letters in a sink",
            )
            .with("operation", self.operation)
            .with("letters", &self.keys[1]),
            _ if self.operation == "dead_keys" => reading(self.operation)(fault),
            _ => writing(self.operation)(fault),
        }
    }
}

fn check_fields(fields: &Fields) -> Result<()> {
    match fields.len() {
        0 => Err(Error::invalid("an entry needs at least one field")),
        1..=FIELDS_MAX => Ok(()),
        count => Err(Error::invalid(
            "an entry of so many fields cannot be moved in one step: take the letters in a sink, or skip it",
        )
        .with("fields", count)
        .with("most", FIELDS_MAX)),
    }
}

/// Letters that go together, in order.
fn steps<L>(letters: &[L], fields: impl Fn(&L) -> Option<&Fields>) -> Vec<&[L]> {
    let (mut steps, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (i, letter) in letters.iter().enumerate() {
        let size: usize =
            fields(letter).into_iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
        if i > first && (bytes + size > BYTES_MAX || i - first == LETTERS_MAX) {
            steps.push(&letters[first..i]);
            (first, bytes) = (i, 0);
        }
        bytes += size;
    }
    if first < letters.len() {
        steps.push(&letters[first..]);
    }
    steps
}

/// What failed behind steps that took place.
fn behind(error: Error, done: usize) -> Error {
    if done > 0 { error.with_outcome(Outcome::Unknown) } else { error }
}

fn push_letter(packed: &mut Packed, letter: &NewLetter) {
    packed.push_id(letter.id);
    packed.push_number(2 * letter.own.min(letter.fields.len()) as u64);
    push_key(packed, letter.key);
    packed.arg(if letter.parked { b"1" } else { b"0" });
    push_fields(packed, Some(&letter.fields));
}

fn push_redriven(packed: &mut Packed, letter: &RedriveLetter) {
    packed.push_id(letter.letter);
    packed.push_id(letter.id);
    push_key(packed, letter.key);
    push_fields(packed, letter.append.as_ref());
}

fn push_key(packed: &mut Packed, key: Option<u64>) {
    packed.arg(key.map(|key| format!("{key:016x}")).unwrap_or_default().as_bytes());
}

fn push_fields(packed: &mut Packed, fields: Option<&Fields>) {
    packed.push_number(fields.map_or(0, |fields| 2 * fields.len() as u64));
    for (name, value) in fields.into_iter().flatten() {
        packed.arg(name);
        packed.arg(value);
    }
}

fn fate<V: Value>(value: V) -> Result<Fate, Fault> {
    match &*reply::bytes(value)? {
        b"buried" => Ok(Fate::Buried),
        b"full" => Ok(Fate::Full),
        b"not held" => Ok(Fate::NotHeld),
        b"unparked" => Ok(Fate::Unparked),
        _ => Err(Fault::Unreadable("the fate of an entry")),
    }
}

fn became<V: Value>(value: V) -> Result<Redriven, Fault> {
    let bytes = reply::bytes(value)?;
    match &*bytes {
        b"gone" => Ok(Redriven::Gone),
        b"dropped" => Ok(Redriven::Dropped),
        id => highwater::EntryId::from_bytes(id)
            .map(Redriven::Appended)
            .ok_or(Fault::Unreadable("what became of a letter")),
    }
}

/// Keys with how many letters they have, and the key to go on behind.
type Counted = (Vec<(u64, u64)>, Option<String>);

fn counted<V: Value>(value: V) -> Result<Counted, Fault> {
    let mut parts = reply::list(value)?.into_iter();
    let next = reply::optional_string(parts.next())?;
    let mut found = Vec::new();
    while let (Some(key), Some(letters)) = (parts.next(), parts.next()) {
        let key = u64::from_str_radix(&reply::string(key)?, 16);
        found.push((key.map_err(|_| Fault::Unreadable("a key"))?, reply::count(letters)?));
    }
    Ok((found, next))
}
