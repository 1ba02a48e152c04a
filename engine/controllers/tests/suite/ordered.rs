//! Machines that somebody else makes: the test is whoever makes them, and writes what a person would with kubectl.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use fleetwright_api::{
    ExternalInstance, Machine, MachineDeployment, ProviderAccount, condition::kind,
    meta::FINALIZER_RELEASE, provider_account::ProviderAccountSpec,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    client::Body,
    runtime::watcher,
};
use serde_json::{Value, json};

use crate::kit::{Kit, World, is_available, of_machine};

/// A cluster whose nodes are of our making, and an account of whoever makes machines.
async fn start() -> Kit {
    let mut kit = Kit::start().await;
    kit.stop_controllers().await;
    kit.ward.give_boots();
    let spec = ProviderAccountSpec {
        provider: "external".into(),
        ..ProviderAccountSpec::default()
    };
    let accounts = Api::<ProviderAccount>::all(kit.client.clone());
    let account = ProviderAccount::new("metal", spec);
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    kit.start_controllers();
    kit.cluster("eu", "v1.34.1", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit
}

impl Kit {
    /// A pool whose machines are ordered.
    async fn ordered(&self, name: &str, replicas: i32, version: &str) {
        let config = json!({
            "apiVersion": "external.fleetwright.dev/v1alpha1", "kind": "ExternalMachineConfig", "account": "metal",
            "image": "noble", "hosts": {"memory": "64"},
        });
        let template = json!({"spec": {"version": version, "providerConfig": config}});
        let pool = serde_json::from_value(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment", "metadata": {"name": name},
            "spec": {"clusterName": "eu", "replicas": replicas, "template": template},
        }))
        .unwrap();
        let pools = self.api::<MachineDeployment>();
        pools.create(&PostParams::default(), &pool).await.unwrap();
    }

    async fn orders(&self) -> Vec<ExternalInstance> {
        let all = self
            .api::<ExternalInstance>()
            .list(&ListParams::default())
            .await;
        all.unwrap().items
    }

    /// What there is of user data, by its order's name.
    async fn user_data(&self, order: &ExternalInstance) -> Option<String> {
        let named = order.spec.user_data.as_ref().unwrap();
        let found = self.api::<Secret>().get_opt(&named.secret_name).await;
        let data = found.unwrap()?.data.unwrap();
        assert_eq!(data["format"].0, b"cloud-config");
        Some(String::from_utf8(data["value"].0.clone()).unwrap())
    }

    async fn say(&self, order: &ExternalInstance, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        let orders = self.api::<ExternalInstance>();
        let params = PatchParams::default();
        let said = orders
            .patch_status(&order.name_any(), &params, &patch)
            .await;
        said.unwrap();
    }

    /// Makes the machines that are ordered, each of which becomes a node.
    async fn make_ordered(&self) {
        for order in self.orders().await {
            let taken = order.status.as_ref().is_some_and(|s| s.state.is_some());
            if taken || order.metadata.deletion_timestamp.is_some() {
                continue;
            }
            self.say(&order, json!({"state": "Running", "instanceType": "r640"}))
                .await;
            join(&self.workload("eu").await, &order).await;
        }
    }

    /// Gives back what is to be given back; how many.
    async fn release(&self) -> usize {
        let mut released = 0;
        for order in self.orders().await {
            if order.metadata.deletion_timestamp.is_some() {
                assert_eq!(order.finalizers(), [FINALIZER_RELEASE]);
                let patch = Patch::Merge(json!({"metadata": {"finalizers": []}}));
                let (orders, params) = (self.api::<ExternalInstance>(), PatchParams::default());
                orders
                    .patch(&order.name_any(), &params, &patch)
                    .await
                    .unwrap();
                released += 1;
            }
        }
        released
    }

    /// Follows every change as whoever makes machines, until `done` says so.
    async fn until_made(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        loop {
            self.make_ordered().await;
            self.release().await;
            let seen = turns(&self.world);
            let news = |w: &World| (done(w) || turns(w) != seen).then(|| done(w));
            if self.until(what, news).await {
                return;
            }
        }
    }
}

