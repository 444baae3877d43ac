//! A node: a device, a daemon with a configuration, and programs in tenants.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::device::Device;
use crate::process::Program;
use crate::prometheus::Page;
use crate::{wait_for, workspace};

/// How long a daemon may take to come up on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A tenant of the configuration.
#[derive(Clone, Debug)]
pub struct TenantSpec {
    /// Its name.
    pub name: String,
    /// Its district.
    pub district: String,
    /// Nominal SM share in percent.
    pub sm: Option<u32>,
    /// Memory quota, as the configuration writes it (`8Gi`).
    pub memory: Option<String>,
    /// Further lines of the tenant, `key: value`.
    pub more: Vec<String>,
}

impl TenantSpec {
    /// A tenant with a district of its own name and no quota yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), district: name.to_owned(), sm: None, memory: None, more: Vec::new() }
    }

    /// With a district.
    #[must_use]
    pub fn district(mut self, district: &str) -> Self {
        self.district = district.to_owned();
        self
    }

    /// With an SM share in percent.
    #[must_use]
    pub fn sm(mut self, percent: u32) -> Self {
        self.sm = Some(percent);
        self
    }

    /// With a memory quota.
    #[must_use]
    pub fn memory(mut self, quantity: &str) -> Self {
        self.memory = Some(quantity.to_owned());
        self
    }

    /// With one more line, such as `mode: hard`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.more.push(line.to_owned());
        self
    }
}

/// What a node is made of.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// The simulated device's configuration; `None` uses the machine's own driver.
    pub device: Option<Value>,
    /// The tenants.
    pub tenants: Vec<TenantSpec>,
    /// Tenant of processes in no tenant's cgroup.
    pub default_tenant: Option<String>,
    /// Whether the kernel enforces, for the node's own cgroups and from pins of the node's own.
    pub enforced: bool,
    /// A character device for the simulated driver to open, and for the device gate to guard.
    pub device_node: Option<PathBuf>,
    /// Further lines of `spec`, without their indentation.
    pub spec: Vec<String>,
    /// The node's name and district; `test` in `north` if it does not matter.
    pub identity: Option<(String, String)>,
    /// The network namespace its daemon runs in.
    pub namespace: Option<String>,
}

impl NodeOptions {
    /// One simulated 132-SM, 80 GiB device and these tenants.
    #[must_use]
    pub fn simulated(tenants: Vec<TenantSpec>) -> Self {
        Self { device: Some(json!({})), tenants, ..Self::default() }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    daemon: Option<Program>,
    device: Option<Device>,
    options: NodeOptions,
    http: u16,
    cgroup: String,
    directory: TempDir,
}

impl Node {
    /// Starts device and daemon and waits until the daemon is ready.
    ///
    /// # Errors
    /// When either does not come up. The daemon's log is in the error.
    pub fn start(options: NodeOptions) -> Result<Self> {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let mut device = options.device.as_ref().map(Device::simulated).transpose()?;
        if let (Some(device), Some(node)) = (&mut device, &options.device_node) {
            device.set_node(node.clone());
        }
        let directory = tempfile::Builder::new().prefix("headgate-node-").tempdir()?;
        let cgroup = format!("/headgate-test-{}-{}", std::process::id(), NODES.fetch_add(1, Relaxed));
        let mut node = Self { daemon: None, device, options, http: free_port()?, cgroup, directory };
        node.write_config()?;
        node.start_daemon()?;
        Ok(node)
    }

    /// The simulated device.
    ///
    /// # Panics
    /// On a node with the machine's own driver.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.device.as_ref().expect("the node was started with a simulated device")
    }

