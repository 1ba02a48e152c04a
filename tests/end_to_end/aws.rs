//! A cluster on AWS, from a commit to its end. What stands in: moto for AWS; for the API of the cluster that its instances would serve, an
//! API server of ours with the cluster's own authority; for what runs on instances, an agent that registers a node for each Machine
//! with an instance. moto's instances run nothing.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use fleetwright_api::{Cluster, Machine, MachineDeployment, condition};
use fleetwright_tests::{
    emulators::{self, Emulator},
    pki::Authority,
    tools::tool,
    workload::Workload,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinSet};

use age::secrecy::ExposeSecret as _;

use crate::{
    forge::{commit, git},
    kit::{Engine, PATIENCE, fleetwright},
};

const REGION: &str = "eu-west-1";

/// What people would do with the console or a script of theirs.
struct Aws {
    moto: Emulator,
    python: std::path::PathBuf,
}

impl Aws {
    async fn start() -> Option<Self> {
        let python = tool("emulators-python")?;
        let moto = emulators::moto().await?;
        Some(Self { moto, python })
    }

    /// Runs lines of Python with clients `ec2`, `ssm`, `elb` and `iam`; gives what `out` is at their end.
    async fn boto(&self, lines: &str) -> Value {
        let program = format!(
            "import boto3, json
kw = dict(endpoint_url='{}', region_name='{REGION}', aws_access_key_id='a', aws_secret_access_key='b')
ec2, ssm, elb, iam = (boto3.client(n, **kw) for n in ('ec2', 'ssm', 'elbv2', 'iam'))
def instances(*states):
    found = ec2.describe_instances(Filters=[dict(Name='instance-state-name', Values=list(states))])
    return [i for r in found['Reservations'] for i in r['Instances']]
out = None
{lines}
print(json.dumps(out, default=str))",
            self.moto.url()
        );
        let run = Command::new(&self.python).args(["-c", &program]).output();
        let ran = run.await.unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{lines}: {errors}");
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    /// Instances that run, as tag `fleetwright.dev/machine` to id.
    async fn running(&self) -> BTreeMap<String, String> {
        let found = self
            .boto(
                "out = {t['Value']: i['InstanceId'] for i in instances('pending', 'running') for t in i['Tags'] if t['Key'] == 'fleetwright.dev/machine'}",
            )
            .await;
        serde_json::from_value(found).unwrap()
    }
}

/// Registers a ready node for each Machine whose instance has an id, and takes it away with the Machine.
async fn agent(engine: Client, workload: Client) {
    let machines = Api::<Machine>::all(engine);
    let nodes = Api::<Node>::all(workload);
    let mut events = watcher::watcher(machines, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(machine) | watcher::Event::InitApply(machine)) = event else {
            continue;
        };
        let (Some(id), None) = (
            &machine.spec.provider_id,
            &machine.metadata.deletion_timestamp,
        ) else {
            continue;
        };
        let name = machine.name_any();
        if nodes.get_opt(&name).await.unwrap().is_some() {
            continue;
        }
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"providerID": id}});
        let node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let version = machine.spec.content.version.unwrap_or_default();
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {
            "conditions": [ready],
            "nodeInfo": {"kubeletVersion": version, "osImage": "", "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": ""},
        }});
        nodes
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }
}

/// The most Machines of the pool that there were at once, and the fewest available ones since all were.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    most: usize,
    fewest: Option<usize>,
}

async fn observe(engine: Client, seen: Arc<Mutex<Bounds>>) {
    let mut there: BTreeMap<String, bool> = BTreeMap::new();
    let machines = Api::<Machine>::all(engine);
    let mut events = watcher::watcher(machines, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(m) | watcher::Event::InitApply(m)) => {
                if m.name_any().starts_with("a-web-") {
                    let status = m.status.as_ref();
                    let available = status.is_some_and(|s| {
                        condition::is_true(&s.conditions, condition::kind::AVAILABLE)
                    });
                    there.insert(m.name_any(), available);
                }
            }
            Ok(watcher::Event::Delete(m)) => drop(there.remove(&m.name_any())),
            _ => continue,
        }
        let mut seen = seen.lock();
        let available = there.values().filter(|available| **available).count();
        seen.most = seen.most.max(there.len());
        if available >= 3 || seen.fewest.is_some() {
            seen.fewest = Some(seen.fewest.unwrap_or(3).min(available));
        }
    }
}

