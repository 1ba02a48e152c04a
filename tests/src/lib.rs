//! What the tests of the whole share.

pub mod client_tokens;
pub mod conformance;
pub mod emulators;
pub mod etcd;
pub mod forward;
pub mod kubeadm;
pub mod openssl;
pub mod pki;
pub mod reference;
pub mod serving;
pub mod tools;
pub mod workload;
