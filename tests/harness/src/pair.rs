//! Two districts on one host with loans between them, and the wire that joins their daemons.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::node::{self, Node, NodeOptions, TenantSpec};
use crate::process::Program;
use crate::relay::{Relay, Wire};
use crate::workspace;

/// What differs from pair to pair.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// What the borrower's tenants borrow: the inside of `borrow: {..}`.
    pub borrow: String,
    /// How long a loan outlives its last renewal, in seconds.
    pub ttl_s: u32,
    /// The wire between the daemons.
    pub wire: Wire,
    /// Connections between them that one session may go over: as the borrower has it, and as the lender has it.
    pub connections: [u8; 2],
    /// The simulated device's configuration on the lender's node.
    pub device: Value,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self {
            borrow: "sm: 30%, memory: 2Gi, data: derived, patience: 0s".to_owned(),
            ttl_s: 12,
            wire: Wire::default(),
            connections: [4, 4],
            device: serde_json::json!({}),
        }
    }
}

/// A node in district north that lends, one in district south that borrows.
#[derive(Debug)]
pub struct Pair {
    /// The lender, whose own tenant is `cases`.
    pub lender: Node,
    /// The borrower.
    pub borrower: Node,
    /// What is between their daemons, seen from the borrower.
    pub wire: Relay,
    /// Names of the borrower's tenants: guests have one cgroup a name on the whole host.
    pub tenants: [String; 2],
    _certificates: tempfile::TempDir,
}

