-- Schema version 1: checkpoints, and what transactions have settled above them.
--
-- `ensure_schema` runs this text, with your names in place of the quoted ones. Whoever prefers to do so by hand may rename them
-- as well. It may be run again. Besides USAGE on the schema, the library needs SELECT, INSERT, UPDATE and DELETE on both tables.
--
-- An id is 16 bytes: milliseconds and sequence number, 8 each, the greatest byte first, so that bytes compare as ids do up to
-- the last `u64`. Empty bytes are none. The view shows ids as `ms-seq`.

CREATE SCHEMA IF NOT EXISTS "highwater";

CREATE TABLE IF NOT EXISTS "highwater"."checkpoint" (
    -- What rows of `settled` refer to. Never used twice.
    id bigint GENERATED ALWAYS AS IDENTITY,
    stream text COLLATE "C" NOT NULL,
    grp text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    epoch bigint NOT NULL CHECK (epoch >= 0),
    -- NULL: the subscription was owned, and never advanced.
    watermark bytea CHECK (octet_length(watermark) = 16),
    -- What is settled above the watermark; holes at or below the watermark mean nothing. The greatest settled id and the end
    -- of the last hole stand beside it, so that a statement can tell what is left of it above a watermark.
    ahead text COLLATE "C" NOT NULL
        CHECK (ahead ~ '^(([+]?[0-9]+-[0-9]+([.][.][+]?[0-9]+-[0-9]+)? )+>[+]?[0-9]+-[0-9]+)?$'),
    ahead_top bytea NOT NULL CHECK (octet_length(ahead_top) = CASE ahead WHEN '' THEN 0 ELSE 16 END),
    ahead_hole bytea NOT NULL CHECK (octet_length(ahead_hole) = CASE ahead WHEN '' THEN 0 ELSE 16 END),
    ordinal numeric(20) CHECK (ordinal BETWEEN 0 AND 18446744073709551615),
    incarnation text COLLATE "C",
    owner text COLLATE "C",
    updated_at timestamptz,
    lease_owner text COLLATE "C",
    lease_until timestamptz,
    PRIMARY KEY (stream, grp),
    CHECK (watermark IS NOT NULL OR (ahead = '' AND ordinal IS NULL))
    -- Room for new versions of a row beside the old ones, which leaves the index alone.
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS "highwater"."settled" (
    checkpoint bigint NOT NULL,
    entry bytea NOT NULL CHECK (octet_length(entry) = 16),
    PRIMARY KEY (checkpoint, entry)
);

CREATE OR REPLACE VIEW "highwater"."checkpoint_view" AS
SELECT
    c.stream,
    c.grp,
    i.ms || '-' || i.seq AS watermark,
    c.ahead,
    c.ordinal,
    c.incarnation,
    c.epoch,
    c.owner,
    c.updated_at,
    CASE WHEN c.lease_until > clock_timestamp() THEN c.lease_owner END AS lease_owner,
    (SELECT count(*) FROM "highwater"."settled" AS s WHERE s.checkpoint = c.id) AS settled,
    c.version
FROM "highwater"."checkpoint" AS c
CROSS JOIN LATERAL (
    SELECT
        ('x' || encode(substring(c.watermark FROM 1 FOR 8), 'hex'))::bit(64)::bigint::numeric
            + CASE WHEN get_byte(c.watermark, 0) > 127 THEN 18446744073709551616 ELSE 0 END AS ms,
        ('x' || encode(substring(c.watermark FROM 9 FOR 8), 'hex'))::bit(64)::bigint::numeric
            + CASE WHEN get_byte(c.watermark, 8) > 127 THEN 18446744073709551616 ELSE 0 END AS seq
) AS i;
