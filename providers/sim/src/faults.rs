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
    /// There is no machine of this kind.
    NoCapacity,
}

/// A fault to inject into the calls that match; what is left out matches all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What it does.
    pub effect: FaultEffect,
    /// Verb of the call, such as `create`.
    #[serde(default)]
    pub verb: Option<String>,
    /// Name of the account.
    #[serde(default)]
    pub account: Option<String>,
    /// Name of the machine.
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

/// All faults, in the order in which they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault after those already there.
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// All faults, spent ones too.
    pub fn all(&self) -> &[Fault] {
        &self.0
    }

    /// What happens to this call: the first fault that matches and is not spent fires, and is counted.
    pub fn fire(&mut self, verb: &str, account: &str, machine: &str) -> Option<FaultEffect> {
        let matches = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let fault = self.0.iter_mut().find(|f| {
            f.count > 0
                && matches(&f.verb, verb)
                && matches(&f.account, account)
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
        assert_eq!(faults.fire("delete", "sim-eu", "m-1"), None);
        assert_eq!(faults.fire("create", "sim-eu", "m-2"), None);
        for _ in 0..2 {
            let effect = faults.fire("create", "sim-eu", "m-1");
            assert_eq!(effect, Some(FaultEffect::AnswerLost));
        }
        assert_eq!(faults.fire("create", "sim-eu", "m-1"), None);
        assert_eq!(faults.all()[0].fired, 2);
    }
}
