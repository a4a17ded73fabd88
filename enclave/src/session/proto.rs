//! The wire types of `proto/session.proto`. Nothing may be read from them that [`super::envelope`] has not proven.
#![expect(unreachable_pub, reason = "generated code is public throughout; this module is not")]

include!(concat!(env!("OUT_DIR"), "/custody.session.rs"));
