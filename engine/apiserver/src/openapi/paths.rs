//! The paths of a document: what can be done with each kind.

use serde_json::{Map, Value, json};

use super::{META, gvk, reference, root_of, schema_name};
use crate::registry::Kind;

const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The paths of one kind.
pub(super) fn of(kind: &Kind) -> Vec<(String, Value)> {
    let root = format!("/{}", root_of(kind));
    let all = format!("{root}/{}", kind.plural);
    let operations = Operations::of(kind);
    if kind.review {
        return vec![(
            all,
            json!({"parameters": [pretty()], "post": operations.post("")}),
        )];
    }
    let collection = if kind.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        all.clone()
    };
    let object = format!("{collection}/{{name}}");
    let mut namespace = Vec::new();
    let mut paths = Vec::new();
    if kind.namespaced {
        namespace.push(json!({"name": "namespace", "in": "path", "required": true,
            "description": "object name and auth scope, such as for teams and projects",
            "schema": {"type": "string", "uniqueItems": true}}));
        paths.push((
            all,
            json!({"parameters": listing(), "get": operations.list("ForAllNamespaces")}),
        ));
    }
    let mut parameters = namespace.clone();
    parameters.push(pretty());
    paths.push((
        collection,
        json!({"parameters": parameters, "get": operations.list(""), "post": operations.post(""),
            "delete": operations.delete_all()}),
    ));
    let mut parameters = vec![
        json!({"name": "name", "in": "path", "required": true, "description": format!("name of the {}", kind.kind),
            "schema": {"type": "string", "uniqueItems": true}}),
    ];
    parameters.extend(namespace);
    parameters.push(pretty());
    paths.push((
        object.clone(),
        json!({"parameters": parameters, "get": operations.get(""), "put": operations.put(""),
            "patch": operations.patch(""), "delete": operations.delete()}),
    ));
    for sub in subresources(kind) {
        let path = format!("{object}/{sub}");
        let item = if sub == "eviction" {
            json!({"parameters": parameters, "post": operations.post(sub)})
        } else {
            json!({"parameters": parameters, "get": operations.get(sub), "put": operations.put(sub),
                "patch": operations.patch(sub)})
        };
        paths.push((path, item));
    }
    paths
}

/// The subresources of a kind.
pub(crate) fn subresources(kind: &Kind) -> Vec<&'static str> {
    let mut list = Vec::new();
    if kind.group.is_empty() && kind.plural == "pods" {
        list.push("eviction");
    }
    if kind.scale.is_some() {
        list.push("scale");
    }
    if kind.status {
        list.push("status");
    }
    list
}

/// Makes the operations of a kind.
struct Operations<'a> {
    kind: &'a Kind,
    schema: String,
    /// Group, version and scope in camel case: the middle of operation ids.
    id: String,
    tag: String,
}

impl<'a> Operations<'a> {
    fn of(kind: &'a Kind) -> Self {
        let group = if kind.group.is_empty() {
            "core"
        } else {
            kind.group.trim_end_matches(".k8s.io")
        };
        let mut id: String = group
            .split(['.', '-'])
            .chain([kind.version.as_str()])
            .map(upper)
            .collect();
        if kind.namespaced {
            id.push_str("Namespaced");
        }
        Self {
            kind,
            schema: schema_name(kind),
            id,
            tag: format!("{}_{}", group.replace(['.', '-'], "_"), kind.version),
        }
    }

    /// The schema and the kind that a subresource speaks of.
    fn subject(&self, sub: &str) -> (String, Value) {
        match sub {
            "scale" => {
                let gvk = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
                (SCALE.to_owned(), gvk)
            }
            "eviction" => {
                let gvk = json!({"group": "policy", "version": "v1", "kind": "Eviction"});
                ("io.k8s.api.policy.v1.Eviction".to_owned(), gvk)
            }
            _ => (self.schema.clone(), gvk(self.kind)),
        }
    }

