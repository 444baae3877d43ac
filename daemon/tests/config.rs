//! The configuration from outside: every mistake is named with its place and its remedy, all of them at once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headgate_daemon::config::enforcement::{Enforcement, WitnessPolicy};
use headgate_daemon::config::{self, model::DeviceKey};
use headgate_ebpf::RuleMode;
use headgate_quota::{Class, Mode, Ppm};
use proptest::prelude::*;

const HEAD: &str = "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\nspec:\n";
const SHIPPED: &str = include_str!("../../deploy/config/node.yaml");

fn problems(text: &str) -> Vec<String> {
    match config::parse("f", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn the_shipped_example_is_valid_and_means_what_it_says() {
    let config = config::parse("node.yaml", SHIPPED).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.default_tenant.unwrap().as_str(), "shared");
    assert_eq!(config.http_listen.unwrap().to_string(), "127.0.0.1:9477");
    let alerts = &config.tenants[0];
    assert_eq!((alerts.class, alerts.mode), (Class::Express, Mode::Borrow));
    let quota = alerts.quota[&DeviceKey::All];
    let sm = quota.sm.unwrap();
    assert_eq!(sm.nominal, Ppm::from_percent(70).unwrap());
    assert_eq!(sm.borrowing_limit, Ppm::from_percent(30));
    assert_eq!(sm.lending_limit, Ppm::from_percent(40));
    let memory = quota.memory.unwrap();
    assert_eq!((memory.nominal.0, memory.lending_limit.0), (48 << 30, 8 << 30));
    assert_eq!((alerts.residency.mode, alerts.residency.channel_port), (RuleMode::Enforce, 4791));
    assert_eq!(alerts.residency.budgets[0].bytes.0, 10 << 30);
    assert_eq!(alerts.residency.budgets[0].every, Duration::from_secs(3600));
    assert_eq!(alerts.device_gate, RuleMode::Enforce);
    let enforcement = config.enforcement.unwrap();
    assert_eq!(enforcement, Enforcement::default(), "the shipped values are the defaults");
    assert_eq!(config.districts[1].ranges.len(), 2);
    assert_eq!(config.witness.policy, WitnessPolicy::Count);
    assert_eq!(config.witness.launch_audit.unwrap().every, Duration::from_secs(60));
}

#[test]
fn nothing_is_held_against_anyone_unless_somebody_asks() {
    let parse = |tenant: &str, more: &str| {
        let text = format!("{HEAD}  district: n\n{more}  tenants: [{{name: a, cgroup: /a{tenant}}}]\n");
        config::parse("f", &text).unwrap_or_else(|problems| panic!("{problems}")).enforcement
    };
    assert_eq!(parse("", ""), None);
    assert_eq!(parse(", deviceGate: {mode: off}", ""), None);
    assert_eq!(parse(", deviceGate: {mode: audit}", ""), Some(Enforcement::default()));
    assert!(parse("", "  enforcement: {governed: /a}\n").unwrap().governed.is_some());
}

/// A document under `spec:` of [`HEAD`] (which ends in line 4), and the problems it must give.
const BAD: &[(&str, &[&str])] = &[
    (
        "  district: n\n  districts:\n    - {name: n, cidrs: [10.0.0.1/8, 10.0.0.0/8]}\n    - {name: s, cidrs: [10.0.0.0/8]}\n\
         \x20   - {name: s, cidrs: []}\n  tenants: []\n",
        &[
            "f:7:25: \"10.0.0.1/8\" is not an address range: bits behind the first 8 are set; write one such as \
             10.4.0.0/16 or fd00:4::/32",
            "f:8:25: range 10.0.0.0/8 is in two districts (first in `n`, line 7); an address lies in one",
            "f:9:7: district `s` is defined twice (first in line 8); keep one",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - {name: a, cgroup: /a, residency: {mode: enforced}, deviceGate: {mode: on}}\n",
        &[
            "f:7:47: `mode` is `enforced`; did you mean `enforce`?",
            "f:7:77: `mode` is `on`; write one of: off, audit, enforce",
        ],
    ),
    (
        "  district: n\n  enforcement: {governed: /b, pinned: /x}\n  tenants:\n    - name: a\n      cgroup: /a\n      \
         residency: {mode: audit, budgets: [{district: s, bytes: 1k, every: 10ms}, {district: n, bytes: 1, every: 1s}]}\n",
        &[
            "f:6:31: unknown key `pinned` in spec.enforcement; did you mean `pins`?",
            "f:10:18: cgroup /a of tenant `a` is not below spec.enforcement.governed (/b); nothing would be refused there",
            "f:10:18: tenant `a` may not leave district `n`, of which no addresses are known; list them under \
             spec.districts",
            "f:10:42: there is no district `s`; list it under spec.districts",
            "f:10:42: a budget is spent on the GPU channel; add `channelPort` beside it",
            "f:10:74: a budget cannot be granted more often than every 1s",
            "f:10:81: the tenant's own district needs no budget; remove it",
        ],
    ),
    (
        "  district: n\n  witness: {policy: kill, launchAudit: {for: 2s, every: 1s}}\n  tenants: []\n",
        &[
            "f:6:21: `policy` is `kill`; write one of: count, warn, refuse",
            "f:6:40: an audit needs some time and fits into its period; write for: 1s, every: 60s",
        ],
    ),
    (
        "  district: n\n  overcommit: {sm: true}\n  gpus:\n    \"*\": {sharing: mpsPartition}\n  tenants:\n    \
         - {name: a, cgroup: /a, enforcement: off, quota: {\"*\": {memory: 1Gi}}}\n",
        &[
            "f:8:10: mpsPartition on device \"*\", but spec.overcommit.sm is true: SMs of a tenant's own cannot be promised \
             twice; use mpsPercentage, whose ceilings may add up to more than the device, or set it to false",
            "f:10:7: tenant `a` has no sm share on device \"*\", which is shared by mpsPartition: its programs could not \
             start there; add `sm` to its quota",
            "f:10:7: tenant `a` has `enforcement: off` on device \"*\", which is shared by mpsPartition: off means the \
             driver's own functions, which know nothing of its SMs; remove it",
        ],
    ),
    (
        "  district: n\n  gpus: {\"*\": {sharing: smGroups}, GPU-1: {sharing: temporal}}\n  mps: {controll: /x}\n  \
         tenants: []\n",
        &[
            "f:6:25: `sharing` is `smGroups`; write one of: temporal, mpsPartition, mpsPercentage, greenContexts",
            "f:6:36: `GPU-1` is not a device UUID; write one as `nvidia-smi -L` prints it (GPU-...), or \"*\" for every \
             device",
            "f:7:9: unknown key `controll` in spec.mps; did you mean `control`?",
        ],
    ),
    (
        "  district: n\n  gpus: {\"*\": {gate: hots}, GPU-00000000-0000-0000-0000-000000000000: {allowMultiplied: true}}\n  \
         tenants: []\n",
        &["f:6:22: `gate` is `hots`; did you mean `host`?", "f:6:71: a gpu lacks `sharing`; add it"],
    ),
    (
        "  district: n\n  overcommit: {sm: true}\n  gpus: {\"*\": {sharing: greenContexts, allowMultiplied: true}}\n  \
         tenants: []\n",
        &[
            "f:7:15: greenContexts on device \"*\", but spec.overcommit.sm is true: SMs of a tenant's own cannot be promised \
           twice; use mpsPercentage, whose ceilings may add up to more than the device, or set it to false",
        ],
    ),
    (
        "  district: n\n  gpus: {\"*\": {sharing: mpsPercentage, allowMultiplied: true}}\n  tenants: []\n",
        &[
            "f:6:57: `allowMultiplied` is about greenContexts without MPS, but the device is shared by mpsPercentage; \
           remove it",
        ],
    ),
    ("  tenants: []\n", &["f:5:3: spec lacks `district`; add it"]),
    ("  district: north\n", &["f:5:3: spec lacks `tenants`; add it"]),
    (
        "  district: North\n  tenants: []\n",
        &["f:5:13: `North` cannot be a district; use at most 63 lower-case letters, digits and inner dashes"],
    ),
    (
        "  district: n\n  tennants: []\n",
        &[
            "f:5:3: spec lacks `tenants`; add it",
            "f:6:3: unknown key `tennants` in spec; did you mean `tenants`?",
        ],
    ),
    ("  district: n\n  tenants: 3\n", &["f:6:12: `tenants` must be a list, found a single value"]),
    (
        "  district: n\n  district: m\n  tenants: []\n",
        &["f:6:3: `district` is written twice (first in line 5); keep one"],
    ),
    (
        "  district: n\n  defaultTenant: b\n  tenants: [{name: a, cgroup: /a}]\n",
        &["f:6:18: defaultTenant `b` is not a tenant; define it under spec.tenants"],
    ),
    (
        "  district: n\n  tenants: [{name: a}]\n",
        &[
            "f:6:13: tenant `a` has no cgroup and is not the default tenant, so no process can belong to it; add \
           `cgroup: /headgate/a`",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - {name: a, cgroup: /a}\n    - {name: a, cgroup: /a}\n",
        &[
            "f:8:7: tenant `a` is defined twice (first in line 7); rename one",
            "f:8:7: cgroup /a belongs to two tenants (first in line 7); give each its own",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - name: a\n      cgroup: a/../b\n",
        &[
            "f:8:15: `a/../b` is not a cgroup path; write it from the cgroup2 root, such as /headgate/alerts, \
           without . or ..",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - {name: a, cgroup: /a, class: xpress, mode: soft, enforcement: yes}\n",
        &[
            "f:7:36: `class` is `xpress`; did you mean `express`?",
            "f:7:50: `mode` is `soft`; write one of: borrow, hard",
            "f:7:69: `enforcement` is `yes`; write one of: on, off",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - name: a\n      cgroup: /a\n      quota:\n        GPU-1: {sm: 1}\n        \
         \"*\": {sm: 0}\n",
        &[
            "f:10:9: `GPU-1` is not a device UUID; write one as `nvidia-smi -L` prints it (GPU-...), or \"*\" \
             for every device",
            "f:11:19: an sm share of 0 could never run; leave `sm` out for no limit, or give it a share",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - {name: a, cgroup: /a, quota: {\"*\": {sm: 70}}}\n    \
         - {name: b, cgroup: /b, quota: {\"*\": {sm: 40}}}\n",
        &[
            "f:8:7: sm shares on device \"*\" add up to more than 100 % here (a 70 %, b 40 %); lower one, or set \
           spec.overcommit.sm: true to scale all down under load",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - name: a\n      cgroup: /a\n      quota:\n        \"*\":\n          \
         memory: 1Gi\n          borrowingLimit: 10\n          lendingLimit: {memory: 2Gi}\n",
        &[
            "f:12:27: a limit on sm needs an `sm` share beside it; add one or remove the limit",
            "f:13:25: lendingLimit memory 2Gi is more than the nominal 1Gi; lower it",
        ],
    ),
    (
        "  district: n\n  tenants:\n    - {name: a, cgroup: /a, quota: {\"*\": {sm: 1, borrowingLimit: {memory: \
         1Gi}}}}\n",
        &["f:7:75: memory cannot be borrowed, because it cannot be taken back at once; remove it"],
    ),
    (
        "  district: n\n  sockets: {control: /a, admin: /a}\n  tenants: []\n",
        &["f:6:33: the control and the admin socket have the same path; give each its own"],
    ),
    ("  district: n\n  tenants: *t\n", &["f:6:12: not YAML: while parsing node, found unknown anchor"]),
    (
        "  district: &d n\n  tenants: []\n",
        &["f:5:13: anchors and tags are not supported; write the plain value"],
    ),
    (
        "  district: n\n  tenants: []\n---\na: b\n",
        &["f:7:1: a second document; a node reads exactly one NodeConfig, remove the rest"],
    ),
];

#[test]
fn every_mistake_is_named_with_its_place_and_its_remedy() {
    for (spec, expected) in BAD {
        assert_eq!(problems(&format!("{HEAD}{spec}")), *expected, "in\n{spec}");
    }
}

#[test]
fn every_socket_has_a_path_that_the_kernel_takes() {
    let problems_of =
        |sockets: &str| problems(&format!("{HEAD}  district: n\n  sockets: {{{sockets}}}\n  tenants: []\n"));
    let none: [&str; 0] = [];
    let path = |bytes: usize, name: &str| format!("/{}/{name}", "d".repeat(bytes - name.len() - 2));
    for key in ["control", "admin", "remote"] {
        assert_eq!(problems_of(&format!("{key}: {}", path(95, "longest.sock"))), none);
        let expected = format!("`{key}` is 96 bytes long, but the kernel takes 95; shorten it");
        let place = 13 + key.len() + 2;
        let found = problems_of(&format!("{key}: {}", path(96, "longest.sock")));
        assert_eq!(found, [format!("f:6:{place}: {expected}")]);
    }
    // Nobody writes the path of the one that is beside another, whose name may be shorter.
    assert_eq!(problems_of(&format!("control: {}", path(90, "c.sock"))), none);
    assert_eq!(
        problems_of(&format!("control: {}", path(91, "c.sock"))),
        [
            "f:6:22: the socket for remote sessions, beside the control socket, has a path 96 bytes long, but the kernel takes 95; \
             shorten `control`, or give `remote` a path of its own"
        ]
    );
    assert_eq!(problems_of(&format!("control: {}, remote: /r.sock", path(91, "c.sock"))), none);
}

#[test]
fn the_frame_of_the_document_is_checked_too() {
    assert_eq!(problems(""), ["f:1:1: the file is empty; start from the commented example"]);
    assert_eq!(problems("[]"), ["f:1:1: the document must be a mapping of keys to values, found a list"]);
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: {district: n, tenants: []}\n";
    assert_eq!(
        problems(text),
        [
            "f:1:13: `apiVersion` is `v1`, but this build reads `headgate.dev/v1alpha1`",
            "f:2:7: `kind` is `Pod`, but this build reads `NodeConfig`",
            "f:3:11: metadata lacks `name`; add it",
        ]
    );
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert!(problems(&deep)[0].contains("nested deeper than 32 levels"), "{:?}", problems(&deep));
    let hostile = format!("{HEAD}  \"a\\e[31m\\n\": 1\n  district: n\n  tenants: []\n");
    assert!(
        problems(&hostile)[0].contains(r"unknown key `a\u{1b}[31m\n` in spec"),
        "{:?}",
        problems(&hostile)
    );
}

#[test]
fn overcommit_is_allowed_when_asked_for() {
    let tenant =
        |name: &str| format!("    - {{name: {name}, cgroup: /{name}, quota: {{'*': {{sm: 70}}}}}}\n");
    let spec = "  district: n\n  overcommit: {sm: true}\n  tenants:\n";
    let text = format!("{HEAD}{spec}{}{}", tenant("a"), tenant("b"));
    assert!(config::parse("f", &text).unwrap().overcommit_sm);
}

#[test]
fn problems_are_bounded() {
    let keys: String = (0..500).map(|n| format!("  k{n}: 1\n")).collect();
    let lines = problems(&format!("{HEAD}{keys}"));
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[100], "f: and 402 more problems");
}

#[test]
fn check_config_tells_by_its_exit_code() {
    let run = |file: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        let output = command.arg("check-config").arg(file).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, SHIPPED).unwrap();
    assert_eq!(run(&file), (0, String::new()));
    std::fs::write(&file, format!("{HEAD}  tenants: 1\n  distrikt: n\n")).unwrap();
    let (code, text) = run(&file);
    assert_eq!(code, 1);
    let at =
        |place: &str| text.lines().any(|line| line.starts_with(&format!("{}:{place}: ", file.display())));
    assert!(at("5:12") && at("6:3"), "{text}");
    let (code, text) = run(&dir.path().join("none.yaml"));
    assert_eq!(code, 2);
    assert!(text.contains("none.yaml"), "{text}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _outcome = config::parse("f", &text);
    }

    #[test]
    fn no_damage_to_a_good_file_makes_the_parser_panic(
        cut in 0usize..9000,
        put in "[\\[\\]{}:,&*!|>'\"#%@` \n\t0a-]{0,6}",
        drop in 0usize..40,
    ) {
        let end = cut.min(SHIPPED.len());
        let head = (0..=end).rev().find(|at| SHIPPED.is_char_boundary(*at)).unwrap();
        let tail = (head + drop..SHIPPED.len()).find(|at| SHIPPED.is_char_boundary(*at));
        let text = format!("{}{put}{}", &SHIPPED[..head], &SHIPPED[tail.unwrap_or(SHIPPED.len())..]);
        if let Err(problems) = config::parse("f", &text) {
            for problem in problems.list() {
                prop_assert!(problem.place.line <= text.lines().count() + 1, "{problem:?}");
            }
        }
    }
}
