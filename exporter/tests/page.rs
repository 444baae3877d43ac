//! The page and the document, against golden files. `UPDATE=1` writes them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::path::{Path, PathBuf};

use headgate_exporter::document::document;
use headgate_exporter::kernel::{Kernel, Latency};
use headgate_exporter::loans::Loans;
use headgate_exporter::page;
use headgate_exporter::remote::Remote;
use headgate_exporter::snapshot::{
    Account, ConfigState, Device, Histogram, Network, Probe, Snapshot, Tenant,
};
use headgate_quota::{Bytes, Micros, Ppm, Status};

fn check(path: &Path, found: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, found).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == found, "{} is behind; run again with UPDATE=1 and look at the diff", path.display());
}

fn here(rest: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(rest)
}

fn account(gpu: &str) -> Account {
    Account {
        gpu: gpu.to_owned(),
        memory_quota: Bytes(8 << 30),
        memory_used: Bytes(3 << 30),
        memory_overhead: Bytes(300 << 20),
        memory_peak: Bytes(4 << 30),
        denied: 2,
        sm_quota: Ppm::from_percent(70).unwrap(),
        space: Ppm::from_percent(66),
        charged: Micros(1_500_000),
        tokens_us: -250_000,
        launches: 1000,
        batches: 20,
        gate_waits: vec![("host", Micros(125_000)), ("device", Micros(2_750_000))],
    }
}

fn device() -> Device {
    Device {
        gpu: "GPU-0".to_owned(),
        name: "H100".to_owned(),
        memory: Bytes(80 << 30),
        sharing: "mpsPartition",
        shared_as_wanted: true,
    }
}

fn remote() -> Remote {
    Remote {
        sessions: vec![("borrower", "alerts".to_owned(), "east".to_owned(), 2)],
        bytes: vec![
            ("borrower", "east".to_owned(), "up", "to_device", 4_096),
            ("borrower", "east".to_owned(), "down", "from_device", 0),
        ],
        begun: vec![("borrower", 3), ("lender", 0)],
        ended: vec![("borrower", "left", 1), ("borrower", "differs", 0)],
        refused: vec![("borrower", "raw_data", 1), ("lender", "loan", 0)],
        lost: vec![("borrower", 4), ("lender", 0)],
        resumed: vec![("borrower", 4), ("lender", 0)],
        aside: vec![("borrower", 2), ("lender", 0)],
        returned: vec![("borrower", 1), ("lender", 0)],
    }
}