    fn operation(
        &self,
        (verb, action): (&str, &str),
        words: &str,
        sub: &str,
        answer: &str,
        parameters: Vec<Value>,
    ) -> Value {
        let kind = &self.kind.kind;
        let of = if sub.is_empty() {
            String::new()
        } else {
            format!("{sub} of the specified ")
        };
        let ok = json!({"description": "OK", "content": {"application/json": {"schema": reference(answer)}}});
        json!({
            "description": format!("{words} {of}{kind}"),
            "operationId": format!("{verb}{}{kind}{}", self.id, upper(sub)),
            "tags": [self.tag],
            "parameters": parameters,
            "responses": {"200": ok, "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self.subject(sub).1,
        })
    }

    fn get(&self, sub: &str) -> Value {
        let schema = self.subject(sub).0;
        self.operation(("read", "get"), "read", sub, &schema, Vec::new())
    }

    fn list(&self, scope: &str) -> Value {
        let answer = format!("{}List", self.schema);
        let parameters = if scope.is_empty() {
            listing()
        } else {
            Vec::new()
        };
        let mut operation = self.operation(
            ("list", "list"),
            "list or watch objects of kind",
            "",
            &answer,
            parameters,
        );
        let id = format!("list{}{}{scope}", self.id, self.kind.kind);
        operation["operationId"] = id.into();
        operation
    }

    fn post(&self, sub: &str) -> Value {
        let schema = self.subject(sub).0;
        let words = if sub.is_empty() { "create a" } else { "create" };
        let mut operation = self.operation(("create", "post"), words, sub, &schema, writing(false));
        operation["requestBody"] = body(&schema);
        operation
    }

    fn put(&self, sub: &str) -> Value {
        let schema = self.subject(sub).0;
        let mut operation = self.operation(
            ("replace", "put"),
            "replace the specified",
            sub,
            &schema,
            writing(false),
        );
        operation["requestBody"] = body(&schema);
        operation
    }

    fn patch(&self, sub: &str) -> Value {
        let schema = self.subject(sub).0;
        let mut operation = self.operation(
            ("patch", "patch"),
            "partially update the specified",
            sub,
            &schema,
            writing(true),
        );
        let patch = json!({"schema": {"type": "object"}});
        let mut types = vec![
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
        ];
        if !self.kind.custom {
            types.push("application/strategic-merge-patch+json");
        }
        let content: Map<String, Value> = types
            .into_iter()
            .map(|kind| (kind.to_owned(), patch.clone()))
            .collect();
        operation["requestBody"] = json!({"required": true, "content": content});
        operation
    }

    fn delete(&self) -> Value {
        let answer = format!("{META}.Status");
        let parameters = vec![dry_run(), propagation()];
        let mut operation =
            self.operation(("delete", "delete"), "delete a", "", &answer, parameters);
        operation["requestBody"] = json!({"content": {"application/json": {"schema": reference(&format!("{META}.DeleteOptions"))}}});
        operation
    }

    fn delete_all(&self) -> Value {
        let answer = format!("{META}.Status");
        let mut parameters = listing();
        parameters.extend([dry_run(), propagation()]);
        self.operation(
            ("deleteCollection", "deletecollection"),
            "delete collection of",
            "",
            &answer,
            parameters,
        )
    }
}

fn upper(word: &str) -> String {
    let mut rest = word.chars();
    rest.next()
        .map(|first| first.to_ascii_uppercase().to_string() + rest.as_str())
        .unwrap_or_default()
}

fn body(schema: &str) -> Value {
    let content = json!({"schema": reference(schema)});
    json!({"required": true, "content": {"application/json": content, "application/yaml": content}})
}

fn parameter(name: &str, kind: &str, text: &str) -> Value {
    json!({"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": true}})
}

fn pretty() -> Value {
    parameter(
        "pretty",
        "string",
        "Accepted and ignored: the output is compact JSON.",
    )
}

fn dry_run() -> Value {
    parameter(
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. The only valid value is All.",
    )
}

fn propagation() -> Value {
    parameter(
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed: Orphan, Background or Foreground.",
    )
}

fn writing(patch: bool) -> Vec<Value> {
    let mut list = vec![
        dry_run(),
        parameter(
            "fieldManager",
            "string",
            "fieldManager is a name associated with the actor or entity that is making these changes.",
        ),
        parameter(
            "fieldValidation",
            "string",
            "fieldValidation instructs the server on how to handle unknown or duplicate fields: Ignore, Warn or Strict.",
        ),
    ];
    if patch {
        list.push(parameter(
            "force",
            "boolean",
            "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.",
        ));
    }
    list
}

fn listing() -> Vec<Value> {
    [
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ]
    .into_iter()
    .map(|(name, kind)| parameter(name, kind, "As the Kubernetes API defines it."))
    .collect()
}
