//! The API server alone: durable writes, reads, lists, watches, over HTTPS.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    Args,
    load::{self, Load},
    process::Process,
    table::{Table, percentile, say},
    wire::Target,
};

const TOKEN: &str = "benchmark";
/// Longest time for one kind of load.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of data in each ConfigMap.
const PAYLOAD: usize = 1024;
pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const MACHINES: &str = "/apis/fleetwright.dev/v1alpha1/namespaces/default/machines";

/// Starts an API server alone that keeps its state in `dir`.
pub(crate) async fn start(dir: &Path) -> anyhow::Result<(Process, Target)> {
    let (data, tokens) = (dir.join("data"), dir.join("tokens"));
    std::fs::write(&tokens, format!("{TOKEN},admin,1,\"system:masters\"\n"))?;
    let paths = [data.display().to_string(), tokens.display().to_string()];
    let arguments = [
        "apiserver",
        "--data",
        &paths[0],
        "--token-auth-file",
        &paths[1],
    ];
    let server = Process::start(&arguments, "kubeconfig").await?;
    let target = Target::new(server.told("API")?, &data.join("pki/ca.crt"), TOKEN)?;
    Ok((server, target))
}

/// Prints the API server's figures.
pub(crate) async fn report(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(folder)?;
    let (server, target) = start(dir.path()).await?;
    let title = format!(
        "API server over HTTPS, {} connections, durable",
        args.connections
    );
    let mut table = Table::new(title, &Load::HEAD);
    let mut row = |name: &str, load: &Load| table.row(load.row(name));
    let at = |connections, count, want| (connections, count, want);
    let run = async |(connections, count, want),
                     make: Box<dyn Fn(usize) -> Vec<u8> + Send + Sync>| {
        load::run((&target, &server), connections, count, PATIENCE, want, make).await
    };

    let (objects, many) = (args.objects, args.connections);
    let to = target.clone();
    let create = move |n| to.request("POST", MAPS, JSON, &config_map(n, 0, PAYLOAD));
    let created = run(at(many, objects, 201), Box::new(create)).await?;
    row("create ConfigMap (1 KiB)", &created);
    let filled = server.usage()?.resident;

    let there = created.count.max(1);
    let to = target.clone();
    let get = move |n| to.request("GET", &format!("{MAPS}/{}", name(n % there)), JSON, "");
    row(
        "get ConfigMap",
        &run(at(many, objects * 4, 200), Box::new(get)).await?,
    );

    let to = target.clone();
    let apply = move |n| {
        let path = format!("{MAPS}/{}?fieldManager=bench&force=true", name(n % there));
        to.request(
            "PATCH",
            &path,
            APPLY,
            &config_map(n % there, 1 + n / there, PAYLOAD),
        )
    };
    row(
        "apply ConfigMap",
        &run(at(many, objects, 200), Box::new(apply)).await?,
    );

    let machines = objects.div_ceil(2);
    let to = target.clone();
    let create = move |n| to.request("POST", MACHINES, JSON, &machine(n, false));
    let made = run(at(many, machines, 201), Box::new(create)).await?;
    row("create Machine", &made);
    let there = made.count.max(1);
    let to = target.clone();
    let patch = move |n| {
        let path = format!(
            "{MACHINES}/{}/status?fieldManager=bench-machine",
            name(n % there)
        );
        to.request("PATCH", &path, MERGE, &status(n))
    };
    row(
        "patch Machine status",
        &run(at(many, machines, 200), Box::new(patch)).await?,
    );
    let to = target.clone();
    let apply = move |n| {
        let path = format!(
            "{MACHINES}/{}?fieldManager=bench-apply&force=true",
            name(n % there)
        );
        to.request("PATCH", &path, APPLY, &machine(n % there, true))
    };
    row(
        "apply Machine",
        &run(at(many, machines, 200), Box::new(apply)).await?,
    );

    let to = target.clone();
    let list = move |_| to.request("GET", MAPS, JSON, "");
    let listed = run(at(1, 10, 200), Box::new(list)).await?;
    row(&format!("list of {} ConfigMaps", created.count), &listed);
    table.print();

    let usage = server.usage()?;
    say(format_args!(
        "  memory: {filled:.0} MiB with {} ConfigMaps, {:.0} MiB with {} Machines more, at most {:.0} MiB",
        created.count, usage.resident, made.count, usage.peak
    ));
    watchers(args.watchers, &target, &server).await?;
    server.end().await
}

