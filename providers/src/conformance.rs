//! What every provider must do, as checks that run against a real one.
//!
//! A provider's tests implement [`Harness`] and call [`run`]. Each check makes instances of its own, under keys
//! from [`Harness::order`], and needs nothing of the others.

mod checks;

use std::{future::Future, pin::Pin};

use async_trait::async_trait;
use serde_json::Value;

use crate::contract::{Account, CreateInstance, Provider};

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The call never arrives.
    RequestLost,
    /// The call has its effect, its answer never arrives.
    AnswerLost,
    /// The provider asks for patience.
    Throttled,
    /// There is no machine of this kind.
    NoCapacity,
}

/// Why a provider does not conform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {message}")]
pub struct Failure {
    /// Name of the check.
    pub check: &'static str,
    /// What was expected and what was seen.
    pub message: String,
}

/// What the suite needs of a provider under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The provider.
    fn provider(&self) -> &dyn Provider;

    /// An account that works and has room for 50 instances.
    fn account(&self) -> Account;

    /// Another account that works; `None` where there is only one.
    fn other_account(&self) -> Option<Account>;

    /// An account that the provider does not have.
    fn unknown_account(&self) -> Account;

    /// An account whose quota is used up; `None` where no such thing can be had.
    async fn full_account(&self) -> Option<Account>;

    /// An order that the provider fulfils, in the cluster with this key, with machine name and instance key that
    /// were never used.
    fn order(&self, cluster_key: &str) -> CreateInstance;

    /// A `providerConfig` that the provider refuses.
    fn bad_config(&self) -> Value;

    /// `config` with a field changed that changes in place.
    fn changed_in_place(&self, config: &Value) -> Value;

    /// `config` with a field changed that only a new instance can have; it must show in
    /// [`Instance::instance_type`] or [`Instance::image`].
    fn changed_for_replacement(&self, config: &Value) -> Value;

    /// The in-place field of the instance as the provider holds it, from behind the trait; `None` where it cannot
    /// be seen.
    async fn in_place(&self, id: &str) -> Option<Value>;

    /// Makes the next `verb` of this machine go wrong once; false where the provider cannot be made to.
    async fn inject(&self, trouble: Trouble, verb: &str, machine: &str) -> bool;

    /// How many of the troubles of this machine have happened.
    async fn happened(&self, machine: &str) -> u64;

    /// Waits a moment between two looks.
    async fn pause(&self);
}

type Checked<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Runs every check; gives the names of those that passed, in order.
///
/// # Errors
/// All that failed.
pub async fn run(harness: &dyn Harness) -> Result<Vec<&'static str>, Vec<Failure>> {
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    let checks: [(&'static str, Checked<'_>); 14] = [
        (
            "schemas say what a change means",
            Box::pin(checks::schemas(harness)),
        ),
        (
            "create twice is one instance",
            Box::pin(checks::twice(harness)),
        ),
        (
            "create at once is one instance",
            Box::pin(checks::at_once(harness)),
        ),
        (
            "create after a lost answer finds the same",
            Box::pin(checks::answer_lost(harness)),
        ),
        (
            "create after a lost request makes one",
            Box::pin(checks::request_lost(harness)),
        ),
        (
            "get and list agree",
            Box::pin(checks::get_and_list(harness)),
        ),
        (
            "lists keep to their scope",
            Box::pin(checks::scopes(harness)),
        ),
        ("delete is idempotent", Box::pin(checks::delete(harness))),
        (
            "delete after a lost answer",
            Box::pin(checks::delete_answer_lost(harness)),
        ),
        (
            "delete with another key deletes nothing",
            Box::pin(checks::foreign_key(harness)),
        ),
        (
            "update changes in-place fields only",
            Box::pin(checks::update(harness)),
        ),
        (
            "what others may change shows as it was asked for",
            Box::pin(checks::settings(harness)),
        ),
        (
            "errors of accounts and configurations",
            Box::pin(checks::refusals(harness)),
        ),
        (
            "throttling and capacity",
            Box::pin(checks::passing(harness)),
        ),
    ];
    for (check, checked) in checks {
        match checked.await {
            Ok(()) => passed.push(check),
            Err(message) => failed.push(Failure { check, message }),
        }
    }
    if failed.is_empty() {
        Ok(passed)
    } else {
        Err(failed)
    }
}
