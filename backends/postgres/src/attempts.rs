//! The statements about attempts that are remembered. An advance has nothing to do with them.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{
    Attempts, Epoch, Error, ErrorKind, Result,
    backend::{LoadAttempts, NoteAttempts},
};
use sqlx::postgres::PgRow;

use crate::{
    clause::{ANSWER, Turn, allowed, key, turn},
    codec::{array, bytes, text},
    record::{self, COLUMNS, WIDTH},
    sql::{Guard, Sql},
};

/// What follows the record in the answer to a note: whether the record was created.
pub(crate) const CREATED: usize = WIDTH;

impl Sql {
    pub(crate) fn attempts(&self, request: &LoadAttempts) -> String {
        let (table, attempts) = (&self.names.checkpoint, &self.names.attempts);
        let asked =
            request.ids.as_ref().map_or("true".into(), |ids| format!("a.entry = ANY ({})", array(ids)));
        format!(
            "SELECT encode(a.entry, 'hex'), a.record FROM {table} AS c JOIN {attempts} AS a ON a.checkpoint = c.id \
             WHERE {key} AND {asked} ORDER BY a.entry",
            key = key("c", &request.subscription),
        )
    }

    /// In turn with others that note or reset, so that it sees what they wrote, and never waits for a row of theirs while they
    /// wait for one of its own.
    pub(crate) fn note_attempts(&self, request: &NoteAttempts) -> String {
        let (attempts, of) = (&self.names.attempts, &request.subscription);
        // A statement may change a row once.
        let cleared: BTreeSet<_> = request.clear.iter().collect();
        let set: BTreeMap<_, _> = request.set.iter().map(|attempts| (attempts.id, attempts)).collect();
        let rows = set.values().filter(|attempts| !cleared.contains(&attempts.id));
        let rows: Vec<_> =
            rows.map(|attempts| format!("({}, {})", bytes(attempts.id), text(&attempts.encode()))).collect();
        let noted = match rows.is_empty() {
            true => String::new(),
            false => format!(
                "noted AS (INSERT INTO {attempts} (checkpoint, entry, record) \
                 SELECT t.id, g.entry, g.record FROM target AS t, (VALUES {}) AS g (entry, record) \
                 ON CONFLICT (checkpoint, entry) DO UPDATE SET record = EXCLUDED.record), ",
                rows.join(", ")
            ),
        };
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {limits}{turn}WITH {locked}, {ins}, \
             target AS (SELECT p.id FROM prev AS p WHERE {allowed} UNION ALL SELECT i.id FROM ins AS i), \
             {noted}gone AS (DELETE FROM {attempts} AS a USING target AS t WHERE a.checkpoint = t.id \
             AND a.entry = ANY ({clear})) \
             SELECT {COLUMNS}, EXISTS (SELECT FROM ins)::text FROM {ANSWER}; COMMIT",
            limits = self.limits(&Guard::Alone),
            turn = turn(of, Turn::Alone),
            locked = self.locked(of, "FOR NO KEY UPDATE"),
            ins = self.insert(
                of,
                "epoch, ahead, ahead_top, ahead_hole",
                "0, '', '', ''",
                &(request.epoch == Epoch(0)).to_string(),
            ),
            allowed = allowed(request.epoch),
            clear = array(&request.clear),
        )
    }
}

/// Reads a row of the answer about attempts.
pub(crate) fn read(row: &PgRow) -> Result<Attempts> {
    let id = record::id(row, 0)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            "the id of attempts cannot be read: look at the row, then restore it, or remove it",
        )
    })?;
    Attempts::decode(id, &record::text(row, 1)?.unwrap_or_default())
}