fn snapshot() -> Snapshot {
    let histogram = Histogram::of_doubling_micros(&[1, 2, 0, 3], Micros(40));
    let tenant = |name: &str, status| Tenant {
        tenant: name.to_owned(),
        district: "north".to_owned(),
        status,
        seats: 2,
        untracked_frees: 0,
        hook_faults: 0,
        process_exits: 4,
        gate_wait: histogram.clone(),
        lanes_refused: 1,
        unenforced: Some(0),
        failed_open: 2,
        kernel: Kernel {
            latencies: vec![Latency {
                gpu: "GPU-0".to_owned(),
                wait: Some(histogram.clone()),
                calls: vec![("memory", histogram.clone()), ("launch", histogram.clone())],
                span: Some(histogram.clone()),
            }],
            networks: vec![(
                "south".to_owned(),
                Network { rtt: histogram.clone(), connections: 5, retransmits: 1 },
            )],
            flows: vec![("south".to_owned(), 1_500, 40), ("_unknown".to_owned(), 0, 60)],
            refusals: vec![("unknown_district", 3, 0), ("unattested", 0, 2)],
            budgets: vec![("south".to_owned(), 10_000, 8_500)],
            bypasses: vec![("allocate", 1, 0)],
            audited_launches: Some(70),
            bypass_refusals: Some(0),
            ledgers: vec![("hook", 3 << 30), ("probes", 3 << 30)],
            drifts: vec![("probes", 0)],
        },
        gpus: vec![account("GPU-0")],
    };
    Snapshot {
        version: "0.1.0".to_owned(),
        node: "node-a".to_owned(),
        district: "north".to_owned(),
        config: ConfigState {
            last_reload_successful: true,
            last_success_unix_seconds: 1_700_000_000,
            hash: "0123456789abcdef".to_owned(),
        },
        devices: vec![device()],
        gate_backends: vec![("memops", 3), ("none", 1)],
        tenants: vec![tenant("alerts", Status::Nominal), tenant("review", Status::Throttled)],
        xids: vec![("GPU-1".to_owned(), "79".to_owned(), 1)],
        refused: vec![("no_tenant", 1), ("seats_full", 0)],
        probes: vec![
            Probe { probe: "gpu_wait".to_owned(), up: true },
            Probe { probe: "network_rtt".to_owned(), up: false },
        ],
        parts: vec![Probe { probe: "residency".to_owned(), up: true }],
        loans: Some(Loans {
            lent: vec![(
                "cases".to_owned(),
                "south".to_owned(),
                "GPU-1".to_owned(),
                "east".to_owned(),
                250_000,
            )],
            borrowed: vec![("alerts".to_owned(), "north".to_owned(), "east".to_owned(), 400_000)],
            decisions: vec![("granted".to_owned(), 3), ("refused".to_owned(), 0)],
            stale: vec![("message", 1), ("order", 0)],
            refused: vec![("expired".to_owned(), 2), ("replayed".to_owned(), 0)],
            peers: vec![("east".to_owned(), 4)],
            swaps: 17,
            conflicts: 1,
            unanswered: 2,
            serving: true,
            audited: 21,
            audit_failures: 0,
        }),
        remote: Some(remote()),
        unhooked_symbols: vec![("libcuda", 0), ("libnvidia-ml", 1)],
        unknown: Some(Kernel { bypasses: vec![("allocate", 0, 3)], ..Kernel::default() }),
        probe_events: vec![("exit_lost", 0)],
    }
}

#[test]
fn the_page_is_as_agreed() {
    check(&here("tests/golden/page.txt"), &page(snapshot(), Micros(1_200)).unwrap());
}

#[test]
fn the_document_follows_the_table() {
    check(&here("../docs/metrics.md"), &document());
}

#[test]
fn hostile_label_values_stay_inside_their_quotes() {
    let mut snapshot = snapshot();
    snapshot.devices[0].name = "a\"} 1\nheadgate_seats{tenant=\"forged\",district=\"\\".to_owned();
    let page = page(snapshot, Micros::ZERO).unwrap();
    assert!(
        page.contains(r#"name="a\"} 1\nheadgate_seats{tenant=\"forged\",district=\"\\""#),
        "quotes, backslashes and newlines are escaped"
    );
    assert!(!page.lines().any(|line| line.starts_with("headgate_seats{tenant=\"forged\"")));
}

#[test]
fn a_tenant_that_leaves_takes_its_series_along() {
    let mut snapshot = snapshot();
    assert!(page(snapshot.clone(), Micros::ZERO).unwrap().contains("review"));
    snapshot.tenants.pop();
    assert!(!page(snapshot, Micros::ZERO).unwrap().contains("review"));
}

#[test]
fn histograms_are_cumulative_and_complete() {
    let page = page(snapshot(), Micros::ZERO).unwrap();
    let buckets: Vec<u64> = page
        .lines()
        .filter(|line| line.starts_with("headgate_gate_wait_seconds_bucket") && line.contains("\"alerts\""))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(buckets, [1, 3, 3, 6]);
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn names_are_prometheus_names() {
    for family in headgate_exporter::families::FAMILIES {
        let name = family.exposed_name();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(family.help.ends_with('.'), "{name}: help is a sentence");
        for label in family.labels {
            let known = [
                "tenant",
                "district",
                "gpu",
                "sharing",
                "event",
                "status",
                "probe",
                "reason",
                "backend",
                "library",
                "version",
                "node",
                "hash",
                "name",
                "part",
                "peer_district",
                "direction",
                "outcome",
                "call",
                "origin",
                "ledger",
                "side",
                "role",
                "kind",
                "xid",
            ];
            assert!(known.contains(label), "{name}: label {label} is not in the bounded set");
        }
    }
}
