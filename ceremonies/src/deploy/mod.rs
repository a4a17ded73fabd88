//! What a charter means for the services around the cluster: the broker's configuration, the bus's subjects and what
//! each sender may send on them, when to try the broker again, the policy of the KMS key.

pub mod allowance;
pub mod broker;
pub mod kms_policy;
pub mod reconnect;
pub mod subject;
