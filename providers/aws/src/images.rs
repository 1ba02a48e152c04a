//! Which image an instance boots from: given by its id, or looked up by what it is for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aws_sdk_ec2::types::{ArchitectureValues, Image, InstanceType};
use fleetwright_providers::{ConfigError, ProviderError};
use parking_lot::Mutex;

use crate::{
    clients::Clients,
    config::{ImageLookup, MachineConfig},
    errors::{code, reads, told},
    instance::filter,
};

/// Where an operating system's publisher says which of its images is the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In an SSM parameter.
    Parameter(String),
    /// In the images' names.
    Name { name: String, owner: String },
}

/// Of images that were looked up: the id, or why there is none.
pub(crate) type Found = Result<String, String>;

fn filled(text: &str, os: &str, lookup: &ImageLookup, version: &str) -> String {
    let version = version.trim_start_matches('v');
    let mut parts = version.splitn(3, '.');
    let minor = match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => version.to_owned(),
    };
    text.replace("{kubernetesVersion}", version)
        .replace("{kubernetesMinor}", &minor)
        .replace("{os}", os)
        .replace("{architecture}", &lookup.architecture)
}

/// Where the image of this lookup is told.
fn place(os: &str, lookup: &ImageLookup, version: &str) -> Place {
    let parameter = |text: &str| Place::Parameter(filled(text, os, lookup, version));
    match (&lookup.parameter, &lookup.name, os) {
        (Some(own), ..) => parameter(own),
        (None, Some(name), _) => Place::Name {
            name: filled(name, os, lookup, version),
            owner: lookup.owner.clone().unwrap_or_else(|| "self".into()),
        },
        (None, None, "ubuntu-22.04") => parameter(
            "/aws/service/canonical/ubuntu/server/22.04/stable/current/{architecture}/hvm/ebs-gp2/ami-id",
        ),
        (None, None, "ubuntu-24.04") => parameter(
            "/aws/service/canonical/ubuntu/server/24.04/stable/current/{architecture}/hvm/ebs-gp3/ami-id",
        ),
        (None, None, "debian-12") => {
            parameter("/aws/service/debian/release/12/latest/{architecture}")
        }
        // Flatcar is the one that is left, and has no parameters.
        (None, None, _) => Place::Name {
            name: "Flatcar-stable-*-hvm".into(),
            owner: "075585003325".into(),
        },
    }
}

fn architecture(lookup: &ImageLookup) -> &'static str {
    match lookup.architecture.as_str() {
        "arm64" => "arm64",
        _ => "x86_64",
    }
}

/// The newest image that the lookup stands for at this Kubernetes version.
///
/// # Errors
/// AWS cannot be asked.
async fn find(
    clients: &Clients,
    os: &str,
    lookup: &ImageLookup,
    version: &str,
) -> Result<Found, ProviderError> {
    match place(os, lookup, version) {
        Place::Parameter(name) => {
            let found = clients.ssm.get_parameter().name(&name).send().await;
            let found = match found.map_err(|e| told(reads("GetParameter"), e)) {
                Err(ProviderError::NotFound { .. }) => {
                    return Ok(Err(format!("there is no SSM parameter {name}")));
                }
                found => found?,
            };
            let value = found.parameter().and_then(|p| p.value());
            let value = value.unwrap_or_default().trim();
            Ok(if value.starts_with("ami-") {
                Ok(value.to_owned())
            } else {
                Err(format!("SSM parameter {name} holds no id of an image"))
            })
        }
        Place::Name { name, owner } => {
            let wanted = architecture(lookup);
            let mut pages = clients
                .ec2
                .describe_images()
                .owners(&owner)
                .filters(filter("name", [name.clone()]))
                .filters(filter("architecture", [wanted.to_owned()]))
                .filters(filter("state", ["available".to_owned()]))
                .into_paginator()
                .page_size(500)
                .send();
            let mut newest: Option<(String, String)> = None;
            while let Some(page) = pages.next().await {
                let page = page.map_err(|e| told(reads("DescribeImages"), e))?;
                for image in page.images() {
                    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                    let this = (text(image.creation_date()), text(image.image_id()));
                    newest = newest.into_iter().chain([this]).max();
                }
            }
            let none =
                || format!("account {owner} has no {wanted} image whose name is {name} here");
            Ok(newest.map(|(_, id)| id).ok_or_else(none))
        }
    }
}

/// The image that a machine with these settings boots from now.
///
/// # Errors
/// AWS cannot be asked.
pub(crate) async fn of(
    clients: &Clients,
    config: &MachineConfig,
    version: &str,
) -> Result<Found, ProviderError> {
    if let Some(image) = &config.image {
        return Ok(Ok(image.clone()));
    }
    let lookup = config.image_lookup.clone().unwrap_or_default();
    find(clients, &config.os, &lookup, version).await
}

/// The image with this id; `None` where there is none here.
async fn look(clients: &Clients, id: &str) -> Result<Option<Image>, ProviderError> {
    let found = clients.ec2.describe_images().image_ids(id).send().await;
    match found {
        Err(error) if code(&error).is_some_and(|c| c.starts_with("InvalidAMIID.")) => Ok(None),
        Err(error) => Err(told(reads("DescribeImages"), error)),
        Ok(found) => Ok(found.images.unwrap_or_default().into_iter().next()),
    }
}

/// For how long it holds from which device an image boots.
const HOLDS: Duration = Duration::from_secs(600);

/// Names of the devices that images boot from, by account and image. They never change: what is asked again is whether there are any.
#[derive(Debug, Default)]
pub(crate) struct Roots(Mutex<BTreeMap<(String, String), (Instant, String)>>);