fn documents(port: u16, image: &str, workers: &str, groups: &str) -> String {
    let machine = format!(
        "apiVersion: aws.fleetwright.dev/v1alpha1
            kind: AWSMachineConfig
            account: aws
            instanceType: t3.large
            image: {image}
            os: ubuntu-24.04
            iamInstanceProfile: nodes"
    );
    format!(
        "apiVersion: fleetwright.dev/v1alpha1
kind: Cluster
metadata:
  name: a
spec:
  version: v1.34.1
  providerConfig:
    apiVersion: aws.fleetwright.dev/v1alpha1
    kind: AWSClusterConfig
    account: aws
    controlPlaneEndpoint: {{host: 127.0.0.1, port: {port}}}
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
      version: {workers}
      providerConfig:
            {machine}
            tags: {{team: web}}
            securityGroups: [{groups}]
"
    )
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            // An emulator tells nobody of a change.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    seen.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"))
}

/// The cluster's API as its first instance would serve it: with the authority that the engine made for it.
async fn serve(engine: &Client, port: u16) -> Workload {
    let secrets = Api::<Secret>::namespaced(engine.clone(), "default");
    let authority = until("the cluster's authority is made", async || {
        let secret = secrets.get_opt("a-ca").await.unwrap()?;
        let text = |key: &str| {
            let value = secret.data.as_ref()?.get(key)?;
            String::from_utf8(value.0.clone()).ok()
        };
        Some(Authority::of(&text("tls.crt")?, &text("tls.key")?))
    })
    .await;
    Workload::of(authority, ([127, 0, 0, 1], port).into(), "v1.34.1").await
}

