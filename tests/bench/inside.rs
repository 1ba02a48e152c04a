//! The API server within this process, as the engine calls it: no socket, no TLS; the CPU of a request alone.

use std::{path::Path, sync::Arc};

use fleetwright_api::{crds, random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_store::Store;
use http::Request;
use tokio::task::JoinSet;

use crate::{
    Args,
    api::{APPLY, JSON, MACHINES, MERGE, machine, name, status},
    process::Usage,
    table::Table,
};

/// Machines that the requests are about.
const OBJECTS: usize = 1000;
/// Requests of each kind; a get is so cheap that it needs more to show.
const WRITES: usize = 10_000;
const GETS: usize = 200_000;

/// Prints the figures.
pub(crate) async fn report(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let title = "API server in process, without a socket: CPU of all threads, µs a request";
    let head = ["store", "get", "patch status", "apply", "create"];
    let mut table = Table::new(title, &head);
    let dir = tempfile::tempdir_in(folder)?;
    let many = args.connections;
    let stores = [
        ("in memory".to_owned(), Store::memory(), 1),
        (
            "durable, one at a time".to_owned(),
            Store::open(dir.path().join("one.db"))?,
            1,
        ),
        (
            format!("durable, {many} at a time"),
            Store::open(dir.path().join("many.db"))?,
            many,
        ),
    ];
    for (what, store, at_a_time) in stores {
        let figures = measure(store, at_a_time).await?;
        let cells = figures.map(|us| format!("{us:.1}"));
        table.row([what].into_iter().chain(cells));
    }
    table.print();
    Ok(())
}

/// The CPU of a get, a status patch, an apply and a create, in microseconds.
async fn measure(store: Store, at_a_time: usize) -> anyhow::Result<[f64; 4]> {
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let server = ApiServer::new(store, options)?;
    let kinds = crds::all();
    let kinds = kinds.iter().map(serde_json::to_value);
    server
        .install_crds(&kinds.collect::<Result<Vec<_>, _>>()?)
        .await?;
    let client = server.client("default");
    let run = async |count, method, kind, of: fn(usize) -> (String, String)| {
        load(&client, at_a_time, count, (method, kind), of).await
    };
    let created = run(WRITES, "POST", JSON, |n| {
        (MACHINES.to_owned(), machine(n, false))
    })
    .await?;
    let patched = run(WRITES, "PATCH", MERGE, |n| {
        let at = format!("{MACHINES}/{}/status", name(n % OBJECTS));
        (at + "?fieldManager=bench-machine", status(n))
    })
    .await?;
    let applied = run(WRITES, "PATCH", APPLY, |n| {
        let at = format!("{MACHINES}/{}", name(n % OBJECTS));
        let changed = (n / OBJECTS).is_multiple_of(2);
        (
            at + "?fieldManager=bench-apply&force=true",
            machine(n % OBJECTS, changed),
        )
    })
    .await?;
    let got = run(GETS, "GET", JSON, |n| {
        (format!("{MACHINES}/{}", name(n % OBJECTS)), String::new())
    })
    .await?;
    Ok([got, patched, applied, created])
}

/// Sends `count` requests, made before, and gives the CPU of each, in microseconds.
async fn load(
    client: &kube::Client,
    at_a_time: usize,
    count: usize,
    (method, kind): (&'static str, &'static str),
    of: fn(usize) -> (String, String),
) -> anyhow::Result<f64> {
    let request = |n| {
        let (path, body) = of(n);
        let head = Request::builder().method(method).uri(path);
        head.header("content-type", kind).body(body.into_bytes())
    };
    let mut shares: Vec<Vec<Request<Vec<u8>>>> = Vec::with_capacity(at_a_time);
    for first in 0..at_a_time {
        let share = (first..count).step_by(at_a_time).map(request);
        shares.push(share.collect::<Result<_, _>>()?);
    }
    let before = Usage::of("self")?.cpu;
    let mut tasks = JoinSet::new();
    for share in shares {
        let client = client.clone();
        tasks.spawn(async move {
            for request in share {
                client.request_text(request).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok((Usage::of("self")?.cpu - before) * 1e6 / count as f64)
}
