use std::fs;
use std::path::{Path, PathBuf};

use format::json::Json;
use regex::Regex;

use super::*;
use crate::policy::yaml;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Documents of YAML as JSON, by the reader of policies.
fn documents(text: &str) -> Vec<Value> {
    let (documents, faults) = yaml::documents(text);
    assert!(faults.is_empty(), "{faults:?}");
    let mut faults = Vec::new();
    let json = |document: &yaml::Node| {
        let tree: Json<'_> = document.to_json(&mut faults);
        serde_json::from_slice(&tree.canonical()).unwrap()
    };
    documents.iter().map(json).collect()
}

fn schema_of(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Everything that is wrong with a value, as an API server with strict field validation says it.
fn validate(schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
    let mut wrong = |what: String| problems.push(format!("{at}: {what}"));
    let is_amount = schema["x-kubernetes-int-or-string"] == true;
    match schema["type"].as_str() {
        Some("object") if !value.is_object() => return wrong("no object".into()),
        Some("array") if !value.is_array() => return wrong("no array".into()),
        Some("string") if !value.is_string() => return wrong("no string".into()),
        Some("boolean") if !value.is_boolean() => return wrong("no boolean".into()),
        Some("integer") if !value.is_i64() => return wrong("no integer".into()),
        None if is_amount && !value.is_i64() && !value.is_string() => {
            return wrong("no int or string".into());
        }
        _ => {}
    }
    if let Some(text) = value.as_str() {
        if let Some(pattern) = schema["pattern"].as_str()
            && !Regex::new(pattern).unwrap().is_match(text)
        {
            wrong(format!("{text:?} does not match {pattern}"));
        }
        if schema["maxLength"].as_u64().is_some_and(|most| text.len() as u64 > most) {
            wrong("too long".into());
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            wrong(format!("{text:?} is none of the words"));
        }
    }
    if let Some(number) = value.as_i64()
        && (schema["minimum"].as_i64().is_some_and(|least| number < least)
            || schema["maximum"].as_i64().is_some_and(|most| number > most))
    {
        wrong(format!("{number} is out of bounds"));
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            problems.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        match (schema["properties"].get(key), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => validate(schema, value, &at, problems),
            // What Kubernetes knows itself.
            (None, None) if at.starts_with(".metadata.") => {}
            (None, None) if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            (None, None) => problems.push(format!("{at}: unknown")),
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema.get("items").is_some() {
            validate(&schema["items"], item, &format!("{at}[{n}]"), problems);
        }
    }
}

fn problems(policy: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    validate(schema_of(&definition()), policy, "", &mut problems);
    problems
}

#[test]
fn the_file_in_packaging_is_the_one_that_the_program_prints() {
    let path = project().join("packaging/kubernetes/patchpolicies.yaml");
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == crd(), "prestage-build policy crd > {}", path.display());
    // What is written is what is meant.
    assert_eq!(documents(&crd()), [definition()]);
}

#[test]
fn every_example_is_valid_for_kubernetes() {
    let mut seen = 0;
    for folder in ["packaging/examples/policies", "format/tests/data/policy"] {
        for entry in fs::read_dir(project().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml" || e == "json") {
                for policy in documents(&fs::read_to_string(&path).unwrap()) {
                    assert_eq!(problems(&policy), Vec::<String>::new(), "{}", path.display());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn what_cannot_be_right_is_kept_out_of_the_cluster() {
    let text = fs::read_to_string(project().join("format/tests/data/policy/maximal.json")).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let with = |path: &str, value: Value| {
        let mut policy = good.clone();
        *policy.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        problems(&policy)
    };
    for (path, value) in [
        ("/spec/bundleRef/version", json!(20261123)),
        ("/spec/bundleRef/version", json!("../42")),
        ("/spec/bundleRef/checksum", json!("md5:abc")),
        ("/spec/rolloutStrategy/type", json!("Recreate")),
        ("/spec/rolloutStrategy/batchSize", json!("0%")),
        ("/spec/rolloutStrategy/batchSize", json!(true)),
        ("/spec/rolloutStrategy/batchDelayMinutes", json!(-1)),
        ("/spec/rollback/healthCheckUrl", json!("ftp://host/")),
        ("/spec/targets/selector", json!({"matchlabels": {}})),
        ("/spec/paused", json!("yes")),
        ("/spec", json!({})),
    ] {
        assert!(!with(path, value.clone()).is_empty(), "{path} = {value}");
    }
}

/// "Structural" is what an API server takes, and it says no to all else (Kubernetes, "Specifying a structural schema").
#[test]
fn the_schema_is_structural_and_everything_in_it_is_described() {
    fn walk(schema: &Value, at: &str) {
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let is_amount = schema["x-kubernetes-int-or-string"] == true;
        assert!(schema["type"].is_string() != (open || is_amount), "{at}: no type, or one too many");
        if is_amount {
            assert_eq!(schema["anyOf"], json!([{"type": "integer"}, {"type": "string"}]), "{at}");
        }
        assert!(
            schema.get("properties").is_none() || schema.get("additionalProperties").is_none(),
            "{at}: both properties and additionalProperties"
        );
        for (key, below) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            let is_ours = at.starts_with(".spec");
            assert!(!is_ours || below["description"].is_string(), "{at} is not described");
            walk(below, &at);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(below) = schema.get(key) {
                walk(below, &format!("{at}[]"));
            }
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            Regex::new(pattern).unwrap_or_else(|e| panic!("{at}: {e}"));
        }
    }
    let definition = definition();
    walk(schema_of(&definition), "");
    assert_eq!(definition["metadata"]["name"], "patchpolicies.patchmgmt.io");
    for column in definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap() {
        let path = column["jsonPath"].as_str().unwrap();
        let pointer =
            path.trim_start_matches('.').split('.').fold(String::new(), |p, key| p + "/properties/" + key);
        assert!(
            path.starts_with(".metadata.") || schema_of(&definition).pointer(&pointer).is_some(),
            "{path} is shown, and not in the schema"
        );
    }
}
