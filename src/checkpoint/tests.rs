//! The text forms, and the rule of an advance.

use proptest::prelude::*;

use super::*;

fn id(ms: u64) -> EntryId {
    EntryId::new(ms, 0)
}

fn any_ahead() -> impl Strategy<Value = SettledAhead> {
    let part = prop_oneof![0u64..50, any::<u64>()];
    proptest::collection::btree_set((part.clone(), part), 1..40).prop_map(|ids| {
        let ids: Vec<_> = ids.into_iter().map(|(ms, seq)| EntryId::new(ms, seq)).collect();
        let (top, holes) = ids.split_last().expect("at least one");
        SettledAhead::new(*top, holes.iter().copied())
    })
}

/// As stores keep them: the first hole is above the watermark.
fn any_position() -> impl Strategy<Value = Position> {
    (any_ahead(), 0u64..60).prop_map(|(ahead, ms)| Position::default().with_ahead(ahead).at_watermark(id(ms)))
}

#[test]
fn a_hole_at_the_top_is_not_settled() {
    // As after acks of 2 to 4, where 1 and 5 are pending and 5 is the last that was delivered.
    let position = Position::of_group(&[id(1), id(5)], Some(id(5))).unwrap();
    assert!(position.settles(id(4)) && !position.settles(id(5)) && !position.settles(id(1)));
    // Where holes touch, none of them is.
    let run = IdRange { first: id(2), last: id(9) };
    let ahead = SettledAhead::from_ranges(id(5), [IdRange { first: id(1), last: id(1) }, run]);
    assert!(ahead.contains(EntryId::new(1, 7)) && !ahead.contains(id(2)) && !ahead.contains(id(5)));
    assert!(SettledAhead::new(id(5), [id(5)]).is_empty());
}

#[test]
fn holes_that_touch_fit_a_byte_budget_together_or_not_at_all() {
    let hole = |seq| EntryId::new(3, seq);
    let ahead = SettledAhead::new(EntryId::new(3, 9_000_000), [hole(46), hole(47)]);
    for bytes in 0..ahead.encode().len() {
        assert_eq!(ahead.clone().truncated(bytes), SettledAhead::default(), "{bytes}");
    }
    assert_eq!(ahead.clone().truncated(ahead.encode().len()), ahead);
}

proptest! {
    #[test]
    fn settled_ahead_survives_its_text_form(ahead in any_ahead()) {
        prop_assert_eq!(&SettledAhead::decode(&ahead.encode())?, &ahead);
    }

    #[test]
    fn a_byte_budget_only_ever_forgets(ahead in any_ahead(), bytes in 0usize..400) {
        let text = ahead.encode_within(bytes);
        prop_assert!(text.len() <= bytes);
        let short = SettledAhead::decode(&text)?;
        for id in ahead.holes.iter().flat_map(|h| [h.first.prev(), Some(h.first), h.last.next()]).flatten() {
            let above_watermark = ahead.holes.first().is_none_or(|h| id >= h.first);
            prop_assert!(!above_watermark || !short.contains(id) || ahead.contains(id), "{} in {}", id, text);
        }
    }

    #[test]
    fn a_checkpoint_survives_its_text_form(ahead in any_ahead(), ms: u64, seq: u64, ordinal: Option<u64>, epoch: u64) {
        let position = Position {
            ahead, ordinal, incarnation: Some(Incarnation::new("a1")?), ..Position::at(EntryId::new(ms, seq))
        };
        let owner = Some(ConsumerName::new("c")?);
        let checkpoint = Checkpoint::new(position, Epoch(epoch), owner, Timestamp::from_millis(7));
        prop_assert_eq!(Checkpoint::decode(&checkpoint.encode())?, checkpoint);
    }

    #[test]
    fn g5_joined_positions_settle_what_either_of_them_does(
        one in any_position(), other in any_position(), probes in proptest::collection::vec(0u64..60, 30),
    ) {
        let joined = one.joined(&other);
        let ends = |position: &Position| {
            let holes = position.ahead.holes.iter().flat_map(|hole| [hole.first, hole.last]);
            holes.chain([position.watermark]).chain(position.ahead.top).collect::<Vec<_>>()
        };
        for id in probes.into_iter().map(id).chain(ends(&one)).chain(ends(&other)) {
            for id in [id.prev(), Some(id), id.next()].into_iter().flatten() {
                prop_assert_eq!(joined.settles(id), one.settles(id) || other.settles(id), "{}: {:?}", id, joined);
            }
        }
        prop_assert_eq!(&other.joined(&one), &joined);
        prop_assert_eq!(&joined.joined(&one), &joined);
    }

    #[test]
    fn garbage_is_refused_and_never_panics(text in ".{0,80}") {
        if let Ok(ahead) = SettledAhead::decode(&text) {
            prop_assert_eq!(SettledAhead::decode(&ahead.encode())?, ahead);
        }
        prop_assert!(Checkpoint::decode(&text).is_err());
    }
}

