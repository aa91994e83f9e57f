//! The statements. Each is one round trip, and answers in any case: with the record as it stood, and what became of it.
//!
//! They share a form. The record is locked and read first, as it stands now and not as it stood when the statement began;
//! what to write is decided from that; and the answer has both. Where there is no record one is inserted. If another one
//! inserts it at the same instant, neither is seen: the caller then repeats the statement.
//!
//! Planning such a statement costs the server more than carrying it out. So the common advance has a plain one of its own, which
//! is prepared, and this is for the rest.

use highwater::{
    EntryId, Epoch, Subscription,
    backend::{Acquire, Advance, Release, Renew, ResetCheckpoint, Settlement},
    checkpoint::RECORD_VERSION,
    clock::millis,
};

use crate::{
    Settings,
    clause::{ANSWER, Turn, allowed, guarded, key, position, turn, xid},
    codec::{self, bounded, bytes, interval, optional, optional_bytes, text},
    forward::Prepared,
    record::{COLUMNS, WIDTH},
    schema::Names,
};

/// The time of a change, as precise as it is read back.
pub(crate) const AT: &str = "date_trunc('milliseconds', clock_timestamp())";

/// What must hold besides the epoch for a statement to write: nothing, or that it is in a transaction that we began.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    /// The statement is a transaction of its own.
    Alone,
    /// It is the last but one statement of the transaction that was begun with this token.
    In(String),
    /// It is part of a transaction of the caller.
    Within,
}

/// What follows the record in an answer: which entries were settled before,
pub(crate) const BEFORE: usize = WIDTH;
/// whether the guard held,
pub(crate) const GUARDED: usize = WIDTH + 1;
/// whether the record was created,
pub(crate) const CREATED: usize = WIDTH + 2;
/// the id of the transaction if it is the caller's,
pub(crate) const TRANSACTION: usize = WIDTH + 3;
/// and, after an advance, whether the record was written, and its watermark. Other statements answer with the epoch that they
/// issued instead.
pub(crate) const MOVED: usize = WIDTH + 4;
pub(crate) const WATERMARK: usize = WIDTH + 5;
pub(crate) const ISSUED: usize = WIDTH;

/// Writes statements.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) names: Names,
    /// The common advance.
    pub(crate) forward: Prepared,
    statement_ms: u64,
    commit_ms: u64,
}

impl Sql {
    pub(crate) fn new(settings: &Settings) -> Self {
        let names = Names::new(settings);
        Self {
            forward: Prepared::forward(&names),
            names,
            statement_ms: millis(settings.statement_timeout()),
            commit_ms: millis(settings.commit_timeout),
        }
    }

    pub(crate) fn load(&self, of: &Subscription) -> String {
        let table = &self.names.checkpoint;
        format!(
            "SELECT {COLUMNS} FROM (SELECT c.*, clock_timestamp() AS now FROM {table} AS c WHERE {}) AS p",
            key("c", of)
        )
    }

    pub(crate) fn list(&self, stream: &str) -> String {
        let table = &self.names.checkpoint;
        format!(
            "SELECT {COLUMNS} FROM (SELECT c.*, clock_timestamp() AS now FROM {table} AS c WHERE c.stream = {}) AS p \
             ORDER BY p.grp",
            text(stream)
        )
    }

    pub(crate) fn acquire(&self, request: &Acquire) -> String {
        let (table, of, owner) =
            (&self.names.checkpoint, &request.subscription, text(request.owner.as_str()));
        let until = format!("clock_timestamp() + {}", interval(request.ttl));
        format!(
            "{limits}WITH {locked}, \
             upd AS (UPDATE {table} AS c SET epoch = p.epoch + 1, lease_owner = {owner}, lease_until = {until} \
             FROM prev AS p WHERE {key} AND p.version = {RECORD_VERSION} \
             AND (p.lease_until IS NULL OR p.lease_until <= p.now OR p.lease_owner = {owner}) RETURNING c.epoch), \
             {ins} \
             SELECT {COLUMNS}, coalesce((SELECT epoch FROM upd), (SELECT epoch FROM ins))::text FROM {answer}",
            limits = self.limits(&Guard::Alone),
            locked = self.locked(of, "FOR UPDATE"),
            key = key("c", of),
            ins = self.insert(
                of,
                "epoch, ahead, ahead_top, ahead_hole, lease_owner, lease_until",
                &format!("1, '', '', '', {owner}, {until}"),
                "true",
            ),
            answer = ANSWER,
        )
    }

