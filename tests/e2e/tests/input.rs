//! Bad input from anyone gives an error that names the place, and nothing else happens.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use headgate_abi::wire::{Answer, Frame, Hello, RefusalReason};
use headgate_harness::{Node, TenantSpec, workspace};
use support::{Puppet, node};

fn say(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(node.path("control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The daemon may hang up before all of it is read; what it answered is what counts.
    let _sent = stream.write_all(bytes);
    let _half_closed = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer);
    answer
}

fn refusal(answer: &[u8]) -> (RefusalReason, String) {
    let (frame, _) = Frame::parse(answer).unwrap().expect("the daemon answers before it hangs up");
    match Answer::decode(frame).unwrap() {
        Answer::Refused { reason, text } => (reason, text),
        Answer::Welcome(welcome) => panic!("welcomed: {welcome:?}"),
    }
}

#[test]
fn malformed_frames_are_answered_with_their_place() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let good =
        Hello { driver_version: 13000, text_start: 0, text_end: 0, seat: None, devices: vec![[1; 16]] }
            .encode();
    let mut wrong_version = good.clone();
    wrong_version[6] = 99;
    let mut wrong_kind = good.clone();
    wrong_kind[4] = 77;
    let mut too_many = good.clone();
    too_many[8 + 4 + 16 + 4 + 8] = 200;
    for (bytes, part) in [
        (vec![0xff; 64], "length"),
        (wrong_version, "version 99"),
        (wrong_kind, "kind 77"),
        (too_many, "device_count"),
    ] {
        let (reason, text) = refusal(&say(&node, &bytes));
        assert_eq!(reason, RefusalReason::BadHello);
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
    // Half a frame, and nothing at all: the daemon just loses interest.
    say(&node, &good[..10]);
    say(&node, &[]);
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
}

#[test]
fn a_flood_of_silent_connections_keeps_nobody_out() {
    let node = node(vec![TenantSpec::new("alerts")]);
    let _silent: Vec<_> = (0..300).map(|_| UnixStream::connect(node.path("control.sock"))).collect();
    let mut puppet = Puppet::in_tenant(&node, "alerts");
    puppet.must("init");
}

#[test]
fn garbage_on_the_admin_socket_is_an_answer_not_a_crash() {
    let node = node(vec![TenantSpec::new("alerts")]);
    for line in ["{}\n", "not json\n", "{\"op\":\"fly\"}\n", "{\"op\":\"place\"}\n", "\n"] {
        let mut stream = UnixStream::connect(node.path("admin.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("error"), "{line:?} was answered with {answer:?}");
    }
    assert!(node.status().is_ok());
}

#[test]
fn check_config_names_every_mistake_with_its_line() {
    let directory = std::env::temp_dir().join(format!("headgate-check-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("node.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(workspace::program("headgate").unwrap());
        let output = command.arg("check-config").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let good = "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata:\n  name: a\nspec:\n  \
                district: north\n  tenants:\n    - name: alerts\n      cgroup: /alerts\n      quota:\n        \
                \"*\":\n          sm: 70%\n          memory: 8Gi\n";
    assert_eq!(check(good).0, Some(0));
    let bad = good
        .replace("kind: NodeConfig", "kind: NodeConf")
        .replace("sm: 70%", "sm: 170%")
        .replace("memory: 8Gi", "memroy: 8Gi");
    let (code, said) = check(&bad);
    assert_eq!(code, Some(1), "{said}");
    for place in ["node.yaml:2:", "node.yaml:12:", "node.yaml:13:"] {
        assert!(said.contains(place), "{place} is not in:\n{said}");
    }
    assert_eq!(check("a: [1, 2\n").0, Some(1));
    std::fs::remove_dir_all(&directory).unwrap();
    let missing = Command::new(workspace::program("headgate").unwrap())
        .args(["check-config", "/nonexistent/node.yaml"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
}