#[test]
fn a_later_version_is_told_from_garbage() {
    let later = Checkpoint::decode("2\twhatever").unwrap_err();
    assert_eq!(later.kind(), ErrorKind::Corrupt);
    assert!(later.to_string().contains("upgrade"), "{later}");
    assert!(Checkpoint::decode("").unwrap_err().to_string().contains("no version"));
}

#[test]
fn g3_the_watermark_decides_then_what_is_ahead() {
    let ahead = |top| Position::at(id(4)).with_ahead(SettledAhead::new(id(top), [id(5)]));
    assert_eq!(Position::at(id(9)).merged_into(&ahead(9)), Some(Position::at(id(9))));
    assert_eq!(ahead(9).merged_into(&ahead(8)), Some(ahead(9)));
    assert_eq!(ahead(8).merged_into(&ahead(9)), None);
    assert_eq!(Position::at(id(3)).merged_into(&ahead(8)), None);
    assert_eq!(ahead(8).merged_into(&ahead(8)), None, "repeating it changes nothing");
    let counted = Position::at(id(4)).with_ordinal(Some(4));
    assert_eq!(Position::at(id(4)).merged_into(&counted), None, "what is known stays known");
    assert_eq!(counted.merged_into(&Position::at(id(4))), Some(counted.clone()));
    assert_eq!(Position::at(id(5)).merged_into(&counted).unwrap().ordinal, None, "it is that of 4");
}

#[test]
fn g5_what_was_settled_ahead_stays_settled() {
    let stored = Position::at(id(0)).with_ahead(SettledAhead::new(id(9), [id(1), id(5)]));
    let later = Position::at(id(3)).with_ordinal(Some(3)).merged_into(&stored).unwrap();
    assert_eq!(
        later,
        Position::at(id(3)).with_ordinal(Some(3)).with_ahead(SettledAhead::new(id(9), [id(5)]))
    );
    assert_eq!(Position::at(id(5)).merged_into(&later), Some(Position::at(id(9))), "the last hole is filled");
}

#[test]
fn a_group_is_settled_up_to_its_smallest_pending_entry() {
    assert_eq!(Position::of_group(&[], None), None);
    assert_eq!(Position::of_group(&[], Some(id(7))), Some(Position::at(id(7))));
    let position = Position::of_group(&[id(3), id(5)], Some(id(7))).unwrap();
    assert_eq!(position.watermark, EntryId::new(2, u64::MAX));
    let settled: Vec<_> = (1..9).filter(|&ms| position.settles(id(ms))).collect();
    assert_eq!(settled, [1, 2, 4, 6, 7]);
}

#[test]
fn fifty_holes_of_a_real_stream_fit_the_budget() {
    let holes = (0..50).map(|n| EntryId::new(1_700_000_000_000 + n * 7, n % 3));
    let ahead = SettledAhead::new(EntryId::new(1_700_000_001_000, 0), holes);
    assert!(ahead.encode().len() < 1024, "{}", ahead.encode().len());
}
