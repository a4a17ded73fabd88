-- Ceremonies that are over: what the agent keeps in memory of them. A line counts only while log and ballot are where it
-- says, and only for the version of the fold that wrote it; otherwise the log is folded anew. Everything in it follows
-- from `entries` and `ballots`.
CREATE TABLE shelf (
    ceremony   TEXT   NOT NULL PRIMARY KEY,
    fold       BIGINT NOT NULL,
    kind       TEXT   NOT NULL,
    wallet     TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    phase      TEXT   NOT NULL,
    opened_ms  BIGINT NOT NULL,
    charter    TEXT   NOT NULL,
    began_ms   BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    hash       TEXT   NOT NULL,
    time_ms    BIGINT NOT NULL,
    round      BIGINT NOT NULL,
    lock_round BIGINT NOT NULL
);
