//! The stand-in for NVIDIA's MPS control program: its commands, and what becomes of its clients.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use headgate_abi::cuda::CUresult;
use headgate_simgpu::client::{Connection, Control};
use headgate_simgpu::protocol::{Reply, Request, Role, SOCKET_ENV};
use tempfile::TempDir;

const UUID: &str = "GPU-5eed6a7e-0000-4000-8000-000000000000";

struct Node {
    server: Child,
    directory: TempDir,
}

impl Node {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate-simgpu"));
        command.arg("--socket").arg(directory.path().join("device")).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { server, directory }
    }

    fn pipe(&self) -> PathBuf {
        self.directory.path().join("pipe")
    }

    fn control(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvidia-cuda-mps-control"));
        command.env(SOCKET_ENV, self.directory.path().join("device"));
        command.env("CUDA_MPS_PIPE_DIRECTORY", self.pipe()).env_remove("CUDA_VISIBLE_DEVICES");
        command
    }

    fn serve(&self, arguments: &[&str]) -> Output {
        self.control().args(arguments).output().unwrap()
    }

    /// `echo LINE | nvidia-cuda-mps-control`.
    fn say(&self, line: &str) -> Result<String, String> {
        let mut command = self.control();
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A program that becomes a client.
    fn client(&self, partition: Option<&str>, percentage: Option<u32>) -> Result<Connection, CUresult> {
        let mut connection = Connection::open(&self.directory.path().join("device"), Role::Driver).unwrap();
        let pipe = self.pipe().display().to_string();
        connection.join_mps(pipe, partition.map(str::to_owned), percentage)?;
        Ok(connection)
    }

    fn add(&self, chunks: u32) -> String {
        let said = self.say(&format!("sm_partition add {UUID} {chunks}")).unwrap();
        let name = said.strip_prefix("Partition ").and_then(|rest| rest.strip_suffix(" created\n"));
        name.unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been ended by the test.
        drop(self.say("quit"));
        drop(self.server.kill());
        self.server.wait().unwrap();
    }
}

fn open_context(client: &Connection) -> Result<(), u32> {
    let open = Request::OpenContext { device: 0, legacy_slot: 0, connections: None };
    match client.ask(&open).unwrap() {
        Reply::Context(_) => Ok(()),
        Reply::Refused { status, .. } => Err(status),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_control_program_serves_in_the_background_until_it_is_told_to_quit() {
    let node = Node::start();
    assert!(node.say("get_server_list").unwrap_err().contains("Cannot find MPS control daemon process"));
    assert!(node.serve(&["-d"]).status.success());
    assert!(String::from_utf8_lossy(&node.serve(&["-d"]).stderr).contains("already running"));
    assert!(node.pipe().join("nvidia-cuda-mps-control.pid").exists());
    assert_eq!(node.say("get_server_list").unwrap(), "");
    assert_eq!(node.say("get_default_active_thread_percentage").unwrap(), "100.0\n");
    assert!(node.say("make_coffee").unwrap().contains("Unknown command"));
    assert!(node.say("quit").is_ok());
    assert!(node.say("get_server_list").is_err());
    let unknown = node.control().env("CUDA_VISIBLE_DEVICES", "GPU-0").arg("-d").output().unwrap();
    assert!(!unknown.status.success(), "it serves no device that is not there");
}

#[test]
fn partitions_are_exclusive_and_a_client_without_one_cannot_start() {
    let node = Node::start();
    assert!(node.serve(&["-d", "-S"]).status.success());
    let (one, two) = (node.add(5), node.add(11));
    let refused = node.say(&format!("sm_partition add {UUID} 1")).unwrap();
    assert!(refused.contains("CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"), "{refused}");
    let invalid = CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION;
    assert_eq!(node.client(None, Some(50)).err(), Some(invalid));
    assert_eq!(node.client(Some("GPU-0/none"), None).err(), Some(invalid));
    let first = node.client(Some(&one), Some(10)).unwrap();
    assert_eq!(first.node().devices[0].sms, 40, "percentages mean nothing here");
    let second = node.client(Some(&two), None).unwrap();
    assert_eq!(second.node().devices[0].sms, 88);
    let table = node.say("lspart").unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().any(|row| row[1..] == ["-", "0", "16", "4", "128", "-"]), "{table}");
    assert_eq!(rows.iter().filter(|row| row.last() == Some(&"Yes")).count(), 2, "{table}");
    // In use, it stays; and when its client has ended, its SMs are free.
    let kept = node.say(&format!("sm_partition rm {UUID} {one}")).unwrap();
    assert!(kept.contains("Failed"), "{kept}");
    open_context(&first).unwrap();
    open_context(&second).unwrap();
    let control = Control::open(&node.directory.path().join("device")).unwrap();
    let processes = control.statistics().unwrap()["processes"].as_array().unwrap().clone();
    let chunks =
        processes.iter().flat_map(|row| row["mps_chunks"].as_array().unwrap()).map(|chunk| chunk.as_u64());
    let mut chunks: Vec<u64> = chunks.flatten().collect();
    chunks.sort_unstable();
    assert_eq!(chunks, (0..16).collect::<Vec<_>>(), "each chunk is one client's");
    drop(first);
    let gone = (0..200).any(|_| {
        let said = node.say(&format!("sm_partition rm {UUID} {one}")).unwrap();
        said.contains("removed")
    });
    assert!(gone, "its client has ended");
    assert_eq!(node.client(Some(&one), None).err(), Some(invalid));
    node.add(5);
}

#[test]
fn a_percentage_is_the_least_of_the_clients_and_the_servers() {
    let node = Node::start();
    assert!(node.serve(&["-d"]).status.success());
    assert!(node.say(&format!("sm_partition add {UUID} 1")).unwrap().contains("CUDA_ERROR_NOT_SUPPORTED"));
    let sms = |percentage| node.client(None, percentage).unwrap().node().devices[0].sms;
    assert_eq!((sms(None), sms(Some(100)), sms(Some(30)), sms(Some(1))), (132, 132, 38, 2));
    assert_eq!(node.say("set_default_active_thread_percentage 50").unwrap(), "50.0\n");
    assert_eq!((sms(None), sms(Some(100)), sms(Some(30))), (66, 66, 38));
    assert!(node.say("set_default_active_thread_percentage 0").unwrap().contains("invalid"));
    let client = node.client(None, None).unwrap();
    let server = node.say("get_server_list").unwrap();
    let clients = node.say(&format!("get_client_list {}", server.trim())).unwrap();
    assert!(clients.contains(&std::process::id().to_string()), "{clients}");
    drop(client);
}

#[test]
fn clients_end_with_their_server() {
    let node = Node::start();
    assert!(node.serve(&["-d"]).status.success());
    let client = node.client(None, None).unwrap();
    open_context(&client).unwrap();
    assert!(node.say("quit").is_ok());
    let lost = (0..2_000).any(|_| {
        // Each question takes a round trip.
        client.ask(&Request::Memory { device: 0 }).unwrap();
        client.page().error(0) == 806
    });
    assert!(lost, "CUDA_ERROR_MPS_RPC_FAILURE");
    assert!(node.client(None, None).is_err(), "nobody serves any more");
}