    pub(crate) fn renew(&self, request: &Renew) -> String {
        let until = format!("clock_timestamp() + {}", interval(request.ttl));
        self.lease(&request.subscription, request.epoch, &format!("lease_until = {until}"))
    }

    pub(crate) fn release(&self, request: &Release) -> String {
        self.lease(&request.subscription, request.epoch, "lease_until = NULL")
    }

    fn lease(&self, of: &Subscription, epoch: Epoch, set: &str) -> String {
        let table = &self.names.checkpoint;
        format!(
            "{limits}WITH {locked}, \
             upd AS (UPDATE {table} AS c SET {set} FROM prev AS p WHERE {key} AND {allowed} RETURNING 1) \
             SELECT {COLUMNS}, (SELECT count(*) FROM upd)::text FROM {ANSWER}",
            limits = self.limits(&Guard::Alone),
            locked = self.locked(of, "FOR NO KEY UPDATE"),
            key = key("c", of),
            allowed = allowed(epoch),
        )
    }

    /// Several statements: the last one sees what transactions settled that the one before it waited for.
    pub(crate) fn reset(&self, request: &ResetCheckpoint) -> String {
        let (table, of) = (&self.names.checkpoint, &request.subscription);
        let ResetCheckpoint { expected, expected_watermark, force, .. } = request;
        let beginning = bytes(EntryId::ZERO);
        let is_epoch = expected.map_or("true".into(), |e| format!("p.epoch = {}", bounded(e.0)));
        let stands = expected_watermark
            .map_or("true".into(), |id| format!("coalesce(p.watermark, {beginning}) = {}", bytes(id)));
        let absent = expected.is_none_or(|e| e == Epoch(0))
            && expected_watermark.is_none_or(|watermark| watermark == EntryId::ZERO);
        let columns = "watermark, ahead, ahead_top, ahead_hole, ordinal, incarnation, owner, updated_at";
        let values = format!("{}, NULL::text, {AT}", position(&request.position.clone().unwrap_or_default()));
        let (moves, gone) = match request.position {
            Some(_) => (format!("({columns}) = ROW({values})"), self.forgotten()),
            None => (
                format!(
                    "watermark = coalesce(c.watermark, {beginning}), updated_at = coalesce(c.updated_at, {AT})"
                ),
                String::new(),
            ),
        };
        let paused = request.paused.map_or("NULL".into(), |paused| paused.to_string());
        let reason = optional(request.reason());
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {limits}{turn}WITH {locked} SELECT 1 FROM prev; WITH {locked}, \
             upd AS (UPDATE {table} AS c SET epoch = p.epoch + 1, lease_owner = NULL, lease_until = NULL, {moves}, \
             paused = coalesce({paused}, c.paused), reason = {reason} \
             FROM prev AS p WHERE {key} AND p.version = {RECORD_VERSION} AND {is_epoch} AND {stands} \
             AND ({force} OR p.lease_until IS NULL OR p.lease_until <= p.now) RETURNING c.id, c.epoch), \
             {gone}{ins} \
             SELECT {COLUMNS}, coalesce((SELECT epoch FROM upd), (SELECT epoch FROM ins))::text FROM {ANSWER}; COMMIT",
            limits = self.limits(&Guard::Alone),
            turn = turn(of, Turn::Alone),
            locked = self.locked(of, "FOR UPDATE"),
            key = key("c", of),
            ins = self.insert(
                of,
                &format!("epoch, {columns}, paused, reason"),
                &format!("1, {values}, coalesce({paused}, false), {reason}"),
                &absent.to_string(),
            ),
        )
    }

    /// Drops what belongs to the position that `upd` had.
    fn forgotten(&self) -> String {
        let Names { settled, attempts, .. } = &self.names;
        format!(
            "unsettled AS (DELETE FROM {settled} AS s USING upd WHERE s.checkpoint = upd.id), \
             forgotten AS (DELETE FROM {attempts} AS a USING upd WHERE a.checkpoint = upd.id), "
        )
    }

    /// Settles entries by an advance, and tells which of them were settled before, each by itself.
    pub(crate) fn settle_up_to(&self, request: &Advance, guard: &Guard, ids: &[EntryId]) -> String {
        let settled = &self.names.settled;
        // A range, since there is hardly ever anything in it: each by itself would be many look-ups for nothing.
        let (first, last) = (optional_bytes(ids.first().copied()), optional_bytes(ids.last().copied()));
        let before = format!(
            "(SELECT string_agg(encode(s.entry, 'hex'), ' ') FROM {settled} AS s, prev AS p \
             WHERE s.checkpoint = p.id AND s.entry BETWEEN {first} AND {last})"
        );
        self.moved(request, guard, "", "", &before)
    }

    /// Moves the record by the rule of [`Position::merged_into`]. `prune`: drops what transactions have settled at or below
    /// the watermark.
    pub(crate) fn advance(&self, request: &Advance, prune: bool) -> String {
        let settled = &self.names.settled;
        let pruned = format!(
            "pruned AS (DELETE FROM {settled} AS s USING next AS n WHERE s.checkpoint = n.id AND s.entry <= n.watermark), "
        );
        let (turn, pruned) = match prune {
            true => (turn(&request.subscription, Turn::Alone), pruned.as_str()),
            false => (String::new(), ""),
        };
        self.moved(request, &Guard::Alone, &turn, pruned, "NULL::text")
    }

    fn moved(&self, request: &Advance, guard: &Guard, turn: &str, pruned: &str, before: &str) -> String {
        let (table, of, epoch) = (&self.names.checkpoint, &request.subscription, request.epoch);
        let owner = text(request.owner.as_str());
        let columns = "watermark, ahead, ahead_top, ahead_hole, ordinal, incarnation";
        let given = position(&request.position);
        format!(
            "{limits}{turn}WITH {locked}, \
             given ({columns}) AS (VALUES ({given})), \
             way AS (SELECT p.id, \
             coalesce((g.watermark, g.ahead_top) < (p.watermark, p.ahead_top), false) AS back, \
             p.ahead_top > g.watermark AND p.ahead_top > g.ahead_top AS keep, \
             p.ahead_top > g.watermark AND p.ahead_top > g.ahead_top AND p.ahead_hole <= g.watermark AS jump \
             FROM prev AS p, given AS g WHERE {allowed} AND {guarded}), \
             next AS MATERIALIZED (SELECT p.id, NOT w.back AS ahead_of, \
             CASE WHEN w.back THEN p.watermark WHEN w.jump THEN p.ahead_top ELSE g.watermark END AS watermark, \
             CASE WHEN w.jump THEN '' WHEN w.keep THEN p.ahead ELSE g.ahead END AS ahead, \
             CASE WHEN w.jump THEN '' WHEN w.keep THEN p.ahead_top ELSE g.ahead_top END AS ahead_top, \
             CASE WHEN w.jump THEN '' WHEN w.keep THEN p.ahead_hole ELSE g.ahead_hole END AS ahead_hole, \
             CASE WHEN NOT w.jump THEN coalesce(g.ordinal, CASE WHEN g.watermark = p.watermark THEN p.ordinal END) END \
             AS ordinal, coalesce(g.incarnation, p.incarnation) AS incarnation \
             FROM prev AS p, given AS g, way AS w), \
             upd AS (UPDATE {table} AS c SET ({columns}) = ROW(n.watermark, n.ahead, n.ahead_top, n.ahead_hole, n.ordinal, \
             n.incarnation), owner = {owner}, updated_at = {AT} FROM next AS n, prev AS p WHERE {key} AND n.ahead_of \
             AND (n.watermark, n.ahead, n.ordinal, n.incarnation) IS DISTINCT FROM \
             (p.watermark, p.ahead, p.ordinal, p.incarnation) RETURNING 1), \
             {pruned}{ins} \
             SELECT {COLUMNS}, {before}, {guarded}::text, EXISTS (SELECT FROM ins)::text, {xid}, \
             (EXISTS (SELECT FROM upd) OR EXISTS (SELECT FROM ins))::text, \
             encode((SELECT n.watermark FROM next AS n), 'hex') FROM {ANSWER}",
            limits = self.limits(guard),
            locked = self.locked(of, "FOR NO KEY UPDATE"),
            allowed = allowed(epoch),
            guarded = guarded(guard),
            key = key("c", of),
            ins = self.insert(
                of,
                &format!("epoch, {columns}, owner, updated_at"),
                &format!("0, {given}, {owner}, {AT}"),
                &format!("{} AND {}", epoch == Epoch(0), guarded(guard)),
            ),
            xid = xid(guard),
        )
    }

    /// Settles entries each by itself. The record is locked against an advance, which would prune what says that an entry was
    /// settled before, and against a new epoch.
    pub(crate) fn settle_each(&self, request: &Settlement, guard: &Guard) -> String {
        let (settled, of) = (&self.names.settled, &request.subscription);
        format!(
            "{limits}{turn}WITH {locked}, {ins}, \
             target AS (SELECT p.id, coalesce(p.watermark, '') AS watermark FROM prev AS p WHERE {allowed} AND {guarded} \
             UNION ALL SELECT i.id, '' FROM ins AS i), \
             given AS MATERIALIZED (SELECT unnest({ids}) AS entry), \
             added AS (INSERT INTO {settled} (checkpoint, entry) SELECT t.id, g.entry FROM target AS t, given AS g \
             WHERE g.entry > t.watermark ORDER BY g.entry ON CONFLICT DO NOTHING RETURNING entry) \
             SELECT {COLUMNS}, \
             (SELECT string_agg(encode(g.entry, 'hex'), ' ' ORDER BY g.entry) FROM given AS g LEFT JOIN added AS a \
             ON a.entry = g.entry WHERE a.entry IS NULL), \
             {guarded}::text, EXISTS (SELECT FROM ins)::text, {xid} FROM {ANSWER}",
            limits = self.limits(guard),
            turn = turn(of, Turn::Beside),
            locked = self.locked(of, "FOR SHARE"),
            ins = self.insert(
                of,
                "epoch, ahead, ahead_top, ahead_hole",
                "0, '', '', ''",
                &format!("{} AND {}", request.epoch == Epoch(0), guarded(guard)),
            ),
            allowed = allowed(request.epoch),
            guarded = guarded(guard),
            ids = codec::array(&request.ids),
            xid = xid(guard),
        )
    }

    /// The record, and which of the entries a transaction has settled.
    pub(crate) fn settled(&self, request: &Settlement) -> String {
        let (table, settled) = (&self.names.checkpoint, &self.names.settled);
        format!(
            "SELECT {COLUMNS}, (SELECT string_agg(encode(s.entry, 'hex'), ' ') FROM {settled} AS s \
             WHERE s.checkpoint = p.id AND s.entry = ANY ({ids})) \
             FROM (SELECT c.*, clock_timestamp() AS now FROM {table} AS c WHERE {key}) AS p",
            ids = codec::array(&request.ids),
            key = key("c", &request.subscription),
        )
    }

    /// Settings for what follows in the same round trip. They last until the transaction ends; alone, that is the statement.
    pub(crate) fn limits(&self, guard: &Guard) -> String {
        // All in it counts, however many locks it waits for one after the other; a lock timeout would begin anew with each.
        let statement = format!("set_config('statement_timeout', '{}ms', true)", self.statement_ms);
        match guard {
            Guard::Alone => format!("SELECT {statement}; "),
            Guard::In(_) | Guard::Within => {
                let idle = "idle_in_transaction_session_timeout";
                format!("SELECT {statement}, set_config('{idle}', '{}ms', true); ", self.commit_ms)
            }
        }
    }

    /// The beginning of a statement: waits for the record, and reads it as `prev`.
    pub(crate) fn locked(&self, of: &Subscription, lock: &str) -> String {
        let table = &self.names.checkpoint;
        format!(
            "held AS MATERIALIZED (SELECT c.* FROM {table} AS c WHERE {key} {lock}), \
             prev AS MATERIALIZED (SELECT h.*, clock_timestamp() AS now FROM held AS h)",
            key = key("c", of),
        )
    }

    /// Inserts the record where there is none and the condition holds.
    pub(crate) fn insert(&self, of: &Subscription, columns: &str, values: &str, condition: &str) -> String {
        let table = &self.names.checkpoint;
        format!(
            "ins AS (INSERT INTO {table} (stream, grp, version, {columns}) \
             SELECT {stream}, {grp}, {RECORD_VERSION}, {values} \
             WHERE {condition} AND NOT EXISTS (SELECT FROM prev) ON CONFLICT DO NOTHING RETURNING id, epoch)",
            stream = text(of.stream.as_str()),
            grp = text(of.group.as_str()),
        )
    }
}
