-- This node's part in deciding the order of each log: its round, and what it is locked on. Without a row it is in round 0
-- and locked on nothing.
CREATE TABLE ballots (
    ceremony   TEXT   NOT NULL PRIMARY KEY,
    round      BIGINT NOT NULL,
    undecided  BIGINT NOT NULL CHECK (undecided IN (0, 1)),
    lock_round BIGINT,
    lock_seq   BIGINT,
    lock_hash  TEXT,
    -- The signed heads that the lock rests on.
    proof      BYTEA  NOT NULL
);

-- Entries of branches that this node does not stand on: evidence of a fork. They stay.
CREATE TABLE branches (
    ceremony  TEXT   NOT NULL,
    hash      TEXT   NOT NULL,
    seq       BIGINT NOT NULL,
    body      BYTEA  NOT NULL,
    signature BYTEA  NOT NULL,
    PRIMARY KEY (ceremony, hash)
);

-- The last message of the stream that was read, and the last write that showed the store to be writable.
CREATE TABLE positions (
    name TEXT   NOT NULL PRIMARY KEY,
    seq  BIGINT NOT NULL,
    hash TEXT   NOT NULL
);
