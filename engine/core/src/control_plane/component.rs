//! The parts of a control plane that run on each of its machines: how each is, as its static pod's mirror says.

use std::fmt;

use fleetwright_api::{
    Machine,
    condition::{kind, reason},
};
use k8s_openapi::api::core::v1::{ContainerState, Pod, PodStatus};

use super::{alive, name};

/// Label of a pod that says which part it is, as kubeadm has it.
const LABEL: &str = "component";
/// Why a container waits, where it waits for nothing but its turn.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// What is told of others' words, in characters.
const LONGEST_WHY: usize = 100;

/// A part of a control plane, in the order in which machines are replaced where it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// etcd.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
}

impl Component {
    /// All of them, in that order.
    pub const ALL: [Self; 4] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
    ];

    /// Its name: what the label `component` of its pods says.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// Type of the Machine's condition that is of it.
    pub const fn condition(self) -> &'static str {
        match self {
            Self::Etcd => kind::ETCD_POD_HEALTHY,
            Self::ApiServer => kind::API_SERVER_POD_HEALTHY,
            Self::ControllerManager => kind::CONTROLLER_MANAGER_POD_HEALTHY,
            Self::Scheduler => kind::SCHEDULER_POD_HEALTHY,
        }
    }
}

/// How a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentHealth {
    /// It is ready.
    Running,
    /// It is not ready yet, and why.
    Provisioning(String),
    /// Its pod was not seen, though that of another machine was.
    DoesNotExist,
    /// It does not come up, or has ended, and why.
    Failed(String),
}

impl ComponentHealth {
    /// Reason of the Machine's condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Running => reason::RUNNING,
            Self::Provisioning(_) => reason::PROVISIONING,
            Self::DoesNotExist => reason::POD_DOES_NOT_EXIST,
            Self::Failed(_) => reason::FAILED,
        }
    }

    /// Message of the Machine's condition.
    pub fn message(&self) -> &str {
        match self {
            Self::Running => "",
            Self::DoesNotExist => "its pod has not been seen",
            Self::Provisioning(why) | Self::Failed(why) => why,
        }
    }

    fn of(pod: &Pod) -> Option<Self> {
        if pod.metadata.deletion_timestamp.is_some() {
            return Some(Self::Provisioning("its pod is being deleted".into()));
        }
        let status = pod.status.as_ref()?;
        match status.phase.as_deref()? {
            "Succeeded" | "Failed" => Some(Self::Failed("its pod has ended".into())),
            "Running" if is_ready(status) => Some(Self::Running),
            "Running" | "Pending" => Some(Self::of_containers(status)),
            _ => None,
        }
    }

    /// What holds up a pod that is not ready.
    fn of_containers(status: &PodStatus) -> Self {
        let all = status.init_container_statuses.iter().flatten();
        let all = all.chain(status.container_statuses.iter().flatten());
        let why = all
            .filter(|c| !c.ready)
            .find_map(|c| Self::of_state(c.state.as_ref()?));
        why.unwrap_or_else(|| Self::Provisioning("its pod is not ready".into()))
    }

    fn of_state(state: &ContainerState) -> Option<Self> {
        let short = |why: &str| why.chars().take(LONGEST_WHY).collect::<String>();
        if let Some(waiting) = &state.waiting {
            let why = waiting.reason.as_deref()?;
            return Some(match STARTING.contains(&why) {
                true => Self::Provisioning(short(why)),
                false => Self::Failed(short(why)),
            });
        }
        let ended = state.terminated.as_ref().filter(|end| end.exit_code != 0)?;
        let code = ended.exit_code;
        Some(Self::Failed(format!("it ended with exit code {code}")))
    }
}

fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// How one part of one machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentState {
    /// The machine.
    pub machine: String,
    /// The part.
    pub component: Component,
    /// How it is.
    pub health: ComponentHealth,
}

impl ComponentState {
    /// Whether it does not run.
    pub fn is_sick(&self) -> bool {
        self.health != ComponentHealth::Running
    }
}

impl fmt::Display for ComponentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, component) = (&self.machine, self.component.name());
        write!(f, "{component} of machine {machine} ")?;
        match &self.health {
            ComponentHealth::Running => f.write_str("runs"),
            ComponentHealth::Provisioning(why) => write!(f, "is not up yet: {why}"),
            ComponentHealth::DoesNotExist => f.write_str("has not been seen yet"),
            ComponentHealth::Failed(why) => write!(f, "does not run: {why}"),
        }
    }
}

