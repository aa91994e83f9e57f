//! The common advance: a record that is there, of this epoch, and behind.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use highwater::{EntryId, Subscription, backend::Advance, checkpoint::RECORD_VERSION};

use crate::{
    clause::{Turn, columns, guarded, key, turn, xid},
    codec::{bounded, bytes, optional_bytes, text},
    schema::Names,
    sql::{AT, Guard, Sql},
};

/// A statement that the server keeps the plan of, on each connection where it was prepared. It is planned anew where it is not:
/// behind a pooler such as PgBouncer, the connection may be another one each time. The name says what it is, so whoever has
/// prepared it there has prepared the same.
#[derive(Debug)]
pub(crate) struct Prepared {
    name: String,
    definition: Arc<str>,
}

/// What runs a statement that is prepared.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) limits: String,
    pub(crate) execute: String,
    /// What prepares it where it is not. It waits for the table like any statement, so the limits come first.
    pub(crate) prepare: Arc<str>,
}

impl Prepared {
    /// The common advance.
    pub(crate) fn forward(names: &Names) -> Self {
        let given = std::array::from_fn(|n| format!("${}", n + 1));
        let statement = format!("({TYPES}) AS {}", forward(names, &given, &Guard::Alone, "true"));
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&statement);
        let name = format!("highwater_{hash:016x}");
        Self { definition: format!("PREPARE {name} {statement}").into(), name }
    }
}

impl Sql {
    /// The common case of [`advance`](Self::advance): the record is there, this epoch's, and behind, and knows of nothing
    /// ahead that the position does not. It costs the server a small part of what the general statement does. Answers with a
    /// second row if it was the common case, and has changed nothing if not. It is prepared where it was not.
    pub(crate) fn forward(&self, request: &Advance) -> Execution {
        let Prepared { name, definition } = &self.forward;
        Execution {
            limits: self.limits(&Guard::Alone),
            execute: format!("EXECUTE {name} ({})", values(request).join(", ")),
            prepare: definition.clone(),
        }
    }

    /// The same, and drops what transactions have settled above this id.
    pub(crate) fn forward_pruning(&self, request: &Advance, above: EntryId) -> String {
        let Names { checkpoint, settled, .. } = &self.names;
        format!(
            "{limits}{turn}{forward}; DELETE FROM {settled} AS s USING {checkpoint} AS c WHERE {key} AND s.checkpoint = c.id \
             AND s.entry > {above} AND s.entry <= c.watermark",
            limits = self.limits(&Guard::Alone),
            turn = turn(&request.subscription, Turn::Alone),
            forward = forward(&self.names, &values(request), &Guard::Alone, "true"),
            key = key("c", &request.subscription),
            above = bytes(above),
        )
    }

    /// The common case of [`settle_up_to`](Self::settle_up_to): moreover, none of the entries was settled before.
    pub(crate) fn settle_forward(&self, request: &Advance, guard: &Guard, ids: &[EntryId]) -> String {
        let settled = &self.names.settled;
        let (first, last) = (optional_bytes(ids.first().copied()), optional_bytes(ids.last().copied()));
        let none = format!(
            "c.watermark < {first} AND c.ahead_top < {first} AND NOT EXISTS \
             (SELECT FROM {settled} AS s WHERE s.checkpoint = c.id AND s.entry BETWEEN {first} AND {last})"
        );
        self.limits(guard) + &forward(&self.names, &values(request), guard, &none)
    }
}

/// The types of [`values`], in their order.
const TYPES: &str = "bytea, text, bytea, bytea, numeric, text, text, text, text, bigint, bytea";

/// What [`forward`] is given.
fn values(request: &Advance) -> [String; 11] {
    let [watermark, ahead, top, hole, ordinal, incarnation] = columns(&request.position);
    let known = request.position.ahead.top().max(Some(request.position.watermark));
    let Subscription { stream, group, .. } = &request.subscription;
    [
        watermark,
        ahead,
        top,
        hole,
        ordinal,
        incarnation,
        text(request.owner.as_str()),
        text(stream.as_str()),
        text(group.as_str()),
        bounded(request.epoch.0).to_string(),
        optional_bytes(known),
    ]
}

/// Moves a record that is behind, and knows of nothing ahead that the position does not, if the condition holds.
fn forward(names: &Names, given: &[String; 11], guard: &Guard, condition: &str) -> String {
    let [watermark, ahead, top, hole, ordinal, incarnation, owner, stream, group, epoch, known] = given;
    format!(
        "UPDATE {table} AS c SET watermark = {watermark}, ahead = {ahead}, ahead_top = {top}, ahead_hole = {hole}, \
         ordinal = coalesce({ordinal}, CASE WHEN c.watermark = {watermark} THEN c.ordinal END), \
         incarnation = coalesce({incarnation}, c.incarnation), owner = {owner}, updated_at = {AT} \
         WHERE c.stream = {stream} AND c.grp = {group} AND c.version = {RECORD_VERSION} AND c.epoch = {epoch} \
         AND {guarded} AND (c.watermark, c.ahead_top) < ({watermark}, {top}) AND c.ahead_top <= {known} AND {condition} \
         RETURNING {xid}",
        table = names.checkpoint,
        guarded = guarded(guard),
        xid = xid(guard),
    )
}
