use fleetwright_api::machine::{MachineAddress, NodeRef};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequestCondition, CertificateSigningRequestStatus},
};
use proptest::prelude::*;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

use super::*;

const USER: &str = "system:node:web-1";

struct Asked {
    subject: Vec<(DnType, &'static str)>,
    names: Vec<SanType>,
    extensions: Vec<CustomExtension>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            subject: vec![
                (DnType::OrganizationName, "system:nodes"),
                (DnType::CommonName, USER),
            ],
            names: vec![dns("web-1"), ip("10.0.0.5")],
            extensions: Vec::new(),
        }
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

impl Asked {
    fn pem(self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in self.subject {
            params.distinguished_name.push(kind, text);
        }
        params.subject_alt_names = self.names;
        params.custom_extensions = self.extensions;
        let key = KeyPair::generate().unwrap();
        params
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
            .into_bytes()
    }
}

fn request(pem: Vec<u8>) -> CertificateSigningRequest {
    let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    CertificateSigningRequest {
        spec: CertificateSigningRequestSpec {
            signer_name: SIGNER.to_owned(),
            username: Some(USER.to_owned()),
            groups: list(&["system:nodes", "system:authenticated"]),
            usages: list(&["digital signature", "server auth"]),
            request: ByteString(pem),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    }
}

fn machine(name: &str, node: Option<&str>, addresses: &[(&str, &str)]) -> Machine {
    let mut machine = Machine::new(name, Default::default());
    machine.status = Some(MachineStatus {
        node_ref: node.map(|name| NodeRef {
            name: name.to_owned(),
        }),
        addresses: addresses
            .iter()
            .map(|(kind, address)| MachineAddress {
                kind: (*kind).to_owned(),
                address: (*address).to_owned(),
            })
            .collect(),
        ..MachineStatus::default()
    });
    machine
}

fn web_1() -> Machine {
    let addresses = [
        ("Hostname", "ip-10-0-0-5"),
        ("InternalIP", "10.0.0.5"),
        ("InternalIP", "fd00:0::5"),
        ("ExternalIP", "198.51.100.7"),
        ("InternalDNS", "Web-1.internal"),
    ];
    machine("prod-web-1", Some("web-1"), &addresses)
}

/// The verdict with its reason cut to what the table says.
fn verdict(request: &CertificateSigningRequest, machines: &[Machine], want: &str) -> String {
    let (word, why) = match decide(request, machines) {
        Verdict::Approve => return "approve".to_owned(),
        Verdict::Deny(why) => ("deny", why),
        Verdict::Ignore(why) => ("ignore", why),
        Verdict::Wait(why) => ("wait", why),
    };
    match want.split_once(": ") {
        Some((_, part)) if why.contains(part) => format!("{word}: {part}"),
        _ => format!("{word}: {why}"),
    }
}

#[test]
fn names_and_addresses_must_belong_to_the_machine() {
    let others = [machine(
        "prod-web-2",
        Some("web-2"),
        &[("InternalIP", "10.0.0.6"), ("Hostname", "web-2")],
    )];
    for (names, want) in [
        (vec![dns("web-1"), ip("10.0.0.5")], "approve"),
        (
            vec![ip("10.0.0.5"), ip("fd00::5"), ip("198.51.100.7")],
            "approve",
        ),
        (
            vec![dns("WEB-1"), dns("web-1.INTERNAL"), dns("ip-10-0-0-5")],
            "approve",
        ),
        (vec![], "deny: no name and no address"),
        (
            vec![dns("web-1"), ip("10.0.0.6")],
            "deny: address 10.0.0.6 does not belong",
        ),
        (
            vec![dns("web-2")],
            "deny: DNS name \"web-2\" does not belong",
        ),
        (vec![dns("*.internal")], "deny: does not belong"),
        (vec![dns("10.0.0.5")], "deny: does not belong"),
        (
            vec![dns("kubernetes.default.svc"), dns("web-1")],
            "deny: does not belong",
        ),
        (
            vec![dns("web-1"), SanType::URI("spiffe://a".try_into().unwrap())],
            "deny: something else than DNS names",
        ),
        (
            vec![
                dns("web-1"),
                SanType::Rfc822Name("a@b.org".try_into().unwrap()),
            ],
            "deny: something else than DNS names",
        ),
    ] {
        let request = request(
            Asked {
                names,
                ..Asked::default()
            }
            .pem(),
        );
        let machines = [&others[..], &[web_1()]].concat();
        assert_eq!(verdict(&request, &machines, want), want);
    }
}

#[test]
fn what_a_node_calls_itself_is_no_name_of_its_machine() {
    let asked = |node: &'static str| {
        let user: &'static str = format!("system:node:{node}").leak();
        let subject = vec![
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, user),
        ];
        let names = vec![dns(node), ip("10.0.0.5")];
        let mut request = request(
            Asked {
                subject,
                names,
                ..Asked::default()
            }
            .pem(),
        );
        request.spec.username = Some(user.to_owned());
        request
    };
    let inside = ("InternalDNS", "ip-10-0-0-5.eu-central-1.compute.internal");
    for (node, want) in [
        ("kubernetes.default.svc", "deny: does not belong"),
        ("compute", "deny: does not belong"),
        ("ip-10-0-0-5", "approve"),
        ("ip-10-0-0-5.eu-central-1.compute.internal", "approve"),
        ("prod-web-1", "approve"),
    ] {
        let addresses = [("InternalIP", "10.0.0.5"), inside];
        let machine = machine("prod-web-1", Some(node), &addresses);
        assert_eq!(verdict(&asked(node), &[machine], want), want, "{node}");
    }
}

