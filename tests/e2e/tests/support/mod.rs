//! What the end-to-end tests share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod cable;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use headgate_harness::{Node, NodeOptions, Program, TenantSpec, eventually, workspace};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// Patience for what should take milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(10);

/// A program that has not answered by then never will.
const ANSWER: Duration = Duration::from_secs(60);

/// Whether a process has a session's rings mapped.
pub fn has_rings(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("memfd:headgate-rings")
}

/// A CUDA program that does what it is told.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A puppet's answer: values, or the driver's error code.
pub type Answer = Result<Vec<u64>, u32>;

impl Puppet {
    /// Starts a puppet in a tenant, under the hook.
    pub fn in_tenant(node: &Node, tenant: &str) -> Self {
        Self::start(&mut node.command(tenant, puppet()).unwrap())
    }

    /// Starts a puppet in a tenant that finds functions by `cuGetProcAddress`.
    pub fn by_proc_address(node: &Node, tenant: &str) -> Self {
        Self::start(node.command(tenant, puppet()).unwrap().arg("--by-proc-address"))
    }

    /// Starts a puppet in a tenant that has shed the hook.
    pub fn in_tenant_without_hook(node: &Node, tenant: &str) -> Self {
        let mut command = node.command(tenant, Path::new("/usr/bin/env")).unwrap();
        Self::start(command.args(["-u", "LD_PRELOAD"]).arg(puppet()))
    }

    /// Starts a puppet under the hook but in no tenant.
    pub fn stray(node: &Node) -> Self {
        Self::start(&mut node.stray_command(puppet()).unwrap())
    }

    /// Starts a puppet without Headgate.
    pub fn native(node: &Node) -> Self {
        Self::start(&mut node.native_command(puppet()))
    }

    /// Starts a puppet in a tenant's cgroup without the hook.
    pub fn native_in(node: &Node, tenant: &str) -> Self {
        Self::start_in(node, tenant, &mut node.native_command(puppet()))
    }

    /// Starts a command in a tenant's cgroup, without the hook.
    pub fn start_in(node: &Node, tenant: &str, command: &mut Command) -> Self {
        let root = headgate_harness::node::cgroup_root().expect("cgroup v2 is mounted");
        let procs = root.join(node.cgroup_of(tenant).trim_start_matches('/')).join("cgroup.procs");
        let puppet = Self::start(command);
        std::fs::write(procs, puppet.pid().to_string()).unwrap();
        puppet
    }

    /// How it ended, by itself or by somebody else.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// The answer to a command that was told; `None` if the puppet ended instead.
    pub fn answer_or_end(&mut self) -> Option<Answer> {
        let line = self.line();
        let mut words = line.split_whitespace();
        match (line.len(), words.next()) {
            (0, _) => None,
            (_, Some("ok")) => Some(Ok(words.map(|word| word.parse().unwrap()).collect())),
            (_, Some("err")) => Some(Err(words.next().unwrap().parse().unwrap())),
            _ => panic!("the puppet said {line:?}"),
        }
    }

    /// The next line it writes, empty if it ended.
    fn line(&mut self) -> String {
        if self.output.buffer().is_empty() {
            let patience = PollTimeout::try_from(ANSWER).unwrap();
            let mut output = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
            assert!(poll(&mut output, patience).unwrap() != 0, "the program is silent for {ANSWER:?}");
        }
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// What a program says without being asked; the numbers of its line, good or bad.
    pub fn said(&mut self) -> Result<Vec<u64>, Vec<u64>> {
        let line = self.line();
        let mut words = line.split_whitespace();
        let good = words.next();
        let numbers = words.map(|word| word.parse().unwrap()).collect();
        match good {
            Some("ok") => Ok(numbers),
            Some("err") => Err(numbers),
            _ => panic!("the program said {line:?}"),
        }
    }

    /// Gives one command; the numbers of its answer, good or bad.
    #[track_caller]
    pub fn words(&mut self, command: &str) -> Result<Vec<u64>, Vec<u64>> {
        self.tell(command);
        self.said()
    }

    /// Starts a command that is directed by lines.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// Its process id. `headgate run` becomes the program, so this is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives one command and returns the answer.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> Answer {
        self.tell(command);
        self.answer()
    }

