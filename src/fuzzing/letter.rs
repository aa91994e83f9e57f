//! What is remembered of attempts, and dead letters: their text forms.

use bytes::Bytes;

use super::Source;
use crate::{
    Attempts, ConsumerName, DeathReason, Doom, Entry, EntryId, ErrorKind, Fields, Letter, Subscription,
    clock::Timestamp,
};

/// Any text is a record of attempts, and any fields are a dead letter, or both are refused as corrupt; and what is written comes
/// back as it was.
pub fn letter(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(4) {
        0 => decode_attempts(source.id(), &String::from_utf8_lossy(source.rest())),
        1 => attempts_again(&any_attempts(&mut source)),
        2 => read_any(&mut source),
        _ => {
            let letter = any_letter(&mut source);
            letter_again(&letter);
            spoil(&letter, &mut source);
        }
    }
}

fn decode_attempts(id: EntryId, text: &str) {
    match Attempts::decode(id, text) {
        Ok(attempts) => attempts_again(&attempts),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}: {error}"),
    }
}

fn attempts_again(attempts: &Attempts) {
    let text = attempts.encode();
    let decoded = Attempts::decode(attempts.id, &text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(&decoded, attempts, "{text:?}");
}

fn any_attempts(source: &mut Source<'_>) -> Attempts {
    let doom = source.one_in(2).then(|| Doom::new(any_reason(source), text(source)));
    Attempts {
        id: source.id(),
        failures: any_count(source),
        crashes: any_count(source),
        // Zero is written where there is none.
        first_at: Some(source.number()).filter(|&ms| ms > 0).map(Timestamp::from_millis),
        doom,
    }
}

fn any_count(source: &mut Source<'_>) -> u32 {
    u32::try_from(source.number()).unwrap_or(u32::MAX)
}

fn any_reason(source: &mut Source<'_>) -> DeathReason {
    DeathReason::ALL[source.below(DeathReason::ALL.len())]
}

fn text(source: &mut Source<'_>) -> String {
    let len = source.below(40);
    String::from_utf8_lossy(source.bytes(len)).into_owned()
}

fn bytes(source: &mut Source<'_>) -> Bytes {
    let len = source.below(20);
    Bytes::copy_from_slice(source.bytes(len))
}

fn any_fields(source: &mut Source<'_>) -> Fields {
    Fields::from((0..source.below(16)).map(|_| (bytes(source), bytes(source))).collect::<Vec<_>>())
}

fn any_letter(source: &mut Source<'_>) -> Letter {
    let subscription = Subscription::new(text(source), text(source));
    let subscription = subscription.unwrap_or_else(|_| Subscription::new("s", "g").expect("short names"));
    let consumer = ConsumerName::new(text(source));
    let consumer = consumer.unwrap_or_else(|_| ConsumerName::new("c").expect("a short name"));
    Letter {
        subscription,
        id: source.id(),
        fields: any_fields(source),
        reason: any_reason(source),
        error: text(source),
        attempts: any_count(source),
        crashes: any_count(source),
        deliveries: source.number(),
        first_at: Timestamp::from_millis(source.number()),
        last_at: Timestamp::from_millis(source.number()),
        consumer,
        key: source.one_in(2).then(|| source.number()),
    }
}

fn letter_again(letter: &Letter) {
    let fields = letter.to_fields();
    let read =
        Letter::from_entry(&Entry::new(EntryId::MAX, fields)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&read, letter);
}

fn read_any(source: &mut Source<'_>) {
    read(any_fields(source));
}

fn read(fields: Fields) {
    match Letter::from_entry(&Entry::new(EntryId::MAX, fields)) {
        Ok(letter) => letter_again(&letter),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
}

/// Another value in some of its fields, or some of them gone.
fn spoil(letter: &Letter, source: &mut Source<'_>) {
    let mut fields: Vec<_> = letter.to_fields().iter().cloned().collect();
    while !source.is_empty() && !fields.is_empty() {
        let nth = source.below(fields.len());
        match source.below(4) {
            0 => drop(fields.remove(nth)),
            1 => fields[nth].0 = bytes(source),
            _ => fields[nth].1 = bytes(source),
        }
    }
    read(Fields::from(fields));
}
