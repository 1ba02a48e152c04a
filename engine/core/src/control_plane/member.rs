//! Whose a member of etcd is.

use fleetwright_api::Machine;

use super::{is_leaving, name};

/// The machine that a member of etcd is of, by the member's name. Members are called like their nodes. Before a machine's node is
/// known, the names count that the provider gives it; a member that has not started is called by its URL.
pub fn machine_of<'m>(member: &str, machines: &'m [Machine]) -> Option<&'m Machine> {
    let node = |m: &Machine| {
        let node = m.status.as_ref()?.node_ref.as_ref()?;
        Some(node.name.clone())
    };
    let known = machines
        .iter()
        .find(|m| node(m).is_some_and(|n| n == member));
    known.or_else(|| {
        let may = |m: &&Machine| node(m).is_none() && is_called(m, member);
        // Clouds give what one machine had to the next.
        machines.iter().filter(may).min_by_key(|m| is_leaving(m))
    })
}

fn is_called(machine: &Machine, member: &str) -> bool {
    let status = machine.status.as_ref();
    let known = status.is_some_and(|status| {
        let has = |host: &str| {
            let mut addresses = status.addresses.iter();
            addresses.any(|a| a.kind == "InternalIP" && a.address == host)
        };
        status.is_called(member) || host(member).is_some_and(has)
    });
    known || name(machine) == member
}

/// The host of a URL such as `https://[fd00::5]:2380`.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (host, _) = rest.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use fleetwright_api::machine::{MachineAddress, MachineStatus, NodeRef};

    use super::*;

    fn machine(name: &str, node: Option<&str>, addresses: &[(&str, &str)]) -> Machine {
        let mut machine = Machine::new(name, Default::default());
        let address = |(kind, address): &(&str, &str)| MachineAddress {
            kind: (*kind).to_owned(),
            address: (*address).to_owned(),
        };
        machine.status = Some(MachineStatus {
            node_ref: node.map(|name| NodeRef { name: name.into() }),
            addresses: addresses.iter().map(address).collect(),
            ..MachineStatus::default()
        });
        machine
    }

    #[test]
    fn a_member_is_of_the_node_then_of_what_the_provider_calls_so() {
        let inside = "ip-10-0-0-5.eu-central-1.compute.internal";
        let addresses = [("InternalIP", "10.0.0.5"), ("InternalDNS", inside)];
        let mut leaving = machine("c-cp-2", None, &addresses);
        leaving.metadata.deletion_timestamp =
            Some(fleetwright_api::time::k8s_time(jiff::Timestamp::UNIX_EPOCH));
        let all = [
            machine("c-cp-0", Some("ip-10-0-0-4"), &[("Hostname", "other")]),
            machine("c-cp-1", None, &[("InternalIP", "fd00::7")]),
            leaving,
            machine("c-cp-3", None, &addresses),
        ];
        for (member, want) in [
            ("ip-10-0-0-4", Some("c-cp-0")),
            // Its node is known, so that its other names say nothing.
            ("other", None),
            ("c-cp-0", None),
            ("c-cp-1", Some("c-cp-1")),
            (inside, Some("c-cp-3")),
            ("ip-10-0-0-5", Some("c-cp-3")),
            ("https://10.0.0.5:2380", Some("c-cp-3")),
            ("https://[fd00::7]:2380", Some("c-cp-1")),
            ("https://10.0.0.55:2380", None),
            ("https://10.0.0.5", None),
            ("", None),
        ] {
            let found = machine_of(member, &all).map(name);
            assert_eq!(found.as_deref(), want, "{member}");
        }
        assert_eq!(
            machine_of(inside, &all[..3]).map(name).as_deref(),
            Some("c-cp-2")
        );
    }
}
