//! Spot instances that AWS is about to take back. It says so two minutes before, of the request that each of them is of.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use aws_sdk_ec2::types::{Instance as Shown, SpotInstanceRequest};
use fleetwright_providers::{Instance, InstanceState, ProviderError};

use crate::{
    clients::Clients,
    errors::{reads, told},
    instance::filter,
};

/// What the status of a request says within the two minutes.
const MARKED: &str = "marked-for-termination";
/// Most requests on a page.
const PAGE: i32 = 1000;

/// Whether it was said that nobody may ask.
#[derive(Debug, Default)]
pub(crate) struct Spot {
    told: AtomicBool,
}

impl Spot {
    /// Shows those of `instances` as given up that AWS is about to take back. Nobody is asked where none of `shown` is a spot instance, and
    /// where nobody answers they are seen once they have ended.
    pub(crate) async fn give_up(
        &self,
        clients: &Clients,
        shown: &[Shown],
        instances: &mut [Instance],
    ) {
        let is_spot = |i: &Shown| {
            i.spot_instance_request_id()
                .is_some_and(|id| !id.is_empty())
        };
        if !shown.iter().any(is_spot) {
            return;
        }
        match marked(clients).await {
            Ok(marked) => {
                self.told.store(false, Ordering::Relaxed);
                give_up(&marked, instances);
            }
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "notices that spot instances are taken back cannot be read: they are seen when they have ended");
                }
            }
        }
    }
}

/// The words of AWS by the ids of the instances that it takes back.
async fn marked(clients: &Clients) -> Result<BTreeMap<String, String>, ProviderError> {
    let mut pages = clients
        .ec2
        .describe_spot_instance_requests()
        .filters(filter("status-code", [MARKED.to_owned()]))
        .into_paginator()
        .page_size(PAGE)
        .send();
    let mut all = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| told(reads("DescribeSpotInstanceRequests"), e))?;
        all.extend(page.spot_instance_requests().iter().filter_map(words));
    }
    Ok(all)
}

fn words(request: &SpotInstanceRequest) -> Option<(String, String)> {
    let status = request.status().filter(|s| s.code() == Some(MARKED))?;
    let text = status.message().unwrap_or_default().trim();
    let words = match text {
        "" => format!("AWS takes the spot instance back ({MARKED})"),
        text => format!("AWS takes the spot instance back ({MARKED}: {text})"),
    };
    Some((request.instance_id()?.to_owned(), words))
}

fn give_up(marked: &BTreeMap<String, String>, instances: &mut [Instance]) {
    let lives =
        |i: &&mut Instance| matches!(i.state, InstanceState::Pending | InstanceState::Running);
    for instance in instances.iter_mut().filter(lives) {
        if let Some(why) = marked.get(&instance.id) {
            instance.state = InstanceState::Failed;
            instance.reason = Some(why.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        InstanceState as State, InstanceStateName as Name, SpotInstanceStatus,
    };

    use super::*;
    use crate::instance::show;

    fn request(id: &str, code: &str, text: &str) -> SpotInstanceRequest {
        let status = SpotInstanceStatus::builder().code(code).message(text);
        SpotInstanceRequest::builder()
            .instance_id(id)
            .status(status.build())
            .build()
    }

    #[test]
    fn what_is_marked_is_given_up_and_nothing_else() {
        let marked: BTreeMap<_, _> = [
            request(
                "i-1",
                MARKED,
                "Your Spot Instance is marked for termination.",
            ),
            request("i-2", "fulfilled", ""),
            request("i-3", MARKED, ""),
            request("i-4", MARKED, ""),
        ]
        .iter()
        .filter_map(words)
        .collect();
        let shown = [
            ("i-1", Name::Running),
            ("i-2", Name::Running),
            ("i-3", Name::Pending),
            ("i-4", Name::ShuttingDown),
            ("i-5", Name::Running),
        ]
        .map(|(id, state)| {
            let state = State::builder().name(state).build();
            Shown::builder().instance_id(id).state(state).build()
        });
        let mut instances: Vec<_> = shown.iter().map(show).collect();
        give_up(&marked, &mut instances);
        let states: Vec<_> = instances
            .iter()
            .map(|i| (i.state, i.reason.as_deref()))
            .collect();
        let long = "AWS takes the spot instance back (marked-for-termination: Your Spot Instance is marked for termination.)";
        let short = "AWS takes the spot instance back (marked-for-termination)";
        assert_eq!(
            states,
            [
                (InstanceState::Failed, Some(long)),
                (InstanceState::Running, None),
                (InstanceState::Failed, Some(short)),
                (InstanceState::Deleting, None),
                (InstanceState::Running, None),
            ]
        );
    }
}
