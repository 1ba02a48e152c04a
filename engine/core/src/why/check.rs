//! Why broken machines of a health check are replaced, or are not.

use fleetwright_api::{Machine, MachineHealthCheck, condition, condition::kind};

use super::{Scene, Why, message, name, since};

impl Scene<'_> {
    /// What a health check finds, whether its broken machines may be replaced and since when, and which these are.
    pub fn health_check(&self, check: &MachineHealthCheck) -> Why {
        let mut why = Why::of("MachineHealthCheck", &check.metadata);
        let seen = check.status.as_ref();
        let Some(status) = seen.filter(|s| s.observed_generation == check.metadata.generation)
        else {
            why.say("its latest change is not looked at yet", None);
            return why;
        };
        let (all, cluster) = (status.expected_machines, &check.spec.cluster_name);
        let broken = all - status.current_healthy;
        let text = match broken {
            0 => "none of them is broken".to_owned(),
            1 => "1 of them is broken".to_owned(),
            n => format!("{n} of them are broken"),
        };
        why.say(
            format!("looks at {all} machines of Cluster {cluster}; {text}"),
            None,
        );
        match condition::get(&status.conditions, kind::REMEDIATION_ALLOWED) {
            Some(c) if c.status == "True" => why.say("broken machines may be replaced", since(c)),
            Some(c) => {
                let text = format!("not all broken machines may be replaced: {}", message(c));
                why.say(text, since(c));
            }
            None => {}
        }
        let broken = |m: &&Machine| status.unhealthy.iter().any(|n| n == name(&m.metadata));
        self.members(&mut why, self.machines.iter().filter(broken));
        why
    }
}
