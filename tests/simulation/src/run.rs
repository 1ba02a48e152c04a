//! A run from its beginning to its end.

use std::collections::BTreeMap;

use fleetwright_api::{ProviderAccount, provider_account::ProviderAccountSpec};
use fleetwright_provider_sim::FaultEffect;
use fleetwright_providers::{Account, CreateInstance, Ownership, Provider};
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    acts::People,
    chance::Chance,
    checker::Broken,
    fleet::{ACCOUNTS, Fleet, LEAST_MACHINES, VERSIONS},
    forecast::{Foretold, foresee, order},
    script::{CALM, Ends, Script},
    weather::Kind,
    world::{Template, World, template},
};

/// Kinds of fault that fire in each run at least.
const LEAST_FAULTS: usize = 5;

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What broke, if anything did.
    pub(crate) broken: Option<Broken>,
    /// Simulated seconds.
    pub(crate) seconds: u64,
    /// What fired how often.
    pub(crate) fired: BTreeMap<Kind, u64>,
    /// Digest of all that happened.
    pub(crate) digest: u64,
    /// Lines that were kept.
    pub(crate) lines: Vec<String>,
    /// Machines that were replaced or made.
    pub(crate) made: usize,
    /// Changes of the API.
    pub(crate) writes: u64,
}

/// Runs a seed.
///
/// # Errors
/// The run cannot begin.
pub(crate) fn run(seed: u64, keep_all: bool) -> Result<Outcome, String> {
    let template = template()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(simulate(seed, keep_all, template))
}

async fn simulate(seed: u64, keep_all: bool, template: &Template) -> Result<Outcome, String> {
    let chance = Chance::of(seed, 10);
    let script = Script::draw(&chance);
    let world = World::new(seed, script.windows.clone(), keep_all, template)?;
    let mut tasks = JoinSet::new();
    let (cloud, token) = (world.cloud.clone(), CancellationToken::new());
    tasks.spawn(async move { cloud.run(token).await });
    let mut people = People {
        world: world.clone(),
        chance: Chance::of(seed, 11),
        fleets: Vec::new(),
        later: JoinSet::new(),
    };
    prepare(&mut people, &Chance::of(seed, 12))
        .await
        .map_err(|e| e.to_string())?;
    tasks.spawn(world.clone().keep_engine());
    let failed = world.checker.lock().failed.clone();
    tokio::select! {
        biased;
        () = failed.notified() => {}
        () = play(&mut people, &script) => {}
    }
    let seconds = world.clock.seconds();
    drop(people);
    tasks.shutdown().await;
    let mut checker = world.checker.lock();
    let fired = world.weather.fired();
    if checker.broken.is_none() {
        if fired.len() < LEAST_FAULTS {
            checker.broke(
                "generator",
                format!("only {} kinds of fault fired", fired.len()),
            );
        }
        if checker.most_machines < LEAST_MACHINES {
            let most = checker.most_machines;
            checker.broke("generator", format!("at most {most} machines ran"));
        }
    }
    let (digest, lines) = checker.journal();
    let outcome = Outcome {
        broken: checker.broken.take(),
        seconds,
        fired,
        digest,
        lines,
        made: checker
            .moves
            .iter()
            .filter(|(verb, _)| *verb == "create")
            .count(),
        writes: checker.writes,
    };
    drop(checker);
    world.end();
    Ok(outcome)
}