#[test]
fn the_subject_must_be_the_nodes() {
    use DnType::{CommonName, OrganizationName, OrganizationalUnitName};
    for (subject, want) in [
        (vec![(CommonName, USER)], "deny: its organization is []"),
        (
            vec![(OrganizationName, "system:nodes")],
            "deny: its common name is []",
        ),
        (
            vec![(OrganizationName, "system:masters"), (CommonName, USER)],
            "deny: its organization is",
        ),
        (
            vec![
                (OrganizationName, "system:nodes"),
                (CommonName, "system:node:web-2"),
            ],
            "deny: its common name is",
        ),
        (
            vec![
                (OrganizationName, "system:nodes"),
                (CommonName, USER),
                (OrganizationalUnitName, "x"),
            ],
            "deny: its subject has more",
        ),
    ] {
        let request = request(
            Asked {
                subject,
                ..Asked::default()
            }
            .pem(),
        );
        assert_eq!(verdict(&request, &[web_1()], want), want);
    }
}

#[test]
fn who_asks_for_what_decides_too() {
    let base = || request(Asked::default().pem());
    type Edit = fn(&mut CertificateSigningRequest);
    let rows: [(Edit, &str); 14] = [
        (|_| {}, "approve"),
        (
            |r| {
                r.spec.usages = Some(
                    ["server auth", "key encipherment", "digital signature"]
                        .map(str::to_owned)
                        .to_vec(),
                );
            },
            "approve",
        ),
        (
            |r| {
                r.spec
                    .usages
                    .as_mut()
                    .unwrap()
                    .push("client auth".to_owned());
            },
            "deny: its usages are",
        ),
        (
            |r| r.spec.usages = Some(vec!["server auth".to_owned()]),
            "deny: its usages are",
        ),
        (|r| r.spec.usages = None, "deny: its usages are []"),
        (
            |r| r.spec.groups = Some(vec!["system:authenticated".to_owned()]),
            "deny: is not in group system:nodes",
        ),
        (
            |r| r.spec.groups = None,
            "deny: is not in group system:nodes",
        ),
        (
            |r| r.spec.username = Some("system:node:web-2".to_owned()),
            "wait: no Machine has node web-2",
        ),
        (
            |r| r.spec.username = Some("alice".to_owned()),
            "ignore: is no node",
        ),
        (
            |r| r.spec.username = Some("system:node:".to_owned()),
            "ignore: is no node",
        ),
        (|r| r.spec.username = None, "ignore: is no node"),
        (
            |r| r.spec.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".to_owned(),
            "ignore: is not the signer",
        ),
        (
            |r| r.spec.request.0 = vec![b'A'; 20_000],
            "deny: its request has 20000 bytes",
        ),
        (
            |r| {
                let condition = CertificateSigningRequestCondition {
                    type_: "Denied".to_owned(),
                    ..Default::default()
                };
                r.status = Some(CertificateSigningRequestStatus {
                    conditions: Some(vec![condition]),
                    ..Default::default()
                });
            },
            "ignore: it is decided",
        ),
    ];
    for (edit, want) in rows {
        let mut request = base();
        edit(&mut request);
        assert_eq!(verdict(&request, &[web_1()], want), want);
    }
}

