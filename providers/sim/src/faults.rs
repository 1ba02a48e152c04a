//! Faults that were asked for, and which of them fired.

use serde::{Deserialize, Serialize};

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultEffect {
    /// The call never arrives.
    RequestLost,
    /// The call has its effect, its answer never arrives.
    AnswerLost,
    /// The call is refused for now.
    Throttled,
    /// The account's credentials are refused.
    CredentialsRefused,
    /// There is no machine of this kind.
    NoCapacity,
    /// The instance runs, and its node never registers.
    NeverJoins,
    /// The list is of a while ago.
    Stale,
}

impl FaultEffect {
    /// The verb of the calls that it happens to; any where there is none.
    pub fn verb(self) -> Option<&'static str> {
        match self {
            Self::NoCapacity | Self::NeverJoins => Some("create"),
            Self::Stale => Some("list"),
            Self::RequestLost | Self::AnswerLost | Self::Throttled | Self::CredentialsRefused => {
                None
            }
        }
    }
}

/// The calls that there are.
pub const VERBS: &[&str] = &["create", "get", "list", "update", "delete"];

/// Whether a call is one of those that are wanted: what is left out matches all.
pub(crate) fn matches(wanted: &Option<String>, is: &str) -> bool {
    wanted.as_deref().is_none_or(|w| w == is)
}

/// Refuses a verb that no call has.
pub(crate) fn check_verb(verb: Option<&str>) -> Result<(), String> {
    match verb {
        Some(verb) if !VERBS.contains(&verb) => {
            let all = VERBS.join(", ");
            Err(format!(
                "verb: there is no call {verb:?}: the calls are {all}"
            ))
        }
        _ => Ok(()),
    }
}

/// A fault to inject into the calls that match; what is left out matches all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Number of the fault, from 1, given when it is asked for.
    #[serde(default)]
    pub id: u64,
    /// What it does.
    pub effect: FaultEffect,
    /// Verb of the call, such as `create`.
    #[serde(default)]
    pub verb: Option<String>,
    /// Name of the account.
    #[serde(default)]
    pub account: Option<String>,
    /// Region of the account.
    #[serde(default)]
    pub region: Option<String>,
    /// Name of the machine; lists and gets are about none.
    #[serde(default)]
    pub machine: Option<String>,
    /// In how many calls it still fires.
    #[serde(default = "once")]
    pub count: u64,
    /// In how many calls it has fired.
    #[serde(default)]
    pub fired: u64,
}

const fn once() -> u64 {
    1
}

impl Fault {
    /// Refuses a fault that could never fire, with what is allowed.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        check_verb(self.verb.as_deref())?;
        if let (Some(verb), Some(only)) = (&self.verb, self.effect.verb())
            && verb != only
        {
            return Err(format!("effect: this one happens to {only} alone"));
        }
        if self.count == 0 {
            return Err("count: a fault fires at least once".into());
        }
        Ok(())
    }
}

/// All faults, in the order in which they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    all: Vec<Fault>,
    last: u64,
}

impl Faults {
    /// Adds a fault after those already there, with the next id and nothing fired; gives it back.
    pub fn add(&mut self, mut fault: Fault) -> Fault {
        self.last = self.last.saturating_add(1);
        fault.id = self.last;
        fault.fired = 0;
        self.all.push(fault.clone());
        fault
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.all.clear();
    }

    /// All faults, spent ones too.
    pub fn all(&self) -> &[Fault] {
        &self.all
    }

    /// What happens to this call: the first fault that matches and is not spent fires, and is counted.
    pub fn fire(
        &mut self,
        verb: &str,
        account: &str,
        region: &str,
        machine: &str,
    ) -> Option<FaultEffect> {
        let fault = self.all.iter_mut().find(|f| {
            f.count > 0
                && f.effect.verb().is_none_or(|only| only == verb)
                && matches(&f.verb, verb)
                && matches(&f.account, account)
                && matches(&f.region, region)
                && matches(&f.machine, machine)
        })?;
        fault.count -= 1;
        fault.fired = fault.fired.saturating_add(1);
        Some(fault.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_where_it_matches_as_often_as_asked() {
        let fault: Fault = serde_json::from_value(serde_json::json!({
            "effect": "answerLost", "verb": "create", "machine": "m-1", "count": 2
        }))
        .unwrap();
        let mut faults = Faults::default();
        faults.add(fault);
        assert_eq!(faults.fire("delete", "sim-eu", "eu", "m-1"), None);
        assert_eq!(faults.fire("create", "sim-eu", "eu", "m-2"), None);
        for _ in 0..2 {
            let effect = faults.fire("create", "sim-eu", "eu", "m-1");
            assert_eq!(effect, Some(FaultEffect::AnswerLost));
        }
        assert_eq!(faults.fire("create", "sim-eu", "eu", "m-1"), None);
        assert_eq!(faults.all()[0].fired, 2);
    }

    #[test]
    fn no_capacity_is_a_matter_of_create() {
        let mut faults = Faults::default();
        let fault = r#"{"effect": "noCapacity", "region": "eu"}"#;
        faults.add(serde_json::from_str(fault).unwrap());
        assert_eq!(faults.fire("list", "sim-eu", "eu", ""), None);
        assert_eq!(faults.fire("create", "sim-us", "us", "m"), None);
        let effect = faults.fire("create", "sim-eu", "eu", "m");
        assert_eq!(effect, Some(FaultEffect::NoCapacity));
    }

    #[test]
    fn what_could_never_fire_is_refused() {
        for (text, expected) in [
            (
                r#"{"effect": "throttled", "verb": "craete"}"#,
                "verb: there is no call \"craete\": the calls are create, get, list, update, delete",
            ),
            (
                r#"{"effect": "noCapacity", "verb": "list"}"#,
                "effect: this one happens to create alone",
            ),
            (
                r#"{"effect": "stale", "verb": "create"}"#,
                "effect: this one happens to list alone",
            ),
            (
                r#"{"effect": "throttled", "count": 0}"#,
                "count: a fault fires at least once",
            ),
        ] {
            let fault: Fault = serde_json::from_str(text).unwrap();
            assert_eq!(fault.check(), Err(expected.to_owned()));
        }
    }
}
