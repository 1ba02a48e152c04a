//! The way to a cluster's API: a network load balancer of its own, unless its settings name an endpoint.
//!
//! Load balancer and target group have a name that the cluster's key gives, and carry its tags; what has the name and not the tags is
//! somebody else's, and stays as it is.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::{
    Client,
    types::{
        Action, ActionTypeEnum, Listener, LoadBalancer as Balancer, LoadBalancerAttribute,
        LoadBalancerSchemeEnum, LoadBalancerStateEnum, LoadBalancerTypeEnum, ProtocolEnum, Tag,
        TargetDescription, TargetGroup, TargetGroupAttribute, TargetHealthStateEnum,
        TargetTypeEnum,
    },
};
use fleetwright_api::names;
use fleetwright_providers::{
    Account, ControlPlaneEndpoint, Infrastructure, InfrastructureOrder, ProviderError,
};

use crate::{
    clients::Clients,
    config::{self, ClusterConfig, LoadBalancer},
    errors::{code, reads, shown, told, writes},
    provider::Aws,
    tags::{self, Tags},
};

/// Kept as a tag once the attributes are set, so that they are set once; another number sets them anew.
const ATTRIBUTES: &str = "1";

/// Name of what is made for the cluster with this key: at most 32 characters.
fn name(cluster_key: &str) -> String {
    format!("fw-{}", names::short_hash(["endpoint", cluster_key], 28))
}

fn terminal<T>(message: impl Into<String>) -> Result<T, ProviderError> {
    Err(ProviderError::Terminal {
        message: message.into(),
    })
}

/// Tags of what is made for the cluster.
fn tags_of(order: &InfrastructureOrder, config: &ClusterConfig) -> Tags {
    let mut all = tags::of_user(&config.tags);
    all.extend(tags::of_cluster(
        &order.installation,
        &order.cluster_key,
        &order.cluster,
    ));
    all
}

fn tag_list(tags: &Tags) -> Vec<Tag> {
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
    tags.iter().map(tag).collect()
}

/// What an ensure or a removal of one cluster's works on.
struct Work<'a> {
    clients: &'a Clients,
    order: &'a InfrastructureOrder,
    name: String,
}

impl<'a> Work<'a> {
    fn new(clients: &'a Clients, order: &'a InfrastructureOrder) -> Self {
        Self {
            clients,
            order,
            name: name(&order.cluster_key),
        }
    }

    fn client(&self) -> &Client {
        &self.clients.balancing
    }

    async fn balancer(&self) -> Result<Option<Balancer>, ProviderError> {
        let call = self.client().describe_load_balancers().names(&self.name);
        match call.send().await {
            Err(error) if code(&error) == Some("LoadBalancerNotFound") => Ok(None),
            Err(error) => Err(told(reads("DescribeLoadBalancers"), error)),
            Ok(found) => {
                let mut all = found.load_balancers.unwrap_or_default().into_iter();
                let ours = all.find(|b| b.load_balancer_name() == Some(self.name.as_str()));
                shown("DescribeLoadBalancers", ours).map(Some)
            }
        }
    }

    async fn target_group(&self) -> Result<Option<TargetGroup>, ProviderError> {
        let call = self.client().describe_target_groups().names(&self.name);
        match call.send().await {
            Err(error) if code(&error) == Some("TargetGroupNotFound") => Ok(None),
            Err(error) => Err(told(reads("DescribeTargetGroups"), error)),
            Ok(found) => {
                let mut all = found.target_groups.unwrap_or_default().into_iter();
                let ours = all.find(|g| g.target_group_name() == Some(self.name.as_str()));
                shown("DescribeTargetGroups", ours).map(Some)
            }
        }
    }

    /// Tags of a thing.
    async fn tags(&self, arn: &str) -> Result<Tags, ProviderError> {
        let call = self.client().describe_tags().resource_arns(arn);
        let found = call.send().await;
        let found = found.map_err(|e| told(reads("DescribeTags"), e))?;
        let tags = found.tag_descriptions().iter().flat_map(|d| d.tags());
        let pair = |tag: &Tag| {
            let (key, value) = (tag.key()?, tag.value().unwrap_or_default());
            Some((key.to_owned(), value.to_owned()))
        };
        Ok(tags.filter_map(pair).collect())
    }

    /// Refuses a thing of our name that is not the cluster's; gives its tags.
    async fn owned(&self, arn: &str) -> Result<Tags, ProviderError> {
        let found = self.tags(arn).await?;
        if found.get(tags::CLUSTER_KEY) == Some(&self.order.cluster_key) {
            return Ok(found);
        }
        let (name, key) = (&self.name, tags::CLUSTER_KEY);
        terminal(format!(
            "{arn} is called {name} and does not carry this cluster's {key}: rename it or delete it"
        ))
    }