#[test]
fn a_machine_that_is_not_known_yet_is_waited_for() {
    let addresses = [("InternalIP", "10.0.0.5")];
    let asked = request(Asked::default().pem());
    for (machines, want) in [
        (vec![], "wait: no Machine has node web-1"),
        (
            vec![machine("prod-web-1", None, &addresses)],
            "wait: no Machine has node web-1",
        ),
        (vec![machine("web-1", None, &addresses)], "approve"),
        (
            vec![machine("web-1", Some("other"), &addresses)],
            "wait: no Machine has node web-1",
        ),
        (
            vec![machine("web-1", None, &[])],
            "wait: addresses of node web-1's Machine are not known",
        ),
        // Not the namesake, whose node is not known, but the one whose node it is.
        (
            vec![
                machine("web-1", None, &addresses),
                machine(
                    "b",
                    Some("web-1"),
                    &[("Hostname", "web-1"), ("InternalIP", "10.0.0.9")],
                ),
            ],
            "deny: address 10.0.0.5 does not belong",
        ),
    ] {
        assert_eq!(verdict(&asked, &machines, want), want);
    }
}

#[test]
fn no_extension_is_asked_for_besides_names() {
    // basicConstraints: CA.
    let authority =
        CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0x03, 0x01, 0x01, 0xff]);
    let unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0x05, 0x00]);
    for extension in [authority, unknown] {
        let pem = Asked {
            extensions: vec![extension],
            ..Asked::default()
        }
        .pem();
        let want = "deny: it asks for extension";
        assert_eq!(verdict(&request(pem), &[web_1()], want), want);
    }
}

#[test]
fn a_request_of_openssl_is_read() {
    let Some(openssl) = fleetwright_tests::tools::tool("openssl") else {
        return;
    };
    let said = std::process::Command::new(openssl)
        .args([
            "req",
            "-new",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "/dev/null",
        ])
        .args(["-subj", "/O=system:nodes/CN=system:node:web-1"])
        .args(["-addext", "subjectAltName=DNS:web-1,IP:10.0.0.5"])
        .output()
        .unwrap();
    assert_eq!(decide(&request(said.stdout), &[web_1()]), Verdict::Approve);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_make_it_panic_or_approve(garbage in proptest::collection::vec(any::<u8>(), 0..600)) {
        let armored = pem_of(&garbage);
        for bytes in [garbage, armored] {
            prop_assert!(matches!(decide(&request(bytes), &[web_1()]), Verdict::Deny(_)));
        }
    }

    /// A request of which one byte is changed is not signed by its key any more.
    #[test]
    fn no_changed_request_is_approved(place in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let pem = Asked::default().pem();
        let mut der = Pem::iter_from_buffer(&pem).next().unwrap().unwrap().contents;
        // The rest of it only says how it is signed.
        let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
        let signed = parsed.certification_request_info.raw;
        let start = der.windows(signed.len()).position(|part| part == signed).unwrap();
        let place = start + place.index(signed.len());
        der[place] ^= flip;
        let verdict = decide(&request(pem_of(&der)), &[web_1()]);
        prop_assert!(matches!(verdict, Verdict::Deny(_)), "{:?} at {}", verdict, place);
    }
}

fn pem_of(der: &[u8]) -> Vec<u8> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).collect();
    [
        b"-----BEGIN CERTIFICATE REQUEST-----\n".to_vec(),
        lines.join(&b'\n'),
        b"\n-----END CERTIFICATE REQUEST-----\n".to_vec(),
    ]
    .concat()
}
