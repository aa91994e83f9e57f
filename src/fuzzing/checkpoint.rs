//! The record of a checkpoint, the text of what is settled ahead, and the rule by which positions are merged.

use std::collections::BTreeSet;

use super::Source;
use crate::{
    Checkpoint, ConsumerName, EntryId, Epoch, ErrorKind, IdRange, Incarnation, Position, SettledAhead,
    clock::Timestamp,
};

/// Any text is a record or is refused as corrupt, any record comes back as it was, and no merge settles what neither did.
pub fn checkpoint(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(4) {
        0 => decode_any(&String::from_utf8_lossy(source.rest())),
        1 => decode_ahead(&String::from_utf8_lossy(source.rest())),
        2 => come_back(&mut source),
        _ => merge(&mut source),
    }
}

fn decode_any(text: &str) {
    match Checkpoint::decode(text) {
        Ok(record) => same_again(&record),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}: {error}"),
    }
}

fn decode_ahead(text: &str) {
    match SettledAhead::decode(text) {
        Ok(ahead) => ahead_again(&ahead),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}: {error}"),
    }
}

fn same_again(record: &Checkpoint) {
    let text = record.encode();
    let decoded = Checkpoint::decode(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(&decoded, record, "{text:?}");
}

/// In its whole text, and in what is left of it in fewer bytes, which never settles more.
fn ahead_again(ahead: &SettledAhead) {
    let text = ahead.encode();
    let decoded = SettledAhead::decode(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(&decoded, ahead, "{text:?}");
    for bytes in [text.len() / 4, text.len() / 2, text.len().saturating_sub(1)] {
        assert!(ahead.encode_within(bytes).len() <= bytes, "{text:?} in {bytes}");
        let less = ahead.clone().truncated(bytes);
        let ends = ahead.holes().iter().flat_map(|hole| [hole.first, hole.last]);
        for end in ends.chain(ahead.top()) {
            for id in [end.prev(), Some(end), end.next()].into_iter().flatten() {
                // A range of ids below the first hole is the watermark's.
                let settled = ahead.contains(id) || !less.contains(id);
                assert!(settled, "{id} of {text:?} in {bytes}");
            }
        }
    }
}

fn come_back(source: &mut Source<'_>) {
    let position = Position::at(source.id())
        .with_ahead(any_ahead(source))
        .with_ordinal(source.one_in(2).then(|| source.number()))
        .with_incarnation(Incarnation::new(text(source)).ok());
    let epoch = Epoch(source.number());
    let time = Timestamp::from_millis(source.number());
    let owner = ConsumerName::new(text(source)).ok();
    same_again(&Checkpoint::new(position, epoch, owner, time));
}

fn text(source: &mut Source<'_>) -> String {
    let len = source.below(80);
    String::from_utf8_lossy(source.bytes(len)).into_owned()
}

/// Holes of any ids.
fn any_ahead(source: &mut Source<'_>) -> SettledAhead {
    let ids: BTreeSet<_> = (0..source.below(12)).map(|_| source.id()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let Some((&top, holes)) = ids.split_last() else { return SettledAhead::default() };
    let ranges = holes.chunks(2).map(|ends| IdRange { first: ends[0], last: ends[ends.len() - 1] });
    let ahead = SettledAhead::from_ranges(top, ranges);
    ahead_again(&ahead);
    ahead
}

/// How many ids there are in a small world that lies around the end of a millisecond.
const WORLD: u64 = 48;

fn id(nth: u64) -> EntryId {
    match nth.checked_sub(WORLD / 2) {
        Some(seq) => EntryId::new(8, seq),
        None => EntryId::new(7, u64::MAX - (WORLD / 2 - 1 - nth)),
    }
}

/// A position in the small world, and what it settles there.
fn small_position(source: &mut Source<'_>) -> (Position, BTreeSet<u64>) {
    let watermark = source.below(20) as u64;
    let top = watermark + source.below(20) as u64;
    let holes: BTreeSet<u64> =
        (0..source.below(8)).map(|_| watermark + 1 + source.below(24) as u64).collect();
    let ahead = SettledAhead::new(id(top), holes.iter().map(|&nth| id(nth)));
    let settled = |nth: &u64| *nth <= watermark || (*nth <= top && !holes.contains(nth));
    let settles: BTreeSet<u64> = (0..WORLD).filter(settled).collect();
    // Without a hole the watermark is the top.
    let first_open = (0..WORLD).find(|nth| !settles.contains(nth)).unwrap_or(WORLD);
    let watermark = if ahead.is_empty() { first_open - 1 } else { watermark };
    let position = Position::at(id(watermark)).with_ahead(ahead);
    (position.with_ordinal(source.one_in(2).then_some(watermark)), settles)
}

fn merge(source: &mut Source<'_>) {
    let (new, new_settles) = small_position(source);
    let (stored, stored_settles) = small_position(source);
    for nth in 0..WORLD {
        assert_eq!(new.settles(id(nth)), new_settles.contains(&nth), "{nth} in {new:?}");
    }
    let raised = source.below(WORLD as usize) as u64;
    let above = new.clone().at_watermark(id(raised).max(new.watermark));
    for nth in 0..WORLD {
        let settled = nth <= raised || new_settles.contains(&nth);
        assert_eq!(above.settles(id(nth)), settled, "{nth} in {new:?} raised to {}", id(raised));
    }
    let Some(merged) = new.merged_into(&stored) else { return };
    assert!(merged.watermark >= stored.watermark.max(new.watermark), "G3: {new:?} into {stored:?}");
    for nth in 0..WORLD {
        let settled = new_settles.contains(&nth) || stored_settles.contains(&nth);
        assert!(settled || !merged.settles(id(nth)), "G2: {nth} of {merged:?}: {new:?} into {stored:?}");
    }
    // What counts is the same after a while in a store.
    assert_eq!(merged.merged_into(&merged.clone()), None, "{merged:?}");
    same_again(&Checkpoint::new(merged, Epoch(1), None, Timestamp::default()));
}