fn certs(arguments: &[&str], directory: &Path) -> Result<()> {
    let mut command = Command::new(workspace::program("headgate")?);
    let output = command.arg("certs").args(arguments).arg("--dir").arg(directory).output()?;
    ensure!(output.status.success(), "certs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A district's node, its address for peers, and the other's.
struct Side<'a> {
    district: &'a str,
    listen: u16,
    advertise: &'a str,
    other: (&'a str, &'a str),
    connections: u8,
}

fn node_options(
    side: &Side<'_>,
    files: &Path,
    options: &PairOptions,
    tenants: Vec<TenantSpec>,
) -> NodeOptions {
    let files = files.display();
    let Side { district, listen, advertise, other: (other, address), connections } = side;
    let spec = format!(
        "loans:\n  connections: {connections}\n  peers:\n    listen: 127.0.0.1:{listen}\n    advertise: \"{advertise}\"\n    \
         certificate: {files}/{district}.node.pem\n    key: {files}/{district}.node.key\n    \
         authorities: {{north: {files}/north-ca.pem, south: {files}/south-ca.pem}}\n    summaryEvery: 300ms\n    \
         leads:\n      - {{district: {other}, node: node, address: \"{address}\"}}\n  \
         terms: {{ttl: {}s, renew: 1s, margin: 500ms, minDuration: 2s, notice: 1500ms}}\n  \
         lending: {{idleFor: 1s, rest: 2s, headroom: {{sm: 5%, memory: 64Mi}}}}\n  \
         borrowing: {{spareFor: 1s, backoff: 300ms}}",
        options.ttl_s
    );
    NodeOptions {
        spec: spec.lines().map(str::to_owned).collect(),
        identity: Some(("node".to_owned(), (*district).to_owned())),
        device: Some(options.device.clone()),
        ..NodeOptions::simulated(tenants)
    }
}

impl Pair {
    /// Starts both nodes. Loans come when somebody wants one.
    ///
    /// # Errors
    /// When either does not come up.
    pub fn start(options: &PairOptions) -> Result<Self> {
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().context("making a directory for certificates")?;
        for district in ["north", "south"] {
            certs(&["init", "--district", district], directory.path())?;
            certs(&["issue", "--district", district, "--node", "node"], directory.path())?;
        }
        let pair = format!("{}-{}", std::process::id(), PAIRS.fetch_add(1, Relaxed));
        let tenants = ["a", "b"].map(|name| format!("{name}{pair}"));
        let (north, south) = (node::free_port()?, node::free_port()?);
        let wire = Relay::to(&format!("tcp:127.0.0.1:{north}"), options.wire)?;
        let lent_at = wire.address().trim_start_matches("tcp:").to_owned();
        let south_at = format!("127.0.0.1:{south}");
        let quota = "quota: {\"*\": {sm: 90%, memory: 16Gi, lendingLimit: {sm: 80%, memory: 8Gi}}}";
        let owner = TenantSpec::new("cases").district("north").with("class: standard").with(quota);
        let [borrowers, lenders] = options.connections;
        let lends = Side {
            district: "north",
            listen: north,
            advertise: &lent_at,
            other: ("south", &south_at),
            connections: lenders,
        };
        let lender = Node::start(node_options(&lends, directory.path(), options, vec![owner]))?;
        let tenant_specs = tenants.iter().map(|name| {
            let borrow = format!("borrow: {{{}}}", options.borrow);
            TenantSpec::new(name).district("south").sm(40).memory("4Gi").with(&borrow)
        });
        let borrows = Side {
            district: "south",
            listen: south,
            advertise: &south_at,
            other: ("north", &lent_at),
            connections: borrowers,
        };
        let borrower =
            Node::start(node_options(&borrows, directory.path(), options, tenant_specs.collect()))?;
        Ok(Self { lender, borrower, wire, tenants, _certificates: directory })
    }

    /// `headgate run --tenant T --remote`, as a user types it.
    ///
    /// # Errors
    /// When the build failed.
    pub fn command(&self, tenant: &str, app: &str, lender: Option<&str>) -> Result<Command> {
        let mut command = Command::new(workspace::program("headgate")?);
        command.args(["run", "--tenant", tenant, "--remote"]);
        command.args(lender.iter().flat_map(|lender| ["--lender", lender]));
        command.arg("--admin-socket").arg(self.borrower.path("admin.sock"));
        command.arg("--").arg(workspace::program(app)?);
        command.env("HEADGATE_REMOTE_LOG", "1").env_remove("HEADGATE_SIMGPU_SOCKET");
        Ok(command)
    }

    /// The same on a node with a driver of its own; `way` is what `headgate run` is told besides.
    ///
    /// # Errors
    /// When the build failed.
    pub fn beside(&self, tenant: &str, app: &str, way: &[&str]) -> Result<Command> {
        let mut command = Command::new(workspace::program("headgate")?);
        command.args(["run", "--tenant", tenant, "--remote"]).args(way);
        command.arg("--admin-socket").arg(self.borrower.path("admin.sock"));
        command.arg("--").arg(workspace::program(app)?);
        self.borrower.device().add_to(&mut command);
        command.env("HEADGATE_REMOTE_LOG", "1");
        Ok(command)
    }

    /// Starts a sample program on a borrowed device.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, tenant: &str, app: &str, arguments: &[&str]) -> Result<Program> {
        Program::start(app, self.command(tenant, app, None)?.args(arguments))
    }

    /// The lines of a node's audit log of sessions that have a word, from the session's loan on.
    #[must_use]
    pub fn lines(node: &Node, word: &str) -> Vec<String> {
        let text = std::fs::read_to_string(node.path("state/remote/audit.log")).unwrap_or_default();
        let found = text.lines().filter_map(|line| line.split_once(&format!(" {word} session=")));
        found.map(|(_, rest)| rest.to_owned()).collect()
    }

    /// A guest on the lender's node, as its status shows it.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn guest(&self, tenant: &str) -> Result<Option<Value>> {
        let status = self.lender.status()?;
        let name = format!("south.{tenant}");
        let tenants = status["tenants"].as_array().context("a status without tenants")?;
        Ok(tenants.iter().find(|known| known["name"] == name.as_str()).cloned())
    }

    /// Processes of a guest: its workers.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn workers(&self, tenant: &str) -> Result<Vec<i32>> {
        let guest = self.guest(tenant)?;
        let processes = guest.as_ref().and_then(|guest| guest["processes"].as_array());
        let pids = processes.into_iter().flatten().filter_map(|process| process["pid"].as_i64());
        Ok(pids.filter_map(|pid| i32::try_from(pid).ok()).collect())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(root) = node::cgroup_root() {
            for tenant in &self.tenants {
                // Where no loan was granted there is none.
                let _absent = std::fs::remove_dir(root.join(format!("headgate/guests/south.{tenant}")));
            }
        }
    }
}

/// A field of an audit line, `name=number`.
///
/// # Errors
/// When it has none.
pub fn field(line: &str, name: &str) -> Result<u64> {
    let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in {line}"))
}
