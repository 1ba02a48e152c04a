//! Which requests for kubelets' serving certificates are approved: those by a node, for names and addresses that belong to its Machine.
//! The provider says which do, not the node: a node may call itself `kubernetes.default.svc`.

use std::net::IpAddr;

use fleetwright_api::machine::{Machine, MachineStatus};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME},
    pem::Pem,
    prelude::FromDer,
};

/// The signer that this is about.
pub const SIGNER: &str = "kubernetes.io/kubelet-serving";
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";
/// Most bytes of a request: ten times what a kubelet sends.
const MOST_BYTES: usize = 16 * 1024;
/// What kubelets ask for, by the kind of their key.
const USAGES: [&[&str]; 2] = [
    &["digital signature", "server auth"],
    &["digital signature", "key encipherment", "server auth"],
];

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is approved.
    Approve,
    /// It is denied, for this reason; a kubelet asks anew later.
    Deny(String),
    /// It is left as it is: it is somebody else's business, or decided.
    Ignore(String),
    /// It is to be looked at again when a Machine says more.
    Wait(String),
}

/// Judges `request`, with all Machines of the cluster.
pub fn decide<'a>(
    request: &CertificateSigningRequest,
    machines: impl IntoIterator<Item = &'a Machine>,
) -> Verdict {
    let spec = &request.spec;
    if spec.signer_name != SIGNER {
        return Verdict::Ignore(format!(
            "{} is not the signer of kubelets' serving certificates",
            spec.signer_name
        ));
    }
    let decided = request.status.as_ref().is_some_and(|status| {
        status.certificate.is_some()
            || status.conditions.iter().flatten().any(|condition| {
                ["Approved", "Denied", "Failed"].contains(&condition.type_.as_str())
            })
    });
    if decided {
        return Verdict::Ignore("it is decided".to_owned());
    }
    let user = spec.username.as_deref().unwrap_or_default();
    let Some(node) = user
        .strip_prefix(NODE_PREFIX)
        .filter(|node| !node.is_empty())
    else {
        return Verdict::Ignore(format!("{user:?} is no node"));
    };
    let Some(machine) = machine_of(node, machines) else {
        return Verdict::Wait(format!("no Machine has node {node}"));
    };
    let asked = match asked(spec, user) {
        Ok(asked) => asked,
        Err(why) => return Verdict::Deny(why),
    };
    let Some(status) = machine
        .status
        .as_ref()
        .filter(|status| !status.addresses.is_empty())
    else {
        return Verdict::Wait(format!(
            "the addresses of node {node}'s Machine are not known yet"
        ));
    };
    let own = machine.metadata.name.as_deref().unwrap_or_default();
    match asked.iter().find(|name| !name.belongs(own, status)) {
        None => Verdict::Approve,
        Some(name) => Verdict::Deny(format!("{name} does not belong to node {node}'s Machine")),
    }
}

/// The Machine whose node it is; before that is known, the one of the same name.
fn machine_of<'a>(
    node: &str,
    machines: impl IntoIterator<Item = &'a Machine>,
) -> Option<&'a Machine> {
    let mut namesake = None;
    for machine in machines {
        let known = machine
            .status
            .as_ref()
            .and_then(|status| status.node_ref.as_ref());
        match known {
            Some(known) if known.name == node => return Some(machine),
            None if machine.metadata.name.as_deref() == Some(node) => namesake = Some(machine),
            _ => {}
        }
    }
    namesake
}

/// What a certificate would be valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Dns(String),
    Ip(IpAddr),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "DNS name {name:?}"),
            Self::Ip(address) => write!(f, "address {address}"),
        }
    }
}

impl Name {
    fn belongs(&self, machine: &str, status: &MachineStatus) -> bool {
        match self {
            Self::Dns(name) => name.eq_ignore_ascii_case(machine) || status.is_called(name),
            Self::Ip(address) => status.addresses.iter().any(|known| {
                ["InternalIP", "ExternalIP"].contains(&known.kind.as_str())
                    && known.address.parse() == Ok(*address)
            }),
        }
    }
}

/// The names that a node's request asks for; an error where it asks for anything that no kubelet would.
fn asked(spec: &CertificateSigningRequestSpec, user: &str) -> Result<Vec<Name>, String> {
    if !spec.groups.iter().flatten().any(|group| group == NODES) {
        return Err(format!("{user} is not in group {NODES}"));
    }
    let mut usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    usages.sort_unstable();
    if !USAGES.contains(&usages.as_slice()) {
        return Err(format!(
            "its usages are {usages:?}, which are not those of a serving certificate"
        ));
    }
    let bytes = &spec.request.0;
    if bytes.len() > MOST_BYTES {
        return Err(format!("its request has {} bytes", bytes.len()));
    }
    let pem = Pem::iter_from_buffer(bytes)
        .next()
        .and_then(Result::ok)
        .filter(|pem| pem.label == "CERTIFICATE REQUEST")
        .ok_or("its request is no PEM of a certificate request")?;
    let (rest, parsed) = X509CertificationRequest::from_der(&pem.contents)
        .map_err(|_| "its request cannot be read")?;
    if !rest.is_empty() {
        return Err("its request goes on after its end".to_owned());
    }
    parsed
        .verify_signature()
        .map_err(|_| "its request is not signed by its key")?;
    subject(&parsed, user)?;
    names(&parsed)
}

fn subject(request: &X509CertificationRequest<'_>, user: &str) -> Result<(), String> {
    let (mut names, mut groups) = (Vec::new(), Vec::new());
    for attribute in request.certification_request_info.subject.iter_attributes() {
        let into = if *attribute.attr_type() == OID_X509_COMMON_NAME {
            &mut names
        } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
            &mut groups
        } else {
            return Err("its subject has more than a common name and an organization".to_owned());
        };
        into.push(attribute.as_str().unwrap_or_default());
    }
    if names != [user] {
        return Err(format!("its common name is {names:?}, not {user}"));
    }
    if groups != [NODES] {
        return Err(format!("its organization is {groups:?}, not {NODES}"));
    }
    Ok(())
}

fn names(request: &X509CertificationRequest<'_>) -> Result<Vec<Name>, String> {
    let mut names = Vec::new();
    // All attributes: who issues the certificate reads a second one too.
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else {
            return Err("it asks for more than names".to_owned());
        };
        for extension in &wanted.extensions {
            let ParsedExtension::SubjectAlternativeName(wanted) = extension.parsed_extension()
            else {
                return Err(format!("it asks for extension {}", extension.oid));
            };
            for name in &wanted.general_names {
                names.push(match name {
                    GeneralName::DNSName(name) => Name::Dns((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => {
                        Name::Ip(address(bytes).ok_or("an address of it is none")?)
                    }
                    _ => {
                        return Err(
                            "it asks for something else than DNS names and addresses".to_owned()
                        );
                    }
                });
            }
        }
    }
    if names.is_empty() {
        return Err("it asks for no name and no address".to_owned());
    }
    Ok(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests;
