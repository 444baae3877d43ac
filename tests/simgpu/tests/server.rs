//! The server as a program: what it prints, how it ends, and that a client that talks nonsense harms nobody else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use headgate_simgpu::client::{Connection, Control};
use headgate_simgpu::model::KernelRule;
use headgate_simgpu::protocol::{Command as Order, Reply, Request, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

struct Program {
    child: Child,
    directory: TempDir,
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate-simgpu"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Program {
    fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        let mut command = program(&[]);
        command.arg("--socket").arg(directory.path().join("device")).arg("--config").arg(file);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("device")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

fn said(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_and_mistakes_are_told() {
    let (ok, out, _) = said(&program(&["--help"]).output().unwrap());
    assert!(ok && out.contains("--socket PATH") && out.contains("Nothing it reports is a real device"));
    let (ok, out, _) = said(&program(&["--print-config"]).output().unwrap());
    assert!(ok && serde_json::from_str::<serde_json::Value>(&out).unwrap()["slice_ns"] == 1_000_000);
    let (ok, _, err) = said(&program(&[]).output().unwrap());
    assert!(!ok && err.contains("--socket PATH is needed"), "{err}");
    let (ok, _, err) = said(&program(&["--sokcet", "x"]).output().unwrap());
    assert!(!ok && err.contains("unknown argument --sokcet"), "{err}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, "{\n  \"slice\": 1\n}").unwrap();
    let (ok, _, err) =
        said(&program(&["--socket", "/tmp/x", "--config", file.to_str().unwrap()]).output().unwrap());
    assert!(!ok && err.contains("config.json") && err.contains("unknown field `slice`"), "{err}");
    assert!(err.contains("line 2"), "{err}");
    let (ok, _, err) = said(&program(&["--socket", "/nonexistent/device"]).output().unwrap());
    assert!(!ok && err.contains("cannot listen on /nonexistent/device"), "{err}");
}

#[test]
fn it_ends_cleanly_on_sigterm_and_takes_its_socket_away() {
    let mut server = Program::start("{}");
    let client = Control::open(&server.socket()).unwrap();
    server.signal(Signal::SIGTERM);
    assert!(server.child.wait().unwrap().success());
    assert!(!server.socket().exists());
    assert!(client.statistics().is_err(), "a client notices");
}

/// Whether the server closes a connection that sends these bytes.
fn is_expelled(socket: &Path, bytes: &[u8]) -> bool {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok() || stream.take_error().is_ok_and(|error| error.is_some())
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    let server = Program::start("{}");
    let control = Control::open(&server.socket()).unwrap();
    let frame = |length: u32, body: &[u8]| [&length.to_le_bytes()[..], body].concat();
    let mut hello = frame(0, &[0; 9]);
    // Requests::Hello { protocol: 1, role: Driver } is variant 0, then the numbers.
    hello.extend_from_slice(&[0, 1, 0]);
    let length = u32::try_from(hello.len()).unwrap();
    hello[..4].copy_from_slice(&length.to_le_bytes());
    let mut trailing = frame(17, &[0; 9]);
    trailing.extend_from_slice(&[0, 1, 0, 0]);
    for (what, bytes) in [
        ("a frame of no length", frame(0, &[0; 9])),
        ("a frame over the limit", frame(u32::MAX, &[0; 9])),
        ("an unknown request", frame(14, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee])),
        ("bytes behind a request", trailing),
        // Request::Memory before the introduction.
        ("a request before the introduction", frame(15, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0])),
        ("a wrong protocol", frame(16, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 99, 0])),
    ] {
        assert!(is_expelled(&server.socket(), &bytes), "{what}");
        assert_eq!(control.statistics().unwrap()["simulated"], true, "the server goes on after {what}");
    }
    let journal = control.journal().unwrap();
    let expelled = journal["entries"].as_array().unwrap().iter().filter(|entry| entry["call"] == "expelled");
    assert!(expelled.count() >= 5, "{journal}");
}

#[test]
fn requests_about_things_that_are_not_there_are_refused() {
    let server = Program::start("{}");
    let client = Connection::open(&server.socket(), Role::Driver).unwrap();
    for request in [
        Request::OpenContext { device: 9, legacy_slot: 0, connections: None },
        Request::OpenContext { device: 0, legacy_slot: 1 << 20, connections: None },
        Request::CloseContext { context: 7 },
        Request::OpenStream { context: 7, slot: 0, blocking: true, priority: 0, share: None },
        Request::CloseStream { slot: 7 },
        Request::Allocate { context: 7, bytes: 1 },
        Request::Free { address: 0 },
        Request::Free { address: 0xa000_0000_0000 },
        Request::Unpin { address: 1 },
        Request::Memory { device: 9 },
        Request::UnloadModule { module: 7 },
        Request::HostDone { slot: 7, seq: 1 },
        Request::Processes { device: 9 },
        Request::Submit { slot: 7, seq: 1, command: Order::Nothing },
    ] {
        let reply = client.ask(&request).unwrap();
        assert!(matches!(reply, Reply::Refused { .. }), "{request:?}: {reply:?}");
    }
}

#[test]
fn commands_that_cannot_be_carried_out_kill_their_context() {
    let server = Program::start("{}");
    let client = Connection::open(&server.socket(), Role::Driver).unwrap();
    assert!(matches!(
        client.ask(&Request::OpenContext { device: 0, legacy_slot: 0, connections: None }).unwrap(),
        Reply::Context(0)
    ));
    let submitted = AtomicU64::new(0);
    let seq = client.submit(0, &submitted, [Order::Free { address: 12 }, Order::Nothing], || true).unwrap();
    assert!(client.wait(0, seq, || true).unwrap());
    assert_eq!(client.page().error(0), 1, "CUDA_ERROR_INVALID_VALUE sticks");
}

#[test]
fn kernel_times_can_be_changed_while_it_runs() {
    let server = Program::start(r#"{"device_count": 3}"#);
    let control = Control::open(&server.socket()).unwrap();
    assert_eq!(control.node().devices.len(), 3);
    control.set_kernel(Some("spin"), KernelRule::fixed(5)).unwrap();
    control.set_kernel(None, KernelRule::fixed(7)).unwrap();
    assert!(control.lose_device(3, 719).is_err());
    control.lose_device(2, 719).unwrap();
    assert_eq!(control.statistics().unwrap()["devices"].as_array().unwrap().len(), 3);
}
