//! The document tells what there is, and all of it.

use std::collections::{BTreeMap, BTreeSet};

use proto::queue::{
    Holder, MessageJson, MessageState, Properties, QueueName, QueueStats, Reason, Reply, Totals,
};
use serde_json::{Value, json};

use super::reply::refused;
use super::route::{PROPERTIES, TABLE, Target, Verb};
use super::*;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// The names of an operation's parameters that stand there.
fn parameters(operation: &Value, place: &str) -> BTreeSet<String> {
    let all = operation["parameters"].as_array();
    let all = all.into_iter().flatten().filter(|one| one["in"] == place);
    all.map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_document_has_each_path_with_its_parameters_and_no_other() {
    let document = document();
    let mut told = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let names = path
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{'));
            let names = names.map(|name| name.trim_end_matches('}').to_owned());
            assert_eq!(parameters(operation, "path"), names.collect(), "{path}");
            let fields = if operation["operationId"] == "send" {
                PROPERTIES.map(|(_, field)| field.to_owned()).into()
            } else {
                BTreeSet::new()
            };
            assert_eq!(parameters(operation, "header"), fields, "{path}");
            let line = format!("{} {path}", method.to_uppercase());
            told.insert(line, parameters(operation, "query"));
        }
    }
    let there = TABLE.iter().map(|row| {
        let query = row.query.iter().map(|name| (*name).to_owned());
        (format!("{} {}", row.method, row.path), query.collect())
    });
    assert_eq!(told, there.collect());
    // Only these have a body.
    for row in TABLE {
        let has_body = matches!(row.target, Target::Verb(Verb::Send | Verb::Release));
        let operation = &document["paths"][row.path][row.method.to_lowercase()];
        assert_eq!(
            operation.get("requestBody").is_some(),
            has_body,
            "{}",
            row.path
        );
    }
}

/// Checks that a schema has the names of a value, and no others; those in `either` need not be there.
#[track_caller]
fn check_schema(name: &str, made: &Value, either: &[&str]) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let either: BTreeSet<_> = either.iter().map(|one| (*one).to_owned()).collect();
    let required = schema["required"].as_array().unwrap().iter();
    let required: BTreeSet<_> = required
        .map(|one| one.as_str().unwrap().to_owned())
        .collect();
    let made: BTreeSet<_> = keys(made).difference(&either).cloned().collect();
    assert_eq!(required, made, "{name}");
    let all: BTreeSet<_> = required.union(&either).cloned().collect();
    assert_eq!(keys(&schema["properties"]), all, "{name}");
}

#[test]
fn the_document_has_each_field_and_no_other() {
    let peeked = Reply::Peeked {
        queue: QueueName::DEFAULT,
        position: 1,
        state: MessageState::Ready,
        holder: Holder::default(),
        id: 2,
        attempts: 3,
        age_millis: 4,
        properties: Properties::default(),
        reason: Reason::default(),
        body: b"hi",
    };
    check_schema(
        "Message",
        &json!(MessageJson::of(&peeked, 9)),
        &["body", "body_base64"],
    );
    let mut totals = json!(Totals::default());
    totals["queues"] = json!([]);
    check_schema("Stats", &totals, &[]);
    let queue = QueueStats {
        name: "q".into(),
        ready: 0,
        reserved: 0,
        delayed: 0,
        dead: 0,
        waiters: 0,
        oldest_millis: 0,
        oldest_reserved_millis: 0,
        is_paused: false,
    };
    check_schema("Queue", &json!(queue), &[]);
    let error = refused(&Denied::Queue(QueueError::Draining));
    let daemon::http::Content::Bytes(body) = error.body else {
        panic!("{:?}", error.body);
    };
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["name"], "Draining");
    check_schema("Error", &error, &[]);
}
