//! A row of the checkpoint table.

use std::time::Duration;

use highwater::{
    Checkpoint, ConsumerName, EntryId, Epoch, Error, ErrorKind, Position, Result, StreamName, Subscription,
    checkpoint::{Parts, check_version},
};
use sqlx::{Row, postgres::PgRow};

use crate::{codec, error};

/// What [`Record::read`] reads, of a row `p` and the time `p.now`. All of it as text: statements are sent without parameters,
/// and so answered in text.
pub(crate) const COLUMNS: &str = "p.grp, p.version::text, p.epoch::text, encode(p.watermark, 'hex'), p.ahead, \
     encode(p.ahead_top, 'hex'), encode(p.ahead_hole, 'hex'), p.ordinal::text, p.incarnation, p.owner, \
     floor(extract(epoch FROM p.updated_at) * 1000)::bigint::text, p.lease_owner, \
     CASE WHEN p.lease_until > p.now THEN ceil(extract(epoch FROM p.lease_until - p.now) * 1000)::bigint::text END, \
     CASE WHEN p.paused THEN '1' END, p.reason";
/// How many columns that are: what follows has indices from here.
pub(crate) const WIDTH: usize = 15;

/// What is kept for a subscription.
#[derive(Debug)]
pub(crate) struct Record {
    /// As it is stored: the one who reads it checks it.
    pub(crate) group: String,
    pub(crate) checkpoint: Checkpoint,
    /// Whether it was ever advanced.
    advanced: bool,
    pub(crate) lease: Option<Lease>,
}

/// A lease that stands.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) owner: Option<ConsumerName>,
    pub(crate) remaining: Duration,
}

impl Record {
    /// Reads a row; `None` if there is no record.
    pub(crate) fn read(row: &PgRow, stream: &StreamName) -> Result<Option<Self>> {
        let mut columns: [Option<String>; WIDTH] = Default::default();
        for (i, column) in columns.iter_mut().enumerate() {
            *column = text(row, i)?;
        }
        let [Some(group), rest @ ..] = columns else { return Ok(None) };
        let read = Self::parse(group.clone(), rest.each_ref().map(|c| c.as_deref().unwrap_or_default()));
        read.map(Some)
            .map_err(|cause| corrupt(cause).with("stream", stream).with("group", group.escape_debug()))
    }

    /// Reads the row of this subscription.
    pub(crate) fn of(row: &PgRow, subscription: &Subscription) -> Result<Option<Self>> {
        Self::read(row, &subscription.stream)
    }

    fn parse(group: String, columns: [&str; WIDTH - 1]) -> Result<Self> {
        let [
            version,
            epoch,
            watermark,
            ahead,
            top,
            hole,
            ordinal,
            incarnation,
            owner,
            at,
            lease,
            remaining,
            paused,
            reason,
        ] = columns;
        check_version(version)?;
        let advanced = !watermark.is_empty();
        let id = codec::unhex(watermark).unwrap_or_default();
        let watermark = id.to_string();
        let updated_at = if at.is_empty() { "0" } else { at };
        let parts = Parts {
            watermark: &watermark,
            ahead,
            ordinal,
            incarnation,
            epoch,
            owner,
            updated_at,
            paused,
            reason,
        };
        let mut checkpoint = Checkpoint::from_parts(&parts)?;
        let set = &checkpoint.position.ahead;
        let hex = |id: Option<EntryId>| id.map(codec::hex).unwrap_or_default();
        if hex(set.top()) != top || hex(set.holes().last().map(|hole| hole.last)) != hole {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "what is settled ahead and what stands beside it disagree: restore the record, or remove it to start anew",
            ));
        }
        checkpoint.position = above_its_watermark(checkpoint.position);
        let lease = match remaining.parse() {
            Ok(ms) => Some(Lease {
                owner: (!lease.is_empty()).then(|| ConsumerName::new(lease)).transpose()?,
                remaining: Duration::from_millis(ms),
            }),
            Err(_) => None,
        };
        Ok(Self { group, checkpoint, advanced, lease })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.checkpoint.epoch
    }

    /// Whether this epoch may advance.
    pub(crate) fn check(record: Option<&Self>, epoch: Epoch) -> Result<()> {
        let stored = record.map_or(Epoch(0), Self::epoch);
        if stored > epoch {
            return Err(Error::fenced(epoch, stored));
        }
        if stored < epoch {
            return Err(error::never_issued(epoch, stored));
        }
        Ok(())
    }

    /// For what only the newest owner may do. Without a record there is none.
    pub(crate) fn expect(record: Option<&Self>, epoch: Epoch) -> Result<()> {
        match record {
            Some(record) if record.epoch() == epoch => Ok(()),
            _ => Err(Error::fenced(epoch, record.map_or(Epoch(0), Self::epoch))),
        }
    }

    /// How far it was advanced, if ever.
    pub(crate) fn position(&self) -> Option<&Position> {
        self.advanced.then_some(&self.checkpoint.position)
    }

    pub(crate) fn into_checkpoint(self) -> Option<Checkpoint> {
        self.advanced.then_some(self.checkpoint)
    }
}

/// A statement that raises the watermark leaves the text of what was settled ahead as it was: what of it lies at or below the
/// watermark is dropped here.
fn above_its_watermark(position: Position) -> Position {
    let watermark = position.watermark;
    let beyond = position.ahead.holes().first().is_some_and(|hole| hole.first <= watermark);
    if !beyond {
        return position;
    }
    let ordinal = position.ordinal;
    let position = position.at_watermark(watermark);
    let same = position.watermark == watermark;
    position.with_ordinal(ordinal.filter(|_| same))
}

fn corrupt(cause: Error) -> Error {
    if cause.kind() == ErrorKind::Corrupt {
        return cause;
    }
    Error::new(ErrorKind::Corrupt, "a name in the checkpoint is not valid").with_source(cause)
}

/// A column of an answer.
pub(crate) fn text(row: &PgRow, index: usize) -> Result<Option<String>> {
    row.try_get(index).map_err(|cause| error::unreadable("text").with_source(cause.to_string()))
}

/// A column that holds a truth.
pub(crate) fn truth(row: &PgRow, index: usize) -> Result<bool> {
    Ok(text(row, index)?.as_deref() == Some("true"))
}

/// A column that holds an id, or nothing.
pub(crate) fn id(row: &PgRow, index: usize) -> Result<Option<EntryId>> {
    Ok(text(row, index)?.as_deref().and_then(codec::unhex))
}

/// The last row of an answer, which is that of its last statement.
pub(crate) fn last(rows: Vec<PgRow>) -> Result<PgRow> {
    rows.into_iter().next_back().ok_or_else(|| error::unreadable("one row"))
}
