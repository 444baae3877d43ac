//! `headgate event`: classes raised for a time, by the command line.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::process::{Command, Output};

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, workspace};
use serde_json::Value;
use support::SOON;

fn event(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(workspace::program("headgate").unwrap());
    command.arg("event").args(arguments).arg("--admin-socket").arg(node.path("admin.sock"));
    command.output().unwrap()
}

#[track_caller]
fn must(node: &Node, arguments: &[&str]) -> String {
    let output = event(node, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(node: &Node, arguments: &[&str]) -> String {
    let output = event(node, arguments);
    assert!(!output.status.success(), "{arguments:?} was accepted");
    String::from_utf8(output.stderr).unwrap()
}

fn class(node: &Node, tenant: &str) -> (Value, Value) {
    let status = node.status().unwrap();
    let row = status["tenants"].as_array().unwrap().iter().find(|row| row["name"] == tenant).unwrap().clone();
    (row["class"].clone(), row["raised_by"].clone())
}

fn node() -> Node {
    let tenants = vec![
        TenantSpec::new("alerts").sm(60).with("class: express"),
        TenantSpec::new("review").sm(20).with("class: batch"),
        TenantSpec::new("archive").sm(20).with("class: batch"),
    ];
    Node::start(NodeOptions::simulated(tenants)).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn an_event_lifts_its_tenants_and_nobody_else_until_it_is_ended() {
    let node = node();
    must(&node, &["start", "fire", "--tenants", "review,alerts", "--class", "standard", "--for", "30m"]);
    assert_eq!(class(&node, "review"), ("standard".into(), "fire".into()));
    assert_eq!(class(&node, "alerts"), ("express".into(), Value::Null), "an event lowers nobody");
    assert_eq!(class(&node, "archive"), ("batch".into(), Value::Null));
    must(&node, &["start", "flood", "--tenants", "review", "--class", "express", "--for", "1h"]);
    assert_eq!(class(&node, "review"), ("express".into(), "flood".into()), "of several the highest counts");
    let listed: Value = serde_json::from_str(&must(&node, &["list", "--json"])).unwrap();
    let names: Vec<&str> =
        listed["events"].as_array().unwrap().iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fire", "flood"]);
    must(&node, &["end", "flood"]);
    assert_eq!(class(&node, "review"), ("standard".into(), "fire".into()));
    must(&node, &["end", "fire"]);
    assert_eq!(class(&node, "review"), ("batch".into(), Value::Null));
    assert_eq!(must(&node, &["list"]), "no event is under way\n");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let node = node();
    let unknown = refused(&node, &["start", "fire", "--tenants", "reviw", "--for", "1m"]);
    assert!(unknown.contains("did you mean `review`"), "{unknown}");
    for (arguments, reason) in [
        (
            &["start", "fire", "--tenants", "review", "--class", "urgent", "--for", "1m"][..],
            "express, standard, batch",
        ),
        (&["start", "fire", "--tenants", "review", "--for", "30d"], "belongs in the configuration"),
        (&["start", "fire", "--tenants", "south/review", "--for", "1m"], "no spec.loans.peers"),
        (&["start", "Fire!", "--tenants", "review", "--for", "1m"], "no name"),
        (&["end", "fire"], "no event `fire` of this district is under way"),
    ] {
        let text = refused(&node, arguments);
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
    assert_eq!(class(&node, "review"), ("batch".into(), Value::Null));
}

#[test]
fn an_event_survives_the_daemon_and_ends_by_itself() {
    let mut node = node();
    must(&node, &["start", "fire", "--tenants", "review", "--for", "1h"]);
    must(&node, &["start", "drill", "--tenants", "archive", "--for", "5s"]);
    node.kill_daemon().unwrap();
    node.start_daemon().unwrap();
    assert_eq!(class(&node, "review"), ("express".into(), "fire".into()));
    eventually("the drill is over", SOON, || {
        (class(&node, "archive") == ("batch".into(), Value::Null)).then_some(())
    });
    assert_eq!(class(&node, "review"), ("express".into(), "fire".into()));
    // What has ended stays ended.
    node.kill_daemon().unwrap();
    node.start_daemon().unwrap();
    assert_eq!(class(&node, "archive"), ("batch".into(), Value::Null));
}
