//! What a charter means for the services around the cluster: the broker's configuration, the bus's subjects and what
//! each sender may send on them, the policy of the KMS key.

pub mod allowance;
pub mod broker;
pub mod kms_policy;
pub mod subject;
