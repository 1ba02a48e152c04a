//! AWS as the tests of the whole see it, and what stands in for what runs on its instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use fleetwright_api::{Machine, MachineDeployment, ProviderAccount, condition};
use fleetwright_tests::{
    client_tokens::Front,
    emulators::{self, Emulator},
    etcd::Members,
    pki::Authority,
    tools::tool,
    workload::Workload,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use parking_lot::Mutex;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::kit::PATIENCE;

pub(crate) const REGION: &str = "eu-west-1";
/// Images that moto has.
pub(crate) const IMAGES: [&str; 3] = ["ami-03cf127a", "ami-12c6146b", "ami-1e749f67"];

/// Runs each line that it gets, which is JSON of a text of Python, and answers with a line of JSON.
const PYTHON: &str = "
import base64, boto3, gzip, json, sys, traceback, yaml
kw = dict(endpoint_url=sys.argv[1], region_name=sys.argv[2], aws_access_key_id='a', aws_secret_access_key='b')
ec2, ssm, elb, iam = (boto3.client(n, **kw) for n in ('ec2', 'ssm', 'elbv2', 'iam'))
def instances(*states):
    found = [i for r in ec2.describe_instances()['Reservations'] for i in r['Instances']]
    return [i for i in found if not states or i['State']['Name'] in states]
def tags(of):
    return {t['Key'].removeprefix('fleetwright.dev/'): t['Value'] for t in of.get('Tags', [])}
for line in sys.stdin:
    scope = dict(globals(), out=None)
    try:
        exec(json.loads(line), scope)
        said = dict(out=scope['out'])
    except Exception:
        said = dict(error=traceback.format_exc())
    print(json.dumps(said, default=str), flush=True)
";

struct Python {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// AWS with what people would do with the console or a script of theirs.
pub(crate) struct Aws {
    moto: Emulator,
    /// What the engine's calls come by.
    pub(crate) front: Front,
    python: tokio::sync::Mutex<Python>,
}

/// An instance as EC2 shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) machine: String,
    key: String,
    pub(crate) state: String,
    pub(crate) image: String,
}

impl Shown {
    pub(crate) fn lives(&self) -> bool {
        self.state != "terminated"
    }
}

/// The ids of those that live.
pub(crate) fn living(all: &[Shown]) -> BTreeSet<String> {
    let living = all.iter().filter(|i| i.lives());
    living.map(|i| i.id.clone()).collect()
}

impl Aws {
    /// With a profile of instances, `nodes`; `None` where an emulator is not installed and tests may be skipped for it.
    pub(crate) async fn start() -> Option<Self> {
        let program = tool("emulators-python")?;
        let moto = emulators::moto().await?;
        let mut process = Command::new(program)
            .args(["-c", PYTHON, moto.url(), REGION])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let python = Python {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()).lines(),
            _process: process,
        };
        let aws = Self {
            front: Front::start(moto.url(), Some("localhost")),
            moto,
            python: tokio::sync::Mutex::new(python),
        };
        aws.boto::<()>("iam.create_instance_profile(InstanceProfileName='nodes')")
            .await;
        Some(aws)
    }

    /// Runs lines of Python with clients `ec2`, `ssm`, `elb` and `iam`; gives what `out` is at their end.
    pub(crate) async fn boto<T: DeserializeOwned>(&self, lines: &str) -> T {
        let mut python = self.python.lock().await;
        let line = format!("{}\n", json!(lines));
        python.input.write_all(line.as_bytes()).await.unwrap();
        let said = python.output.next_line().await.unwrap().unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        let error = said["error"].as_str().unwrap_or_default();
        assert!(error.is_empty(), "{} of {lines}: {error}", self.moto.url());
        serde_json::from_value(said["out"].clone()).unwrap()
    }

    /// Every instance that there ever was: moto keeps those that have ended. No two were ever made for one key.
    pub(crate) async fn all(&self) -> Vec<Shown> {
        let mut all: Vec<Shown> = self
            .boto(
                "out = [dict(id=i['InstanceId'], machine=tags(i)['machine'], key=tags(i)['instance-key'], state=i['State']['Name'], image=i['ImageId']) for i in instances()]",
            )
            .await;
        all.sort();
        let keys: BTreeSet<&str> = all.iter().map(|i| i.key.as_str()).collect();
        assert_eq!(keys.len(), all.len(), "one instance for a key: {all:?}");
        assert!(!keys.contains(""), "{all:?}");
        all
    }

    /// Those that live, as machine to id.
    pub(crate) async fn running(&self) -> BTreeMap<String, String> {
        let all = self.all().await;
        let living: Vec<&Shown> = all.iter().filter(|i| i.lives()).collect();
        let named = living.iter().map(|i| (i.machine.clone(), i.id.clone()));
        let named: BTreeMap<String, String> = named.collect();
        assert_eq!(named.len(), living.len(), "one for a machine: {living:?}");
        named
    }

    /// How many instances that live, volumes, load balancers, target groups and parameters for machines there are. All but the last carry
    /// one cluster's key.
    pub(crate) async fn owned(&self) -> [usize; 5] {
        self.boto(
            "def told(found, arn):
    arns = [x[arn] for x in found]
    return elb.describe_tags(ResourceArns=arns)['TagDescriptions'] if arns else []
there = [instances('pending', 'running', 'stopping', 'stopped', 'shutting-down'), ec2.describe_volumes()['Volumes'],
  told(elb.describe_load_balancers()['LoadBalancers'], 'LoadBalancerArn'), told(elb.describe_target_groups()['TargetGroups'], 'TargetGroupArn')]
keys = [tags(x).get('cluster-key') for found in there for x in found]
assert None not in keys and len(set(keys)) <= 1, keys
out = [*(len(found) for found in there), len([p for p in ssm.describe_parameters()['Parameters'] if p['Name'].startswith('/fleetwright/')])]",
        )
        .await
    }

    /// The port of the one load balancer, and its targets.
    pub(crate) async fn balancer(&self) -> (Vec<u16>, BTreeSet<String>) {
        self.boto(
            "[b], [g] = elb.describe_load_balancers()['LoadBalancers'], elb.describe_target_groups()['TargetGroups']
listeners = elb.describe_listeners(LoadBalancerArn=b['LoadBalancerArn'])['Listeners']
leads = [a['TargetGroupArn'] for l in listeners for a in l['DefaultActions']]
assert leads == [g['TargetGroupArn']], leads
targets = elb.describe_target_health(TargetGroupArn=g['TargetGroupArn'])['TargetHealthDescriptions']
out = [[l['Port'] for l in listeners], [t['Target']['Id'] for t in targets]]",
        )
        .await
    }
}

