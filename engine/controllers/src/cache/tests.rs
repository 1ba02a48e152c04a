use fleetwright_api::machine::MachineSpec;

use super::*;

fn machine(name: &str, uid: &str, version: u64) -> Machine {
    let mut m = Machine::new(
        name,
        MachineSpec {
            cluster_name: "c".into(),
            ..Default::default()
        },
    );
    m.metadata.namespace = Some("ns".into());
    m.metadata.uid = Some(uid.into());
    m.metadata.resource_version = Some(version.to_string());
    m
}

#[test]
fn an_older_observation_never_replaces_a_newer_one() {
    let mut kind = Kind::default();
    assert!(kind.apply(machine("a", "1", 5)).is_some());
    assert!(kind.apply(machine("a", "1", 4)).is_none());
    let (_, before) = kind.apply(machine("a", "1", 6)).unwrap();
    assert_eq!(before.map(|m| version_of(m.as_ref())), Some(5));
    kind.delete(&machine("a", "1", 7));
    assert!(
        kind.apply(machine("a", "1", 6)).is_none(),
        "a late answer brings nothing back"
    );
    assert!(
        kind.apply(machine("a", "2", 8)).is_some(),
        "a new object of the name is another one"
    );
}

#[test]
fn indexes_follow_the_objects() {
    let caches = Caches::default();
    caches.machines.write().apply(machine("a", "1", 1));
    caches.machines.write().apply(machine("b", "2", 2));
    assert_eq!(caches.of_cluster::<Machine>("ns", "c").len(), 2);
    let mut changed = machine("a", "1", 3);
    changed.spec.provider_id = Some("sim:///a".into());
    caches.machines.write().apply(changed);
    let by_id = |id: &str| Mark::ProviderId("ns".into(), "c".into(), id.into());
    assert_eq!(caches.marked::<Machine>(&by_id("sim:///a")).len(), 1);
    assert_eq!(caches.marked::<Machine>(&by_id("sim:///b")).len(), 0);
    let listed = BTreeSet::from([("ns".to_owned(), "a".to_owned())]);
    let missing = caches.machines.write().keep_only(&listed);
    assert_eq!((missing.gone.len(), missing.unsure.len()), (1, 0));
    assert_eq!(caches.of_cluster::<Machine>("ns", "c").len(), 1);
    assert_eq!(caches.machines.read().index.len(), 3, "no empty entries");
    assert!(!caches.synced());
}

#[test]
fn what_is_made_while_a_list_is_on_its_way_is_not_gone() {
    let caches = Caches::default();
    let machines = || caches.machines.write();
    machines().apply(machine("a", "1", 1));
    machines().apply(machine("c", "3", 1));
    machines().begin_list();
    machines().apply(machine("a", "1", 2));
    machines().apply(machine("b", "2", 3));
    // Another one of the name.
    machines().apply(machine("c", "4", 5));
    let missing = machines().keep_only(&BTreeSet::new());
    let names = |of: &[Arc<Machine>]| of.iter().map(|m| m.name_any()).collect::<Vec<_>>();
    assert_eq!(names(&missing.gone), ["a"]);
    assert_eq!(names(&missing.unsure), ["b", "c"]);
    assert!(machines().apply(machine("b", "2", 6)).is_some());
    // Another list that does not show it is sure.
    machines().begin_list();
    let missing = machines().keep_only(&BTreeSet::new());
    assert_eq!(names(&missing.gone), ["b", "c"]);
    assert!(missing.unsure.is_empty());
}

#[test]
fn marks_of_one_number_are_told_apart() {
    let caches = Caches::default();
    let owner = |uid: &str| Mark::Owner(uid.to_owned());
    let cluster = |name: &str| Mark::Cluster("ns".into(), name.into());
    let by_id = |id: &str| Mark::ProviderId("ns".into(), "c".into(), id.into());
    let mut object = machine("a", "1", 1);
    object.spec.provider_id = Some("sim:///a".into());
    caches.machines.write().apply(object);
    assert_eq!(caches.marked::<Machine>(&cluster("c")).len(), 1);
    // As if the numbers of these marks were that of one which the machine has.
    let name = Arc::new(("ns".to_owned(), "a".to_owned()));
    for mark in [owner("2"), cluster("d"), by_id("sim:///b")] {
        let entry = (mark.number(), Arc::clone(&name));
        caches.machines.write().index.insert(entry);
        assert_eq!(caches.marked::<Machine>(&mark).len(), 0, "{mark:?}");
    }
}
