//! Programs on a node, and what the device says they had.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, wait_for, workspace};
use serde_json::{Value, json};

use crate::clock::now_ns;

/// Longest wait for a program to launch.
const LAUNCH_WAIT: Duration = Duration::from_secs(20);
/// Clock ticks of `/proc/PID/stat` in a second.
const TICKS_PER_S: f64 = 100.0;

/// What a tenant runs: app-loop once for each of these argument lists, which say how kernels are started.
pub(super) type Loops<'a> = &'a [&'a [&'a str]];

/// One loop of plain launches.
pub(super) const PLAIN: Loops<'static> = &[&[]];

/// A tenant of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenant<'a> {
    /// Its share in percent.
    pub(super) percent: u32,
    /// Further lines of its configuration.
    pub(super) more: &'a [&'a str],
    /// What it runs.
    pub(super) loops: Loops<'a>,
}

impl Tenant<'_> {
    /// A tenant that borrows and has one saturating program.
    pub(super) fn plain(percent: u32) -> Self {
        Self { percent, more: &[], loops: PLAIN }
    }
}

/// Where the work of tenants waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    /// In the device's streams.
    Device,
    /// In the programs, by choice.
    Host,
    /// In the programs, on a driver without stream memory operations.
    Events,
}

/// The node that a load runs on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    /// Length of the kernel `spin` in microseconds.
    pub(super) spin_us: u64,
    /// Length of the kernel `spin_for`.
    pub(super) spin_for_us: u64,
    /// How many devices.
    pub(super) devices: usize,
    /// Where work waits.
    pub(super) gate: Gate,
}

impl Ground {
    /// One device with kernels of this length, whose streams wait.
    pub(super) fn of(kernel_us: u64) -> Self {
        Self { spin_us: kernel_us, spin_for_us: kernel_us, devices: 1, gate: Gate::Device }
    }

    fn options(&self, tenants: Vec<TenantSpec>) -> NodeOptions {
        let mut options = NodeOptions::simulated(tenants);
        // Nobody reads what the kernels compute, so their instructions are not interpreted.
        let [spin, spin_for] = [self.spin_us, self.spin_for_us]
            .map(|kernel_us| json!({ "base_ns": kernel_us * 1_000, "execute": false }));
        let lacks: &[&str] = match self.gate {
            Gate::Events => &["cuStreamBatchMemOp", "cuStreamWaitValue", "cuStreamWriteValue"],
            Gate::Device | Gate::Host => &[],
        };
        options.device = Some(json!({
            "device_count": self.devices, "kernels": { "spin": spin, "spin_for": spin_for }, "lacks": lacks
        }));
        if self.gate == Gate::Host {
            options.spec.push("gpus: { \"*\": { gate: host } }".into());
        }
        options
    }
}

/// What a device did while no kernel ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceTime {
    /// Nothing, in percent of elapsed time.
    pub(super) idle_percent: f64,
    /// Bringing contexts in.
    pub(super) switch_percent: f64,
}

/// Saturating programs in tenants `t0`, `t1`, .. of a node.
pub(super) struct Load {
    pub(super) node: Node,
    /// Whose a program is.
    programs: Vec<(usize, Program)>,
    tenants: usize,
}