/// What the instances of one cluster would run: the API of the cluster, with the authority that the engine made for it, the members of
/// its etcd, and its nodes.
pub(crate) struct Site {
    workload: Workload,
    etcd: tokio::sync::Mutex<Members>,
}

impl Site {
    /// The site of cluster `a`, as soon as its keys are there. `None` where there is no etcd and tests may be skipped for it.
    pub(crate) async fn serve(engine: &Client, port: u16, dir: &Path) -> Option<Arc<Self>> {
        let secrets = Api::<Secret>::namespaced(engine.clone(), "default");
        let authority = async |name: &str| {
            until(&format!("authority {name} is made"), async || {
                let secret = secrets.get_opt(name).await.unwrap()?;
                let text = |key: &str| {
                    let value = secret.data.as_ref()?.get(key)?;
                    String::from_utf8(value.0.clone()).ok()
                };
                Some(Authority::of(&text("tls.crt")?, &text("tls.key")?))
            })
            .await
        };
        let etcd = Members::new(authority("a-etcd").await, &dir.join("etcd"))?;
        let address = ([127, 0, 0, 1], port).into();
        let workload = Workload::of(authority("a-ca").await, address, "v1.33.4").await;
        Some(Arc::new(Self {
            workload,
            etcd: tokio::sync::Mutex::new(etcd),
        }))
    }