/// One write, seen by many watchers, each on a connection of its own.
async fn watchers(count: usize, target: &Target, server: &Process) -> anyhow::Result<()> {
    const ROUNDS: usize = 20;
    let path = "/api/v1/namespaces/kube-system/configmaps";
    let mut writer = target.connect().await?;
    let first = target.request("POST", path, JSON, &config_map(0, 0, PAYLOAD));
    writer.exchange(&first).await?;
    let watch = target.request(
        "GET",
        &format!("{path}?watch=1&resourceVersion=0"),
        JSON,
        "",
    );
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = target.connect().await?;
        connection.begin(&watch).await?;
        connection.until(b"\"ADDED\"").await?;
        open.push(connection);
    }
    let (mut slowest, mut middle) = (Vec::new(), Vec::new());
    let before = server.usage()?.cpu;
    for round in 0..ROUNDS {
        let mark = format!("round-{round}-of-the-watch");
        let body = json!({"data": {"mark": mark}}).to_string();
        let request = target.request("PATCH", &format!("{path}/{}", name(0)), MERGE, &body);
        let mut seen = JoinSet::new();
        let begun = Instant::now();
        for mut connection in open.drain(..) {
            let mark = mark.clone();
            seen.spawn(async move {
                tokio::time::timeout(PATIENCE, connection.until(mark.as_bytes())).await??;
                anyhow::Ok((begun.elapsed().as_secs_f64() * 1e3, connection))
            });
        }
        writer.exchange(&request).await?;
        let mut took = Vec::with_capacity(count);
        while let Some(done) = seen.join_next().await {
            let (ms, connection) = done??;
            took.push(ms);
            open.push(connection);
        }
        took.sort_by(f64::total_cmp);
        middle.push(percentile(&took, 50));
        slowest.push(percentile(&took, 100));
    }
    let cpu = (server.usage()?.cpu - before) * 1e6 / (ROUNDS * count) as f64;
    slowest.sort_by(f64::total_cmp);
    middle.sort_by(f64::total_cmp);
    say(format_args!(
        "  one write to {count} watchers: half have it after {:.1} ms, all after {:.1} ms (medians of {ROUNDS}); server CPU {cpu:.0} µs a watcher; {:.0} MiB",
        percentile(&middle, 50),
        percentile(&slowest, 50),
        server.usage()?.resident
    ));
    Ok(())
}

pub(crate) fn name(n: usize) -> String {
    format!("object-{n:06}")
}

pub(crate) fn config_map(n: usize, change: usize, bytes: usize) -> String {
    let text = format!("{change:08}").repeat(bytes / 8);
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(n), "labels": {"app": "bench"}}, "data": {"text": text}})
        .to_string()
}

/// A Machine as a set makes it, or what an apply would change of it.
pub(crate) fn machine(n: usize, changed: bool) -> String {
    let label = if changed { "changed" } else { "new" };
    json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "Machine",
        "metadata": {"name": name(n), "finalizers": ["machine.fleetwright.dev/finalizer"],
            "labels": {"fleetwright.dev/cluster-name": "bench", "fleetwright.dev/set-name": "bench-a", "state": label},
            "annotations": {"fleetwright.dev/revision": "1"}},
        "spec": {"clusterName": "bench", "version": "v1.33.2", "failureDomain": "eu-a",
            "deletion": {"nodeDrainTimeoutSeconds": 600},
            "taints": [{"key": "dedicated", "value": "bench", "effect": "NoSchedule"}],
            "providerConfig": {"apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig", "account": "sim-eu", "bootSeconds": 0}}})
    .to_string()
}

/// A status such as the machine controller writes when an instance runs.
pub(crate) fn status(n: usize) -> String {
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Ready", "message": format!("seen in pass {n}"),
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    let kinds = [
        "Ready",
        "Available",
        "InfrastructureReady",
        "NodeReady",
        "NodeHealthy",
        "UpToDate",
        "Deleting",
    ];
    let conditions: Vec<_> = kinds.into_iter().map(condition).collect();
    json!({"status": {"phase": "Running", "observedGeneration": 1, "nodeRef": {"name": name(n)},
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "conditions": conditions}})
    .to_string()
}
