//! `spec.loans` and `borrow` from outside: every mistake is named with its place and its remedy, all of them at once.

use std::time::Duration;

use headgate_daemon::config::{
    self,
    loans::{BorrowedPrograms, Store},
};
use headgate_quota::Micros;
use headgate_quota::loan::{Borrowing, DataClass, Lending, Terms};

/// Ends in line 7; the node is `n` of district `north`.
const HEAD: &str = "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\nspec:\n  district: north\n  \
                    tenants:\n    - {name: a, cgroup: /a}\n";

/// What peers need at least, at eight spaces more than `peers:`.
const PEERS: &str = "listen: 10.0.0.1:9478, certificate: /c, key: /k, authorities: {north: /n, south: /s}";

fn problems(text: &str) -> Vec<String> {
    match config::parse("f", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

/// What stands under `spec:` behind [`HEAD`], from line 8 on, and the problems it must give.
const BAD: &[(&str, &[&str])] = &[
    // The frame.
    ("  loans: 3\n", &["f:8:10: spec.loans must be a mapping of keys to values, found a single value"]),
    (
        "  loans: {stores: embedded, lendin: {}}\n",
        &[
            "f:8:11: unknown key `stores` in spec.loans; did you mean `store`?",
            "f:8:29: unknown key `lendin` in spec.loans; did you mean `lending`?",
        ],
    ),
    ("  loans: {connections: 0}\n", &["f:8:24: `connections` is `0`; write a number from 1 to 8"]),
    ("  loans: {connections: 9}\n", &["f:8:24: `connections` is `9`; write a number from 1 to 8"]),
    ("  loans: {connections: many}\n", &["f:8:24: `connections` is `many`; write a number from 1 to 8"]),
    // The store.
    ("  loans: {store: redis}\n", &["f:8:18: `store` is `redis`; write one of: embedded"]),
    ("  loans: {store: {}}\n", &["f:8:18: spec.loans.store lacks `nats`; add it"]),
    (
        "  loans: {store: {nats: {urls: []}}}\n",
        &["f:8:32: there is no server to keep ledgers in; add one such as nats://host:4222"],
    ),
    (
        "  loans:\n    store:\n      nats: {urls: ['http://h:4222'], bucket: A_b, replicas: 2, certificate: /c}\n",
        &[
            "f:10:13: a client's `certificate` and `key` belong together; give both or neither",
            "f:10:21: `http://h:4222` is no NATS address; write nats://host:4222 or tls://..",
            "f:10:47: `A_b` cannot be a bucket; use at most 63 lower-case letters, digits and inner dashes",
            "f:10:62: `replicas` is `2`; write one of: 1, 3, 5",
        ],
    ),
    // Peers.
    (
        "  loans: {peers: {}}\n",
        &[
            "f:8:18: spec.loans.peers lacks `listen`; add it",
            "f:8:18: spec.loans.peers lacks `certificate`; add it",
            "f:8:18: spec.loans.peers lacks `key`; add it",
            "f:8:18: spec.loans.peers lacks `authorities`; add it",
        ],
    ),
    (
        "  loans:\n    peers: {listen: 9478, advertise: ':1', certificate: /c, key: /k, authorities: [/n], summaryEvery: 1ms}\n",
        &[
            "f:9:21: `listen` is `9478`; write an address and a port such as 0.0.0.0:9478",
            "f:9:38: `:1` is no host and port such as node-a:9478",
            "f:9:83: authorities must map a district to the file of its authority",
            "f:9:103: `summaryEvery` must be between 100ms and 60s",
        ],
    ),
    (
        "  loans:\n    peers: {listen: '0.0.0.0:9478', certificate: /c, key: /k, authorities: {South: /s, east: /e}}\n",
        &[
            "f:9:12: others cannot dial 0.0.0.0:9478; add `advertise: HOST:9478`",
            "f:9:76: no authority for this node's own district north; add it",
            "f:9:77: `South` cannot be a district",
        ],
    ),
    (
        "  loans:\n    peers:\n      PEERS\n      lead: {node: n, address: 'h:1'}\n",
        &["f:10:7: n is this node itself; write `lead: self`"],
    ),
    (
        "  loans:\n    peers:\n      PEERS\n      lead: other\n",
        &["f:14:13: `lead` is `other`; write one of: self"],
    ),
    (
        "  loans:\n    peers:\n      PEERS\n      lead: {node: m, address: 'h:1'}\n      leads:\n        - {district: \
         south, node: s, address: 'h:1'}\n",
        &["f:10:7: only a district's lead talks to other leads; remove `lead` or `leads`"],
    ),
    (
        "  loans:\n    peers:\n      PEERS\n      leads:\n        - {district: north, node: m, address: 'h:1'}\n        \
         - {district: west, node: w, address: 'h:1'}\n        - {district: south, node: s, address: h}\n        \
         - {district: south, node: s}\n",
        &[
            "f:10:7: m is of this node's own district; name it as `lead`, or remove it",
            "f:10:7: no authority for district west of lead w; add it",
            "f:17:47: `h` is no host and port such as node-a:9478",
            "f:18:11: a peer lacks `address`; add it",
        ],
    ),
    (
        "  loans:\n    peers:\n      PEERS\n      leads:\n        - {district: south, node: s, address: 'h:1'}\n        \
         - {district: south, node: t, address: 'h:1'}\n",
        &["f:10:7: district south has more than one lead; keep one"],
    ),
    // Terms, lending, borrowing.
    (
        "  loans: {terms: {ttl: 15, clockSkew: fast, renews: 5s}}\n",
        &[
            "f:8:24: `ttl` is `15`; write a span of time such as 500ms, 30s, 5m, 1h or 1d",
            "f:8:39: `clockSkew` is `fast`; write a ratio such as 1.5",
            "f:8:45: unknown key `renews` in spec.loans.terms; did you mean `renew`?",
        ],
    ),
    (
        "  loans: {terms: {ttl: 10s, renew: 5s}}\n",
        &["f:8:18: the terms do not fit together: two renewals must fit into ttl - margin"],
    ),
    (
        "  loans: {terms: {clockSkew: 0.9}}\n",
        &[
            "f:8:18: the terms do not fit together: the clock skew is a ratio of at least 1.0 (1000 thousandths)",
        ],
    ),
    (
        "  loans: {terms: {ttl: 2h}}\n",
        &["f:8:18: the terms do not fit together: ttl must be an hour at most"],
    ),
    (
        "  loans: {terms: {margin: 0s}}\n",
        &["f:8:18: the terms do not fit together: ttl, renew, margin and notice must be longer than zero"],
    ),
    (
        "  loans: {terms: {margin: 15s}}\n",
        &["f:8:18: the terms do not fit together: the margin must be shorter than the ttl"],
    ),
    (
        "  loans: {terms: {notice: 2s}}\n",
        &[
            "f:8:18: the terms do not fit together: the notice must be longer than the margin, and at least (notice - \
             margin) times the skew",
        ],
    ),
    (
        "  loans: {terms: {minDuration: 2h}}\n",
        &[
            "f:8:18: the terms do not fit together: the maximum duration must be at least the minimum duration",
        ],
    ),
    (
        "  loans: {lending: {idleFor: soon, evict: maybe, least: 0, headroom: {sm: 200%, memory: lots}}}\n",
        &[
            "f:8:30: `idleFor` is `soon`; write a span of time such as 500ms, 30s, 5m, 1h or 1d",
            "f:8:43: `evict` is `maybe`; write one of: on, off",
            "f:8:57: a loan of nothing helps nobody; write the `least` share worth lending, such as 5%",
            "f:8:75: `sm` is `200%`; write a percentage from 0 to 100 such as 70%",
            "f:8:89: `memory` is `lots`; write bytes or a size such as 8Gi or 500Mi",
        ],
    ),
    (
        "  loans: {borrowing: {needFor: 1, backof: 1s}}\n",
        &[
            "f:8:32: `needFor` is `1`; write a span of time such as 500ms, 30s, 5m, 1h or 1d",
            "f:8:35: unknown key `backof` in spec.loans.borrowing; did you mean `backoff`?",
        ],
    ),
];

#[test]
fn every_mistake_is_named_with_its_place_and_its_remedy() {
    let peers = PEERS.split(", authorities").next().unwrap().replace(", ", "\n      ");
    let peers = format!("{peers}\n      authorities: {{north: /n, south: /s}}");
    let mut wrong = Vec::new();
    for (spec, expected) in BAD {
        let found = problems(&format!("{HEAD}{}", spec.replace("PEERS", &peers)));
        if found != *expected {
            wrong.push(format!("in\n{spec}found    {found:#?}\nexpected {expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The example stands in comments, so that a node does not lend before somebody means it.
#[test]
fn the_shipped_example_is_valid_once_it_is_uncommented() {
    let shipped = include_str!("../../deploy/config/node.yaml");
    let from = shipped.find("  # loans:\n").unwrap();
    let example: String = shipped[from..]
        .lines()
        .take_while(|line| line.starts_with("  #"))
        .map(|line| format!("  {}\n", line.strip_prefix("  # ").unwrap()))
        .collect();
    let config = config::parse("f", &format!("{HEAD}{example}")).unwrap_or_else(|p| panic!("{p}\n{example}"));
    let loans = config.loans.unwrap();
    assert_eq!(
        (loans.lending, loans.borrowing),
        (Lending::default(), Borrowing::default()),
        "it shows the defaults"
    );
    assert_eq!(loans.peers.unwrap().leads.len(), 1);
}

#[test]
fn a_tenants_borrow_is_checked_with_the_rest() {
    let with = |loans: &str, tenant: &str| {
        let text = HEAD.replace("cgroup: /a}", &format!("cgroup: /a, {tenant}}}"));
        problems(&format!("{text}{loans}"))
    };
    assert_eq!(
        with("", "borrow: {sm: 40%}"),
        ["f:7:7: tenant `a` borrows, but there is no spec.loans; add one"]
    );
    assert_eq!(
        with("  loans: {}\n", "district: south, borrow: {sm: 40%}"),
        ["f:7:7: tenant `a` of district south cannot borrow here: a node of north borrows for north only"]
    );
    assert_eq!(
        with("  loans: {}\n", "borrow: {memory: 2Gi, memoryTotal: 1Gi, data: secret, programs: all, for: b}"),
        [
            "f:7:37: borrow lacks `sm`; add it",
            "f:7:37: `memoryTotal` is below `memory`, so that no loan would fit; raise it to 2Gi",
            "f:7:75: `data` is `secret`; write one of: raw, derived, weights, synthetic",
            "f:7:93: `programs` is `all`; write one of: asked, next",
            "f:7:98: unknown key `for` in borrow; known here: sm, memory, memoryTotal, data, budget, programs, patience",
        ]
    );
}

#[test]
fn what_is_left_out_has_its_default_and_what_is_written_counts() {
    let parse = |loans: &str| config::parse("f", &format!("{HEAD}{loans}")).unwrap_or_else(|p| panic!("{p}"));
    assert!(parse("").loans.is_none(), "nothing is lent before somebody asks for it");
    let loans = parse("  loans: {}\n").loans.unwrap();
    assert_eq!((loans.store, loans.peers), (Store::Embedded, None));
    assert_eq!(loans.connections, None);
    assert_eq!(parse("  loans: {connections: 1}\n").loans.unwrap().connections, Some(1));
    assert_eq!((loans.lending, loans.borrowing), (Lending::default(), Borrowing::default()));
    let config = parse(&format!(
        "  loans: {{terms: {{ttl: 4s, renew: 1s, margin: 500ms, notice: 1500ms, clockSkew: 1.25}}, peers: {{{PEERS}}}, \
         lending: {{idleFor: 2s}}}}\n"
    ));
    let loans = config.loans.unwrap();
    let terms = Terms {
        ttl: Micros::from_secs(4),
        renew: Micros::from_secs(1),
        margin: Micros::from_millis(500),
        notice: Micros::from_millis(1_500),
        skew_permille: 1_250,
        ..Terms::default()
    };
    assert_eq!((loans.lending.terms, loans.lending.idle_for), (terms, Micros::from_secs(2)));
    let peers = loans.peers.unwrap();
    assert_eq!((peers.advertise.as_str(), peers.lead), ("10.0.0.1:9478", None));
    assert_eq!(peers.summary_every, Duration::from_secs(2));
    let text = HEAD.replace("cgroup: /a}", "cgroup: /a, borrow: {sm: 40%, memory: 1Gi}}");
    let config = config::parse("f", &format!("{text}  loans: {{}}\n")).unwrap_or_else(|p| panic!("{p}"));
    let borrow = config.tenants[0].borrow.unwrap();
    assert_eq!((borrow.data, borrow.limit.memory.0, borrow.memory.0), (DataClass::Raw, 1 << 30, 1 << 30));
    assert_eq!(borrow.programs, BorrowedPrograms::Asked);
}
