-- Schema version 2: attempts that are remembered, and what an operator left in a record.
--
-- It may be run while consumers of the version before are at work: they leave alone what is new here, and pay no heed to a pause.

ALTER TABLE "highwater"."checkpoint"
    -- Nobody is to consume the subscription.
    ADD COLUMN IF NOT EXISTS paused boolean NOT NULL DEFAULT false,
    -- Why it was reset, paused or resumed the last time, if somebody said so.
    ADD COLUMN IF NOT EXISTS reason text COLLATE "C";

-- Entries whose handling failed or crashed. No advance touches them.
CREATE TABLE IF NOT EXISTS "highwater"."attempts" (
    checkpoint bigint NOT NULL,
    entry bytea NOT NULL CHECK (octet_length(entry) = 16),
    -- Failures, crashes, first time in milliseconds, and the reason and error if it was given up.
    record text COLLATE "C" NOT NULL,
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
    c.version,
    c.paused,
    c.reason
FROM "highwater"."checkpoint" AS c
CROSS JOIN LATERAL (
    SELECT
        ('x' || encode(substring(c.watermark FROM 1 FOR 8), 'hex'))::bit(64)::bigint::numeric
            + CASE WHEN get_byte(c.watermark, 0) > 127 THEN 18446744073709551616 ELSE 0 END AS ms,
        ('x' || encode(substring(c.watermark FROM 9 FOR 8), 'hex'))::bit(64)::bigint::numeric
            + CASE WHEN get_byte(c.watermark, 8) > 127 THEN 18446744073709551616 ELSE 0 END AS seq
) AS i;
