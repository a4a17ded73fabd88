//! What a charter means for the services around the cluster: the broker's configuration, the bus's subjects, the policy of
//! the KMS key.

pub mod broker;
pub mod kms_policy;
pub mod subject;