    /// Takes off tags that are wanted no more, and writes those that differ.
    async fn put_tags(&self, arn: &str, there: &Tags, wanted: &Tags) -> Result<(), ProviderError> {
        let outdated = tags::outdated(there, wanted);
        let mut missing = wanted.clone();
        missing.retain(|key, value| there.get(key) != Some(value));
        if !outdated.is_empty() {
            let call = self.client().remove_tags().resource_arns(arn);
            let done = call.set_tag_keys(Some(outdated)).send().await;
            done.map_err(|e| told(writes("RemoveTags"), e))?;
        }
        if !missing.is_empty() {
            let call = self.client().add_tags().resource_arns(arn);
            let done = call.set_tags(Some(tag_list(&missing))).send().await;
            done.map_err(|e| told(writes("AddTags"), e))?;
        }
        Ok(())
    }

    async fn make_balancer(
        &self,
        wanted: &LoadBalancer,
        tags: &Tags,
    ) -> Result<Balancer, ProviderError> {
        let groups = wanted.security_groups.iter().flatten().cloned();
        let call = self
            .client()
            .create_load_balancer()
            .name(&self.name)
            .r#type(LoadBalancerTypeEnum::Network)
            .scheme(LoadBalancerSchemeEnum::from(wanted.scheme.as_str()))
            .set_subnets(Some(wanted.subnets.iter().cloned().collect()))
            .set_security_groups(wanted.security_groups.as_ref().map(|_| groups.collect()))
            .set_tags(Some(tag_list(tags)));
        let made = call.send().await;
        let made = made.map_err(|e| told(writes("CreateLoadBalancer"), e))?;
        let made = made.load_balancers.unwrap_or_default().into_iter().next();
        made.ok_or_else(|| ProviderError::Ambiguous {
            message: "CreateLoadBalancer: the answer shows none".into(),
        })
    }

    /// Puts right what can be changed of a load balancer.
    async fn mend_balancer(
        &self,
        there: &Balancer,
        wanted: &LoadBalancer,
        arn: &str,
    ) -> Result<(), ProviderError> {
        let scheme = there.scheme().map(LoadBalancerSchemeEnum::as_str);
        if scheme.is_some_and(|scheme| scheme != wanted.scheme) {
            let (is, scheme) = (scheme.unwrap_or_default(), &wanted.scheme);
            return terminal(format!(
                "loadBalancer.scheme: {scheme} is wanted of a load balancer that is {is}, which cannot change: set it back, or make another Cluster"
            ));
        }
        let zones = there.availability_zones().iter();
        let subnets: BTreeSet<&str> = zones.filter_map(|z| z.subnet_id()).collect();
        if !wanted.subnets.iter().map(String::as_str).eq(subnets) {
            let call = self.client().set_subnets().load_balancer_arn(arn);
            let subnets = wanted.subnets.iter().cloned().collect();
            let done = call.set_subnets(Some(subnets)).send().await;
            done.map_err(|e| told(writes("SetSubnets"), e))?;
        }
        let groups: BTreeSet<&str> = there.security_groups().iter().map(String::as_str).collect();
        if let Some(wanted) = &wanted.security_groups
            && !wanted.iter().map(String::as_str).eq(groups)
        {
            let call = self.client().set_security_groups().load_balancer_arn(arn);
            let groups = wanted.iter().cloned().collect();
            let done = call.set_security_groups(Some(groups)).send().await;
            done.map_err(|e| told(writes("SetSecurityGroups"), e))?;
        }
        Ok(())
    }

    /// In every zone a client reaches the control plane, whatever zones that is in.
    async fn cross_zones(&self, arn: &str) -> Result<(), ProviderError> {
        let attribute = LoadBalancerAttribute::builder()
            .key("load_balancing.cross_zone.enabled")
            .value("true")
            .build();
        let call = self.client().modify_load_balancer_attributes();
        let done = call.load_balancer_arn(arn).attributes(attribute).send();
        let done = done.await;
        done.map_err(|e| told(writes("ModifyLoadBalancerAttributes"), e))
            .map(drop)
    }

    async fn make_target_group(
        &self,
        network: &str,
        tags: &Tags,
    ) -> Result<TargetGroup, ProviderError> {
        let call = self
            .client()
            .create_target_group()
            .name(&self.name)
            .protocol(ProtocolEnum::Tcp)
            .port(i32::from(self.order.port))
            .vpc_id(network)
            .target_type(TargetTypeEnum::Instance)
            .health_check_protocol(ProtocolEnum::Tcp)
            .health_check_interval_seconds(10)
            .healthy_threshold_count(2)
            .unhealthy_threshold_count(2)
            .set_tags(Some(tag_list(tags)));
        let made = call.send().await;
        let made = made.map_err(|e| told(writes("CreateTargetGroup"), e))?;
        let made = made.target_groups.unwrap_or_default().into_iter().next();
        made.ok_or_else(|| ProviderError::Ambiguous {
            message: "CreateTargetGroup: the answer shows none".into(),
        })
    }

