//! The API server with many objects: its memory, its start, and whether a write costs more than with few.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Args,
    api::{self, JSON, MAPS, MERGE, config_map, name},
    load::{self, Load},
    process::Process,
    table::{Table, say},
    wire::Target,
};

/// Longest time for one kind of load.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes of data in each object, which its metadata makes 2 KB.
const PAYLOAD: usize = 1704;
/// Objects with which a write is measured first.
const FEW: usize = 1000;
/// Writes measured.
const WRITES: usize = 10_000;
/// How far apart in the order of keys two writes are that follow each other; prime, so that all objects get their turn.
const STRIDE: usize = 7919;

/// Prints the figures.
pub(crate) async fn report(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(folder)?;
    let (server, target) = api::start(dir.path()).await?;
    let empty = server.usage()?.resident;
    let many = args.many.max(FEW + 2 * WRITES);
    let title = format!(
        "Few and many objects of 2 KB, {} connections, durable",
        args.connections
    );
    let mut table = Table::new(title, &Load::HEAD);
    let run = async |count, want, make: Box<dyn Fn(usize) -> Vec<u8> + Send + Sync>| {
        load::run(
            (&target, &server),
            args.connections,
            count,
            PATIENCE,
            want,
            make,
        )
        .await
    };
    let create = |from: usize| {
        let to = target.clone();
        Box::new(move |n| to.request("POST", MAPS, JSON, &config_map(from + n, 0, PAYLOAD)))
    };
    let patch = |objects: usize| {
        let to = target.clone();
        Box::new(move |n: usize| {
            let path = format!("{MAPS}/{}", name(n * STRIDE % objects));
            let text = format!("{n:08}").repeat(PAYLOAD / 8);
            let body = json!({"data": {"text": text}}).to_string();
            to.request("PATCH", &path, MERGE, &body)
        })
    };

    run(FEW, 201, create(0)).await?;
    let patched_few = run(WRITES, 200, patch(FEW)).await?;
    table.row(patched_few.row(&format!("patch one of {FEW}")));
    let created_few = run(WRITES, 201, create(FEW)).await?;
    table.row(created_few.row(&format!("create after {FEW}")));
    run(many - FEW - 2 * WRITES, 201, create(FEW + WRITES)).await?;
    let created_many = run(WRITES, 201, create(many - WRITES)).await?;
    table.row(created_many.row(&format!("create up to {many}")));
    let filled = server.usage()?;
    let patched_many = run(WRITES, 200, patch(many)).await?;
    table.row(patched_many.row(&format!("patch one of {many}")));
    table.print();
    say(format_args!(
        "  with many instead of few a create costs {:.2} times the CPU, a patch {:.2} times",
        created_many.cpu_us / created_few.cpu_us,
        patched_many.cpu_us / patched_few.cpu_us
    ));
    say(format_args!(
        "  memory: {empty:.0} MiB empty, {:.0} MiB with {many} objects (at most {:.0} MiB), {:.0} MiB after the patches",
        filled.resident,
        filled.peak,
        server.usage()?.resident
    ));
    server.end().await?;

    let begun = Instant::now();
    let (server, target) = api::start(dir.path()).await?;
    answers(&target, &server, many).await?;
    let took = begun.elapsed().as_secs_f64();
    let usage = server.usage()?;
    say(format_args!(
        "  started again with {many} objects: first answer after {took:.2} s, {:.2} s of CPU; {:.0} MiB, at most {:.0} MiB",
        usage.cpu, usage.resident, usage.peak
    ));
    server.end().await
}

/// Gets the last object.
async fn answers(target: &Target, server: &Process, many: usize) -> anyhow::Result<()> {
    let to = target.clone();
    let get = move |_| to.request("GET", &format!("{MAPS}/{}", name(many - 1)), JSON, "");
    load::run((target, server), 1, 1, PATIENCE, 200, get).await?;
    Ok(())
}
