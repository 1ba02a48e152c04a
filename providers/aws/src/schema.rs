//! The kinds of `providerConfig`: what they allow is said here alone.

use fleetwright_providers::ConfigSchema;
use serde_json::{Value, json};

/// Group and version of the kinds.
pub const API_VERSION: &str = "aws.fleetwright.dev/v1alpha1";
/// Settings of a machine.
pub const MACHINE_CONFIG: &str = "AWSMachineConfig";
/// Settings of a cluster.
pub const CLUSTER_CONFIG: &str = "AWSClusterConfig";

/// Most tags of the user's on a thing: AWS allows fifty, and some are ours.
pub(crate) const MOST_TAGS: usize = 25;

pub(crate) const SUBNET: &str = "^subnet-[0-9a-f]{8,17}$";
const SECURITY_GROUP: &str = "^sg-[0-9a-f]{8,17}$";

pub(crate) fn head(kind: &str) -> Value {
    json!({
        "apiVersion": {
            "type": "string", "enum": [API_VERSION], "x-fleetwright-change": "none",
            "description": "Group and version of these settings.",
        },
        "kind": {"type": "string", "enum": [kind], "description": "Kind of these settings."},
        "account": {"type": "string", "minLength": 1, "description": "Name of the ProviderAccount."},
    })
}

pub(crate) fn tags(of: &str) -> Value {
    json!({
        "type": "object", "maxProperties": MOST_TAGS, "x-fleetwright-change": "in-place",
        "additionalProperties": {"type": "string", "maxLength": 256},
        "description": format!("Further tags of {of}."),
        "x-kubernetes-validations": [
            {
                "rule": "self.all(key, key.matches('^[a-zA-Z0-9 +=._:/@-]{1,127}$'))",
                "message": "a tag's key has at most 127 letters, digits, spaces and + - = . _ : / @",
            },
            {
                "rule": "self.all(key, !key.startsWith('aws:') && !key.startsWith('fleetwright.dev/') && key != 'Name')",
                "message": "tags aws:…, fleetwright.dev/… and Name are not yours to set",
            },
        ],
    })
}

pub(crate) fn security_groups(of: &str, change: &str) -> Value {
    json!({
        "type": "array", "items": {"type": "string", "pattern": SECURITY_GROUP}, "minItems": 1, "maxItems": 16,
        "x-kubernetes-list-type": "set", "x-fleetwright-change": change,
        "description": format!("Ids of {of} security groups, in any order."),
    })
}

