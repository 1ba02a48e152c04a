//! Calls of a whole engine that go wrong: microburst is in front of what remembers client tokens, and that in front of moto.

use std::{collections::BTreeSet, sync::Arc};

use fleetwright_api::{Machine, MachineDeployment};
use fleetwright_tests::emulators::{Emulator, microburst};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::kit::{
    Aws, IMAGES, REGION, Site, admin, agent, complete, free_port, living, machines, touch_account,
    until,
};
use crate::kit::Engine;

const VERSION: &str = "v1.34.1";
const MAKES: &str = "RunInstances";
const READS: &str = "DescribeInstances";
const ENDS: &str = "TerminateInstances";

/// A sort of fault.
struct Fault {
    name: &'static str,
    effect: Value,
    /// What it is done to, while a machine comes and while one goes.
    coming: &'static [&'static str],
    going: &'static [&'static str],
    /// Whether the same is not asked for again before the account has changed.
    lasts: bool,
}

fn faults() -> Vec<Fault> {
    let all = |name, effect| Fault {
        name,
        effect,
        coming: &[READS, MAKES],
        going: &[READS, ENDS],
        lasts: false,
    };
    vec![
        all(
            "throttled",
            json!({"times": 2, "error": {"code": "RequestLimitExceeded"}}),
        ),
        Fault {
            coming: &[MAKES],
            going: &[],
            ..all(
                "no capacity",
                json!({"times": 2, "error": {"code": "InsufficientInstanceCapacity"}}),
            )
        },
        Fault {
            lasts: true,
            ..all(
                "not allowed",
                json!({"times": 1, "error": {"code": "UnauthorizedOperation"}}),
            )
        },
        all("request lost", json!({"times": 1, "reset": true})),
        all(
            "answer lost after it was done",
            json!({"times": 1, "response": {"abort_frac": 0.3}}),
        ),
        all("slow", json!({"latency": {"min": 300, "max": 600}})),
        all(
            "cut answers",
            json!({"times": 1, "response": {"truncate_frac": 0.5}}),
        ),
        all(
            "every third fails",
            json!({"sequence": {"fail": 1, "pass": 2}, "error": {"code": "InternalError"}}),
        ),
    ]
}

fn documents(port: u16, subnets: &str) -> String {
    let machine = format!(
        "apiVersion: aws.fleetwright.dev/v1alpha1
            kind: AWSMachineConfig
            account: aws
            instanceType: t3.large
            image: {}
            os: ubuntu-24.04
            iamInstanceProfile: nodes",
        IMAGES[0]
    );
    format!(
        "apiVersion: fleetwright.dev/v1alpha1
kind: Cluster
metadata:
  name: a
spec:
  version: {VERSION}
  clusterNetwork: {{apiServerPort: {port}}}
  providerConfig:
    apiVersion: aws.fleetwright.dev/v1alpha1
    kind: AWSClusterConfig
    account: aws
    loadBalancer: {{subnets: [{subnets}]}}
  controlPlane:
    machines:
      replicas: 1
      template:
        spec:
          providerConfig:
            {machine}
---
apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
metadata:
  name: a-web
spec:
  clusterName: a
  template:
    spec:
      providerConfig:
            {machine}
"
    )
}

/// A small cluster whose provider has bad days.
struct Scene {
    aws: Aws,
    faults: Emulator,
    engine: Client,
    /// How many instances there were, ever.
    made: usize,
    /// How often the account was changed.
    changes: usize,
}

fn names(machines: &[Machine]) -> BTreeSet<String> {
    let name = |m: &Machine| format!("{} {}", m.name_any(), m.uid().unwrap_or_default());
    machines.iter().map(name).collect()
}

impl Scene {
    async fn pool(&self) -> MachineDeployment {
        let pools = Api::<MachineDeployment>::namespaced(self.engine.clone(), "default");
        pools.get("a-web").await.unwrap()
    }

    /// Lets a call of EC2 go wrong; gives the number of the rule.
    async fn fault(&self, operation: &str, effect: &Value) -> u64 {
        let mut rule = effect.clone();
        rule["service"] = json!("ec2");
        rule["region"] = json!(REGION);
        rule["operation"] = json!(operation);
        self.faults.fault(&rule).await.unwrap()
    }

