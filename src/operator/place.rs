//! Where a seek leads to.

use crate::{EntryId, Error, Position, Result, backend::StreamState, clock::Timestamp};

/// Where a subscription is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// With what is above this id. One before the first entry that is left is the [`Start`](Self::Start).
    Id(EntryId),
    /// With what was appended at this time or later, by the ids: only where the server chose them. One after the last entry is
    /// the [`End`](Self::End).
    Time(Timestamp),
    /// With the first entry that the stream still holds.
    Start,
    /// Behind the last entry that the stream holds now.
    End,
}

/// The position of a subscription that goes on there, with what is known of it.
pub(super) fn position(
    to: SeekTo,
    stored: Option<&Position>,
    state: Option<&StreamState>,
) -> Result<Position> {
    let last = state.map_or(EntryId::ZERO, |state| state.last_id);
    let after = match to {
        SeekTo::Start => EntryId::ZERO,
        SeekTo::End => last,
        SeekTo::Time(time) => EntryId::new(time.as_millis(), 0).prev().unwrap_or_default().min(last),
        SeekTo::Id(id) if id > last => {
            let message =
                "the stream ends before this id: seek to an id that it has given out, or to its end";
            return Err(Error::invalid(message).with("id", id).with("last", last));
        }
        SeekTo::Id(id) => id,
    };
    let Some(state) = state else { return Ok(Position::default()) };
    let (watermark, ordinal) = if after == last {
        (last, state.entries_added)
    } else if state.first_id.is_none_or(|first| first > after) {
        // What was removed before is nobody's loss: an operator asked for what is there.
        (EntryId::ZERO, state.entries_added.map(|added| added.saturating_sub(state.len)))
    } else {
        let same = stored.filter(|p| p.watermark == after && p.incarnation == state.incarnation);
        (after, same.and_then(|position| position.ordinal))
    };
    Ok(Position::at(watermark).with_ordinal(ordinal).with_incarnation(state.incarnation.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Incarnation};

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    /// Of 100 entries, those from 41 on are left.
    fn stream() -> StreamState {
        let mut state = StreamState::new(id(100), 60);
        (state.first_id, state.entries_added) = (Some(id(41)), Some(100));
        state.incarnation = Some(Incarnation::new("life").unwrap());
        state
    }

    fn place(to: SeekTo, stored: Option<&Position>) -> (u64, Option<u64>) {
        let position = position(to, stored, Some(&stream())).unwrap();
        assert_eq!(position.incarnation, stream().incarnation);
        (position.watermark.ms, position.ordinal)
    }

    #[test]
    fn g8_a_seek_never_leads_beyond_the_stream() {
        for (to, expected) in [
            (SeekTo::Start, (0, Some(40))),
            (SeekTo::End, (100, Some(100))),
            (SeekTo::Id(id(100)), (100, Some(100))),
            (SeekTo::Id(id(70)), (70, None)),
            (SeekTo::Id(id(40)), (0, Some(40))),
            (SeekTo::Id(EntryId::ZERO), (0, Some(40))),
            (SeekTo::Time(Timestamp::from_millis(0)), (0, Some(40))),
            (SeekTo::Time(Timestamp::from_millis(500)), (100, Some(100))),
        ] {
            assert_eq!(place(to, None), expected, "{to:?}");
        }
        let time = position(SeekTo::Time(Timestamp::from_millis(70)), None, Some(&stream())).unwrap();
        assert_eq!(time.watermark, EntryId::new(69, u64::MAX), "the entry of that very time is delivered");
        for state in [Some(stream()), None] {
            let error = position(SeekTo::Id(id(101)), None, state.as_ref()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn g7_a_position_that_is_known_keeps_its_ordinal() {
        let stored = Position::at(id(70)).with_ordinal(Some(70));
        assert_eq!(place(SeekTo::Id(id(70)), Some(&stored)), (70, None), "of another life of the stream");
        let stored = stored.with_incarnation(stream().incarnation);
        assert_eq!(place(SeekTo::Id(id(70)), Some(&stored)), (70, Some(70)));
    }

    #[test]
    fn without_a_stream_there_is_nothing_to_pass() {
        for to in [SeekTo::Start, SeekTo::End, SeekTo::Time(Timestamp::from_millis(7))] {
            assert_eq!(position(to, None, None).unwrap(), Position::default());
        }
    }
}
