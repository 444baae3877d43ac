//! What the tests of the kernel probes share: a driver library and a client made by `cc`, cgroups that go away again,
//! and skipping by name.

#![allow(dead_code, reason = "every test binary uses a part")]

pub(crate) mod city;
pub(crate) mod expect;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use headgate_ebpf::{Cgroup, Config, Probe, Probes, cgroup::unified_mount};

/// Ends a test that this machine cannot run, by name and reason; fails it if the machine should be able to.
macro_rules! skip {
    ($($why:tt)*) => {{
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let why = format!($($why)*);
        if let Some(defect) = $crate::support::expect::verdict(&why) {
            panic!("{defect}");
        }
        println!("SKIPPED: {name}: {why}");
        return;
    }};
}
pub(crate) use skip;

/// Everything a test needs, or why this machine has not got it.
pub(crate) fn bench(wanted: &[Probe], config: Config) -> Result<Bench, String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the committed objects are for x86-64".to_owned());
    }
    let mount = unified_mount().ok_or("cgroup v2 is not mounted")?;
    let probes = Probes::load(config);
    for status in probes.status() {
        if wanted.contains(&status.probe) && status.state == headgate_ebpf::State::Missing {
            return Err(status.to_string());
        }
    }
    let programs = programs()?;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("headgate-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    // An inode of its own: uprobes of one test must not fire in another's clients.
    let library = programs.directory.join(format!("{name}.so"));
    fs::copy(&programs.library, &library).map_err(|error| format!("copying the library: {error}"))?;
    let root = TestCgroup::make(mount.join(&name)).map_err(|error| format!("making a cgroup: {error}"))?;
    Ok(Bench { probes, root, library, client: programs.client.clone() })
}

/// One test's probes, cgroup and library.
pub(crate) struct Bench {
    pub(crate) probes: Probes,
    pub(crate) root: TestCgroup,
    pub(crate) library: PathBuf,
    client: PathBuf,
}

impl Bench {
    /// A client in a cgroup.
    pub(crate) fn client(&self, cgroup: &TestCgroup) -> Client {
        Client::start(&self.client, &self.library, Some(cgroup))
    }

    /// Another program that takes the same commands, in a cgroup.
    pub(crate) fn program(&self, program: &Path, cgroup: &TestCgroup) -> Client {
        Client::start(program, &self.library, Some(cgroup))
    }

    /// A client where the test itself is.
    pub(crate) fn outsider(&self) -> Client {
        Client::start(&self.client, &self.library, None)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.library);
    }
}

struct Programs {
    directory: PathBuf,
    library: PathBuf,
    client: PathBuf,
}

/// The library and the client, compiled once per test binary.
fn programs() -> Result<&'static Programs, String> {
    static PROGRAMS: OnceLock<Result<Programs, String>> = OnceLock::new();
    PROGRAMS
        .get_or_init(|| {
            let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("headgate-ebpf");
            fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
            let (library, client) = (directory.join("driver.so"), directory.join("client"));
            compile(&["-shared", "-fPIC"], &sources.join("driver.c"), &library)?;
            compile(&[], &sources.join("client.c"), &client)?;
            Ok(Programs { directory, library, client })
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// One of the C programs, compiled once per test binary.
pub(crate) fn compile_program(source: &'static str, libraries: &[&str]) -> Result<PathBuf, String> {
    static MADE: Mutex<BTreeMap<&'static str, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().expect("no test fails in here");
    made.entry(source)
        .or_insert_with(|| {
            let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("headgate-ebpf");
            fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            let output = directory.join(source.trim_end_matches(".c"));
            compile(libraries, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source), &output)?;
            Ok(output)
        })
        .clone()
}

fn compile(flags: &[&str], source: &Path, output: &Path) -> Result<(), String> {
    // Test binaries run side by side: each makes its own and moves it into the one place.
    let own = output.with_extension(std::process::id().to_string());
    let mut command = Command::new("cc");
    command.args(["-O1", "-o"]).arg(&own).args(flags).arg(source).arg("-ldl");
    let result = command.output().map_err(|error| format!("no C compiler: {error}"))?;
    // A compiler that is there and fails is a defect of the test, not a lack of the machine.
    let said = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "cc failed on {}: {said}", source.display());
    fs::rename(&own, output).map_err(|error| format!("{}: {error}", output.display()))
}

/// A cgroup that is removed with its value.
pub(crate) struct TestCgroup {
    path: PathBuf,
    pub(crate) cgroup: Cgroup,
}

impl TestCgroup {
    pub(crate) fn make(path: PathBuf) -> Result<Self, String> {
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let cgroup = Cgroup::open(&path).map_err(|error| error.to_string())?;
        Ok(Self { path, cgroup })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// A cgroup inside this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self::make(self.path.join(name)).expect("a cgroup can be made inside one we made")
    }

    /// Ends `count` short-lived processes in here, and the shell that forked them.
    pub(crate) fn run_forks(&self, count: u64) {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read go; i=0; while [ $i -lt {count} ]; do (:); i=$((i+1)); done")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh is everywhere");
        self.adopt(shell.id());
        drop(shell.stdin.take());
        shell.wait().expect("our child");
    }

    /// Moves a process in.
    pub(crate) fn adopt(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("our own child can be moved");
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be counted for an instant.
        let removed = eventually(|| match fs::remove_dir(&self.path) {
            Ok(()) => Some(()),
            Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(()),
        });
        if removed.is_none() && !std::thread::panicking() {
            panic!("{} could not be removed", self.path.display());
        }
    }
}

/// A directed process. It ends when dropped.
pub(crate) struct Client {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(program: &Path, library: &Path, cgroup: Option<&TestCgroup>) -> Self {
        let mut child = Command::new(program)
            .arg(library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client was just compiled");
        if let Some(cgroup) = cgroup {
            cgroup.adopt(child.id());
        }
        let commands = child.stdin.take().expect("piped above");
        let answers = BufReader::new(child.stdout.take().expect("piped above"));
        Self { child, commands, answers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs one command; answers how long the client says it took.
    pub(crate) fn run(&mut self, command: &str) -> Duration {
        writeln!(self.commands, "{command}").expect("the client listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the client answers");
        let ns = answer.trim().strip_prefix("ok ").and_then(|ns| ns.parse().ok());
        Duration::from_nanos(ns.unwrap_or_else(|| panic!("{command}: the client answered {answer:?}")))
    }

    /// Makes `count` calls of a driver function that sleeps for `ns`.
    pub(crate) fn call(&mut self, function: &str, ns: u64, count: u64) -> Duration {
        self.run(&format!("call {function} {ns} {count}"))
    }

    /// Ends it, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks until there is an answer, for at most ten seconds.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if now() > deadline {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Prints a figure for `cargo xtask bench ebpf`, which gathers these lines.
#[allow(clippy::print_stdout, reason = "printing is what it is for")]
pub(crate) fn figure(figure: &str, case: &str, unit: &str, value: f64) {
    println!("FIGURE\t{figure}\t{case}\t{unit}\t{value}");
}

/// The clock of tests.
#[expect(clippy::disallowed_methods, reason = "tests against the kernel run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
