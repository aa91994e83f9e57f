-- Schema version 3.

-- '1' if nobody is to consume the subscription, and why an operator touched it last; '' is no.
ALTER TABLE highwater_checkpoint ADD COLUMN paused TEXT NOT NULL DEFAULT '';
ALTER TABLE highwater_checkpoint ADD COLUMN reason TEXT NOT NULL DEFAULT '';

-- Entries whose handling failed or crashed: failures, crashes, first time, and why it was given up if it was.
CREATE TABLE highwater_attempts (
    stream TEXT NOT NULL,
    grp TEXT NOT NULL,
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (stream, grp, ms, seq)
) STRICT, WITHOUT ROWID;

-- What is known of dead letters beside the entries that they are: a row goes with its entry.
CREATE TABLE highwater_letter (
    -- The stream that holds the letter, and its id there.
    stream INTEGER NOT NULL,
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    -- Where the entry was to be handled, by name: letters outlive the stream.
    of_stream TEXT NOT NULL,
    of_grp TEXT NOT NULL,
    -- Which entry it was; NULL once another one with the same id, of a later life of the stream, has a letter.
    entry_ms INTEGER,
    entry_seq INTEGER,
    -- The hash of its key, with the highest bit flipped as in ids.
    key INTEGER,
    PRIMARY KEY (stream, ms, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX highwater_letter_by_entry ON highwater_letter (stream, of_stream, of_grp, entry_ms, entry_seq);
CREATE INDEX highwater_letter_by_key ON highwater_letter (stream, of_stream, of_grp, key) WHERE key IS NOT NULL;

UPDATE highwater_schema SET version = 3;