/// What tells a moment at which there may be something to do from others: how far each machine is.
fn turns(world: &World) -> Vec<(String, Option<String>)> {
    let of = |m: &Machine| {
        let line = of_machine(m, kind::INFRASTRUCTURE_READY);
        let deleting = m.metadata.deletion_timestamp.is_some();
        let deleting = deleting.then(|| of_machine(m, kind::DELETING));
        (line, deleting)
    };
    world.machines.values().map(of).collect()
}

/// The node of what was ordered, ready, as a kubelet registers it.
async fn join(workload: &Client, order: &ExternalInstance) {
    let nodes = Api::<Node>::all(workload.clone());
    let (name, id, version) = (
        &order.spec.machine,
        &order.spec.provider_id,
        &order.spec.version,
    );
    if nodes.get_opt(name).await.unwrap().is_some() {
        return;
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"providerID": id},
    });
    let node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let ready =
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status = json!({"status": {"conditions": ready, "nodeInfo": {
        "kubeletVersion": version, "osImage": "", "architecture": "", "bootID": "", "containerRuntimeVersion": "",
        "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": "",
    }}});
    let patch = Patch::Merge(status);
    nodes
        .patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Whether the pool has so many machines, all of this version and available.
fn has(world: &World, count: usize, version: &str) -> bool {
    let machines = world.workers("web");
    let right =
        |m: &&&Machine| is_available(m) && m.spec.content.version.as_deref() == Some(version);
    machines.len() == count && machines.iter().filter(right).count() == count
}

