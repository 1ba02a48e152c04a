//! Large fleets against their bounds: from nothing to Running in four sizes, then the largest upgraded, then left alone.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    Args,
    bounds::Bounds,
    fleet::{Fleet, Made, REST, Shape, label, revision},
    process::Usage,
    profile::Profile,
    table::{Table, say},
};

/// Machines of a cluster: one of the control plane, the others in one pool.
const OF_CLUSTER: usize = 50;
/// The largest fleet's size divided by those of the others, and how often each is made: the run that took the least CPU counts. A small
/// one is short, and what a neighbour of the machine does in these seconds is much of it.
const PARTS: [(usize, usize); 4] = [(20, 5), (10, 5), (2, 2), (1, 2)];
/// How long the fleet is left alone.
const IDLE: Duration = Duration::from_secs(60);
/// The accounts that the fleets use, one for each region.
const ACCOUNTS: usize = 3;

/// What may be spent on each machine.
const WRITES: f64 = 12.0;
const CPU_MS: f64 = 12.0;
const MARGINAL: f64 = 1.2;
const KB: f64 = 25.0;
/// What may be spent on each machine that an upgrade replaces.
const UPGRADE_WRITES: f64 = 24.0;
const UPGRADE_CPU_MS: f64 = 24.0;
/// Percent of a core, of a fleet at rest.
const IDLE_CPU: f64 = 5.0;

/// What is held against a bound.
struct Bound {
    what: String,
    value: f64,
    most: f64,
}

/// Counters at one time; differences are what something took.
#[derive(Clone)]
struct Counts {
    engine: Usage,
    cloud: Usage,
    revision: u64,
    /// Requests that write, by verb and resource; those that were refused too.
    writes: BTreeMap<String, f64>,
    /// Events sent to watchers, by resource.
    events: BTreeMap<String, f64>,
    calls: BTreeMap<String, usize>,
}

impl Counts {
    async fn now(fleet: &Fleet) -> anyhow::Result<Self> {
        let writes = fleet.counted("api_requests", |labels| {
            let (verb, resource) = (label(labels, "verb"), label(labels, "resource"));
            let subresource = match label(labels, "subresource") {
                "" => String::new(),
                name => format!("/{name}"),
            };
            let refused = match label(labels, "code") {
                "200" | "201" => String::new(),
                code => format!(" ({code})"),
            };
            format!("{verb} {resource}{subresource}{refused}")
        });
        let mut writes = writes.await?;
        writes.retain(|name, _| {
            !["get ", "list ", "watch "]
                .iter()
                .any(|v| name.starts_with(v))
        });
        let events = fleet.counted("api_watch_events", |labels| {
            label(labels, "resource").to_owned()
        });
        Ok(Self {
            engine: fleet.engine.usage()?,
            cloud: fleet.cloud.usage()?,
            revision: revision(&fleet.client).await?,
            writes,
            events: events.await?,
            calls: fleet.calls()?,
        })
    }
}

/// What grew, by name.
fn grown(from: &BTreeMap<String, f64>, to: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let before = |name: &str| from.get(name).copied().unwrap_or_default();
    let more = to
        .iter()
        .map(|(name, count)| (name.clone(), count - before(name)));
    more.filter(|(_, count)| *count > 0.0).collect()
}

/// Counts for each of `machines`, the largest first.
fn say_each(what: &str, mut counts: Vec<(String, f64)>, machines: f64) {
    counts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let sum: f64 = counts.iter().map(|(_, count)| count).sum();
    let parts = counts.iter().filter(|(_, count)| count / machines >= 0.01);
    let parts: Vec<_> = parts
        .map(|(name, count)| format!("{name} {:.2}", count / machines))
        .collect();
    say(format_args!(
        "  {what}: {:.2} ({})",
        sum / machines,
        parts.join(", ")
    ));
}

/// Prints what was counted between two times for each of `machines`; gives the requests that write, those that were refused too, and
/// the advance of the resource version.
fn say_between(from: &Counts, to: &Counts, machines: f64) -> (f64, f64) {
    let advance = to.revision.saturating_sub(from.revision) as f64;
    say(format_args!(
        "  engine CPU {:.2} ms, cloud CPU {:.2} ms, resource version {:.2}",
        (to.engine.cpu - from.engine.cpu) * 1e3 / machines,
        (to.cloud.cpu - from.cloud.cpu) * 1e3 / machines,
        advance / machines
    ));
    let writes = grown(&from.writes, &to.writes);
    let sent: f64 = writes.iter().map(|(_, count)| count).sum();
    say_each("API writes", writes, machines);
    say_each(
        "watch deliveries",
        grown(&from.events, &to.events),
        machines,
    );
    (sent, advance)
}

