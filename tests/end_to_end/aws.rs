//! A cluster on AWS, from a commit to its end. What stands in: moto for AWS; for the API of the cluster that its instances would serve, an
//! API server of ours with the cluster's own authority, where the name of the load balancer leads; for its etcd, a real one; for what
//! runs on instances, an agent that registers a node for each Machine with an instance. moto's instances run nothing.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod kit;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use age::secrecy::ExposeSecret as _;
use fleetwright_api::{
    Cluster, Fleet, Machine,
    condition::{self, Condition, reason},
    meta::PREFIX_PRE_TERMINATE_HOOK,
};
use fleetwright_tests::client_tokens::Call;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::kit::{
    Aws, Bounds, IMAGES, Site, admin, agent, complete, free_port, living, machines, observe, until,
};
use crate::{
    forge::{commit, git},
    kit::{Engine, fleetwright, is_done},
};

/// What the documents of the test differ in.
struct Wanted<'a> {
    port: u16,
    subnets: &'a str,
    version: &'a str,
    group: &'a str,
}

fn documents(wanted: &Wanted<'_>) -> String {
    let Wanted {
        port,
        subnets,
        version,
        group,
    } = wanted;
    let machine = "apiVersion: aws.fleetwright.dev/v1alpha1
            kind: AWSMachineConfig
            account: aws
            instanceType: t3.large
            imageLookup: {parameter: '/images/node-{kubernetesMinor}'}
            os: ubuntu-24.04
            iamInstanceProfile: nodes";
    format!(
        "apiVersion: fleetwright.dev/v1alpha1
kind: Cluster
metadata:
  name: a
spec:
  version: {version}
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
  replicas: 3
  rollout: {{strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}}}
  template:
    spec:
      providerConfig:
            {machine}
            tags: {{team: web}}
            securityGroups: [{group}]
"
    )
}

/// The image of nodes of this minor version is another from now on.
async fn publish(aws: &Aws, minor: &str, image: &str) {
    aws.boto::<()>(&format!(
        "ssm.put_parameter(Name='/images/node-{minor}', Value='{image}', Type='String', Overwrite=True)"
    ))
    .await;
}

/// Ids of the instances of the control plane and of the workers that live.
async fn parts(aws: &Aws) -> (BTreeSet<String>, BTreeSet<String>) {
    let (workers, control_plane) = aws
        .running()
        .await
        .into_iter()
        .partition::<Vec<_>, _>(|(name, _)| name.starts_with("a-web-"));
    let ids = |all: Vec<(String, String)>| all.into_iter().map(|(_, id)| id).collect();
    (ids(control_plane), ids(workers))
}

/// The load balancer listens at the port and leads to the control plane, and nowhere else.
async fn leads_to_control_plane(aws: &Aws, port: u16) {
    let (control_plane, _) = parts(aws).await;
    until("its targets are the control plane", async || {
        let (ports, targets) = aws.balancer().await;
        assert_eq!(ports, [port]);
        (targets == control_plane).then_some(())
    })
    .await;
}

/// Where in the journal a call of this kind was done.
fn at(calls: &[Call], action: &str, parameter: &str, value: &str) -> usize {
    let is = |c: &Call| c.done && c.action == action && c.parameter(parameter) == Some(value);
    let found = calls.iter().position(is);
    found.unwrap_or_else(|| panic!("no {action} of {value} in {calls:#?}"))
}

