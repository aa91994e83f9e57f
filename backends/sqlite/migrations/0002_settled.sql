-- Schema version 2.

-- Entries that were settled each by itself in a transaction. They go when the watermark of the subscription has passed them.
CREATE TABLE highwater_settled (
    stream TEXT NOT NULL,
    grp TEXT NOT NULL,
    -- As in the other tables: the highest bit of each number is flipped.
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (stream, grp, ms, seq)
) STRICT, WITHOUT ROWID;

UPDATE highwater_schema SET version = 2;
