//! One run: everything that there is in it, and what happens to it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use fleetwright_api::{
    crds,
    random::{Random, SeededRandom},
    time::{Clock, ManualClock},
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_provider_sim::{Cloud, Latency};
use fleetwright_store::{Entry, Revision, Store};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    chance::Chance,
    checker::{Checker, Surroundings},
    clock::SimClock,
    life::Life,
    places::{Posts, Repository},
    waves::Waves,
    weather::{Kind, Weather, Window},
    wire::{After, Heard, Overheard},
};

/// A server with our kinds, made once: runs share what was compiled of them.
pub(crate) struct Template {
    server: ApiServer,
    entries: Vec<Entry>,
    revision: Revision,
}

/// The server that runs share; the first call makes it, outside any run.
///
/// # Errors
/// It cannot be made.
pub(crate) fn template() -> Result<&'static Template, String> {
    static TEMPLATE: OnceLock<Result<Template, String>> = OnceLock::new();
    let make = || {
        let clock = Arc::new(ManualClock::new(SimClock::epoch()));
        let options = Options::new(clock, Arc::new(SeededRandom::new(1)));
        let store = Store::memory();
        let server = ApiServer::new(store.clone(), options).map_err(|e| e.to_string())?;
        let ours: Result<Vec<Value>, _> = crds::all().iter().map(serde_json::to_value).collect();
        let ours = ours.map_err(|e| e.to_string())?;
        let install = server.install_crds(&ours);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        runtime.block_on(install).map_err(|e| e.to_string())?;
        let (entries, revision) = store.range("", None, 0);
        Ok(Template {
            server,
            entries,
            revision,
        })
    };
    TEMPLATE.get_or_init(make).as_ref().map_err(Clone::clone)
}

/// Everything in a run. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: SimClock,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) weather: Arc<Weather>,
    store: Store,
    server: Arc<Mutex<ApiServer>>,
    pub(crate) cloud: Cloud,
    pub(crate) repository: Arc<Repository>,
    pub(crate) posts: Arc<Mutex<Posts>>,
    /// The Fleet's waves.
    pub(crate) waves: Arc<Waves>,
    pub(crate) checker: Arc<Mutex<Checker>>,
    pub(crate) life: Arc<Mutex<Arc<Life>>>,
    /// The release that the next engine is of.
    pub(crate) release: Arc<AtomicUsize>,
    /// Told when an engine has started.
    pub(crate) started: Arc<Notify>,
}

impl World {
    /// The world of a seed, before anything happens.
    ///
    /// # Errors
    /// The API or the cloud cannot be made.
    pub(crate) fn new(
        seed: u64,
        windows: BTreeMap<Kind, Vec<Window>>,
        keep_all: bool,
        template: &Template,
    ) -> Result<Self, String> {
        let clock = SimClock::start();
        let shared: Arc<dyn Clock> = Arc::new(clock);
        let random = |purpose| Arc::new(Chance::source(seed, purpose)) as Arc<dyn Random>;
        let store = Store::memory_from(template.revision, template.entries.iter().cloned());
        let options = Options::new(Arc::clone(&shared), random(1));
        let server = template.server.beside(store.clone(), options);
        let server = server.map_err(|e| e.to_string())?;
        let weather = Weather::new(Arc::clone(&shared), Chance::of(seed, 2), windows);
        let weather = Arc::new(weather);
        let repository = Arc::new(Repository::new(Arc::clone(&weather)));
        let posts = Arc::new(Mutex::new(Posts::new()));
        let waves = Arc::new(Waves::draw(&Chance::of(seed, 13)));
        let around = Surroundings {
            clock,
            weather: Arc::clone(&weather),
            repository: Arc::clone(&repository),
            posts: Arc::clone(&posts),
            waves: Arc::clone(&waves),
        };
        let checker = Arc::new(Mutex::new(Checker::new(around, &store, keep_all)));
        let told = Arc::downgrade(&checker);
        let cloud = Cloud::in_memory(
            shared,
            random(3),
            Box::new(move |entry| {
                if let Some(checker) = told.upgrade() {
                    checker.lock().called(entry);
                }
            }),
        );
        let cloud = cloud.map_err(|e| e.to_string())?;
        cloud.set_latencies(vec![Latency {
            millis: 40,
            jitter_millis: 200,
            ..Latency::default()
        }]);
        checker.lock().cloud = Some(cloud.clone());
        Ok(Self {
            clock,
            random: random(4),
            weather,
            store,
            server: Arc::new(Mutex::new(server)),
            cloud,
            repository,
            posts,
            waves,
            checker,
            life: Arc::new(Mutex::new(Life::new(u64::MAX))),
            release: Arc::new(AtomicUsize::new(0)),
            started: Arc::new(Notify::new()),
        })
    }

    /// The API server as it is now.
    pub(crate) fn server(&self) -> ApiServer {
        self.server.lock().clone()
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What people use.
    pub(crate) fn kubectl(&self) -> kube::Client {
        self.server().client("default")
    }

    /// The checker looks.
    pub(crate) fn after(&self) -> After {
        let checker = Arc::downgrade(&self.checker);
        Arc::new(move || {
            if let Some(checker) = checker.upgrade() {
                checker.lock().look();
            }
        })
    }

    /// The checker hears what our API is asked for.
    pub(crate) fn heard(&self) -> Heard {
        let checker = Arc::downgrade(&self.checker);
        Arc::new(move |method, path| {
            if let Some(checker) = checker.upgrade() {
                checker.lock().asked(format!("{method} {path}"));
            }
        })
    }

    /// The checker hears what workload clusters are asked for.
    pub(crate) fn overheard(&self) -> Overheard {
        let checker = Arc::downgrade(&self.checker);
        Arc::new(move |key, method, path, code| {
            if let Some(checker) = checker.upgrade() {
                checker.lock().overheard(key, method, path, code);
            }
        })
    }

    /// Keeps an engine running: when one dies, the next one starts on what it left, its API server anew as well.
    pub(crate) async fn keep_engine(self) {
        loop {
            let life = Life::new(u64::MAX);
            *self.life.lock() = Arc::clone(&life);
            let release = self.release.load(Ordering::Relaxed);
            let mut engine = crate::engine::start(&self, &life, release);
            self.started.notify_waiters();
            life.died.notified().await;
            engine.shutdown().await;
            self.weather.count(Kind::Crash, 1);
            let text = format!("the engine died at poll {}", life.polls());
            self.checker.lock().line(text);
            // The API server lives in the engine's process.
            let server = self.server();
            let options = Options::new(Arc::new(self.clock), Arc::clone(&self.random));
            match server.beside(self.store.clone(), options) {
                Ok(anew) => *self.server.lock() = anew,
                Err(error) => {
                    let what = format!("the API server does not start again: {error}");
                    self.checker.lock().broke("I11", what);
                }
            }
            let pause = self.weather.millis(500, 90_000);
            tokio::time::sleep(pause).await;
            let release = self.release.load(Ordering::Relaxed);
            let text = format!("an engine of release {release} starts");
            self.checker.lock().line(text);
        }
    }

    /// Forgets what refers to itself.
    pub(crate) fn end(&self) {
        self.checker.lock().cloud = None;
    }
}