/// The fleet left alone.
async fn idle(fleet: &Fleet, bounds: &mut Vec<Bound>) -> anyhow::Result<()> {
    let before = Counts::now(fleet).await?;
    tokio::time::sleep(IDLE).await;
    let after = Counts::now(fleet).await?;
    let seconds = IDLE.as_secs_f64();
    let share = |from: &Usage, to: &Usage| (to.cpu - from.cpu) * 100.0 / seconds;
    let writes = grown(&before.writes, &after.writes);
    let others = writes
        .iter()
        .filter(|(name, _)| !name.contains("leases"))
        .fold(0.0, |sum, (_, count)| sum + count);
    let of = |calls: &BTreeMap<String, usize>| calls.values().sum::<usize>();
    let calls = of(&after.calls) - of(&before.calls);
    say(format_args!(
        "\nLeft alone for {seconds:.0} s\n  engine {:.2} % of a core, cloud {:.2} %; {others:.0} writes; {calls} provider calls for {ACCOUNTS} accounts: {:?} before, {:?} after",
        share(&before.engine, &after.engine),
        share(&before.cloud, &after.cloud),
        before.calls,
        after.calls,
    ));
    let mut bound = |what: &str, value: f64, most: f64| {
        bounds.push(Bound {
            what: what.to_owned(),
            value,
            most,
        });
    };
    bound(
        "idle: engine, % of a core",
        share(&before.engine, &after.engine),
        IDLE_CPU,
    );
    bound("idle: API writes but leases", others, 0.0);
    bound(
        "idle: advance of the resource version",
        (after.revision - before.revision) as f64,
        0.0,
    );
    // Each account is listed once in the window, and once more where it begins or ends with a list.
    bound(
        "idle: provider calls for each account",
        calls as f64 / ACCOUNTS as f64,
        2.0,
    );
    Ok(())
}

/// All clusters upgraded by one minor version at once.
async fn upgrade(fleet: &Fleet, bounds: &mut Vec<Bound>, args: &Args) -> anyhow::Result<()> {
    let shape = fleet.shape;
    let watching = Bounds::watch(fleet.client.clone(), shape.bounds()).await?;
    let before = Counts::now(fleet).await?;
    let profile = Profile::start(&fleet.engine, args)?;
    let seconds = fleet.upgrade_to("v1.34.1", shape.clusters).await?;
    fleet.rest().await?;
    let profile = profile.end().await?;
    let after = Counts::now(fleet).await?;
    let seen = watching.end().await?;
    let machines = shape.machines as f64;
    say(format_args!(
        "\nUpgrade of all, {}, maxSurge 20 %: {seconds:.0} s; for each machine replaced",
        shape.words()
    ));
    let (sent, advance) = say_between(&before, &after, machines);
    say(format_args!(
        "  {} events watched, {} machines of pools replaced, I3: {}",
        seen.events,
        seen.replaced,
        if seen.broken.is_empty() {
            "held".to_owned()
        } else {
            seen.broken.join("; ")
        }
    ));
    say(format_args!(
        "  calls to the provider: {:?}, before {:?}",
        after.calls, before.calls
    ));
    say(format_args!(
        "  memory now: engine {:.0} MiB (peak {:.0}), cloud {:.0} MiB (peak {:.0})",
        after.engine.resident, after.engine.peak, after.cloud.resident, after.cloud.peak
    ));
    profile.print();
    let each = |all: f64| all / machines;
    let workers: usize = shape.bounds().values().map(|(replicas, _)| replicas).sum();
    let mut bound = |what: &str, value: f64, most: f64| {
        bounds.push(Bound {
            what: what.to_owned(),
            value,
            most,
        });
    };
    let cpu = (after.engine.cpu - before.engine.cpu) * 1e3;
    bound(
        "upgrade: writes, each replaced: requests",
        each(sent),
        UPGRADE_WRITES,
    );
    bound(
        "upgrade: writes, each replaced: advance of the resource version",
        each(advance),
        UPGRADE_WRITES,
    );
    bound(
        "upgrade: engine CPU ms, each replaced",
        each(cpu),
        UPGRADE_CPU_MS,
    );
    bound(
        "upgrade: pools beyond their bounds (I3)",
        seen.broken.len() as f64,
        0.0,
    );
    bound(
        "upgrade: machines of pools not replaced",
        (workers - seen.replaced) as f64,
        0.0,
    );
    Ok(())
}

