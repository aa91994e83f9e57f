//! Parts that statements have in common.

use highwater::{Epoch, Position, Subscription, checkpoint::RECORD_VERSION};

use crate::{
    codec::{bounded, bytes, optional, optional_bytes, text},
    sql::Guard,
};

/// Who waits for whom before a record is locked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    /// Beside others that settle.
    Beside,
    /// Behind those that settle now, and before those that come later.
    Alone,
}

/// Waits for one's turn, and answers with no row. The record's own lock is what keeps it from harm, but it is given to all that
/// share it at once, however long another one has waited: with enough consumers no advance would ever get it. This queue is in
/// order.
pub(crate) fn turn(of: &Subscription, turn: Turn) -> String {
    let lock = match turn {
        Turn::Beside => "pg_advisory_xact_lock_shared",
        Turn::Alone => "pg_advisory_xact_lock",
    };
    let (stream, group) = (text(of.stream.as_str()), text(of.group.as_str()));
    format!("SELECT FROM {lock}(hashtextextended({stream} || chr(10) || {group}, {TURNS})) OFFSET 1; ")
}

/// Keeps these locks apart from others of the same database.
const TURNS: i64 = 4_921_093_716_500_123_719;

/// One row, with the record as it stood if there was one.
pub(crate) const ANSWER: &str = "(SELECT) AS one LEFT JOIN prev AS p ON true";

pub(crate) fn key(row: &str, of: &Subscription) -> String {
    format!("{row}.stream = {} AND {row}.grp = {}", text(of.stream.as_str()), text(of.group.as_str()))
}

pub(crate) fn allowed(epoch: Epoch) -> String {
    format!("p.version = {RECORD_VERSION} AND p.epoch = {}", bounded(epoch.0))
}

pub(crate) fn guarded(guard: &Guard) -> String {
    match guard {
        Guard::In(token) => {
            format!("(current_setting('highwater.transaction', true) IS NOT DISTINCT FROM '{token}')")
        }
        Guard::Alone | Guard::Within => "true".into(),
    }
}

pub(crate) fn xid(guard: &Guard) -> &'static str {
    match guard {
        Guard::Within => "pg_current_xact_id()::text",
        Guard::Alone | Guard::In(_) => "NULL::text",
    }
}

/// A position as the columns from `watermark` to `incarnation`.
pub(crate) fn position(position: &Position) -> String {
    columns(position).join(", ")
}

pub(crate) fn columns(position: &Position) -> [String; 6] {
    let ahead = &position.ahead;
    [
        bytes(position.watermark),
        text(&ahead.encode()),
        optional_bytes(ahead.top()),
        optional_bytes(ahead.holes().last().map(|hole| hole.last)),
        position.ordinal.map_or_else(|| "NULL::numeric".into(), |ordinal| format!("{ordinal}::numeric")),
        optional(position.incarnation.as_ref().map(|incarnation| incarnation.as_str())),
    ]
}