async fn tokens(kit: &Kit) -> Vec<Secret> {
    let secrets = Api::<Secret>::namespaced(kit.workload("eu").await, "kube-system");
    let all = secrets.list(&ListParams::default()).await.unwrap().items;
    let is_token = |s: &Secret| s.type_.as_deref() == Some("bootstrap.kubernetes.io/token");
    all.into_iter().filter(is_token).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_ordered_rolled_and_given_back() {
    let mut kit = start().await;
    kit.ordered("web", 2, "v1.33.2").await;
    kit.until("both wait to be made", |w| {
        let machines = w.workers("web");
        let wait = |m: &&Machine| {
            of_machine(m, kind::INFRASTRUCTURE_READY).contains("nobody has taken up")
        };
        (machines.iter().filter(|m| wait(m)).count() == 2).then_some(())
    })
    .await;
    let orders = kit.orders().await;
    assert_eq!(orders.len(), 2);
    for order in &orders {
        assert_eq!(order.spec.version, "v1.33.2");
        assert!(kit.user_data(order).await.unwrap().contains("bootstrap.sh"));
    }
    assert_eq!(tokens(&kit).await.len(), 2);
    // Nothing is left of what they joined by, also where nobody has said yet that they run.
    for order in &orders {
        join(&kit.workload("eu").await, order).await;
    }
    kit.until("both have joined", |w| {
        let joined = |m: &&Machine| m.status.as_ref().is_some_and(|s| s.node_ref.is_some());
        (w.workers("web").iter().filter(|m| joined(m)).count() == 2).then_some(())
    })
    .await;
    for order in &orders {
        assert_eq!(kit.user_data(order).await, None);
    }
    assert_eq!(tokens(&kit).await.len(), 0);
    kit.until_made("the pool serves", |w| has(w, 2, "v1.33.2"))
        .await;
    for order in &orders {
        assert_eq!(kit.user_data(order).await, None);
    }
    assert_eq!(tokens(&kit).await.len(), 0);

    let next = json!({"spec": {"template": {"spec": {"version": "v1.34.1"}}}});
    kit.patch::<MachineDeployment>("web", next).await;
    kit.until_made("the pool is rolled", |w| has(w, 2, "v1.34.1"))
        .await;
    let versions = kit.orders().await.into_iter().map(|o| o.spec.version);
    assert!(versions.eq(["v1.34.1", "v1.34.1"]));

    let pools = kit.api::<MachineDeployment>();
    pools.delete("web", &DeleteParams::default()).await.unwrap();
    kit.until("both wait to be given back", |w| {
        let waits = |m: &&Machine| of_machine(m, kind::DELETING).contains("given it back");
        (w.workers("web").iter().filter(|m| waits(m)).count() == 2).then_some(())
    })
    .await;
    assert_eq!(kit.release().await, 2);
    kit.until("nothing is left", |w| {
        w.workers("web").is_empty().then_some(())
    })
    .await;
    assert_eq!(kit.orders().await.len(), 0);
    let nodes = kit.nodes("eu").await;
    assert!(nodes.iter().all(|n| !n.name_any().starts_with("web")));
    kit.stop().await;
}

/// A client whose first answer to an order is lost, and how many orders were sent.
fn forgetful(inner: Client, sent: Arc<AtomicUsize>) -> Client {
    let lost = Arc::new(AtomicBool::new(false));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (inner, lost, sent) = (inner.clone(), Arc::clone(&lost), Arc::clone(&sent));
        async move {
            let orders = request.method() == http::Method::POST
                && request.uri().path().ends_with("/externalinstances");
            let answer = inner.send(request).await.map_err(tower::BoxError::from)?;
            if orders {
                sent.fetch_add(1, Ordering::SeqCst);
                if !lost.swap(true, Ordering::SeqCst) {
                    return Err(tower::BoxError::from(std::io::Error::other("cut off")));
                }
            }
            Ok(answer)
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_makes_no_second_order_and_a_restart_lets_the_token_live_on() {
    let mut kit = start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let client = forgetful(kit.client.clone(), Arc::clone(&sent));
    kit.restart_over(client).await;
    kit.ordered("web", 1, "v1.34.1").await;
    let waits = |w: &World| {
        let machine = *w.workers("web").first()?;
        let line = of_machine(machine, kind::INFRASTRUCTURE_READY);
        line.contains("nobody has taken up").then_some(())
    };
    kit.until("it waits to be made", waits).await;
    assert_eq!(
        (kit.orders().await.len(), sent.load(Ordering::SeqCst)),
        (1, 1)
    );

    // The engine starts anew: the same token goes on. Once it has ended, the order gets another.
    let first = kit.orders().await.remove(0);
    let given = kit.user_data(&first).await.unwrap();
    kit.restart_over(kit.client.clone()).await;
    kit.ordered("next", 1, "v1.34.1").await;
    kit.until("the next is ordered", |w| {
        let machine = *w.workers("next").first()?;
        of_machine(machine, kind::INFRASTRUCTURE_READY)
            .contains("nobody")
            .then_some(())
    })
    .await;
    assert_eq!(kit.user_data(&first).await.unwrap(), given);
    assert_eq!(tokens(&kit).await.len(), 2);
    kit.stop_controllers().await;
    let secrets = Api::<Secret>::namespaced(kit.workload("eu").await, "kube-system");
    for token in tokens(&kit).await {
        let params = DeleteParams::default();
        secrets.delete(&token.name_any(), &params).await.unwrap();
    }
    kit.start_controllers();
    let mut events = watcher::watcher(secrets, watcher::Config::default()).boxed();
    while tokens(&kit).await.len() < 2 {
        events.next().await.unwrap().unwrap();
    }
    kit.until_made("both serve", |w| {
        let all = ["web", "next"].map(|p| w.workers(p));
        all.iter().flatten().filter(|m| is_available(m)).count() == 2
    })
    .await;
    assert_eq!(kit.orders().await.len(), 2);

    // An order that nobody took up is withdrawn: there is nothing to give back.
    kit.ordered("late", 1, "v1.34.1").await;
    kit.until("the last is ordered", |w| {
        let machine = *w.workers("late").first()?;
        of_machine(machine, kind::INFRASTRUCTURE_READY)
            .contains("nobody")
            .then_some(())
    })
    .await;
    let pools = kit.api::<MachineDeployment>();
    pools
        .delete("late", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("it is withdrawn", |w| {
        w.workers("late").is_empty().then_some(())
    })
    .await;
    let left = kit.orders().await;
    assert_eq!(left.len(), 2);
    for order in left {
        assert_eq!(kit.user_data(&order).await, None);
    }
    kit.stop().await;
}