    /// A control-plane machine reaches the API by the load balancer too, and so perhaps itself: that works only where the target does
    /// not see its own address as the client's.
    async fn hide_clients(&self, arn: &str) -> Result<(), ProviderError> {
        let attribute = TargetGroupAttribute::builder()
            .key("preserve_client_ip.enabled")
            .value("false")
            .build();
        let call = self.client().modify_target_group_attributes();
        let done = call.target_group_arn(arn).attributes(attribute).send();
        let done = done.await;
        done.map_err(|e| told(writes("ModifyTargetGroupAttributes"), e))
            .map(drop)
    }

    /// Makes the one listener there is to be.
    async fn listen(&self, balancer: &str, group: &str, tags: &Tags) -> Result<(), ProviderError> {
        let port = i32::from(self.order.port);
        let call = self.client().describe_listeners();
        let found = call.load_balancer_arn(balancer).send().await;
        let found = found.map_err(|e| told(reads("DescribeListeners"), e))?;
        let fits = |listener: &&Listener| {
            let actions = listener.default_actions();
            listener.port() == Some(port)
                && actions.iter().any(|a| a.target_group_arn() == Some(group))
        };
        let others = found.listeners().iter().filter(|l| !fits(l));
        for other in others.filter_map(|l| l.listener_arn()) {
            let gone = self.client().delete_listener().listener_arn(other).send();
            gone.await.map_err(|e| told(writes("DeleteListener"), e))?;
        }
        if found.listeners().iter().any(|l| fits(&l)) {
            return Ok(());
        }
        let forward = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(group)
            .build();
        let call = self
            .client()
            .create_listener()
            .load_balancer_arn(balancer)
            .protocol(ProtocolEnum::Tcp)
            .port(port)
            .default_actions(forward)
            .set_tags(Some(tag_list(tags)));
        let made = call.send().await;
        made.map_err(|e| told(writes("CreateListener"), e))
            .map(drop)
    }

    /// Keeps the targets equal to the control plane's instances. While nobody names any, those that are there stay: a cluster that goes
    /// loses them with its load balancer, and one whose state is made anew does not know its instances yet.
    async fn aim(&self, group: &str) -> Result<(), ProviderError> {
        let port = i32::from(self.order.port);
        let call = self.client().describe_target_health();
        let found = call.target_group_arn(group).send().await;
        let found = found.map_err(|e| told(reads("DescribeTargetHealth"), e))?;
        let stays = found.target_health_descriptions().iter().filter(|d| {
            let state = d.target_health().and_then(|h| h.state());
            state != Some(&TargetHealthStateEnum::Draining)
        });
        let there = stays.filter_map(|d| d.target());
        let there: BTreeSet<(&str, i32)> = there
            .filter_map(|t| Some((t.id()?, t.port().unwrap_or(port))))
            .collect();
        let wanted: BTreeSet<(&str, i32)> = self
            .order
            .instances
            .iter()
            .map(|id| (id.as_str(), port))
            .collect();
        let targets = |all: Vec<(&str, i32)>| -> Vec<TargetDescription> {
            let target = |(id, port)| TargetDescription::builder().id(id).port(port).build();
            all.into_iter().map(target).collect()
        };
        let new = targets(wanted.difference(&there).copied().collect());
        if !new.is_empty() {
            let call = self.client().register_targets().target_group_arn(group);
            let done = call.set_targets(Some(new)).send().await;
            done.map_err(|e| told(writes("RegisterTargets"), e))?;
        }
        let old = targets(there.difference(&wanted).copied().collect());
        if !old.is_empty() && !wanted.is_empty() {
            let call = self.client().deregister_targets().target_group_arn(group);
            let done = call.set_targets(Some(old)).send().await;
            done.map_err(|e| told(writes("DeregisterTargets"), e))?;
        }
        Ok(())
    }

    /// The network that a subnet is in.
    async fn network(&self, subnet: &str) -> Result<String, ProviderError> {
        let call = self.clients.ec2.describe_subnets().subnet_ids(subnet);
        let found = call.send().await;
        let found = found.map_err(|e| told(reads("DescribeSubnets"), e))?;
        let network = found.subnets().first().and_then(|s| s.vpc_id());
        match network {
            Some(network) => Ok(network.to_owned()),
            None => terminal(format!("loadBalancer.subnets: there is no {subnet} here")),
        }
    }
}

