-- Portable SQL: the same file makes the store on PostgreSQL and on SQLite. Hashes are hexadecimal text,
-- times are milliseconds since 1970.

-- This node's own copy of every ceremony's log, as received.
CREATE TABLE entries (
    ceremony  TEXT   NOT NULL,
    seq       BIGINT NOT NULL,
    hash      TEXT   NOT NULL,
    body      BYTEA  NOT NULL,
    signature BYTEA  NOT NULL,
    PRIMARY KEY (ceremony, seq)
);

-- Sealed shares. A new generation is pending beside the current one until its certificate is there.
CREATE TABLE shares (
    wallet     TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    record     TEXT   NOT NULL,
    ceremony   TEXT   NOT NULL,
    state      TEXT   NOT NULL CHECK (state IN ('pending', 'current', 'retired')),
    blob       BYTEA  NOT NULL,
    PRIMARY KEY (wallet, generation, record)
);
CREATE UNIQUE INDEX one_current_share ON shares (wallet) WHERE state = 'current';

-- Every signature this node ever agreed to take part in, written before its first message.
CREATE TABLE signings (
    request  TEXT   NOT NULL PRIMARY KEY,
    digest   TEXT   NOT NULL,
    path     TEXT   NOT NULL,
    decision TEXT   NOT NULL,
    at_ms    BIGINT NOT NULL
);

-- Session messages, as their senders' enclaves signed them, on which an accusation rests.
CREATE TABLE evidence (
    ceremony TEXT   NOT NULL,
    culprit  BIGINT NOT NULL,
    digest   TEXT   NOT NULL,
    envelope BYTEA  NOT NULL,
    PRIMARY KEY (ceremony, culprit, digest)
);

-- Who never again works with whom.
CREATE TABLE bans (
    reporter BIGINT NOT NULL,
    peer     BIGINT NOT NULL,
    ceremony TEXT   NOT NULL,
    reason   TEXT   NOT NULL,
    PRIMARY KEY (reporter, peer)
);
