//! The CustomResourceDefinition that lets a Kubernetes API server keep policies: a structural OpenAPI v3 schema made of the
//! tables that the reader of policies goes by ([`format::policy::table`]), so that the two know the same keys.
//!
//! A schema says less than the reader: which windows there are, that two policies are not for one node, that a bundle is
//! published. `prestage-build policy check` says all of it; this keeps what cannot be right out of the cluster.

use std::fmt::Write as _;

use format::API_VERSION;
use format::policy::table::{Field, Kind, SPEC};
use format::policy::{KIND, MAX_ENTRIES};
use serde_json::{Map, Value, json};

/// What people read of each key, by its path below `spec`. A list is passed through, as the path of its entries.
const WORDS: &[(&str, &str)] = &[
    ("", "Which bundle goes to which nodes, when, how fast, and what to do on failure."),
    ("bundleRef", "The bundle; each node takes that of its own variant."),
    ("bundleRef.version", "Its version, as it was published."),
    (
        "bundleRef.checksum",
        "What the SHA-256 of the release, or of the one bundle, begins with: sha256: and at least 6 digits.",
    ),
    ("targets", "The nodes."),
    ("targets.selector", "By their labels; all of it must hold, and an empty one is every node."),
    ("schedule", "When to install; without it, when each node's own configuration says."),
    ("schedule.maintenanceWindow", "One window or a list of them, such as \"Tue 02:00-04:00\"."),
    ("schedule.timezone", "Whose hours these are: an IANA name; without it, each node's own."),
    ("rolloutStrategy", "How many nodes begin at a time; without it, all of them."),
    ("rolloutStrategy.type", "RollingUpdate: in batches. AllAtOnce: without."),
    ("rolloutStrategy.batchSize", "Nodes of a batch: a number, or a share such as \"10%\"."),
    (
        "rolloutStrategy.batchDelayMinutes",
        "From one batch to the next, of the time in which the window is open.",
    ),
    ("rolloutStrategy.canary", "Those of the policy's nodes that go first."),
    (
        "rolloutStrategy.failureThreshold",
        "No further node begins once more than this share of the finished ones failed, such as \"5%\".",
    ),
    ("rolloutStrategy.maxUnavailablePerSite", "As many nodes of one site may be patching at a time."),
    ("rollback", "What is healthy, and whether a node that is not goes back."),
    ("rollback.enabled", "Whether a failed node goes back by itself."),
    ("rollback.healthCheckUrl", "What must answer with success after an install."),
    ("rollback.healthCheckTimeoutSeconds", "How long until it does."),
    ("transfer", "When and how fast to fetch."),
    ("transfer.windows", "When bundles may be fetched; without windows, always."),
    ("transfer.timezone", "Whose hours these are."),
    ("transfer.rate", "How fast, such as 2Mbit/s, or unlimited."),
    ("reboot", "What to do about an update that needs a restart."),
    ("quarantine", "What nodes refuse and may try again."),
    ("quarantine.release", "Bundles that are released."),
    ("quarantine.release.version", "The bundle."),
    ("quarantine.release.before", "Where it was refused before this time."),
    ("paused", "Nothing new begins under this policy."),
    ("matchLabels", "Each of these labels, with this value."),
    ("matchExpressions", "Each of these holds."),
    ("key", "The label."),
    ("operator", "What must be so of it."),
    ("values", "Of these; for In and NotIn."),
    ("status", "How the rollout goes, as the fleet server has heard it."),
    ("conditions", "Ready, Halted and Degraded, as Kubernetes has conditions."),
    ("observedGeneration", "Which generation of the spec this is about."),
    ("summary", "One sentence for people."),
];

/// The counts of nodes in the status.
const COUNTS: [&str; 7] = ["nodes", "waiting", "staged", "installed", "failed", "rolledBack", "silent"];

/// The definition, as YAML.
pub fn crd() -> String {
    let mut out = String::from(
        "# Lets a Kubernetes API server keep PatchPolicies. Made by `prestage-build policy crd`; do not edit.\n",
    );
    write_yaml(&definition(), 0, &mut out);
    out
}