fn complete(version: &str) -> impl Fn(Option<&MachineDeployment>) -> bool + use<> {
    let version = version.to_owned();
    move |pool: Option<&MachineDeployment>| {
        pool.is_some_and(|p| {
            fleetwright_core::status::is_complete(p)
                && p.status.as_ref().and_then(|s| s.available_replicas.into()) == Some(3)
                && p.status.as_ref().and_then(|s| s.version.as_deref()) == Some(&version)
        })
    }
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
    let image = "ami-03cf127a";
    let group = aws
        .boto("iam.create_instance_profile(InstanceProfileName='nodes')\nout = ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']")
        .await;
    let group = group.as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let (work, data) = (dir.path().join("work"), dir.path().join("data"));
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let admin = admin(dir.path(), aws.moto.url());
    let escrow = dir.path().join("escrow");
    commit(&work, &documents(port, image, "v1.33.4", &group));
    let url = format!("file://{}/fleet.git", dir.path().display());
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let args = [
        "--branch",
        "main",
        "--interval",
        "1",
        "--admin",
        &admin,
        "--escrow",
        escrow.to_str().unwrap(),
        "--escrow-recipient",
        &recipient,
    ];
    let engine = Engine::up_embedded(&url, &data, &args).await;
    let workload = serve(&engine.client, port).await;
    let mut tasks = JoinSet::new();
    let bounds = Arc::new(Mutex::new(Bounds::default()));
    tasks.spawn(agent(engine.client.clone(), workload.client()));
    tasks.spawn(observe(engine.client.clone(), Arc::clone(&bounds)));

    // From the commit to three nodes.
    engine
        .until("a-web", "three nodes", complete("v1.33.4"))
        .await;
    let first = aws.running().await;
    assert_eq!(first.len(), 4, "{first:?}");
    let escrowed = std::fs::read_dir(&escrow).unwrap().count();
    assert_eq!(escrowed, 1, "the keys are in escrow");
    let facts = aws
        .boto(
            "import base64, gzip, yaml
def plain(f):
    packed = f.get('encoding', '').startswith('gz')
    return gzip.decompress(base64.b64decode(f['content'])).decode() if packed else f['content']
i = instances('running')
data = [base64.b64decode(ec2.describe_instance_attribute(InstanceId=x['InstanceId'], Attribute='userData')['UserData']['Value']).decode() for x in i]
data = [d + ''.join(plain(f) for f in yaml.safe_load(d)['write_files']) for d in data]
out = dict(secret=[d for d in data if 'PRIVATE KEY' in d], fetch=[('aws-sigv4' in d) for d in data],
  imds=[x['MetadataOptions']['HttpTokens'] for x in i], kept=len(ssm.describe_parameters()['Parameters']))",
        )
        .await;
    assert_eq!(facts["secret"], json!([]), "no key is in user data");
    assert_eq!(facts["fetch"], json!([true, true, true, true]));
    assert_eq!(
        facts["imds"],
        json!(["required", "required", "required", "required"])
    );
    assert_eq!(
        facts["kept"], 0,
        "nothing stays of what they booted from: {facts}"
    );

    // What AWS has not is told at its place, before anything is done.
    let next = dir.path().join("next");
    std::fs::create_dir_all(&next).unwrap();
    let text = documents(port, "ami-00000000", "v1.33.4", &group);
    let (cluster, pool) = text.split_once("---\n").unwrap();
    let pool = pool
        .replace("t3.large", "t3.huge")
        .replace("ami-00000000", image);
    std::fs::write(next.join("a.yaml"), format!("{cluster}---\n{pool}")).unwrap();
    let [by, place] = engine.connection();
    let mut plan = fleetwright(&["plan", next.to_str().unwrap(), by, place]);
    let plan = plan.output().await.unwrap();
    let said = String::from_utf8(plan.stderr).unwrap();
    assert_eq!(plan.status.code(), Some(1), "{said}");
    for part in [
        "a.yaml:22:20: control plane of default/a: spec.controlPlane.machines.template.spec.providerConfig.image: machines cannot be made: there is no image ami-00000000 here",
        "a.yaml:41:27: pool default/a-web: spec.template.spec.providerConfig.instanceType: machines cannot be made: there is no instance type t3.huge here",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }

    // A version bump rolls it under its bounds.
    commit(&work, &documents(port, image, "v1.34.1", &group));
    engine.until("a-web", "rolled", complete("v1.34.1")).await;
    let second = aws.running().await;
    assert_eq!(second.len(), 4);
    let kept = second
        .iter()
        .filter(|(name, id)| first.get(*name) == Some(*id));
    assert_eq!(
        kept.count(),
        1,
        "all workers are others: {first:?} {second:?}"
    );
    let seen = *bounds.lock();
    assert_eq!((seen.most, seen.fewest), (4, Some(3)), "{seen:?}");

    // What somebody changes behind its back is told, and put right where the Fleet wants that.
    let worker = second.iter().find(|(name, _)| name.starts_with("a-web-"));
    let (machine, id) = worker.unwrap();
    aws.boto(&format!(
        "ec2.create_tags(Resources=['{id}'], Tags=[dict(Key='team', Value='other')])"
    ))
    .await;
    engine
        .until(machine, "drift is told", |m: Option<&Machine>| {
            let drift = m.and_then(|m| m.status.as_ref()).map(|s| s.drift.len());
            drift.is_some_and(|n| n > 0)
        })
        .await;
    let fleets = Api::<fleetwright_api::Fleet>::namespaced(engine.client.clone(), "default");
    let correct = Patch::Merge(json!({"spec": {"drift": {"policy": "correct"}}}));
    fleets
        .patch("default", &PatchParams::default(), &correct)
        .await
        .unwrap();
    until("it is put right", async || {
        let team = aws
            .boto(&format!("out = [t['Value'] for t in ec2.describe_tags(Filters=[dict(Name='resource-id', Values=['{id}']), dict(Name='key', Values=['team'])])['Tags']]"))
            .await;
        (team == json!(["web"])).then_some(())
    })
    .await;

    // The state is lost: nothing is made, nothing goes, nothing rolls.
    engine.process.kill().await;
    std::fs::rename(&data, dir.path().join("lost")).unwrap();
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
    tasks.spawn(agent(engine.client.clone(), workload.client()));
    engine
        .until("a-web", "all are back", complete("v1.34.1"))
        .await;
    assert_eq!(aws.running().await, second);

    // With consent the cluster goes, and nothing of it stays.
    let consent = documents(port, image, "v1.34.1", &group);
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
    commit(&work, "");
    engine
        .until("a", "it is gone", |c: Option<&Cluster>| c.is_none())
        .await;
    until("nothing is left", async || {
        let left = aws
            .boto(
                "out = [len(instances('pending', 'running', 'stopping', 'shutting-down')), len(ec2.describe_volumes()['Volumes']),
  len(elb.describe_load_balancers()['LoadBalancers']), len(elb.describe_target_groups()['TargetGroups']), len(ssm.describe_parameters()['Parameters'])]",
            )
            .await;
        (left == json!([0, 0, 0, 0, 0])).then_some(())
    })
    .await;
    let machines = Api::<Machine>::all(engine.client.clone());
    assert_eq!(
        machines
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        0
    );
}

/// The account, and the Secret that it names.
fn admin(dir: &Path, endpoint: &str) -> String {
    let file = dir.join("admin.yaml");
    let text = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: aws, namespace: default}}
stringData: {{accessKeyID: a, secretAccessKey: b}}
---
apiVersion: fleetwright.dev/v1alpha1
kind: ProviderAccount
metadata: {{name: aws}}
spec:
  provider: aws
  region: {REGION}
  endpoint: {endpoint}
  credentialsRef: {{namespace: default, name: aws}}
"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}
