-- Backups that their keepers have released to this node's enclave: age files, which nobody but a keeper can open.
-- They stay until the enclave has proven them or restored from them.
CREATE TABLE released (
    digest   TEXT   NOT NULL PRIMARY KEY,
    ceremony TEXT   NOT NULL,
    object   BYTEA  NOT NULL
);