/// How the parts are of all machines that are nodes and stay, as the pods of the control plane say. What cannot be told is left out: a
/// part that no machine shows is not of this control plane, or nobody shows it.
pub fn components(pods: &[Pod], machines: &[Machine]) -> Vec<ComponentState> {
    let of = |component: Component| {
        pods.iter().filter(move |pod| {
            let labels = pod.metadata.labels.as_ref();
            labels.and_then(|l| l.get(LABEL)).map(String::as_str) == Some(component.name())
        })
    };
    let mut all = Vec::new();
    for machine in alive(machines) {
        let node = machine.status.as_ref().and_then(|s| s.node_ref.as_ref());
        let Some(node) = node.map(|n| n.name.as_str()) else {
            continue;
        };
        for component in Component::ALL {
            let on = |pod: &&Pod| {
                let spec = pod.spec.as_ref();
                spec.and_then(|s| s.node_name.as_deref()) == Some(node)
            };
            let health = match of(component).find(on) {
                Some(pod) => ComponentHealth::of(pod),
                None => of(component).next().map(|_| ComponentHealth::DoesNotExist),
            };
            all.extend(health.map(|health| ComponentState {
                machine: name(machine),
                component,
                health,
            }));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use fleetwright_api::machine::{MachineStatus, NodeRef};
    use serde_json::{Value, json};

    use super::*;

    fn machine(name: &str, node: Option<&str>) -> Machine {
        let mut machine = Machine::new(name, Default::default());
        machine.status = Some(MachineStatus {
            node_ref: node.map(|name| NodeRef { name: name.into() }),
            ..MachineStatus::default()
        });
        machine
    }

    fn pod(component: &str, node: &str, status: Value) -> Pod {
        let labels = json!({"component": component, "tier": "control-plane"});
        serde_json::from_value(json!({
            "metadata": {"name": format!("{component}-{node}"), "labels": labels},
            "spec": {"nodeName": node, "containers": []}, "status": status,
        }))
        .unwrap()
    }

    fn status(phase: &str, ready: bool, state: Value) -> Value {
        let container = json!({"name": "c", "ready": ready, "state": state, "image": "", "imageID": "", "restartCount": 0});
        let ready = if ready { "True" } else { "False" };
        json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [container]})
    }

    #[test]
    fn a_part_is_as_its_pod_says() {
        use ComponentHealth::{Failed, Provisioning, Running};
        let waits = |why: &str| json!({"waiting": {"reason": why}});
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let long = "X".repeat(1000);
        for (status, want) in [
            (
                status("Running", true, json!({"running": {}})),
                Some(Running),
            ),
            (
                status("Running", false, json!({"running": {}})),
                Some(Provisioning("its pod is not ready".into())),
            ),
            (
                status("Pending", false, waits("ContainerCreating")),
                Some(Provisioning("ContainerCreating".into())),
            ),
            (
                status("Pending", true, json!({})),
                Some(Provisioning("its pod is not ready".into())),
            ),
            (
                status("Running", false, waits("CrashLoopBackOff")),
                Some(Failed("CrashLoopBackOff".into())),
            ),
            (
                status("Pending", false, waits("ErrImagePull")),
                Some(Failed("ErrImagePull".into())),
            ),
            (
                status("Running", false, waits(&long)),
                Some(Failed("X".repeat(LONGEST_WHY))),
            ),
            (
                status("Running", false, ended(137)),
                Some(Failed("it ended with exit code 137".into())),
            ),
            (
                status("Running", false, ended(0)),
                Some(Provisioning("its pod is not ready".into())),
            ),
            (
                status("Failed", false, ended(1)),
                Some(Failed("its pod has ended".into())),
            ),
            (
                status("Succeeded", false, ended(0)),
                Some(Failed("its pod has ended".into())),
            ),
            (status("Unknown", false, json!({})), None),
            (json!({}), None),
            (
                json!({"phase": "Running"}),
                Some(Provisioning("its pod is not ready".into())),
            ),
        ] {
            let pod = pod("etcd", "a", status);
            assert_eq!(ComponentHealth::of(&pod), want, "{pod:?}");
        }
        let mut going = pod("etcd", "a", status("Running", true, json!({})));
        going.metadata.deletion_timestamp =
            Some(fleetwright_api::time::k8s_time(jiff::Timestamp::UNIX_EPOCH));
        let want = Provisioning("its pod is being deleted".into());
        assert_eq!(ComponentHealth::of(&going), Some(want));
    }

    #[test]
    fn what_nobody_shows_is_not_known_and_what_another_machine_shows_is_missed() {
        let running = || status("Running", true, json!({"running": {}}));
        let mut going = machine("m3", Some("d"));
        going.metadata.deletion_timestamp =
            Some(fleetwright_api::time::k8s_time(jiff::Timestamp::UNIX_EPOCH));
        let machines = [
            machine("m0", Some("a")),
            machine("m1", Some("b")),
            machine("m2", None),
            going,
        ];
        assert_eq!(components(&[], &machines), []);
        let pods = [
            pod("kube-apiserver", "a", running()),
            pod("kube-scheduler", "a", json!({"phase": "Unknown"})),
            pod(
                "kube-scheduler",
                "b",
                status(
                    "Running",
                    false,
                    json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                ),
            ),
            pod("kube-proxy", "a", running()),
            pod("kube-controller-manager", "strange", running()),
        ];
        let said: Vec<String> = components(&pods, &machines)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "kube-apiserver of machine m0 runs",
                "kube-controller-manager of machine m0 has not been seen yet",
                "kube-apiserver of machine m1 has not been seen yet",
                "kube-controller-manager of machine m1 has not been seen yet",
                "kube-scheduler of machine m1 does not run: CrashLoopBackOff",
            ]
        );
    }
}