/// Accounts, the Fleet, and things that are none of ours.
async fn prepare(people: &mut People, chance: &Chance) -> Result<(), kube::Error> {
    let world = people.world.clone();
    let client = world.kubectl();
    let accounts = Api::<ProviderAccount>::all(client.clone());
    for (name, region) in ACCOUNTS {
        let spec = ProviderAccountSpec {
            provider: "sim".into(),
            region: Some(region.into()),
            ..ProviderAccountSpec::default()
        };
        let account = ProviderAccount::new(name, spec);
        accounts.create(&PostParams::default(), &account).await?;
        foreign(&world, name, region).await;
    }
    let fleet = Fleet::draw(chance, !world.waves.is_empty());
    people.push(fleet, "the beginning".into()).await;
    let mut fleet = json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Fleet",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {
            "source": {"url": "https://forge.example/acme/fleet", "intervalSeconds": 1800},
            "forge": {"type": "github", "repository": "acme/fleet"},
            "prune": {"maxMachines": 20},
        },
    });
    if !world.waves.is_empty() {
        fleet["spec"]["waves"] = world.waves.spec();
    }
    if chance.permille(250) {
        fleet["spec"]["versions"] = json!(VERSIONS);
    }
    if chance.permille(150) {
        let most = chance.pick(&[json!(3), json!("25%")]).clone();
        fleet["spec"]["disruption"] = json!({"maxUnavailable": most});
    }
    let fleet = serde_json::from_value(fleet).map_err(kube::Error::SerdeError)?;
    Api::<fleetwright_api::Fleet>::namespaced(client, "default")
        .create(&PostParams::default(), &fleet)
        .await?;
    world.checker.lock().look();
    Ok(())
}

/// An instance of somebody else in the same account.
async fn foreign(world: &World, name: &str, region: &str) {
    let account = Account {
        name: name.to_owned(),
        provider: "sim".to_owned(),
        region: region.to_owned(),
        ..Account::default()
    };
    let order = CreateInstance {
        owner: Ownership {
            installation: "another".into(),
            cluster_key: format!("another-{region}"),
            cluster: "default/c0".into(),
            machine: "c0-cp-0".into(),
            instance_key: format!("another-{region}"),
            ..Ownership::default()
        },
        control_plane: true,
        version: "v1.31.4".into(),
        config: json!({
            "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig", "account": name,
        }),
        ..CreateInstance::default()
    };
    if let Ok(made) = world.cloud.create(&account, &order).await {
        world.checker.lock().foreign.insert(made.id);
    }
}

async fn play(people: &mut People, script: &Script) {
    let world = people.world.clone();
    for (at, act) in &script.acts {
        tokio::time::sleep_until(world.clock.instant(*at)).await;
        people.act(act).await;
    }
    tokio::time::sleep_until(world.clock.instant(CALM)).await;
    calm(&world);
    let ends = Ends::of(&world.waves);
    if !converged(people, ends.converged).await {
        return;
    }
    // One more commit, with nothing else in between. What is still to be told of the last one comes first.
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let Some(mut fleet) = people.fleets.last().cloned() else {
        return;
    };
    let before = fleet.files();
    let mut subject = fleet.change(&people.chance, world.now());
    if !world.waves.is_empty() {
        // In several waves, as chance has it.
        for _ in 0..2 {
            let more = fleet.change(&people.chance, world.now());
            subject = format!("{subject}; {more}");
        }
    }
    let after = fleet.files();
    let planned = foresee(&world, &before, &after).await;
    let moved = world.checker.lock().moves.len();
    people.push(fleet, subject).await;
    tokio::time::sleep_until(world.clock.instant(world.clock.seconds() + 1900)).await;
    if !converged(people, ends.ended).await {
        return;
    }
    compare(&world, moved, planned, (&before, &after));
    still(&world, ends).await;
}

/// Faults are over: what fired is counted, what waits to fire is taken back.
fn calm(world: &World) {
    for fault in world.cloud.faults() {
        let kind = match fault.effect {
            FaultEffect::RequestLost => Kind::ProviderRequestLost,
            FaultEffect::AnswerLost => Kind::ProviderAnswerLost,
            FaultEffect::Throttled => Kind::ProviderThrottled,
            FaultEffect::NoCapacity => Kind::NoCapacity,
            FaultEffect::NeverJoins => Kind::NeverJoins,
            FaultEffect::Stale => Kind::StaleList,
            // Nobody takes the engine's keys away here.
            FaultEffect::CredentialsRefused => continue,
        };
        world.weather.count(kind, fault.fired);
    }
    world.cloud.clear_faults();
    let polls = world.life.lock().polls();
    let mut checker = world.checker.lock();
    checker.calm = true;
    checker.line(format!("calm, at poll {polls} of the engine"));
}

