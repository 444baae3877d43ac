//! Network namespaces as districts, and processes in them.
//!
//! ```text
//!   tenant 10.0.0.2 --- 10.0.0.1 router 10.1.0.1 --- 10.1.0.2 harbour (the tenant's own district, as 10.0.0.0/24 is)
//!     (interface out)   (interface tenant)  10.2.0.1 --- 10.2.0.2 airport
//!                                           10.3.0.1 --- 10.3.0.2 nowhere (no district's addresses)
//! ```
//! and the same in IPv6 with fd00:0:0:N::. Every end is a namespace of its own.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use headgate_ebpf::{Cgroup, Cidr, Enforcement, EnforcementConfig, cgroup::unified_mount};

use super::{TestCgroup, compile_program};

/// The districts other than the tenant's own interface, with their subnets.
pub(crate) const PLACES: [(&str, u8); 3] = [("harbour", 1), ("airport", 2), ("nowhere", 3)];

/// Namespaces that go away with their value.
pub(crate) struct City {
    name: String,
}

impl City {
    pub(crate) fn build() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let city = Self { name: format!("hg{}-{number}", std::process::id()) };
        let mut script = Vec::new();
        for place in ["tenant", "router"].into_iter().chain(PLACES.map(|(place, _)| place)) {
            ip(&[format!("netns add {}", city.namespace(place))])?;
            // Addresses are ours alone: looking for duplicates would hold them back for a second.
            city.run(place, "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")?;
            script.push(format!("-n {} link set lo up", city.namespace(place)));
        }
        let router = city.namespace("router");
        for (place, net) in [("tenant", 0)].into_iter().chain(PLACES) {
            let namespace = city.namespace(place);
            script.extend([
                format!("-n {namespace} link add out type veth peer name {place} netns {router}"),
                format!("-n {namespace} addr add 10.{net}.0.2/24 dev out"),
                format!("-n {namespace} addr add fd00:0:0:{net}::2/64 dev out nodad"),
                format!("-n {router} addr add 10.{net}.0.1/24 dev {place}"),
                format!("-n {router} addr add fd00:0:0:{net}::1/64 dev {place} nodad"),
                format!("-n {router} link set {place} up"),
                format!("-n {namespace} link set out up"),
                format!("-n {namespace} route add default via 10.{net}.0.1"),
                format!("-n {namespace} route add default via fd00:0:0:{net}::1"),
            ]);
        }
        ip(&script)?;
        city.run(
            "router",
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        )?;
        Ok(city)
    }

    pub(crate) fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// Runs a shell line in a namespace; answers what it printed.
    pub(crate) fn run(&self, place: &str, line: &str) -> Result<String, String> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace(place), "sh", "-ec", line])
            .output()
            .map_err(|error| format!("ip: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// A process in a namespace, and in a cgroup if one is named.
    pub(crate) fn agent(&self, place: &str, cgroup: Option<&TestCgroup>) -> Agent {
        let program = compile_program("agent.c", &["-lpthread"]).expect("it was compiled before");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place)]).arg(program);
        Agent::start(command, cgroup)
    }

    /// What an address in a place is, in the given family.
    pub(crate) fn address(place: &str, v6: bool) -> String {
        let net = PLACES.iter().find(|(name, _)| *name == place).map_or(0, |(_, net)| *net);
        if v6 { format!("fd00:0:0:{net}::2") } else { format!("10.{net}.0.2") }
    }

    /// The city's address table; nowhere is in none.
    pub(crate) fn districts() -> Vec<(&'static str, Vec<Cidr>)> {
        let ranges = |nets: &[u8]| {
            let spell = |net: &u8| [format!("10.{net}.0.0/24"), format!("fd00:0:0:{net}::/64")];
            nets.iter().flat_map(spell).map(|text| text.parse().expect("a range")).collect()
        };
        vec![("harbour", ranges(&[0, 1])), ("airport", ranges(&[2]))]
    }
}

impl Drop for City {
    fn drop(&mut self) {
        for place in ["tenant", "router"].into_iter().chain(PLACES.map(|(place, _)| place)) {
            let _gone = ip(&[format!("netns del {}", self.namespace(place))]);
        }
    }
}

/// Runs something on a thread that has moved into a network namespace.
pub(crate) fn in_namespace<T: Send>(namespace: &File, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| {
            #[expect(unsafe_code, reason = "setns(2)")]
            // SAFETY: an open namespace and its kind; it is the thread's own from here on.
            let answer = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(answer, 0, "root may enter");
            body()
        });
        moved.join().expect("it does not panic")
    })
}

/// Runs `ip` lines one after the other.
fn ip(lines: &[String]) -> Result<(), String> {
    for line in lines {
        let output = Command::new("ip")
            .args(line.split(' '))
            .output()
            .map_err(|error| format!("no ip(8): {error}"))?;
        if !output.status.success() {
            return Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}

/// A directed process. It ends when dropped.
pub(crate) struct Agent {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    /// A process where the test is.
    pub(crate) fn here(cgroup: Option<&TestCgroup>) -> Self {
        Self::start(Command::new(compile_program("agent.c", &["-lpthread"]).expect("it compiles")), cgroup)
    }

    pub(crate) fn start(mut command: Command, cgroup: Option<&TestCgroup>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip(8) is there and the agent was just compiled");
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

    /// Runs one command: its numbers, or the error number it met.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Vec<u64>, i32> {
        writeln!(self.commands, "{command}").expect("the agent listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the agent answers");
        let mut words = answer.split_ascii_whitespace();
        match words.next() {
            Some("ok") => Ok(words.map(|word| word.parse().expect("a number")).collect()),
            Some("errno") => Err(words.next().and_then(|word| word.parse().ok()).expect("an error number")),
            _ => panic!("{command}: the agent answered {answer:?}"),
        }
    }

    /// The first number of an answer that must come.
    pub(crate) fn get(&mut self, command: &str) -> u64 {
        self.ask(command).unwrap_or_else(|error| panic!("{command}: errno {error}"))[0]
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// A pin directory and the cgroup that is governed from it. Enforcement ends with it.
pub(crate) struct Realm {
    pub(crate) root: TestCgroup,
    pub(crate) pins: PathBuf,
}

impl Realm {
    pub(crate) fn make() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = unified_mount().ok_or("cgroup v2 is not mounted")?;
        let name =
            format!("headgate-realm-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        compile_program("agent.c", &["-lpthread"])?;
        Ok(Self { root: TestCgroup::make(mount.join(&name))?, pins: PathBuf::from("/sys/fs/bpf").join(name) })
    }

    pub(crate) fn open(&self) -> Enforcement {
        Self::open_at(&self.root.cgroup, self.pins.clone())
    }

    pub(crate) fn open_at(governed: &Cgroup, pins: PathBuf) -> Enforcement {
        Enforcement::open(&EnforcementConfig { pins, governed, tenants: 16 })
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        if let Err(error) = headgate_ebpf::enforce::retire(&self.pins)
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}
