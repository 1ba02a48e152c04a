//! Faults that were asked for, and which of them fired.

use serde::{Deserialize, Serialize};

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultEffect {
    /// The call never arrives.
    #[serde(alias = "request-lost")]
    RequestLost,
    /// The call has its effect, its answer never arrives.
    #[serde(alias = "answer-lost")]
    AnswerLost,
    /// The call is refused for now.
    Throttled,
    /// There is no machine of this kind.
    #[serde(alias = "no-capacity")]
    NoCapacity,
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
    pub fn fire(&mut self, verb: &str, account: &str, machine: &str) -> Option<FaultEffect> {
        let matches = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let fault = self.all.iter_mut().find(|f| {
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
