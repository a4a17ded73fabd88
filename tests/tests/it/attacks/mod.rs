//! The attacks of `tests/ATTACKS.md` on a whole cluster: what a parent and a byzantine enclave may do, and that it
//! gives nobody a share, a signature or another generation, and bans no honest node.

mod parent;
mod peer;
mod table;
