//! A daemon with made-up devices and processes that speak the hook's side of the protocol, each a process of its
//! own, so that they can be killed.
//!
//! Both are this very test binary, started again with an environment variable that says which part to play.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

pub(crate) mod parts;

/// Which part this process plays; unset in the test itself.
pub(crate) const PART: &str = "HEADGATE_TEST_PART";
/// What a part's lines start with, among those of the test runner.
pub(crate) const MARK: &str = "PART ";

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `look` gives `Some`.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the one place where these tests wait")]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says past the test runner's capture that a test could not run here.
pub(crate) fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A part being played by another process. Killed on drop.
pub(crate) struct Part {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Part {
    pub(crate) fn start(part: &str, environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "plays_its_part", "--nocapture", "--test-threads", "1"]);
        command.env(PART, part).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK)
                    && sender.send(line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { input: child.stdin.take(), child, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear(line)
    }

    #[track_caller]
    pub(crate) fn hear(&self, what: &str) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {what:?}"))
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended by itself, or been waited for.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A node in a directory of its own.
pub(crate) struct Node {
    pub(crate) directory: tempfile::TempDir,
    http: u16,
    daemon: Option<Part>,
}

impl Node {
    /// A node with the given lines under `spec:`, its daemon not yet started.
    pub(crate) fn with(spec: &str) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let node = Self { directory: tempfile::tempdir().unwrap(), http, daemon: None };
        node.configure(spec);
        node
    }

    pub(crate) fn started(spec: &str) -> Self {
        let mut node = Self::with(spec);
        node.start();
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config_text(&self, spec: &str) -> String {
        format!(
            "apiVersion: headgate.dev/v1alpha1\nkind: NodeConfig\nmetadata: {{name: test}}\nspec:\n  district: \
             north\n  sockets: {{control: {}, admin: {}}}\n  http: {{listen: '127.0.0.1:{}'}}\n  stateDir: {}\n  \
             probes: {{gpuWait: off, networkRtt: off, processExit: off}}\n{spec}",
            self.path("control.sock").display(),
            self.path("admin.sock").display(),
            self.http,
            self.path("state").display(),
        )
    }

    pub(crate) fn configure(&self, spec: &str) {
        self.write_config(&self.config_text(spec));
    }

    pub(crate) fn write_config(&self, text: &str) {
        let draft = self.path("config.new");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, self.path("config.yaml")).unwrap();
    }

    pub(crate) fn start(&mut self) {
        self.daemon = Some(Part::start("daemon", &[("CONFIG", &self.path("config.yaml"))]));
        eventually("the daemon is ready", || (self.get("/readyz")?.0 == 200).then_some(()));
    }

    pub(crate) fn daemon(&self) -> &Part {
        self.daemon.as_ref().unwrap()
    }

    pub(crate) fn kill_daemon(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    pub(crate) fn stop_daemon(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(daemon.wait().success());
    }

    /// A process that speaks for a hook.
    pub(crate) fn hook(&self) -> Part {
        let (control, admin) = (self.path("control.sock"), self.path("admin.sock"));
        let hook = Part::start("hook", &[("CONTROL", &control), ("ADMIN", &admin)]);
        assert_eq!(hook.hear("starting"), "up");
        hook
    }

    /// A process that was placed in a tenant and has a seat there.
    pub(crate) fn seated(&self, tenant: &str) -> (Part, String) {
        let mut hook = self.hook();
        assert_eq!(hook.ask(&format!("place {tenant}")), "placed");
        let seat = hook.ask("hello");
        assert!(seat.starts_with("welcome "), "{seat}");
        (hook, seat)
    }

    pub(crate) fn status(&self) -> Value {
        let mut stream = UnixStream::connect(self.path("admin.sock")).unwrap();
        stream.write_all(b"{\"op\":\"status\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn tenant(&self, name: &str) -> Value {
        let status = self.status();
        let tenants = status["tenants"].as_array().unwrap();
        tenants.iter().find(|tenant| tenant["name"] == name).cloned().unwrap_or(Value::Null)
    }

    pub(crate) fn used(&self, tenant: &str) -> u64 {
        self.tenant(tenant)["gpus"][0]["memory_used_bytes"].as_u64().unwrap()
    }

    pub(crate) fn seats(&self, tenant: &str) -> u64 {
        self.tenant(tenant)["seats"].as_u64().unwrap()
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").unwrap().1;
        let line = page.lines().find(|line| line.starts_with(&format!("{series} ")));
        line.unwrap_or_else(|| panic!("no {series}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}