#[tokio::test]
async fn the_example_of_the_documentation_is_valid() {
    let example = "../docs/providers/aws-example";
    let valid = fleetwright(&["validate", example]).output().await.unwrap();
    assert_eq!(valid.status.code(), Some(0), "{valid:?}");
    let said = String::from_utf8(valid.stdout).unwrap();
    assert!(said.contains("3 objects in 2 files"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_on_aws_from_a_commit_to_its_end() {
    let Some(aws) = Aws::start().await else {
        return;
    };
    publish(&aws, "1.33", IMAGES[0]).await;
    publish(&aws, "1.34", IMAGES[1]).await;
    let (group, other, subnets): (String, String, Vec<String>) = aws
        .boto(
            "[vpc] = ec2.describe_vpcs()['Vpcs']
made = [ec2.create_security_group(GroupName=n, Description=n, VpcId=vpc['VpcId'])['GroupId'] for n in ('web', 'other')]
out = [*made, [s['SubnetId'] for s in ec2.describe_subnets()['Subnets']][:2]]",
        )
        .await;
    let wanted = Wanted {
        port: free_port(),
        subnets: &subnets.join(", "),
        version: "v1.33.4",
        group: &group,
    };
    let next = Wanted {
        version: "v1.34.1",
        ..wanted
    };
    let port = wanted.port;
    let dir = tempfile::tempdir().unwrap();
    let (work, data) = (dir.path().join("work"), dir.path().join("data"));
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    let admin = admin(dir.path(), aws.front.url());
    let escrow = dir.path().join("escrow");
    commit(&work, &documents(&wanted));
    let url = format!("file://{}/fleet.git", dir.path().display());
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let args = [
        "--branch",
        "main",
        "--interval",
        "1",
        "--admin",
        admin.to_str().unwrap(),
        "--escrow",
        escrow.to_str().unwrap(),
        "--escrow-recipient",
        &recipient,
    ];
    let engine = Engine::up_embedded(&url, &data, &args).await;
    let Some(site) = Site::serve(&engine.client, port, dir.path()).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    let bounds = Arc::new(Mutex::new(Bounds::default()));
    tasks.spawn(agent(engine.client.clone(), Arc::clone(&site)));
    tasks.spawn(observe(engine.client.clone(), Arc::clone(&bounds)));

    // From the commit to three nodes, with a load balancer in front of the API.
    engine
        .until("a-web", "three nodes", complete(3, "v1.33.4"))
        .await;
    let (old, first) = parts(&aws).await;
    assert_eq!((old.len(), first.len()), (1, 3));
    leads_to_control_plane(&aws, port).await;
    engine
        .until("a", "its endpoint", |c: Option<&Cluster>| {
            let status = c.and_then(|c| c.status.as_ref());
            let endpoint = status.and_then(|s| s.control_plane_endpoint.as_ref());
            endpoint.is_some_and(|e| e.host == "localhost" && e.port == i32::from(port))
        })
        .await;
    let kept = || std::fs::read_dir(&escrow).unwrap().count();
    assert_eq!(kept(), 1, "the keys are in escrow");
    booted_without_secrets(&aws).await;
    assert_eq!(aws.owned().await, [4, 4, 1, 1, 0]);
    plan_tells_what_aws_has_not(&engine, dir.path(), &documents(&wanted)).await;

    // A version bump replaces the control plane and rolls the pool under its bounds.
    commit(&work, &documents(&next));
    let rolled = complete(3, "v1.34.1");
    engine
        .until("a", "the control plane", |c: Option<&Cluster>| {
            c.is_some_and(|c| is_done(c, "v1.34.1"))
        })
        .await;
    engine.until("a-web", "rolled", rolled).await;
    assert_eq!(kept(), 2, "and a snapshot of etcd before the step");
    assert!(site.kubeadm().await.contains("v1.34.1"));
    let running = aws.running().await;
    let control_plane = running.keys().find(|name| !name.starts_with("a-web-"));
    let control_plane = control_plane.unwrap();
    let members = site.members(control_plane).await;
    assert_eq!(members, BTreeSet::from([control_plane.clone()]));
    let (new, second) = parts(&aws).await;
    assert_eq!((new.len(), second.len()), (1, 3));
    assert!(old.is_disjoint(&new) && first.is_disjoint(&second));
    let all = aws.all().await;
    assert_eq!(all.len(), 8, "one was made for each, and no other: {all:?}");
    let images: BTreeSet<&str> = all
        .iter()
        .filter(|i| i.lives())
        .map(|i| i.image.as_str())
        .collect();
    assert_eq!(images, BTreeSet::from([IMAGES[1]]));
    leads_to_control_plane(&aws, port).await;
    let calls = aws.front.calls();
    let target = |action, ids: &BTreeSet<String>| {
        let id = ids.first().unwrap();
        at(&calls, action, "Targets.member.1.Id", id)
    };
    assert!(target("RegisterTargets", &new) < target("DeregisterTargets", &old));
    let seen = *bounds.lock();
    assert_eq!((seen.most, seen.fewest), (4, Some(3)), "{seen:?}");

    // What somebody changes behind its back while no engine runs is found by lists alone, and put right where the Fleet wants that.
    engine.process.kill().await;
    tasks.shutdown().await;
    let running = aws.running().await;
    let mut workers = running
        .iter()
        .filter(|(name, _)| name.starts_with("a-web-"));
    let (one, two) = (workers.next().unwrap(), workers.next().unwrap());
    aws.boto::<()>(&format!(
        "ec2.create_tags(Resources=['{}'], Tags=[dict(Key='team', Value='other')])
ec2.modify_instance_attribute(InstanceId='{}', Groups=['{other}'])
ec2.modify_instance_attribute(InstanceId='{}', InstanceType=dict(Value='t3.xlarge'))",
        one.1, one.1, two.1
    ))
    .await;
    let before = aws.front.calls().len();
    let engine = Engine::up_embedded(&url, &data, &args).await;
    tasks.spawn(agent(engine.client.clone(), Arc::clone(&site)));
    for (machine, differs) in [(one.0, 2), (two.0, 1)] {
        engine
            .until(machine, "drift is told", |m: Option<&Machine>| {
                let status = m.and_then(|m| m.status.as_ref());
                status.is_some_and(|s| s.drift.len() == differs)
            })
            .await;
    }
    let (code, findings) = drift(&engine).await;
    assert_eq!(code, Some(1));
    let changed = |machine: &str, what: &str, wanted: &str, found: &str| {
        json!([machine, "InstanceChanged", what, wanted, found])
    };
    let expected = [
        changed(one.0, "securityGroups", &group, &other),
        changed(one.0, "tags.team", "web", "other"),
        changed(two.0, "instanceType", "t3.large", "t3.xlarge"),
    ];
    assert_eq!(findings, expected);
    let calls = aws.front.calls().split_off(before);
    assert!(calls.iter().all(Call::reads), "{calls:#?}");
    let lists: Vec<&Call> = calls
        .iter()
        .filter(|c| c.action == "DescribeInstances")
        .collect();
    let account = Some("tag%3Afleetwright.dev%2Finstallation");
    let whole = |c: &&Call| c.parameter("Filter.1.Name") == account;
    assert!(
        !lists.is_empty() && lists.iter().all(whole),
        "never machine by machine: {lists:#?}"
    );
    let fleets = Api::<Fleet>::namespaced(engine.client.clone(), "default");
    let correct = Patch::Merge(json!({"spec": {"drift": {"policy": "correct"}}}));
    fleets
        .patch("default", &PatchParams::default(), &correct)
        .await
        .unwrap();
    until("it is put right", async || {
        let workers: Vec<Value> = aws
            .boto("out = [[i['InstanceType'], [g['GroupId'] for g in i['SecurityGroups']], tags(i)['team']] for i in instances('pending', 'running') if tags(i).get('team')]")
            .await;
        let right = json!(["t3.large", [group], "web"]);
        (workers.len() == 3 && workers.iter().all(|w| *w == right)).then_some(())
    })
    .await;
    let ids = living(&aws.all().await);
    assert!(ids.contains(one.1) && !ids.contains(two.1));
    engine
        .until("a-web", "three again", complete(3, "v1.34.1"))
        .await;
    until("nothing drifts", async || {
        (drift(&engine).await == (Some(0), Vec::new())).then_some(())
    })
    .await;

    // The state is lost, and the lookup stands for another image: nothing is made, nothing goes, nothing rolls.
    engine.process.kill().await;
    tasks.shutdown().await;
    std::fs::rename(&data, dir.path().join("lost")).unwrap();
    publish(&aws, "1.34", IMAGES[2]).await;
    let (there, lost) = (aws.all().await, aws.front.calls().len());
    let engine = Engine::up_embedded(&url, &data, &args).await;
    engine
        .until(
            "a",
            "it says that its keys are gone",
            |c: Option<&Cluster>| {
                let status = c.and_then(|c| c.status.as_ref());
                let told = status.and_then(|s| {
                    condition::get(&s.conditions, condition::kind::CERTIFICATES_AVAILABLE)
                });
                told.is_some_and(|c| c.status == "False" && c.message.contains("--escrow-identity"))
            },
        )
        .await;
    engine.process.kill().await;
    let key = dir.path().join("identity");
    std::fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let with_key = [&args[..], &["--escrow-identity", key.to_str().unwrap()]].concat();
    let engine = Engine::up_embedded(&url, &data, &with_key).await;
    tasks.spawn(agent(engine.client.clone(), Arc::clone(&site)));
    engine
        .until("a-web", "all are back", complete(3, "v1.34.1"))
        .await;
    engine
        .until("a", "it is well", |c: Option<&Cluster>| {
            c.is_some_and(|c| is_done(c, "v1.34.1"))
        })
        .await;
    assert_eq!(aws.all().await, there);
    leads_to_control_plane(&aws, port).await;
    let (control_plane, workers) = parts(&aws).await;
    assert_eq!(aws.owned().await, [4, 4, 1, 1, 0]);

    // With consent the cluster goes in order, and nothing of it stays.
    let consent = documents(&next);
    let uid = Api::<Cluster>::namespaced(engine.client.clone(), "default")
        .get("a")
        .await
        .unwrap();
    let uid = uid.uid().unwrap();
    let consent = consent.replacen(
        "  name: a\n",
        &format!("  name: a\n  annotations: {{fleetwright.dev/allow-delete: {uid}}}\n"),
        1,
    );
    commit(&work, &consent);
    engine
        .until("a", "consent is there", |c: Option<&Cluster>| {
            c.is_some_and(|c| c.annotations().contains_key("fleetwright.dev/allow-delete"))
        })
        .await;
    let calls = aws.front.calls().split_off(lost);
    let acts = |c: &&Call| matches!(c.action.as_str(), "RunInstances" | "TerminateInstances");
    let acted: Vec<&Call> = calls.iter().filter(acts).collect();
    assert!(acted.is_empty(), "since the state was lost: {acted:#?}");
    let before = aws.front.calls().len();
    let held = hold_a_worker(&engine, true).await;
    commit(&work, "");
    engine
        .until(&held, "it waits", |m: Option<&Machine>| {
            let status = m.and_then(|m| m.status.as_ref());
            status.is_some_and(|s| deletes(&s.conditions, reason::WAITING_FOR_PRE_TERMINATE_HOOK))
        })
        .await;
    engine
        .until("a", "it waits for it", |c: Option<&Cluster>| {
            let status = c.and_then(|c| c.status.as_ref());
            status.is_some_and(|s| deletes(&s.conditions, reason::WAITING_FOR_WORKERS_DELETION))
        })
        .await;
    until("the others are gone", async || {
        (aws.owned().await == [2, 2, 1, 1, 0]).then_some(())
    })
    .await;
    let left = machines(&engine.client).await;
    let stays = |m: &&Machine| {
        fleetwright_core::cluster::is_control_plane(m) && m.metadata.deletion_timestamp.is_none()
    };
    assert_eq!(left.iter().filter(stays).count(), 1, "{left:#?}");
    hold_a_worker(&engine, false).await;
    engine
        .until("a", "it is gone", |c: Option<&Cluster>| c.is_none())
        .await;
    until("nothing is left", async || {
        (aws.owned().await == [0; 5]).then_some(())
    })
    .await;
    assert_eq!(machines(&engine.client).await.len(), 0);
    goes_in_order(
        &aws.front.calls().split_off(before),
        &control_plane,
        &workers,
    );
    assert_eq!(aws.all().await.len(), there.len(), "nothing was made");
}

/// Whether something is on its way out and waits for this.
fn deletes(conditions: &[Condition], reason: &str) -> bool {
    let deleting = condition::get(conditions, condition::kind::DELETING);
    deleting.is_some_and(|c| c.status == "True" && c.reason == reason)
}

/// Puts a hook on the first worker by which somebody else holds back the end of its instance, or takes it away; gives its name.
async fn hold_a_worker(engine: &Engine, hold: bool) -> String {
    let all = machines(&engine.client).await;
    let mut names = all.iter().map(|m| m.name_any());
    let name = names.find(|name| name.starts_with("a-web-")).unwrap();
    let hook = format!("{PREFIX_PRE_TERMINATE_HOOK}test");
    let patch = json!({"metadata": {"annotations": {hook: hold.then_some("")}}});
    let api = Api::<Machine>::namespaced(engine.client.clone(), "default");
    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    name
}

/// Workers end before the control plane, and the way to it goes last.
fn goes_in_order(calls: &[Call], control_plane: &BTreeSet<String>, workers: &BTreeSet<String>) {
    let ended = |ids: &BTreeSet<String>| -> Vec<usize> {
        let one = |id: &String| at(calls, "TerminateInstances", "InstanceId.1", id);
        ids.iter().map(one).collect()
    };
    let of = |action: &str| {
        let is = |c: &Call| c.done && c.action == action;
        let found: Vec<usize> = (0..calls.len()).filter(|n| is(&calls[*n])).collect();
        assert!(!found.is_empty(), "no {action} in {calls:#?}");
        found
    };
    let order = [
        ended(workers),
        ended(control_plane),
        of("DeleteLoadBalancer"),
        of("DeleteTargetGroup"),
    ];
    for step in order.windows(2) {
        let (last, first) = (step[0].iter().max(), step[1].iter().min());
        assert!(last < first, "{order:?} in {calls:#?}");
    }
}

/// No key is in the user data of instances; they fetch it, by IMDSv2.
async fn booted_without_secrets(aws: &Aws) {
    let facts: Value = aws
        .boto(
            "def plain(f):
    packed = f.get('encoding', '').startswith('gz')
    return gzip.decompress(base64.b64decode(f['content'])).decode() if packed else f['content']
i = instances('running')
data = [base64.b64decode(ec2.describe_instance_attribute(InstanceId=x['InstanceId'], Attribute='userData')['UserData']['Value']).decode() for x in i]
data = [d + ''.join(plain(f) for f in yaml.safe_load(d)['write_files']) for d in data]
out = dict(secret=[d for d in data if 'PRIVATE KEY' in d], fetch=[('aws-sigv4' in d) for d in data],
  imds=[x['MetadataOptions']['HttpTokens'] for x in i])",
        )
        .await;
    assert_eq!(facts["secret"], json!([]), "no key is in user data");
    assert_eq!(facts["fetch"], json!([true, true, true, true]));
    assert_eq!(
        facts["imds"],
        json!(["required", "required", "required", "required"])
    );
}

/// What AWS has not is told at its place, before anything is done.
async fn plan_tells_what_aws_has_not(engine: &Engine, dir: &Path, text: &str) {
    let next = dir.join("next");
    std::fs::create_dir_all(&next).unwrap();
    let (cluster, pool) = text.split_once("---\n").unwrap();
    let lookup = "imageLookup: {parameter: '/images/node-{kubernetesMinor}'}";
    let cluster = cluster.replace(lookup, "image: ami-00000000");
    let pool = pool.replace("t3.large", "t3.huge");
    std::fs::write(next.join("a.yaml"), format!("{cluster}---\n{pool}")).unwrap();
    let [by, place] = engine.connection();
    let mut plan = fleetwright(&["plan", next.to_str().unwrap(), by, place]);
    let plan = plan.output().await.unwrap();
    let said = String::from_utf8(plan.stderr).unwrap();
    assert_eq!(plan.status.code(), Some(1), "{said}");
    for part in [
        "a.yaml:23:20: control plane of default/a: spec.controlPlane.machines.template.spec.providerConfig.image: machines cannot be made: there is no image ami-00000000 here",
        "a.yaml:41:27: pool default/a-web: spec.template.spec.providerConfig.instanceType: machines cannot be made: there is no instance type t3.huge here",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

/// What `fleetwright drift` ends with, and what it finds.
async fn drift(engine: &Engine) -> (Option<i32>, Vec<Value>) {
    let [by, place] = engine.connection();
    let mut command = fleetwright(&["drift", "-o", "json", by, place]);
    let said = command.output().await.unwrap();
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(document["unknown"], json!([]), "{document}");
    let findings = document["findings"].as_array().unwrap().iter();
    let mut findings: Vec<Value> = findings
        .map(|f| {
            json!([
                f["object"]["name"],
                f["kind"],
                f["what"],
                f["wanted"],
                f["found"]
            ])
        })
        .collect();
    findings.sort_by_key(Value::to_string);
    (said.status.code(), findings)
}