    /// Changes the tenants and writes the configuration; the daemon sees it by itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_tenants(&mut self, tenants: Vec<TenantSpec>) -> Result<()> {
        self.options.tenants = tenants;
        self.write_config()
    }

    /// Path of the configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path("config/config.yaml")
    }

    /// The running daemon.
    ///
    /// # Panics
    /// While none runs.
    pub fn daemon(&mut self) -> &mut Program {
        self.daemon.as_mut().expect("the daemon was started and not stopped")
    }

    /// Kills the daemon as `kill -9` does.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_daemon(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.kill(),
            None => Ok(()),
        }
    }

    /// Asks the daemon to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not, or ends with a failure.
    pub fn stop_daemon(&mut self) -> Result<()> {
        let Some(daemon) = self.daemon.take() else { return Ok(()) };
        daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
        let outcome = daemon.finish(Duration::from_secs(20))?;
        ensure!(outcome.status.success(), "the daemon ended with {}\n{}", outcome.status, self.log());
        Ok(())
    }

    /// Starts the daemon (again) and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_daemon(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log"))?;
        let daemon = workspace::program("headgate")?;
        let mut command = match &self.options.namespace {
            Some(namespace) => crate::nats::inside(namespace, &daemon),
            None => Command::new(daemon),
        };
        command.args(["daemon", "--config"]).arg(self.config_file());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(device) = &self.device {
            device.add_to(&mut command);
        }
        let mut daemon = Program::start_as_is("the daemon", &mut command)?;
        let ready = wait_for(START_PATIENCE, || match self.readiness() {
            Ok(true) => Some(true),
            _ if daemon.is_running() => None,
            _ => Some(false),
        });
        if ready != Some(true) {
            bail!("the daemon did not become ready ({ready:?})\n{}", self.log());
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Whether the daemon is ready: by HTTP, or by the admin socket where HTTP is in another namespace.
    fn readiness(&self) -> Result<bool> {
        match self.options.namespace {
            Some(_) => Ok(self.status()?["ready"] == true),
            None => Ok(self.get("/readyz")?.0 == 200),
        }
    }

    /// What the daemon has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// A command that runs in a tenant under the hook, by way of `headgate run`.
    ///
    /// # Errors
    /// When the build failed.
    pub fn command(&self, tenant: &str, program: &Path) -> Result<Command> {
        let mut command = Command::new(workspace::program("headgate")?);
        command.args(["run", "--tenant", tenant, "--admin-socket"]).arg(self.path("admin.sock"));
        command.arg("--hook").arg(workspace::hook()?).arg("--").arg(program);
        self.environment(&mut command);
        Ok(command)
    }

    /// A command on this node's device with the hook preloaded but outside any tenant.
    ///
    /// # Errors
    /// When the build failed.
    pub fn stray_command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        self.environment(&mut command);
        command.env("LD_PRELOAD", workspace::hook()?).env("HEADGATE_SOCKET", self.path("control.sock"));
        Ok(command)
    }

    /// A command on this node's device that Headgate has no part in.
    #[must_use]
    pub fn native_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        self.environment(&mut command);
        command
    }

    /// Lines of `spec` for a device that is shared in another way than by time, with the stand-in for NVIDIA's program.
    ///
    /// # Errors
    /// When the build failed.
    pub fn sharing(by: &str) -> Result<Vec<String>> {
        let control = workspace::program("nvidia-cuda-mps-control")?;
        Ok(vec![
            format!("gpus: {{ \"*\": {{ sharing: {by} }} }}"),
            format!("mps: {{ control: {} }}", control.display()),
        ])
    }

    fn environment(&self, command: &mut Command) {
        if let Some(device) = &self.device {
            device.add_to(command);
        }
    }

    /// Starts one of the sample programs in a tenant.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, tenant: &str, app: &str, arguments: &[&str]) -> Result<Program> {
        let mut command = self.command(tenant, &workspace::program(app)?)?;
        command.args(arguments);
        Program::start(app, &mut command)
    }

    /// The daemon's status, as `headgate status --json` prints it.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn status(&self) -> Result<Value> {
        self.ask(&json!({"op": "status"}))
    }

    /// One request on the admin socket.
    ///
    /// # Errors
    /// When no daemon answers, or it refuses.
    pub fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream =
            UnixStream::connect(self.path("admin.sock")).context("connecting to the admin socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the admin socket answered {line:?}"))?;
        ensure!(answer["ok"] == true, "the daemon refused {request}: {}", answer["error"]);
        Ok(answer)
    }

    /// The metrics page, read strictly.
    ///
    /// # Errors
    /// When it cannot be fetched or does not parse.
    pub fn metrics(&self) -> Result<Page> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics answered {status}: {body}");
        Page::parse(&body)
    }

    /// One HTTP request to the daemon: status and body.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP head")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)?
        } else {
            body.to_owned()
        };
        Ok((status, body))
    }

    /// A path in the node's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where this node's enforcement is pinned, when it enforces.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(self.cgroup.trim_start_matches('/'))
    }

    /// Path of a tenant's cgroup from the root of cgroup v2.
    #[must_use]
    pub fn cgroup_of(&self, tenant: &str) -> String {
        format!("{}/{tenant}", self.cgroup)
    }

    /// The device node that this node's driver opens, when it was given one.
    #[must_use]
    pub fn device_node(&self) -> Option<&Path> {
        self.device.as_ref().and_then(Device::node)
    }

    /// Writes the configuration with other lines of `spec`; the daemon sees it by itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_spec(&mut self, spec: Vec<String>) -> Result<()> {
        self.options.spec = spec;
        self.write_config()
    }

    fn write_config(&self) -> Result<()> {
        let file = self.config_file();
        let fresh = file.with_extension("tmp");
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(&fresh, self.config()?)?;
        std::fs::rename(&fresh, &file)?;
        Ok(())
    }

    fn config(&self) -> Result<String> {
        let (name, district) = match &self.options.identity {
            Some((name, district)) => (name.as_str(), district.as_str()),
            None => ("test", "north"),
        };
        let mut text = format!(
            "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata:\n  name: {name}\nspec:\n  \
             district: {district}\n  sockets:\n    control: {}\n    admin: {}\n  http:\n    listen: 127.0.0.1:{}\n  \
             stateDir: {}\n",
            self.path("control.sock").display(),
            self.path("admin.sock").display(),
            self.http,
            self.path("state").display(),
        );
        if let Some(device) = &self.device {
            writeln!(text, "  probes:\n    libraries:\n      - {}", device.libcuda().display())?;
        }
        if let Some(default) = &self.options.default_tenant {
            writeln!(text, "  defaultTenant: {default}")?;
        }
        if self.options.enforced {
            let pins = self.pins().display().to_string();
            writeln!(text, "  enforcement:\n    pins: {pins}\n    governed: {}", self.cgroup)?;
            if let Some(node) = self.device_node() {
                writeln!(text, "    devices: [{}]", node.display())?;
            }
        }
        for line in &self.options.spec {
            writeln!(text, "  {line}")?;
        }
        writeln!(text, "  tenants:")?;
        for tenant in &self.options.tenants {
            writeln!(text, "    - name: {}\n      district: {}", tenant.name, tenant.district)?;
            writeln!(text, "      cgroup: {}/{}", self.cgroup, tenant.name)?;
            for line in &tenant.more {
                writeln!(text, "      {line}")?;
            }
            if tenant.sm.is_some() || tenant.memory.is_some() {
                writeln!(text, "      quota:\n        \"*\":")?;
            }
            if let Some(percent) = tenant.sm {
                writeln!(text, "          sm: {percent}%")?;
            }
            if let Some(memory) = &tenant.memory {
                writeln!(text, "          memory: {memory}")?;
            }
        }
        Ok(text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.daemon = None;
        self.device = None;
        if self.options.enforced {
            // Nobody holds what is pinned any more, so it ends with its names. There is none where the kernel refused.
            let _none = std::fs::remove_dir_all(self.pins());
        }
        remove_cgroups(&self.cgroup);
    }
}