    /// Scales the pool to `replicas` while these calls go wrong; waits until each has and the pool is as wanted all the same.
    async fn scale(&mut self, fault: &Fault, calls: &[&str], replicas: i32) {
        let mut rules = Vec::new();
        for operation in calls {
            rules.push(self.fault(operation, &fault.effect).await);
        }
        let pools = Api::<MachineDeployment>::namespaced(self.engine.clone(), "default");
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        pools
            .patch("a-web", &PatchParams::default(), &scale)
            .await
            .unwrap();
        let wanted = usize::try_from(replicas).unwrap() + 1;
        let complete = complete(replicas, VERSION);
        let what = format!("{}: {replicas} in spite of it", fault.name);
        let mut known = 0;
        until(&what, async || {
            let mut fired = Vec::new();
            for rule in &rules {
                fired.push(self.faults.fired(*rule).await.unwrap());
            }
            if fault.lasts && fired.iter().sum::<usize>() > known {
                known = fired.iter().sum();
                self.changes += 1;
                // Whoever allows it again says so.
                touch_account(&self.engine, 100 + self.changes).await;
            }
            let done = fired.iter().all(|n| *n > 0)
                && complete(Some(&self.pool().await))
                && machines(&self.engine).await.len() == wanted;
            done.then_some(())
        })
        .await;
        self.faults.mend(REGION).await.unwrap();
    }

    /// Each Machine has its one instance, and there are no others; gives the Machines and the instances that live.
    async fn check(&self, name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let (machines, all) = (machines(&self.engine).await, self.aws.all().await);
        let of_machines = machines.iter().map(|m| {
            let instance = m.status.as_ref().and_then(|s| s.instance.as_ref());
            instance.map(|i| i.id.clone()).unwrap_or_default()
        });
        let of_machines: BTreeSet<String> = of_machines.collect();
        let living = living(&all);
        assert_eq!(living, of_machines, "{name}");
        assert_eq!(living.len(), machines.len(), "{name}");
        assert_eq!(all.len(), self.made, "{name}: {all:?}");
        (names(&machines), living)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_there_is_one_instance_for_a_machine_and_nothing_goes_unread() {
    let Some(aws) = Aws::start().await else {
        return;
    };
    let Some(faults) = microburst(aws.front.url()).await else {
        return;
    };
    let subnets: Vec<String> = aws
        .boto("out = [s['SubnetId'] for s in ec2.describe_subnets()['Subnets']][:2]")
        .await;
    let dir = tempfile::tempdir().unwrap();
    let (work, port) = (dir.path().join("work"), free_port());
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join("a.yaml"), documents(port, &subnets.join(", "))).unwrap();
    let admin = admin(dir.path(), faults.url());
    let args = ["--admin", admin.to_str().unwrap()];
    let data = dir.path().join("data");
    let engine = Engine::up_embedded(work.to_str().unwrap(), &data, &args).await;
    let Some(site) = Site::serve(&engine.client, port, dir.path()).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(agent(engine.client.clone(), Arc::clone(&site)));
    engine.until("a-web", "a node", complete(1, VERSION)).await;
    let mut scene = Scene {
        aws,
        faults,
        engine: engine.client.clone(),
        made: 2,
        changes: 0,
    };
    for fault in self::faults() {
        let name = fault.name;
        let before = scene.check(name).await;
        scene.scale(&fault, fault.coming, 2).await;
        scene.made += 1;
        let more = scene.check(name).await;
        assert!(before.0.is_subset(&more.0), "{name}");
        assert!(before.1.is_subset(&more.1), "{name}");
        scene.scale(&fault, fault.going, 1).await;
        let after = scene.check(name).await;
        assert!(after.0.is_subset(&more.0), "{name}");
        assert!(after.1.is_subset(&more.1), "{name}");
    }
    let calls = scene.aws.front.calls();
    let ended = calls.iter().filter(|c| c.action == ENDS);
    let ended: BTreeSet<_> = ended.map(|c| c.parameter("InstanceId.1")).collect();
    assert_eq!(ended.len(), self::faults().len(), "one after each fault");

    // An engine that starts and can read nothing makes nothing, ends nothing and forgets nothing.
    let outage = Fault {
        name: "nothing can be read",
        effect: json!({"error": {"code": "InternalError"}}),
        coming: &[],
        going: &[],
        lasts: false,
    };
    let before = scene.check(outage.name).await;
    engine.process.kill().await;
    tasks.shutdown().await;
    let told = scene.aws.front.calls().len();
    let rule = scene.fault(READS, &outage.effect).await;
    let engine = Engine::up_embedded(work.to_str().unwrap(), &data, &args).await;
    tasks.spawn(agent(engine.client.clone(), site));
    scene.engine = engine.client.clone();
    until("its lists fail", async || {
        (scene.faults.fired(rule).await.unwrap() >= 4).then_some(())
    })
    .await;
    assert_eq!(scene.check(outage.name).await, before);
    scene.faults.mend(REGION).await.unwrap();
    // What is made after that is one more.
    scene.scale(&outage, outage.coming, 2).await;
    scene.made += 1;
    let after = scene.check(outage.name).await;
    assert!(before.0.is_subset(&after.0) && before.1.is_subset(&after.1));
    let calls = scene.aws.front.calls().split_off(told);
    let count = |action: &str| calls.iter().filter(|c| c.action == action).count();
    assert_eq!((count(MAKES), count(ENDS)), (1, 0), "{calls:#?}");
}