/// Fields of a volume, `own` ones beside.
fn volume(own: Value) -> Value {
    let mut properties = json!({
        "sizeGiB": {
            "type": "integer", "minimum": 1, "maximum": 65536,
            "description": "Size.",
        },
        "type": {
            "type": "string", "enum": ["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"], "default": "gp3",
            "description": "Type of the volume.",
        },
        "iops": {
            "type": "integer", "minimum": 100, "maximum": 256_000,
            "description": "Operations a second, of gp3, io1 and io2.",
        },
        "throughput": {
            "type": "integer", "minimum": 125, "maximum": 2000,
            "description": "MiB a second, of gp3.",
        },
        "encrypted": {"type": "boolean", "default": true, "description": "Whether it is encrypted."},
        "kmsKey": {
            "type": "string", "minLength": 1, "maxLength": 2048,
            "description": "Id, alias or ARN of the key that encrypts it; the account's default key when left out.",
        },
    });
    let mut required = vec!["sizeGiB"];
    if let (Some(all), Value::Object(own)) = (properties.as_object_mut(), own) {
        if own.contains_key("deviceName") {
            required.push("deviceName");
        }
        all.extend(own);
    }
    json!({
        "type": "object", "required": required, "properties": properties,
        "x-kubernetes-validations": [
            {
                "rule": "!has(self.throughput) || !has(self.type) || self.type == 'gp3'",
                "message": "only volumes of type gp3 have a throughput", "fieldPath": ".throughput",
            },
            {
                "rule": "!has(self.iops) || !has(self.type) || self.type in ['gp3', 'io1', 'io2']",
                "message": "only volumes of type gp3, io1 and io2 have iops", "fieldPath": ".iops",
            },
            {
                "rule": "!has(self.type) || !(self.type in ['io1', 'io2']) || has(self.iops)",
                "message": "volumes of type io1 and io2 need iops",
            },
            {
                "rule": "!has(self.kmsKey) || !has(self.encrypted) || self.encrypted",
                "message": "kmsKey is for encrypted volumes: leave it out, or encrypted", "fieldPath": ".kmsKey",
            },
        ],
    })
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

/// The operating system of images that nobody says one of.
pub(crate) const USUAL_OS: &str = "ubuntu-24.04";
const SYSTEMS: [&str; 4] = [USUAL_OS, "ubuntu-22.04", "debian-12", "flatcar"];

fn image_lookup() -> Value {
    json!({
        "type": "object",
        "description": "Which image is looked up where none is given: of the operating system's publisher, unless parameter or name says otherwise. The newest one is taken when a set or a control-plane machine is made, and stays.",
        "properties": {
            "architecture": {
                "type": "string", "enum": ["amd64", "arm64"], "default": "amd64",
                "description": "Architecture of the processor.",
            },
            "parameter": {
                "type": "string", "pattern": "^/", "maxLength": 1011,
                "description": "Name of an SSM parameter that holds the image's id. {kubernetesVersion} in it stands for 1.34.2, {kubernetesMinor} for 1.34, {os} for the operating system, {architecture} for the field.",
            },
            "name": {
                "type": "string", "minLength": 1, "maxLength": 128,
                "description": "Name of the image, with * and ? and what parameter has in braces; the newest counts.",
            },
            "owner": {
                "type": "string", "pattern": "^([0-9]{12}|self|amazon|aws-marketplace)$",
                "description": "Account that owns images of this name; self when left out.",
            },
        },
        "x-kubernetes-validations": [
            {
                "rule": "!has(self.parameter) || !has(self.name)",
                "message": "set one of parameter and name", "fieldPath": ".name",
            },
            {
                "rule": "!has(self.owner) || has(self.name)",
                "message": "owner is for images by name", "fieldPath": ".owner",
            },
        ],
    })
}

fn machine() -> Value {
    let mut fields = head(MACHINE_CONFIG);
    let mut add = |name: &str, schema: Value| fields[name] = schema;
    add(
        "instanceType",
        json!({
            "type": "string", "pattern": "^[a-z0-9-]+\\.[a-z0-9-]+$", "maxLength": 64,
            "description": "Type of the instance, such as m7i.large.",
        }),
    );
    add(
        "image",
        json!({
            "type": "string", "pattern": "^ami-[0-9a-f]{8,17}$",
            "description": "Id of the image that it boots.",
        }),
    );
    add(
        "os",
        json!({
            "type": "string", "enum": SYSTEMS, "default": USUAL_OS,
            "description": "Operating system of the image: how it becomes a node.",
        }),
    );
    add("imageLookup", image_lookup());
    add(
        "subnets",
        json!({
            "type": "array", "minItems": 1, "maxItems": 16,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
            "description": "Subnets: machines are spread over them, those of a control plane over their availability zones. One of the default VPC when left out.",
            "items": {
                "type": "object", "required": ["id", "availabilityZone"],
                "properties": {
                    "id": {"type": "string", "pattern": SUBNET, "description": "Id of the subnet."},
                    "availabilityZone": {
                        "type": "string", "minLength": 1, "maxLength": 63,
                        "description": "Availability zone that it is in: the failure domain of its machines.",
                    },
                },
            },
        }),
    );
    add("securityGroups", security_groups("its", "in-place"));
    add(
        "rootVolume",
        described(
            volume(json!({})),
            "Disk that it boots from; as the image says when left out.",
        ),
    );
    add(
        "volumes",
        json!({
            "type": "array", "maxItems": 20,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["deviceName"],
            "description": "Further disks. They go with the instance.",
            "items": volume(json!({
                "deviceName": {
                    "type": "string", "pattern": "^(/dev/)?(sd[b-z][0-9]?|xvd[b-z][a-z]?)$",
                    "description": "Name that it is attached by, such as /dev/sdf.",
                },
            })),
        }),
    );
    add(
        "iamInstanceProfile",
        json!({
            "type": "string", "minLength": 1, "maxLength": 2048,
            "description": "Name or ARN of its instance profile: what it may do at AWS. By these rights it reads its secrets at its first boot; required.",
        }),
    );
    add(
        "keyName",
        json!({
            "type": "string", "minLength": 1, "maxLength": 255,
            "description": "Name of the key pair for ssh; none when left out.",
        }),
    );
    add(
        "metadataOptions",
        json!({
            "type": "object", "default": {},
            "description": "How the instance reads its own metadata.",
            "properties": {
                "httpTokens": {
                    "type": "string", "enum": ["required", "optional"], "default": "required",
                    "description": "Whether it needs a token for that (IMDSv2).",
                },
                "httpPutResponseHopLimit": {
                    "type": "integer", "minimum": 1, "maximum": 64, "default": 1,
                    "description": "Most hops that a token goes: with 1, pods in a network of their own cannot use the instance's rights.",
                },
            },
        }),
    );
    add(
        "spot",
        json!({
            "type": "object",
            "description": "Makes it a spot instance: cheaper, and taken away at two minutes' notice. What is taken away is replaced.",
            "properties": {
                "maxPrice": {
                    "type": "string", "pattern": "^[0-9]{1,6}(\\.[0-9]{1,6})?$",
                    "description": "Most dollars an hour; the price on demand when left out.",
                },
            },
        }),
    );
    add("tags", tags("the instance and its volumes"));
    add(
        "publicIP",
        json!({
            "type": "boolean", "description": "Whether it has a public address; as the subnet says when left out.",
        }),
    );
    add(
        "tenancy",
        json!({
            "type": "string", "enum": ["default", "dedicated"],
            "description": "Whether it shares its hardware with others; as the VPC says when left out.",
        }),
    );
    add(
        "placementGroup",
        json!({
            "type": "string", "minLength": 1, "maxLength": 255,
            "description": "Name of the placement group; none when left out.",
        }),
    );
    add(
        "ebsOptimized",
        json!({
            "type": "boolean",
            "description": "Whether disks have a bandwidth of their own; as the type says when left out.",
        }),
    );
    add(
        "cpuCredits",
        json!({
            "type": "string", "enum": ["standard", "unlimited"],
            "description": "What burstable types (t…) do when their credits are used up; as the type says when left out.",
        }),
    );
    add(
        "capacityReservation",
        json!({
            "type": "string", "pattern": "^cr-[0-9a-f]{8,17}$",
            "description": "Id of the capacity reservation that it uses; any open one when left out.",
        }),
    );
    json!({
        "type": "object", "required": ["account", "instanceType"], "properties": fields,
        "x-fleetwright-cluster": {"kind": CLUSTER_CONFIG, "oneOf": ["loadBalancer", "controlPlaneEndpoint"]},
        "x-kubernetes-validations": [
            {
                "rule": "has(self.iamInstanceProfile)", "reason": "FieldValueRequired",
                "message": "a node reads its secrets by the rights of its instance profile when it first boots: name one that may read its SSM parameters",
                "fieldPath": ".iamInstanceProfile",
            },
            {
                "rule": "!has(self.image) || !has(self.imageLookup)",
                "message": "set one of image and imageLookup", "fieldPath": ".imageLookup",
            },
            {
                "rule": "!has(self.cpuCredits) || self.instanceType.startsWith('t')",
                "message": "only burstable types (t…) have CPU credits", "fieldPath": ".cpuCredits",
            },
            {
                "rule": "!has(self.capacityReservation) || !has(self.spot)",
                "message": "a spot instance uses no capacity reservation", "fieldPath": ".capacityReservation",
            },
        ],
    })
}

fn cluster() -> Value {
    let mut fields = head(CLUSTER_CONFIG);
    fields["controlPlaneEndpoint"] = json!({
        "type": "object", "required": ["host"], "x-fleetwright-change": "in-place",
        "description": "The way to the API where it is made by somebody else; it cannot change once the cluster serves.",
        "properties": {
            "host": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Host name or address."},
            "port": {
                "type": "integer", "minimum": 1, "maximum": 65535, "default": 6443, "description": "Port.",
            },
        },
    });
    fields["cloudController"] = json!({
        "type": "boolean", "x-fleetwright-change": "none",
        "description": "Whether a cloud controller runs in the cluster: new nodes take no pods before it has seen them. false when left out; nodes that are there already stay as they are.",
    });
    fields["loadBalancer"] = json!({
        "type": "object", "required": ["subnets"], "x-fleetwright-change": "in-place",
        "description": "The network load balancer that is made in front of the API.",
        "properties": {
            "scheme": {
                "type": "string", "enum": ["internal", "internet-facing"], "default": "internal",
                "description": "Who can reach it; it cannot change.",
            },
            "subnets": {
                "type": "array", "minItems": 1, "maxItems": 16, "x-kubernetes-list-type": "set",
                "items": {"type": "string", "pattern": SUBNET},
                "description": "Ids of its subnets, one for each availability zone.",
            },
            "securityGroups": security_groups("its", "in-place"),
        },
    });
    fields["tags"] = tags("what is made for the cluster beside instances");
    json!({
        "type": "object", "required": ["account"], "properties": fields,
        "x-kubernetes-validations": [{
            "rule": "!has(self.controlPlaneEndpoint) || !has(self.loadBalancer)",
            "message": "set one of controlPlaneEndpoint and loadBalancer",
        }],
    })
}

/// The schemas of all kinds.
pub fn schemas() -> Vec<ConfigSchema> {
    let schema = |kind: &str, schema: Value| ConfigSchema {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        schema,
    };
    let mut all = vec![
        schema(MACHINE_CONFIG, machine()),
        schema(CLUSTER_CONFIG, cluster()),
    ];
    all.extend(crate::eks::schema::schemas());
    all
}
