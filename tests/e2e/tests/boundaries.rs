//! A worker that dies between any two messages of a session costs that session and nothing else.
//!
//! A proxy takes the session's frames apart as the wire's documentation says and kills the worker when so many have passed,
//! in either direction. `SEED=` chooses which boundaries are looked at, beside the first ones and the last.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use headgate_harness::remote::{self, Transport, Worker};
use headgate_harness::{Node, Program, TenantSpec, eventually, workspace};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{SOON, eventually_used, node, tenant_row};

const PATIENCE: Duration = Duration::from_secs(120);
/// Boundaries looked at besides the first ones.
const CHOSEN: u64 = 16;
/// The first ones: greeting, welcome, context, stream, image.
const FIRST: u64 = 8;
/// Frames of a program's end at most, behind its last result.
const LAST: u64 = 8;
/// Bytes of a frame's header, and where its payload's length stands in it.
const HEADER: usize = 32;
const LENGTH_AT: usize = 8;

/// Kills a process once so many frames have passed.
#[derive(Debug)]
struct Killer {
    pid: i32,
    after: u64,
    /// The connection to it.
    connection: OnceLock<UnixStream>,
    /// Frames passed, both directions together. Held while one is passed, so that a boundary is a boundary.
    passed: Mutex<u64>,
}

impl Killer {
    fn pass(&self, frame: &[u8], to: &mut UnixStream) -> bool {
        let mut passed = self.passed.lock().unwrap();
        if *passed == self.after {
            kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
            // It has died when its end of the connection has; until then its other threads, and what it confined, may
            // answer.
            let mut end = [PollFd::new(self.connection.get().unwrap().as_fd(), PollFlags::empty())];
            assert!(
                poll(&mut end, PollTimeout::try_from(SOON).unwrap()).unwrap() > 0,
                "it was killed and lives"
            );
        }
        *passed += 1;
        // After the kill the other end may be gone, which is what this is about.
        to.write_all(frame).is_ok()
    }
}

/// Passes whole frames on until either end is gone.
fn pass_on(mut from: UnixStream, mut to: UnixStream, killer: &Killer) {
    let mut frame = vec![0; HEADER];
    loop {
        frame.resize(HEADER, 0);
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        let length = u32::from_le_bytes(frame[LENGTH_AT..LENGTH_AT + 4].try_into().unwrap());
        frame.resize(HEADER + length as usize, 0);
        if from.read_exact(&mut frame[HEADER..]).is_err() || !killer.pass(&frame, &mut to) {
            break;
        }
    }
    for end in [from, to] {
        // It may be gone already.
        let _gone = end.shutdown(Shutdown::Both);
    }
}

/// Carries the one connection that a program makes.
fn carry(listener: &UnixListener, worker: &Path, killer: &Arc<Killer>) {
    let (near, _) = listener.accept().unwrap();
    let far = UnixStream::connect(worker).unwrap();
    killer.connection.set(far.try_clone().unwrap()).unwrap();
    std::thread::scope(|scope| {
        let (up, down) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        scope.spawn(move || pass_on(up, down, killer));
        pass_on(far, near, killer);
    });
}

/// Runs a small program whose worker dies behind so many frames. Frames that passed, and whether it ended well.
fn run(node: &Node, boundary: u64) -> (u64, bool) {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let worker = Worker::in_tenant(node, "guest", Transport::Unix).unwrap();
    let path = node.path(&format!("proxy-{}.sock", RUNS.fetch_add(1, SeqCst)));
    let listener = UnixListener::bind(&path).unwrap();
    let pid = worker.pid().try_into().unwrap();
    let killer =
        Arc::new(Killer { pid, after: boundary, connection: OnceLock::new(), passed: Mutex::default() });
    let at = worker.address().trim_start_matches("unix:").to_owned();
    let carrying = {
        let killer = Arc::clone(&killer);
        std::thread::spawn(move || carry(&listener, Path::new(&at), &killer))
    };
    let app = workspace::program("app-step").unwrap();
    let mut command = remote::command(&app, &format!("unix:{}", path.display())).unwrap();
    let program =
        Program::start("app-step", command.args(["--steps", "4", "--launches", "3", "--idle-syncs", "2"]));
    let outcome = program.unwrap().finish(PATIENCE).unwrap();
    carrying.join().unwrap();
    let passed = *killer.passed.lock().unwrap();
    let well = outcome.status.success();
    if !well {
        let named = ["DEVICE_UNAVAILABLE", "NO_DEVICE"].iter().any(|name| outcome.stderr.contains(name));
        assert!(named, "boundary {boundary}: {}", outcome.stderr);
        // Before the welcome there is no device to lose.
        assert!(boundary < 2 || outcome.stderr.contains("DEVICE_UNAVAILABLE"), "{}", outcome.stderr);
    }
    assert!(well || passed >= boundary, "boundary {boundary}: it failed before the worker was killed");
    drop(worker);
    eventually_used(node, "guest", 0, SOON);
    eventually(&format!("boundary {boundary}: its seat is free"), SOON, || {
        let row = tenant_row(&node.status().unwrap(), "guest");
        row["processes"].as_array().unwrap().is_empty().then_some(())
    });
    (passed, well)
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[test]
fn a_worker_that_dies_between_any_two_messages_costs_its_own_session_only() {
    let node = node(vec![
        TenantSpec::new("guest").sm(40).memory("1Gi"),
        TenantSpec::new("other").sm(40).memory("1Gi"),
    ]);
    let beside = Worker::in_tenant(&node, "other", Transport::Unix).unwrap();
    let app = workspace::program("app-loop").unwrap();
    let mut command = beside.command(&app).unwrap();
    let mut other =
        Program::start("app-loop", command.args(["--seconds", "0", "--sync-every", "5"])).unwrap();
    let (frames, well) = run(&node, u64::MAX);
    assert!(well, "nobody was killed");
    assert!(frames > FIRST + 4, "{frames} frames are too few to choose from");
    let mut chance = seed();
    let chosen = (0..CHOSEN).map(|_| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        FIRST + (chance >> 33) % (frames - FIRST)
    });
    let mut died = 0;
    for boundary in (0..FIRST).chain(chosen).chain([frames - 1, frames]) {
        let (passed, well) = run(&node, boundary);
        // A batch is as large as it happens to be, so a run may end before its boundary, or be about to: what a program
        // gives back at its end waits for no answer.
        assert!(!well || passed <= boundary + LAST, "SEED={} boundary {boundary} of {passed}", seed());
        died += u32::from(!well);
        assert!(other.is_running(), "boundary {boundary}: another session ended with it");
    }
    assert!(died >= u32::try_from(FIRST).unwrap(), "{died} workers died in time");
    let works = eventually("the other session works on", SOON, || {
        let row = tenant_row(&node.status().unwrap(), "other");
        row["gpus"][0]["launches"].as_u64()
    });
    eventually("and on", SOON, || {
        let row = tenant_row(&node.status().unwrap(), "other");
        (row["gpus"][0]["launches"].as_u64()? > works).then_some(())
    });
}