/// Waits until all has converged, and stays so for a while; by `until` at the latest.
async fn converged(people: &mut People, until: u64) -> bool {
    let world = people.world.clone();
    loop {
        people.put_right().await;
        let left = {
            let mut checker = world.checker.lock();
            checker.look();
            checker.unconverged()
        };
        if left.is_empty() {
            return true;
        }
        if world.clock.seconds() >= until {
            world.checker.lock().broke("convergence", left.join("\n  "));
            return false;
        }
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    }
}

/// Nothing is written and nothing is asked for any more, in no API and at no provider.
async fn still(world: &World, ends: Ends) {
    // What converged last is told last.
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let counts = || {
        let mut checker = world.checker.lock();
        checker.look();
        (checker.writes, checker.calls, checker.asked.clone())
    };
    let before = counts();
    tokio::time::sleep_until(world.clock.instant(ends.length)).await;
    let after = counts();
    if before != after {
        let times = |what: &String, n: &u64| n - before.2.get(what).unwrap_or(&0);
        let asked = after.2.iter().map(|(what, n)| (what, times(what, n)));
        let asked: BTreeMap<_, _> = asked.filter(|(_, n)| *n > 0).collect();
        let what = format!(
            "{} writes, {} calls that change something and requests {asked:#?}, where nothing was to be done",
            after.0 - before.0,
            after.1 - before.1
        );
        world.checker.lock().broke("fixed point", what);
    }
}

/// Files of a commit.
type Files = BTreeMap<String, serde_json::Value>;

/// What happened since so many moves is what the plan said.
fn compare(
    world: &World,
    moved: usize,
    planned: Result<Foretold, String>,
    files: (&Files, &Files),
) {
    let (before, after) = files;
    let mut checker = world.checker.lock();
    // A pool that is deleted is no rollout.
    let removed: Vec<String> = before
        .iter()
        .filter(|(path, _)| !after.contains_key(*path))
        .filter_map(|(_, d)| Some(format!("{}-", d["metadata"]["name"].as_str()?)))
        .collect();
    // Nor does the plan know when somebody deletes a machine.
    let documents = before.values().chain(after.values());
    let by_hand = documents.filter(|d| d["spec"]["rollout"]["strategy"]["type"] == "OnDelete");
    let by_hand: Vec<String> = by_hand
        .filter_map(|d| Some(format!("{}-", d["metadata"]["name"].as_str()?)))
        .collect();
    let is_of = |name: &str, pools: &[String]| pools.iter().any(|p| name.starts_with(p.as_str()));
    let stays = |name: &str| !is_of(name, &removed) && !is_of(name, &by_hand);
    let moves = checker.moves[moved..].iter();
    let moves = moves.filter(|(verb, name)| *verb != "gone" && stays(name));
    let moves: Vec<_> = moves.collect();
    let happened = order(
        moves
            .iter()
            .map(|(verb, name)| ((*verb).to_owned(), name.clone())),
    );
    match planned {
        Err(error) => checker.broke("I9", format!("the commit cannot be planned: {error}")),
        Ok(planned) => {
            let mut said = planned.comparable(&planned.order);
            for names in said.values_mut() {
                names.retain(|name| !is_of(name, &by_hand));
            }
            said.retain(|_, names| !names.is_empty());
            let done = planned.comparable(&happened);
            if said != done {
                let what = format!("the plan said {said:#?}\n  and what happened was {done:#?}");
                return checker.broke("I9", what);
            }
            let mut last = (0, "");
            for (verb, name) in &moves {
                let Some(wave) = planned.waves.get(&((*verb).to_owned(), name.clone())) else {
                    continue;
                };
                if *wave < last.0 {
                    let what = format!(
                        "{verb} {name} is of wave {wave}, and came after {} of wave {}",
                        last.1, last.0
                    );
                    return checker.broke("I9", what);
                }
                last = (*wave, name);
            }
        }
    }
}
