-- Schema version 1.
--
-- Ids are two unsigned 64-bit numbers and SQLite's integers are signed: columns named `ms` and `seq` hold the number with
-- its highest bit flipped, so that their order is the order of the ids. `highwater_entries` shows them readably.

CREATE TABLE highwater_schema (
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE highwater_stream (
    -- Never used twice: a stream that is created anew must not inherit what belonged to the old one.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    incarnation TEXT NOT NULL,
    last_ms INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    -- How many entries were ever added, and how many are there.
    added INTEGER NOT NULL,
    len INTEGER NOT NULL,
    -- Grows whenever a group is removed, so that those blocked on it in other processes notice.
    removals INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE highwater_entry (
    -- A table with a rowid, since the fields of an entry may be large.
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    -- How many entries had ever been added to the stream with this one.
    ordinal INTEGER NOT NULL,
    fields BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX highwater_entry_by_id ON highwater_entry (stream, ms, seq, ordinal);

CREATE TABLE highwater_group (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stream INTEGER NOT NULL,
    name TEXT NOT NULL,
    -- The last delivered id, and its ordinal where that is known.
    last_ms INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    entries_read INTEGER,
    UNIQUE (stream, name)
) STRICT;

CREATE TABLE highwater_consumer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    grp INTEGER NOT NULL,
    name TEXT NOT NULL,
    token INTEGER,
    -- When the heartbeat runs out, in milliseconds of Unix time; NULL if it never kept one.
    alive_until INTEGER,
    UNIQUE (grp, name)
) STRICT;

CREATE TABLE highwater_pending (
    grp INTEGER NOT NULL,
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    -- That of the entry, which may be gone when it is needed.
    ordinal INTEGER NOT NULL,
    consumer INTEGER NOT NULL,
    delivered_at INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (grp, ms, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX highwater_pending_by_consumer ON highwater_pending (grp, consumer, ms, seq);

-- One record a subscription, independent of whether its stream exists. Text as people read it; '' is absent. A record
-- without a watermark was owned and never advanced.
CREATE TABLE highwater_checkpoint (
    stream TEXT NOT NULL,
    grp TEXT NOT NULL,
    version TEXT NOT NULL,
    epoch TEXT NOT NULL,
    watermark TEXT NOT NULL,
    ahead TEXT NOT NULL,
    ordinal TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    owner TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (stream, grp)
) STRICT, WITHOUT ROWID;

CREATE VIEW highwater_entries AS
SELECT
    s.name AS stream,
    -- Exact up to 2^63, which times and counters do not pass.
    (e.ms + 9223372036854775807 + 1) || '-' || (e.seq + 9223372036854775807 + 1) AS id,
    e.ordinal,
    length(e.fields) AS bytes
FROM highwater_entry AS e
JOIN highwater_stream AS s ON s.id = e.stream;

INSERT INTO highwater_schema (version) VALUES (1);
