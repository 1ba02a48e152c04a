//! What a Fleet waits for of others, and how it leaves: its objects stay, or go first where it says so.

use std::collections::BTreeSet;

use fleetwright_api::{
    Fleet, condition::Status, decision::Verdict, fleet::DeletionPolicy, meta::FINALIZER_FLEET,
    names::fleet_hash,
};
use fleetwright_core::plan::{Departure, Desired, Key, Live, Plan, Policy, belonging, depart};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Done, FollowError, Follower, Waits};
use crate::{
    apply::{Applied, MANAGER_SYNC, Settings, apply},
    depends::Fleets,
    gather::{gather, policy_of},
    tell::{problems, some},
};

impl Follower {
    /// Whether it waits for another Fleet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits != Waits::Nothing
    }

    /// Whether `all` Fleets, as they are now, may have what it waits for.
    #[must_use]
    pub fn may_go_on(&self, all: &Fleets) -> bool {
        match self.waits {
            Waits::Nothing => false,
            Waits::Progress => true,
            Waits::Deletion => self.others.keys().any(|name| !all.contains_key(name)),
        }
    }

    /// Whether its objects go, and it after them: then it is looked at again as they do.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.going
    }

    /// Whether something that it declares belongs to another Fleet.
    pub(super) fn is_held_by_others(&self, desired: &[Desired], live: &Live) -> bool {
        let namespace = self.fleet.namespace().unwrap_or_default();
        let hash = fleet_hash(&namespace, &self.fleet.name_any());
        let wanted: BTreeSet<Key> = desired.iter().map(|d| Key::of(&d.document)).collect();
        let mut objects = live.objects.iter().filter(|o| wanted.contains(&Key::of(o)));
        objects.any(|o| belonging::other(o, &hash, live.fleets.as_ref()).is_some())
    }

    /// Ends a Fleet that is deleted. Gives whether that is done with, until something changes; `None` where the Fleet is to be
    /// followed: it is not deleted, or its objects may not go yet and Git has to say more.
    pub(super) async fn leave(&mut self) -> Result<Option<bool>, FollowError> {
        let deletes = self.fleet.spec.deletion_policy == Some(DeletionPolicy::Delete);
        let guarded = self.fleet.finalizers().iter().any(|f| f == FINALIZER_FLEET);
        if self.fleet.metadata.deletion_timestamp.is_none() {
            if deletes != guarded {
                self.guard(deletes).await?;
            }
            return Ok(None);
        }
        if !guarded {
            return Ok(Some(true));
        }
        if !deletes {
            self.guard(false).await?;
            return Ok(Some(true));
        }
        let policy = policy_of(&self.fleet);
        let live = gather(&self.context.client, &[], &policy).await?;
        let (plan, leaving) = match depart(&live, &policy) {
            Departure::Gone => {
                self.guard(false).await?;
                return Ok(Some(true));
            }
            Departure::Held { plan, begun } => {
                let message = some(&problems(&plan, &[]), "\n");
                let nothing = Applied::default();
                self.gone(
                    Verdict::Refused,
                    &message,
                    (&plan, &policy, &live, &nothing),
                );
                self.tell_leaving("WaitingForConsent", message.clone());
                if !begun {
                    return Ok(None);
                }
                self.tell(Status::False, "Deleting", message).await?;
                return Ok(Some(false));
            }
            Departure::Going { plan, leaving } => (plan, leaving),
        };
        (self.going, self.carried) = (true, None);
        let left: Vec<Key> = plan.deletes.iter().map(|d| d.key.clone()).collect();
        let left: BTreeSet<Key> = left.into_iter().chain(leaving).collect();
        let settings = Settings {
            revision: "",
            allow: &policy.allow,
            previous: None,
        };
        let client = &self.context.client;
        let applied = apply(client, &plan, &[], &live, &policy, settings).await;
        let mut lines = problems(&Plan::default(), &applied.errors);
        let done = lines.is_empty();
        let verdict = if done {
            Verdict::Applied
        } else {
            Verdict::Failed
        };
        let reason = some(&lines, "\n");
        self.gone(verdict, &reason, (&plan, &policy, &live, &applied));
        if done {
            tracing::info!(fleet = %self.fleet.name_any(), left = left.len(), "its objects are being deleted with it");
        }
        lines.extend(left.iter().map(|key| format!("{key} is being deleted")));
        let message = some(&lines, "\n");
        self.tell_leaving("Deleting", message.clone());
        self.tell(Status::False, "Deleting", message).await?;
        // What went at once leaves the Fleet free at once.
        self.again = done && !applied.deleted.is_empty();
        Ok(Some(done))
    }

    /// Writes down what was decided of its objects.
    fn gone(
        &mut self,
        verdict: Verdict,
        reason: &str,
        (plan, policy, live, applied): (&Plan, &Policy, &Live, &Applied),
    ) {
        let done = Done {
            plan,
            policy,
            live,
            applied,
        };
        self.decided(None, verdict, reason, Some(&done));
    }

    fn tell_leaving(&mut self, reason: &'static str, message: String) {
        let now = self.context.clock.now();
        self.telling.deleting(&self.fleet, reason, message, now);
    }

    /// Puts the finalizer, or takes it away.
    async fn guard(&mut self, deletes: bool) -> Result<(), FollowError> {
        let namespace = self.fleet.namespace().unwrap_or_default();
        let fleets = Api::<Fleet>::namespaced(self.context.client.clone(), &namespace);
        let name = self.fleet.name_any();
        let Some(fleet) = fleets.get_opt(&name).await? else {
            return Ok(());
        };
        let mut finalizers = fleet.finalizers().to_vec();
        finalizers.retain(|f| f != FINALIZER_FLEET);
        if deletes {
            finalizers.push(FINALIZER_FLEET.to_owned());
        }
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "uid": fleet.uid(),
            "resourceVersion": fleet.resource_version(),
        }});
        let params = PatchParams {
            field_manager: Some(MANAGER_SYNC.into()),
            ..PatchParams::default()
        };
        fleets.patch(&name, &params, &Patch::Merge(patch)).await?;
        self.fleet.metadata.finalizers = Some(finalizers);
        Ok(())
    }
}