/// Prints what large fleets cost, and which bounds are broken.
pub(crate) async fn report(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let mut made: Vec<Made> = Vec::new();
    let mut bounds = Vec::new();
    let rounds = PARTS
        .iter()
        .flat_map(|(part, times)| (0..*times).map(|n| (*part, n + 1 == *times)));
    for (part, last) in rounds {
        let machines = args.largest / part;
        let shape = Shape {
            machines,
            clusters: machines.div_ceil(OF_CLUSTER),
            pools: 1,
        };
        let largest = part == 1 && last;
        let fleet = Fleet::start(shape, folder).await?;
        let before = Counts::now(&fleet).await?;
        let profile = largest.then(|| Profile::start(&fleet.engine, args));
        let run = fleet.made().await?;
        let profile = match profile {
            Some(profile) => Some(profile?.end().await?),
            None => None,
        };
        let after = Counts::now(&fleet).await?;
        say(format_args!(
            "\n{}: {:.1} s; for each machine",
            shape.words(),
            run.seconds
        ));
        let (sent, _) = say_between(&before, &after, machines as f64);
        // The two counts of writes differ by those that changed nothing, and by several objects changed at once.
        if largest {
            let bytes = |usage: &Usage| usage.peak * 1048.576 / machines as f64;
            let each = |all: f64| all / machines as f64;
            let mut bound = |what: &str, value: f64, most: f64| {
                bounds.push(Bound {
                    what: what.to_owned(),
                    value,
                    most,
                });
            };
            bound("writes, each: requests", each(sent), WRITES);
            bound(
                "writes, each: advance of the resource version",
                each(run.writes as f64),
                WRITES,
            );
            bound("engine CPU ms, each", each(run.engine.cpu * 1e3), CPU_MS);
            bound(
                "engine memory KB, each, all of the process's peak",
                bytes(&run.engine),
                KB,
            );
            if let Some(profile) = profile {
                profile.print();
            }
            // At rest first, then changed, then at rest again.
            tokio::time::sleep(REST).await;
            upgrade(&fleet, &mut bounds, args).await?;
            idle(&fleet, &mut bounds).await?;
        }
        fleet.end().await?;
        match made.last_mut() {
            Some(before) if before.shape.machines == machines => {
                if run.engine.cpu < before.engine.cpu {
                    *before = run;
                }
            }
            _ => made.push(run),
        }
    }
    if let [a, b, c, d] = made.as_slice() {
        let marginal = |small: &Made, large: &Made| {
            let more = (large.shape.machines - small.shape.machines) as f64;
            (large.engine.cpu - small.engine.cpu) * 1e3 / more
        };
        let (low, high) = (marginal(a, b), marginal(c, d));
        say(format_args!(
            "\nEach machine more: {low:.2} ms between {} and {}, {high:.2} ms between {} and {}",
            a.shape.machines, b.shape.machines, c.shape.machines, d.shape.machines
        ));
        bounds.insert(
            0,
            Bound {
                what: "marginal CPU, large to small".to_owned(),
                value: high / low,
                most: MARGINAL,
            },
        );
    }
    print(&made, &bounds);
    Ok(())
}

fn print(made: &[Made], bounds: &[Bound]) {
    let head = [
        "fleet",
        "s",
        "engine CPU s",
        "ms each",
        "cloud CPU s",
        "writes each",
        "engine peak MiB",
        "KB each",
        "cloud peak MiB",
        "KB each",
    ];
    let mut table = Table::new(
        "Large fleets from nothing to every Machine Running with its node",
        &head,
    );
    for run in made {
        let machines = run.shape.machines as f64;
        let kb = |usage: &Usage| format!("{:.1}", usage.peak * 1048.576 / machines);
        table.row([
            run.shape.words(),
            format!("{:.1}", run.seconds),
            format!("{:.2}", run.engine.cpu),
            format!("{:.2}", run.engine.cpu * 1e3 / machines),
            format!("{:.2}", run.cloud.cpu),
            format!("{:.2}", run.writes as f64 / machines),
            format!("{:.0}", run.engine.peak),
            kb(&run.engine),
            format!("{:.0}", run.cloud.peak),
            kb(&run.cloud),
        ]);
    }
    table.print();
    let mut table = Table::new("Bounds", &["", "measured", "at most", ""]);
    for bound in bounds {
        let verdict = if bound.value <= bound.most {
            "holds"
        } else {
            "BROKEN"
        };
        table.row([
            bound.what.clone(),
            format!("{:.2}", bound.value),
            format!("{:.1}", bound.most),
            verdict.to_owned(),
        ]);
    }
    table.print();
}