/// Removes the cgroups a test made. Processes in them have been killed; the kernel may need a moment to see.
fn remove_cgroups(path: &str) {
    let Some(root) = cgroup_root() else { return };
    let top = root.join(path.trim_start_matches('/'));
    let _removed = wait_for(Duration::from_secs(5), || {
        for entry in std::fs::read_dir(&top).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                // Looked at again by the loop: a cgroup with a dying process in it is busy for a while.
                let _busy = std::fs::remove_dir(entry.path());
            }
        }
        (std::fs::remove_dir(&top).is_ok() || !top.exists()).then_some(())
    });
}

/// Where cgroup v2 is mounted.
#[must_use]
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_device, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// A TCP port nobody listened at a moment ago, and which the kernel gives to nobody who does not ask for it: of those it hands
/// out by itself, one may be a client's before the daemon listens.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    /// Below are the ports of well-known services.
    const FIRST: u16 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end: u16 = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let ports = u32::from(end.saturating_sub(FIRST));
    // Test programs that run side by side begin at places of their own.
    let start = std::process::id().wrapping_mul(101);
    for _ in 0..ports {
        let place = start.wrapping_add(NEXT.fetch_add(1, Relaxed)) % ports;
        let port = FIRST + u16::try_from(place)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port from {FIRST} to {end} is taken")
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").context("a chunk without a length")?;
        let length = usize::from_str_radix(length.trim(), 16).context("a chunk's length")?;
        if length == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..length).context("a chunk cut short")?);
        body = rest.get(length + 2..).context("a chunk cut short")?;
    }
}
