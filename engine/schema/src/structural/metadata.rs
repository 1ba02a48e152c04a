//! The fields that every object has, whatever its own schema says of them.

use super::{Additional, ListType, Node, PatchStrategy, Type};

fn of(kind: Type) -> Node {
    Node {
        kind,
        ..Node::default()
    }
}

fn texts() -> Node {
    Node {
        additional: Some(Additional::Node(Box::new(of(Type::String)))),
        ..of(Type::Object)
    }
}

fn list(items: Node, list_type: ListType, merge_key: Option<&str>) -> Node {
    let merge = list_type != ListType::Atomic;
    let patch = PatchStrategy {
        merge,
        retain_keys: false,
        merge_key: merge_key.map(str::to_owned),
    };
    Node {
        items: Some(Box::new(items)),
        list_type,
        patch,
        ..of(Type::Array)
    }
}

/// `apiVersion`, `kind` and `metadata`.
pub(super) fn object_fields() -> [(String, Node); 3] {
    let owner = Node {
        atomic_map: true,
        properties: ["apiVersion", "kind", "name", "uid"]
            .map(|name| (name.to_owned(), of(Type::String)))
            .into_iter()
            .chain(
                ["controller", "blockOwnerDeletion"]
                    .map(|name| (name.to_owned(), of(Type::Boolean))),
            )
            .collect(),
        ..of(Type::Object)
    };
    let entry = Node {
        preserve_unknown: true,
        atomic_map: true,
        ..of(Type::Object)
    };
    let mut properties: Vec<(&str, Node)> = vec![
        ("labels", texts()),
        ("annotations", texts()),
        ("finalizers", list(of(Type::String), ListType::Set, None)),
        (
            "ownerReferences",
            list(owner, ListType::Map(vec!["uid".to_owned()]), Some("uid")),
        ),
        ("managedFields", list(entry, ListType::Atomic, None)),
        ("generation", of(Type::Integer)),
        ("deletionGracePeriodSeconds", of(Type::Integer)),
    ];
    for name in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        properties.push((name, of(Type::String)));
    }
    let metadata = Node {
        properties: properties
            .into_iter()
            .map(|(name, node)| (name.to_owned(), node))
            .collect(),
        ..of(Type::Object)
    };
    [
        ("apiVersion".to_owned(), of(Type::String)),
        ("kind".to_owned(), of(Type::String)),
        ("metadata".to_owned(), metadata),
    ]
}