/// The definition.
pub fn definition() -> Value {
    let (group, version) = API_VERSION.split_once('/').unwrap_or((API_VERSION, "v1"));
    let column = |name: &str, kind: &str, path: &str, more: i64| json!({"name": name, "type": kind, "jsonPath": path, "priority": more});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("patchpolicies.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": "PatchPolicyList",
                "plural": "patchpolicies",
                "singular": "patchpolicy",
                "shortNames": ["pp"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Bundle", "string", ".spec.bundleRef.version", 0),
                    column("State", "string", ".status.state", 0),
                    column("Installed", "integer", ".status.installed", 0),
                    column("Failed", "integer", ".status.failed", 0),
                    column("Nodes", "integer", ".status.nodes", 0),
                    column("Window", "string", ".spec.schedule.maintenanceWindow", 1),
                    column("Age", "date", ".metadata.creationTimestamp", 0),
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        // Kubernetes knows what these are.
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": described(object(SPEC, ""), ""),
                        "status": status(),
                    },
                }},
            }],
        },
    })
}

fn object(fields: &[Field], path: &str) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let path = match path {
            "" => field.key.to_owned(),
            path => format!("{path}.{}", field.key),
        };
        properties.insert(field.key.to_owned(), described(schema(&field.kind, &path), &path));
    }
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.key).collect();
    let mut out = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    out
}

/// With what people read of it; what is in several places is described by its last key.
fn described(mut schema: Value, path: &str) -> Value {
    let last = path.rsplit('.').next().unwrap_or_default();
    let of = |wanted: &str| WORDS.iter().find(|(path, _)| *path == wanted).map(|(_, words)| *words);
    if let Some(words) = of(path).or_else(|| of(last)) {
        schema["description"] = json!(words);
    }
    schema
}

fn schema(kind: &Kind, path: &str) -> Value {
    match kind {
        Kind::Text(pattern, longest) => json!({"type": "string", "pattern": pattern, "maxLength": longest}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::Truth => json!({"type": "boolean"}),
        Kind::Number(least, most) => {
            json!({"type": "integer", "format": "int32", "minimum": least, "maximum": most})
        }
        // One of the two forms in which a structural schema may speak of types below anyOf.
        Kind::Amount(_) => json!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^(100|[1-9][0-9]?)%$",
        }),
        // Text or a list of text is neither, so there is no more to say of it here.
        Kind::Windows => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Kind::Labels => json!({
            "type": "object", "maxProperties": MAX_ENTRIES,
            "additionalProperties": {"type": "string", "maxLength": 63},
        }),
        Kind::List(entry) => {
            json!({"type": "array", "maxItems": MAX_ENTRIES, "items": schema(entry, path)})
        }
        Kind::Object(fields) => object(fields, path),
    }
}

fn status() -> Value {
    let mut properties = Map::new();
    let mut put = |key: &str, schema: Value| {
        properties.insert(key.to_owned(), described(schema, key));
    };
    put("observedGeneration", json!({"type": "integer", "format": "int64"}));
    put("state", json!({"type": "string"}));
    put("summary", json!({"type": "string"}));
    for key in COUNTS {
        put(key, json!({"type": "integer", "format": "int64", "minimum": 0}));
    }
    put(
        "conditions",
        json!({
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status"],
                "properties": {
                    "type": {"type": "string"},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "reason": {"type": "string"},
                    "message": {"type": "string"},
                    "lastTransitionTime": {"type": "string", "format": "date-time"},
                },
            },
        }),
    );
    described(json!({"type": "object", "properties": properties}), "status")
}

/// YAML of maps, lists and plain values. Text is written as in JSON, which is YAML as well, but where it is a plain word.
fn write_yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                // Writing to a String cannot fail.
                let _ = write!(out, "{indent}{key}:");
                write_below(value, depth + 1, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut text = String::new();
                match is_flat(item) {
                    true => text = format!("{}  {}\n", indent, scalar(item)),
                    false => write_yaml(item, depth + 1, &mut text),
                }
                // The first line of an entry begins with a dash.
                text.replace_range(indent.len()..=indent.len(), "-");
                out.push_str(&text);
            }
        }
        other => {
            let _ = writeln!(out, "{indent}{}", scalar(other));
        }
    }
}

fn write_below(value: &Value, depth: usize, out: &mut String) {
    if is_flat(value) {
        let _ = writeln!(out, " {}", scalar(value));
    } else {
        out.push('\n');
        write_yaml(value, depth, out);
    }
}

fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn scalar(value: &Value) -> String {
    let plain = |text: &str| {
        text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
                .contains(&text.to_ascii_lowercase().as_str())
    };
    match value {
        Value::String(text) if plain(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "crd_tests.rs"]
mod tests;