fn arn_of(arn: Option<&str>) -> Result<String, ProviderError> {
    arn.map(str::to_owned)
        .ok_or_else(|| ProviderError::Unavailable {
            message: "AWS shows something without its ARN".into(),
        })
}

#[async_trait]
impl Infrastructure for Aws {
    async fn ensure(
        &self,
        account: &Account,
        order: &InfrastructureOrder,
    ) -> Result<Option<ControlPlaneEndpoint>, ProviderError> {
        let config = config::cluster(&order.config)?;
        if let Some(given) = config.control_plane_endpoint {
            return Ok(Some(ControlPlaneEndpoint {
                host: given.host,
                port: given.port,
            }));
        }
        let Some(wanted) = &config.load_balancer else {
            return terminal(
                "providerConfig of the Cluster: set loadBalancer, or controlPlaneEndpoint where somebody else makes one",
            );
        };
        let clients = self.clients(account).await?;
        let work = Work::new(&clients, order);
        let tags = tags_of(order, &config);

        let (balancer, found) = match work.balancer().await? {
            Some(there) => {
                let found = work.owned(&arn_of(there.load_balancer_arn())?).await?;
                (there, found)
            }
            None => (work.make_balancer(wanted, &tags).await?, tags.clone()),
        };
        let arn = arn_of(balancer.load_balancer_arn())?;
        let done = Tags::from([(tags::CONFIG_DIGEST.to_owned(), ATTRIBUTES.to_owned())]);
        let set = tags.iter().chain(&done);
        let set: Tags = set.map(|(k, v)| (k.clone(), v.clone())).collect();
        work.mend_balancer(&balancer, wanted, &arn).await?;
        if found.get(tags::CONFIG_DIGEST) != done.get(tags::CONFIG_DIGEST) {
            work.cross_zones(&arn).await?;
        }
        work.put_tags(&arn, &found, &set).await?;

        let (group, found) = match work.target_group().await? {
            Some(group) => {
                let group = arn_of(group.target_group_arn())?;
                let found = work.owned(&group).await?;
                (group, found)
            }
            None => {
                let subnet = wanted.subnets.first().map_or("", String::as_str);
                let network = work.network(subnet).await?;
                let made = work.make_target_group(&network, &tags).await?;
                (arn_of(made.target_group_arn())?, tags.clone())
            }
        };
        if found.get(tags::CONFIG_DIGEST) != done.get(tags::CONFIG_DIGEST) {
            work.hide_clients(&group).await?;
        }
        work.put_tags(&group, &found, &set).await?;
        work.aim(&group).await?;
        work.listen(&arn, &group, &tags).await?;

        let state = balancer.state();
        match state.and_then(|s| s.code()) {
            Some(LoadBalancerStateEnum::Active | LoadBalancerStateEnum::ActiveImpaired) => {}
            Some(LoadBalancerStateEnum::Failed) => {
                let why = state
                    .and_then(|s| s.reason())
                    .unwrap_or("AWS does not say why");
                return terminal(format!("the load balancer {} has failed: {why}", work.name));
            }
            _ => return Ok(None),
        }
        let host = balancer.dns_name().filter(|host| !host.is_empty());
        Ok(host.map(|host| ControlPlaneEndpoint {
            host: host.to_owned(),
            port: order.port,
        }))
    }

    async fn remove(
        &self,
        account: &Account,
        order: &InfrastructureOrder,
    ) -> Result<bool, ProviderError> {
        // What the settings say now tells nothing of what was made by them before.
        let clients = self.clients(account).await?;
        let work = Work::new(&clients, order);
        if let Some(balancer) = work.balancer().await? {
            let arn = arn_of(balancer.load_balancer_arn())?;
            work.owned(&arn).await?;
            let call = work.client().delete_load_balancer();
            let gone = call.load_balancer_arn(&arn).send().await;
            gone.map_err(|e| told(writes("DeleteLoadBalancer"), e))?;
            return Ok(false);
        }
        let Some(group) = work.target_group().await? else {
            return Ok(true);
        };
        let arn = arn_of(group.target_group_arn())?;
        work.owned(&arn).await?;
        let call = work.client().delete_target_group();
        match call.target_group_arn(&arn).send().await {
            // The load balancer holds it for a moment after it is gone.
            Err(error) if code(&error) == Some("ResourceInUse") => {}
            Err(error) => return Err(told(writes("DeleteTargetGroup"), error)),
            Ok(_) => {}
        }
        Ok(work.target_group().await?.is_none())
    }
}
