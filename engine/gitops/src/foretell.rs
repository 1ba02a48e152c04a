//! A plan with all that can be told beforehand: which machines come and go, in which steps, and what will wait.

use std::collections::BTreeMap;

use fleetwright_api::Fleet;
use fleetwright_core::{
    catalogue::Catalogue,
    images::{Image, Missing},
    plan::{Images, Live, Plan, Policy, forecast, plan},
};
use jiff::Timestamp;
use kube::Client;

use crate::{
    gather::{GatherError, gather, gather_machines, policy_of},
    load::place,
    read::{Declared, ReadError, Reader, Tree},
};

/// What a Fleet would do with what its files declare.
pub struct Foretold {
    /// What the plan was made against.
    pub live: Live,
    /// What the Fleet says.
    pub policy: Policy,
    /// The plan.
    pub plan: Plan,
    /// What machines would be made from.
    pub images: Images,
}

impl Foretold {
    /// Plans what `declared` says, which must have no mistakes. `previous` is what the Fleet follows now, where that is known.
    ///
    /// # Errors
    /// [`GatherError`].
    pub async fn of(
        client: &Client,
        fleet: &Fleet,
        declared: &Declared,
        previous: Option<&Declared>,
        catalogue: &Catalogue,
        now: Timestamp,
    ) -> Result<Self, GatherError> {
        let policy = policy_of(fleet);
        let desired = &declared.desired;
        let mut live = gather(client, desired, &policy).await?;
        let previous = previous.map(|d| &d.documents);
        let mut plan = plan(desired, previous, &live, &policy, catalogue);
        gather_machines(client, &plan, &policy, &mut live).await?;
        let images = forecast(&mut plan, &live, &policy, catalogue, now);
        let waves = fleet.status.as_ref().map(|s| s.waves.as_slice());
        // For what it tells of waves; nothing is carried out.
        plan.stage(&policy, waves.unwrap_or_default(), now);
        Ok(Self {
            live,
            policy,
            plan,
            images,
        })
    }

    /// Takes in which of the images are missing, and what their providers say to that. What asks for them is looked up in `tree`, that
    /// `declared` was loaded from.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn lacks(
        &mut self,
        missing: BTreeMap<Image, Missing>,
        (reader, tree, declared): (&mut Reader, Tree, &Declared),
        catalogue: &Catalogue,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        if missing.is_empty() {
            return Ok(());
        }
        self.live.missing_images = missing;
        self.images = forecast(&mut self.plan, &self.live, &self.policy, catalogue, now);
        if self.plan.blockers.iter().any(|b| b.mistake.is_some()) {
            let files = reader.files(tree).await?;
            place(&mut self.plan.blockers, &declared.desired, &files);
        }
        Ok(())
    }

    /// Takes in what of the images machines boot from. The last word on machines: another forecast forgets it.
    pub fn boots_from(&mut self, told: &BTreeMap<Image, Option<String>>) {
        self.plan.boots_from(&self.images, told);
    }
}