    /// The answer to a command that was told.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_or_end().expect("the puppet ended instead of answering")
    }

    /// Gives a command without waiting for its answer.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// Gives a command that must succeed.
    #[track_caller]
    pub fn must(&mut self, command: &str) -> Vec<u64> {
        self.ask(command).unwrap_or_else(|code| panic!("{command}: CUDA error {code}"))
    }

    /// Starts CUDA and loads the launch-counting kernel.
    #[track_caller]
    pub fn ready(&mut self) {
        self.must("init");
        self.must(&format!("load {} spin", kernel("spin").display()));
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ended_or_killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The puppet's program.
pub fn puppet() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_puppet"))
}

/// The committed PTX of a kernel file.
pub fn kernel(name: &str) -> PathBuf {
    workspace::root().join("tests/apps/kernels/ptx").join(format!("{name}.ptx"))
}

/// A node with one simulated device and these tenants.
#[track_caller]
pub fn node(tenants: Vec<TenantSpec>) -> Node {
    Node::start(NodeOptions::simulated(tenants)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A node of these options.
#[track_caller]
pub fn node_of(options: NodeOptions) -> Node {
    Node::start(options).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A tenant's row of the status, on the first device.
pub fn device_row(node: &Node, tenant: &str) -> Value {
    let status = node.status().unwrap();
    tenant_row(&status, tenant)["gpus"][0].clone()
}

/// A program that launches in a loop for longer than any test takes, once it does.
pub fn start_loop(node: &Node, tenant: &str) -> Program {
    let program = node.run(tenant, "app-loop", &["--seconds", "120", "--kernel", "spin"]).unwrap();
    eventually("it launches", SOON, || {
        let launches = device_row(node, tenant)["launches"].as_u64().unwrap();
        (0 < launches).then_some(())
    });
    program
}

/// What the device measured of programs over a span, by their order.
pub fn window<const N: usize>(node: &Node, span: Duration, programs: [u32; N]) -> [Value; N] {
    let control = node.device().control();
    control.mark().unwrap();
    let statistics = eventually("the measurement is over", span * 4, || {
        let statistics = control.statistics().unwrap();
        (span.as_nanos() <= u128::from(statistics["elapsed_ns"].as_u64().unwrap())).then_some(statistics)
    });
    programs.map(|pid| {
        let rows = statistics["processes"].as_array().unwrap();
        let mut own = rows.iter().find(|row| row["pid"] == pid).unwrap().clone();
        own["elapsed_ns"] = statistics["elapsed_ns"].clone();
        own
    })
}

/// A number in a row.
pub fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key} in {row}"))
}

/// SMs a program had, on the average of the time that passed.
pub fn sms(row: &Value) -> u64 {
    number(row, "sm_ns") / number(row, "elapsed_ns")
}

/// A tenant's row of the status.
pub fn tenant_row(status: &Value, tenant: &str) -> Value {
    let rows = status["tenants"].as_array().expect("status lists tenants");
    rows.iter()
        .find(|row| row["name"] == tenant)
        .unwrap_or_else(|| panic!("no tenant {tenant} in {status}"))
        .clone()
}

/// Bytes the ledger holds for a tenant.
pub fn used_bytes(node: &Node, tenant: &str) -> u64 {
    device_row(node, tenant)["memory_used_bytes"].as_u64().expect("memory_used_bytes")
}

/// Waits until the ledger holds `bytes` for a tenant.
#[track_caller]
pub fn eventually_used(node: &Node, tenant: &str, bytes: u64, patience: Duration) {
    eventually(&format!("{tenant} holds {bytes} bytes"), patience, || {
        (used_bytes(node, tenant) == bytes).then_some(())
    });
}
