//! The shell around [`decide`]: reads, watches and writes the Lease.

use std::{sync::Arc, time::Duration};

use fleetwright_api::{random::Random, random::hex, time::Clock};
use futures::StreamExt as _;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher::watch_object},
};

use super::{
    LEASE, Leadership, Lost, Now, TIMES,
    decide::{Decision, View, decide, holder},
};

const FIELD_MANAGER: &str = "fleetwright-leader-election";

/// A candidate for the Lease.
pub(crate) struct Elector {
    leases: Api<Lease>,
    me: String,
    now: Now,
    clock: Arc<dyn Clock>,
}

/// A Lease that is ours.
pub(crate) struct Term {
    view: View,
    /// The right that comes with it.
    pub(crate) leadership: Leadership,
}

/// A name that no other process has: of this machine, and drawn anew at each start.
pub(crate) fn identity(random: &dyn Random) -> String {
    let mut bytes = [0u8; 8];
    random.fill(&mut bytes);
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{host}_{}", hex(&bytes))
}

impl Elector {
    /// A candidate called `me` for the Lease in `namespace`.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        me: String,
        now: Now,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self {
            leases,
            me,
            now,
            clock,
        }
    }

    /// Waits until the Lease is ours. What fails is tried again.
    pub(crate) async fn acquire(&self) -> Term {
        let mut view = View::default();
        self.read(&mut view).await;
        // The watch tells at once of a Lease that was released; the time of one that was not is ours.
        let mut events = watch_object(self.leases.clone(), LEASE)
            .default_backoff()
            .boxed();
        loop {
            let wait = match decide(&view, &self.me, TIMES, (self.now)()) {
                Decision::Acquire => {
                    self.write(&mut view).await;
                    if let Some(renewed) = view.renewed {
                        let until = renewed + TIMES.renew_deadline;
                        let leadership = Leadership::new(Arc::clone(&self.now), until);
                        return Term { view, leadership };
                    }
                    continue;
                }
                Decision::Wait(wait) => wait,
                // Only who leads renews or loses.
                Decision::Renew | Decision::Lost(_) => TIMES.retry,
            };
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(lease)) => self.observe(&mut view, lease),
                    Some(Err(error)) => tracing::warn!(%error, "cannot watch the Lease"),
                    None => tokio::time::sleep(wait).await,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Renews the Lease for as long as that succeeds; says why it does not any more.
    pub(crate) async fn hold(&self, term: &mut Term) -> Lost {
        loop {
            match decide(&term.view, &self.me, TIMES, (self.now)()) {
                Decision::Renew | Decision::Acquire => {
                    self.write(&mut term.view).await;
                    if let Some(renewed) = term.view.renewed {
                        term.leadership.extend(renewed + TIMES.renew_deadline);
                    }
                }
                Decision::Wait(wait) => tokio::time::sleep(wait).await,
                Decision::Lost(why) => return why,
            }
        }
    }

    /// Gives the Lease back, so that another takes it at once. To be called when nothing acts any more.
    pub(crate) async fn release(&self, term: Term) {
        let Some(mut lease) = term.view.lease else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(self.clock.now()));
        // One that has changed is no longer ours to give.
        if let Err(error @ (PutError::Late | PutError::Api(_))) = self.put(&lease).await {
            tracing::warn!(%error, "cannot give the Lease back: others wait until it expires");
        }
    }

    /// Writes our name and the time into the Lease as it was seen, or reads it where it has changed since.
    async fn write(&self, view: &mut View) {
        let sent = (self.now)();
        view.tried = Some(sent);
        let mut lease = view.lease.clone().unwrap_or_default();
        self.sign(&mut lease);
        match self.put(&lease).await {
            Ok(written) => {
                view.renewed = Some(sent);
                view.since = sent;
                view.lease = Some(written);
            }
            Err(PutError::Changed) => self.read(view).await,
            Err(error) => tracing::warn!(%error, "cannot write the Lease"),
        }
    }

    fn sign(&self, lease: &mut Lease) {
        let now = MicroTime(self.clock.now());
        let ours = holder(lease) == Some(&self.me);
        lease.metadata.name = Some(LEASE.to_owned());
        let there = lease.metadata.resource_version.is_some();
        let spec = lease.spec.get_or_insert_default();
        if !ours {
            let before = spec.lease_transitions.unwrap_or(0);
            *spec = LeaseSpec {
                holder_identity: Some(self.me.clone()),
                acquire_time: Some(now.clone()),
                lease_transitions: Some(before.saturating_add(i32::from(there))),
                ..LeaseSpec::default()
            };
        }
        let seconds = i32::try_from(TIMES.duration.as_secs()).unwrap_or(i32::MAX);
        spec.lease_duration_seconds = Some(seconds);
        spec.renew_time = Some(now);
    }

    /// Replaces exactly the Lease that was seen, or makes it where there was none.
    async fn put(&self, lease: &Lease) -> Result<Lease, PutError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let put = async {
            match lease.metadata.resource_version {
                Some(_) => self.leases.replace(LEASE, &params, lease).await,
                None => self.leases.create(&params, lease).await,
            }
        };
        match tokio::time::timeout(patience(), put).await {
            Ok(Ok(written)) => Ok(written),
            // Somebody else was faster, or has deleted it. A Lease that cannot be made for want of its namespace is told.
            Ok(Err(kube::Error::Api(status)))
                if status.code == 409
                    || (status.code == 404 && lease.metadata.resource_version.is_some()) =>
            {
                Err(PutError::Changed)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(PutError::Late),
        }
    }

    async fn read(&self, view: &mut View) {
        match tokio::time::timeout(patience(), self.leases.get_opt(LEASE)).await {
            Ok(Ok(lease)) => self.observe(view, lease),
            Ok(Err(error)) => {
                view.tried = Some((self.now)());
                tracing::warn!(%error, "cannot read the Lease");
            }
            Err(_) => {
                view.tried = Some((self.now)());
                tracing::warn!(error = %PutError::Late, "cannot read the Lease");
            }
        }
    }

    /// Takes in what the Lease is now. The time since when it is like that counts from here: nobody else's clock is asked.
    fn observe(&self, view: &mut View, lease: Option<Lease>) {
        let version =
            |l: &Option<Lease>| l.as_ref().and_then(|l| l.metadata.resource_version.clone());
        if version(&view.lease) == version(&lease) {
            return;
        }
        match lease {
            Some(lease) => {
                view.lease = Some(lease);
                view.since = (self.now)();
            }
            // Deleted by somebody: its holder may not know, and has its time.
            None => {
                if let Some(gone) = &mut view.lease {
                    gone.metadata = kube::api::ObjectMeta::default();
                }
            }
        }
    }
}

/// How long one request about the Lease may take: two fit before the deadline.
fn patience() -> Duration {
    TIMES.renew_deadline / 2
}

#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error("it has changed")]
    Changed,
    #[error("no answer in {} s", patience().as_secs())]
    Late,
    #[error(transparent)]
    Api(#[from] kube::Error),
}