impl Load {
    /// Starts everything, and returns when every program launches.
    pub(super) fn start(tenants: &[Tenant<'_>], ground: &Ground) -> Result<Self> {
        let spec = |(index, tenant): (usize, &Tenant<'_>)| {
            let spec = TenantSpec::new(&format!("t{index}")).sm(tenant.percent);
            tenant.more.iter().fold(spec, |spec, line| spec.with(line))
        };
        let mut specs: Vec<TenantSpec> = tenants.iter().enumerate().map(spec).collect();
        if specs.is_empty() {
            specs.push(TenantSpec::new("nobody").sm(50));
        }
        let node = Node::start(ground.options(specs))?;
        let mut programs = Vec::new();
        for (index, tenant) in tenants.iter().enumerate() {
            for form in tenant.loops {
                let arguments = [&["--seconds", "600", "--kernel", "spin"][..], form].concat();
                programs.push((index, node.run(&format!("t{index}"), "app-loop", &arguments)?));
            }
        }
        Self { node, programs, tenants: tenants.len() }.launched()
    }

    /// One program that Headgate has no part in, beside a daemon that has nothing to do.
    pub(super) fn native(kernel_us: u64) -> Result<Self> {
        let node = Node::start(Ground::of(kernel_us).options(vec![TenantSpec::new("nobody").sm(50)]))?;
        let mut command = node.native_command(&workspace::program("app-loop")?);
        command.args(["--seconds", "600", "--kernel", "spin"]);
        let program = Program::start("app-loop", &mut command)?;
        Self { node, programs: vec![(0, program)], tenants: 1 }.launched()
    }

    fn launched(self) -> Result<Self> {
        wait_for(LAUNCH_WAIT, || self.all_launch().then_some(())).context("not every program launches")?;
        Ok(self)
    }

    fn all_launch(&self) -> bool {
        let Ok(statistics) = self.node.device().control().statistics() else { return false };
        self.programs.iter().all(|(_, program)| 0.0 < busy_ns(&statistics, program))
    }

    /// What the device did with its time since its counters were last set to zero.
    pub(super) fn device_time(&self) -> Result<DeviceTime> {
        let statistics = self.node.device().control().statistics()?;
        let of = |key: &str| {
            statistics["devices"][0][key].as_f64().with_context(|| format!("the device said no {key}"))
        };
        let elapsed = statistics["elapsed_ns"].as_f64().context("no elapsed time")?;
        Ok(DeviceTime {
            idle_percent: of("idle_ns")? * 100.0 / elapsed,
            switch_percent: of("switch_ns")? * 100.0 / elapsed,
        })
    }

    /// Percent of elapsed device time, by tenant.
    pub(super) fn shares(&self, span: Duration) -> Result<Vec<f64>> {
        self.node.device().control().mark()?;
        self.shares_since_mark(span)
    }

    /// The same, since the device's counters were last set to zero, once `span` has passed.
    pub(super) fn shares_since_mark(&self, span: Duration) -> Result<Vec<f64>> {
        let control = self.node.device().control();
        let statistics = wait_for(span * 3, || {
            let statistics = control.statistics().ok()?;
            (span.as_secs_f64() * 1e9 <= statistics["elapsed_ns"].as_f64()?).then_some(statistics)
        });
        let statistics = statistics.context("the device's clock stands still")?;
        let elapsed = statistics["elapsed_ns"].as_f64().context("no elapsed time")?;
        let mut shares = vec![0.0; self.tenants];
        for (tenant, program) in &self.programs {
            shares[*tenant] += busy_ns(&statistics, program) * 100.0 / elapsed;
        }
        Ok(shares)
    }

    /// Processor time of the daemon, in percent of a core.
    pub(super) fn daemon_percent(&mut self, span: Duration) -> Result<f64> {
        let pid = self.node.daemon().pid();
        let (before, from) = (ticks_of(pid)?, now_ns()?);
        let over = || now_ns().ok().filter(|now| span.as_nanos() <= u128::from(now - from));
        let until = wait_for(span * 3, over).context("the clock stands still")?;
        let spent = (ticks_of(pid)? - before) / TICKS_PER_S;
        Ok(spent * 100.0 / Duration::from_nanos(until - from).as_secs_f64())
    }
}

fn busy_ns(statistics: &Value, program: &Program) -> f64 {
    let rows = statistics["processes"].as_array().into_iter().flatten();
    rows.filter(|row| row["pid"] == program.pid()).filter_map(|row| row["busy_ns"].as_f64()).sum()
}

/// User and system time of a process, in clock ticks.
fn ticks_of(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; what follows the last one are numbers.
    let (_, rest) = text.rsplit_once(')').context("no such form of /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    field(11).zip(field(12)).map(|(user, system)| user + system).context("no processor time")
}