    /// What runs once an instance has started: a node, and before it what kubeadm makes on those of the control plane.
    async fn boot(&self, machine: &Machine) {
        let (Some(id), None) = (
            &machine.spec.provider_id,
            &machine.metadata.deletion_timestamp,
        ) else {
            return;
        };
        let (name, client) = (machine.name_any(), self.workload.client());
        let nodes = Api::<Node>::all(client);
        if nodes.get_opt(&name).await.unwrap().is_some() {
            return;
        }
        let version = machine.spec.content.version.clone().unwrap_or_default();
        if fleetwright_core::cluster::is_control_plane(machine) {
            self.join(&name, &version).await;
        }
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"providerID": id}});
        let node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
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

    /// A member of etcd with its pod, kubeadm's configuration, and an API server of this version.
    async fn join(&self, name: &str, version: &str) {
        let port = self.etcd.lock().await.join(name).await;
        let pod = format!("etcd-{name}");
        self.workload.forward(&pod, port);
        let client = self.workload.client();
        let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "labels": {"component": "etcd", "tier": "control-plane"}, "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": name, "containers": [{"name": "etcd", "image": "etcd"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let maps = Api::<ConfigMap>::namespaced(client, "kube-system");
        if maps.get_opt("kubeadm-config").await.unwrap().is_none() {
            let config = format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {version}\n"
            );
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubeadm-config"},
                "data": {"ClusterConfiguration": config},
            });
            let map = serde_json::from_value(map).unwrap();
            maps.create(&PostParams::default(), &map).await.unwrap();
        }
        self.workload.be(version);
    }

    /// What ran on the instance of a machine that is gone.
    async fn end(&self, machine: &Machine) {
        if fleetwright_core::cluster::is_control_plane(machine) {
            let name = machine.name_any();
            self.etcd.lock().await.kill(&name).await;
            let pods = Api::<Pod>::namespaced(self.workload.client(), "kube-system");
            let now = DeleteParams::default().grace_period(0);
            pods.delete(&format!("etcd-{name}"), &now).await.unwrap();
        }
    }

    /// The members of etcd, as the one of this machine knows them.
    pub(crate) async fn members(&self, machine: &str) -> BTreeSet<String> {
        let etcd = self.etcd.lock().await;
        let list = ["member", "list", "-w", "json"];
        let said = etcd.etcdctl(&[machine], &list).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let members = said["members"].as_array().unwrap().iter();
        members
            .map(|m| m["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The version that kubeadm's configuration names.
    pub(crate) async fn kubeadm(&self) -> String {
        let maps = Api::<ConfigMap>::namespaced(self.workload.client(), "kube-system");
        let map = maps.get("kubeadm-config").await.unwrap();
        map.data.unwrap()["ClusterConfiguration"].clone()
    }
}

/// Boots what an engine has instances of, and ends it with its machine, as long as this runs.
pub(crate) async fn agent(engine: Client, site: Arc<Site>) {
    let machines = Api::<Machine>::all(engine);
    let mut events = watcher::watcher(machines, watcher::Config::default())
        .default_backoff()
        .boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(machine) | watcher::Event::InitApply(machine)) => {
                site.boot(&machine).await;
            }
            Ok(watcher::Event::Delete(machine)) => site.end(&machine).await,
            _ => {}
        }
    }
}

/// The most Machines of the pool that there were at once, and the fewest available ones since all were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) most: usize,
    pub(crate) fewest: Option<usize>,
}

/// Watches pool `a-web` of three.
pub(crate) async fn observe(engine: Client, seen: Arc<Mutex<Bounds>>) {
    let mut there: BTreeMap<String, bool> = BTreeMap::new();
    let machines = Api::<Machine>::all(engine);
    let mut events = watcher::watcher(machines, watcher::Config::default())
        .default_backoff()
        .boxed();
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

/// Looks until there is something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
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

/// A pool that has all of so many machines, at this version.
pub(crate) fn complete(
    replicas: i32,
    version: &str,
) -> impl Fn(Option<&MachineDeployment>) -> bool + use<> {
    let version = version.to_owned();
    move |pool: Option<&MachineDeployment>| {
        pool.is_some_and(|p| {
            let status = p.status.as_ref();
            fleetwright_core::status::is_complete(p)
                && status.is_some_and(|s| s.available_replicas == replicas)
                && status.and_then(|s| s.version.as_deref()) == Some(&version)
        })
    }
}

/// The Machines of an engine.
pub(crate) async fn machines(engine: &Client) -> Vec<Machine> {
    let api = Api::<Machine>::all(engine.clone());
    let listed = api.list(&ListParams::default()).await;
    listed.unwrap().items
}

/// Lets the account allow another number of instances: what was refused for good is asked for again.
pub(crate) async fn touch_account(engine: &Client, instances: usize) {
    let accounts = Api::<ProviderAccount>::all(engine.clone());
    let patch = Patch::Merge(json!({"spec": {"quotas": {"instances": instances}}}));
    let params = PatchParams::default();
    accounts.patch("aws", &params, &patch).await.unwrap();
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// The account, and the Secret that it names.
pub(crate) fn admin(dir: &Path, endpoint: &str) -> PathBuf {
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
    file
}
