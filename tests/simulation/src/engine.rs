//! The engine: the controllers, the sync and the outbox, as the binary wires them, for one life.

use std::sync::Arc;

use fleetwright_api::{random::Random, secret::SecretText, time::Clock};
use fleetwright_controllers::{Controllers, Metrics};
use fleetwright_core::catalogue::Catalogue;
use fleetwright_gitops::{follow, sync::Sync};
use fleetwright_providers::{Provider, Registry};
use fleetwright_webhook::{forge::Defaults, outbox::Outbox};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    checker::INSTALLATION,
    life::Life,
    places::{Reach, SimForge, schemas},
    wire,
    world::World,
};

/// The providers' schemas of a release, as plans want them.
pub(crate) fn catalogue(release: usize) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for schema in schemas(release) {
        catalogue.insert(&schema.api_version, &schema.kind, schema.schema);
    }
    catalogue
}

/// Starts an engine; its tasks end with the set.
pub(crate) fn start(world: &World, life: &Arc<Life>, release: usize) -> JoinSet<()> {
    let clock: Arc<dyn Clock> = Arc::new(world.clock);
    let random: Arc<dyn Random> = Arc::clone(&world.random);
    let after = world.after();
    let weather = Arc::clone(&world.weather);
    let client = wire::client(
        world.server(),
        Arc::clone(life),
        Arc::clone(&weather),
        Arc::clone(&after),
        world.heard(),
    );
    let reach = Arc::new(Reach {
        cloud: world.cloud.clone(),
        life: Arc::clone(life),
        weather: Arc::clone(&weather),
        release,
        overheard: world.overheard(),
    });
    let providers = Registry::new([Arc::clone(&reach) as Arc<dyn Provider>]);
    let mut uncounted = prometheus_client::registry::Registry::default();
    let controllers = Controllers::new(fleetwright_controllers::Context {
        client: client.clone(),
        providers,
        connections: Arc::clone(&reach) as _,
        etcd: reach,
        escrow: None,
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        installation: INSTALLATION.into(),
        metrics: Metrics::register(&mut uncounted),
        trail: Default::default(),
    });
    let sync = Sync::new(follow::Context {
        client: client.clone(),
        catalogue: Arc::new(catalogue(release)),
        cache: Default::default(),
        tokens: None,
        repositories: Some(Arc::clone(&world.repository) as _),
        installation: INSTALLATION.into(),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        metrics: fleetwright_gitops::Metrics::register(&mut uncounted),
        trail: Default::default(),
    });
    let forge = SimForge {
        posts: Arc::clone(&world.posts),
        life: Arc::clone(life),
        weather,
        after,
    };
    let defaults = Defaults {
        token: Some(SecretText::new("token")),
        api_url: None,
    };
    let outbox = Outbox::new(
        client,
        Arc::new(forge),
        defaults,
        clock,
        random,
        fleetwright_webhook::Metrics::register(&mut uncounted),
    );
    let token = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(controllers.run(token.clone()));
    tasks.spawn(sync.run(token.clone()));
    tasks.spawn(outbox.run(token));
    tasks
}
