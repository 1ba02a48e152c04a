//! Tags: whose a thing is, written on it and read back.

use std::collections::BTreeMap;

use fleetwright_providers::Ownership;

/// Beginning of all tags of ours but `Name`.
pub(crate) const OURS: &str = "fleetwright.dev/";
pub(crate) const INSTALLATION: &str = "fleetwright.dev/installation";
pub(crate) const CLUSTER_KEY: &str = "fleetwright.dev/cluster-key";
pub(crate) const CLUSTER: &str = "fleetwright.dev/cluster";
pub(crate) const POOL: &str = "fleetwright.dev/pool";
pub(crate) const SET: &str = "fleetwright.dev/set";
pub(crate) const MACHINE: &str = "fleetwright.dev/machine";
pub(crate) const INSTANCE_KEY: &str = "fleetwright.dev/instance-key";
/// Kubernetes version that the instance was made for.
pub(crate) const VERSION: &str = "fleetwright.dev/version";
pub(crate) const CONFIG_DIGEST: &str = "fleetwright.dev/config-digest";
/// Keys of the user's tags that were written last, comma separated: those of them that are wanted no more are taken off. Continued
/// with a number at its end where a value is too short for them.
const WRITTEN: &str = "fleetwright.dev/tags";
const NAME: &str = "Name";
/// Most characters of a tag's value.
const LONGEST: usize = 256;

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

/// Tags that say whose an instance and its volumes are.
pub(crate) fn of_owner(owner: &Ownership) -> Tags {
    let all = [
        (NAME, &owner.machine),
        (INSTALLATION, &owner.installation),
        (CLUSTER_KEY, &owner.cluster_key),
        (CLUSTER, &owner.cluster),
        (POOL, &owner.pool),
        (SET, &owner.set),
        (MACHINE, &owner.machine),
        (INSTANCE_KEY, &owner.instance_key),
    ];
    all.map(|(key, value)| (key.to_owned(), value.clone()))
        .into()
}

/// Tags that say whose a thing of a whole cluster is.
pub(crate) fn of_cluster(installation: &str, cluster_key: &str, cluster: &str) -> Tags {
    let all = [
        (INSTALLATION, installation),
        (CLUSTER_KEY, cluster_key),
        (CLUSTER, cluster),
    ];
    all.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The user's tags, with what remembers them.
pub(crate) fn of_user(tags: &Tags) -> Tags {
    let mut all = tags.clone();
    let mut lists: Vec<String> = Vec::new();
    for key in tags.keys() {
        match lists.last_mut() {
            Some(list) if list.len() + 1 + key.len() <= LONGEST => {
                list.push(',');
                list.push_str(key);
            }
            _ => lists.push(key.clone()),
        }
    }
    for (n, list) in lists.into_iter().enumerate() {
        let key = match n {
            0 => WRITTEN.to_owned(),
            n => format!("{WRITTEN}-{n}"),
        };
        all.insert(key, list);
    }
    all
}

/// Keys of what is on a thing from an earlier write of the user's tags and is not in `wanted`, which is what [`of_user`] gives. They are
/// taken off before others are written: both may be more than a thing can have, and whoever is cut off in between finds them again,
/// because the list that remembers them is still there. Whose a thing is is not among them.
pub(crate) fn outdated(there: &Tags, wanted: &Tags) -> Vec<String> {
    let lists = there.iter().filter(|(key, _)| is_list(key));
    let remembered = lists.clone().flat_map(|(_, list)| list.split(','));
    let keys = remembered.chain(lists.map(|(key, _)| key.as_str()));
    let is_users = |key: &&str| (!key.starts_with(OURS) && *key != NAME) || is_list(key);
    keys.filter(is_users)
        .filter(|key| there.contains_key(*key) && !wanted.contains_key(*key))
        .map(str::to_owned)
        .collect()
}

fn is_list(key: &str) -> bool {
    key.strip_prefix(WRITTEN)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Whose an instance with these tags is; `None` where it has no instance key.
pub(crate) fn owner(tags: &Tags) -> Option<Ownership> {
    let text = |key: &str| tags.get(key).cloned().unwrap_or_default();
    tags.get(INSTANCE_KEY).map(|key| Ownership {
        installation: text(INSTALLATION),
        cluster_key: text(CLUSTER_KEY),
        cluster: text(CLUSTER),
        pool: text(POOL),
        set: text(SET),
        machine: text(MACHINE),
        instance_key: key.clone(),
    })
}

/// Tags that are neither ours nor put on by AWS.
pub(crate) fn foreign(tags: &Tags) -> Tags {
    tags.iter()
        .filter(|(key, _)| {
            !key.starts_with(OURS) && !key.starts_with("aws:") && key.as_str() != NAME
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(all: &[(&str, &str)]) -> Tags {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        all.iter().map(owned).collect()
    }

    #[test]
    fn an_owner_is_read_back_as_it_was_written() {
        let owner = Ownership {
            installation: "main".into(),
            cluster_key: "k".into(),
            cluster: "default/eu".into(),
            machine: "eu-cp-0".into(),
            instance_key: "0123".into(),
            ..Ownership::default()
        };
        let tags = of_owner(&owner);
        assert_eq!(tags["Name"], "eu-cp-0");
        assert_eq!(super::owner(&tags), Some(owner));
        assert!(foreign(&tags).is_empty());
        assert_eq!(super::owner(&map(&[("team", "a")])), None);
        assert_eq!(
            foreign(&map(&[("team", "a"), ("aws:autoscaling:x", "b")])),
            map(&[("team", "a")])
        );
    }

    #[test]
    fn what_was_written_and_is_wanted_no_more_is_taken_off_and_no_more_than_that() {
        let mut there = of_user(&map(&[("team", "a"), ("cost", "7")]));
        there.extend(map(&[("others", "x"), (SET, "s")]));
        let wanted = of_user(&map(&[("team", "b")]));
        assert_eq!(outdated(&there, &wanted), ["cost"]);
        let mut gone = outdated(&there, &of_user(&Tags::new()));
        gone.sort();
        assert_eq!(gone, ["cost", WRITTEN, "team"]);
        // Whatever somebody writes into the list, what is ours stays.
        there.extend(map(&[(NAME, "m")]));
        there.insert(WRITTEN.into(), format!("{SET},{NAME},others"));
        assert_eq!(outdated(&there, &wanted), ["others"]);
    }

    #[test]
    fn keys_of_any_length_are_remembered() {
        let many: Tags = (0..crate::schema::MOST_TAGS)
            .map(|n| (format!("{n:02}{}", "x".repeat(125)), String::new()))
            .collect();
        let written = of_user(&many);
        assert!(written.values().all(|v| v.len() <= LONGEST));
        let gone = outdated(&written, &of_user(&Tags::new()));
        assert_eq!(gone.len(), written.len());
        // AWS allows 50; whose an instance is and the digest take ten.
        assert!(written.len() > many.len() && written.len() + 10 <= 50);
    }
}