impl Roots {
    /// Name of the device that an image boots from.
    ///
    /// # Errors
    /// There is no such image, or AWS cannot be asked.
    pub(crate) async fn of(
        &self,
        clients: &Clients,
        account: &str,
        id: &str,
    ) -> Result<String, ProviderError> {
        let key = (account.to_owned(), id.to_owned());
        let known = self.0.lock().get(&key).cloned();
        if let Some((_, device)) = known.filter(|(at, _)| at.elapsed() < HOLDS) {
            return Ok(device);
        }
        let image = look(clients, id).await?;
        let device = image.and_then(|i| i.root_device_name);
        let device = device.ok_or_else(|| ProviderError::Terminal {
            message: format!("image: there is no image {id} here that boots from a disk"),
        })?;
        let mut all = self.0.lock();
        all.retain(|_, (at, _)| at.elapsed() < HOLDS);
        all.insert(key, (Instant::now(), device.clone()));
        Ok(device)
    }
}

/// Architectures that a type of instances runs; `None` where there is no such type here.
async fn architectures(
    clients: &Clients,
    kind: &str,
) -> Result<Option<Vec<String>>, ProviderError> {
    let call = clients.ec2.describe_instance_types();
    let found = call.instance_types(InstanceType::from(kind)).send().await;
    let found = match found {
        Err(error) if code(&error) == Some("InvalidInstanceType") => return Ok(None),
        found => found.map_err(|e| told(reads("DescribeInstanceTypes"), e))?,
    };
    let Some(found) = found.instance_types().first() else {
        return Ok(None);
    };
    let all = found.processor_info().map(|p| p.supported_architectures());
    let all = all.unwrap_or_default().iter();
    Ok(Some(all.map(|a| a.as_str().to_owned()).collect()))
}

fn no_type(field: &str, kind: &str) -> ConfigError {
    ConfigError {
        field: field.to_owned(),
        message: format!("there is no instance type {kind} here"),
    }
}

/// The first of these types of a group's instances that there is none of.
///
/// # Errors
/// AWS cannot be asked.
pub(crate) async fn missing_types(
    clients: &Clients,
    types: &[String],
) -> Result<Option<ConfigError>, ProviderError> {
    for (at, kind) in types.iter().enumerate() {
        if architectures(clients, kind).await?.is_none() {
            return Ok(Some(no_type(&format!("instanceTypes[{at}]"), kind)));
        }
    }
    Ok(None)
}

/// The field that says which image a machine boots from.
fn says_image(config: &MachineConfig) -> &'static str {
    let lookup = config.image_lookup.as_ref();
    match (&config.image, lookup) {
        (Some(_), _) => "image",
        (None, Some(lookup)) if lookup.parameter.is_some() => "imageLookup.parameter",
        (None, Some(lookup)) if lookup.name.is_some() => "imageLookup.name",
        (None, Some(_)) => "imageLookup",
        (None, None) => "os",
    }
}

/// Why no machine can boot with these settings at this version; `None` where nothing speaks against it.
///
/// # Errors
/// AWS cannot be asked.
pub(crate) async fn missing(
    clients: &Clients,
    config: &MachineConfig,
    version: &str,
) -> Result<Option<ConfigError>, ProviderError> {
    let wrong = |field: &str, message: String| {
        let field = field.to_owned();
        Ok(Some(ConfigError { field, message }))
    };
    let says_image = says_image(config);
    let id = match of(clients, config, version).await? {
        Ok(id) => id,
        Err(why) => return wrong(says_image, why),
    };
    let Some(image) = look(clients, &id).await? else {
        return wrong(says_image, format!("there is no image {id} here"));
    };
    if let Some(state) = image.state().filter(|s| s.as_str() != "available") {
        return wrong(says_image, format!("image {id} is {}", state.as_str()));
    }
    let kind = &config.instance_type;
    let Some(runs) = architectures(clients, kind).await? else {
        return Ok(Some(no_type("instanceType", kind)));
    };
    let built = image.architecture().map(ArchitectureValues::as_str);
    let fits = |built: &str| runs.is_empty() || runs.iter().any(|a| a == built);
    match built.filter(|built| !fits(built)) {
        None => Ok(None),
        Some(built) => {
            let runs = runs.join(", ");
            let why = format!("image {id} is for {built}, and instance type {kind} runs {runs}");
            wrong("instanceType", why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(parameter: Option<&str>, name: Option<&str>) -> ImageLookup {
        ImageLookup {
            architecture: "arm64".into(),
            parameter: parameter.map(Into::into),
            name: name.map(Into::into),
            ..ImageLookup::default()
        }
    }

    #[test]
    fn publishers_tell_their_images_unless_others_are_named() {
        let parameter = |text: &str| Place::Parameter(text.to_owned());
        let named = |name: &str, owner: &str| Place::Name {
            name: name.into(),
            owner: owner.into(),
        };
        let (own, none) = (
            "/k8s/{kubernetesMinor}/{os}/{architecture}",
            lookup(None, None),
        );
        for (os, given, expected) in [
            (
                "ubuntu-24.04",
                none.clone(),
                parameter(
                    "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id",
                ),
            ),
            (
                "ubuntu-22.04",
                ImageLookup::default(),
                parameter(
                    "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
                ),
            ),
            (
                "debian-12",
                none.clone(),
                parameter("/aws/service/debian/release/12/latest/arm64"),
            ),
            (
                "flatcar",
                none,
                named("Flatcar-stable-*-hvm", "075585003325"),
            ),
            (
                "debian-12",
                lookup(Some(own), None),
                parameter("/k8s/1.34/debian-12/arm64"),
            ),
            (
                "flatcar",
                lookup(None, Some("node-{kubernetesVersion}-*")),
                named("node-1.34.2-*", "self"),
            ),
        ] {
            assert_eq!(place(os, &given, "v1.34.2"), expected);
        }
    }
}
