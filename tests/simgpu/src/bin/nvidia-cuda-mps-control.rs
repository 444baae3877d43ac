//! A stand-in for NVIDIA's `nvidia-cuda-mps-control`: the options and commands of its documentation that Headgate uses,
//! for simulated devices. Its clients are programs on the simulated `libcuda.so.1`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use headgate_abi::cuda::CUresult;
use headgate_simgpu::client::Connection;
use headgate_simgpu::protocol::{MPS_SOCKET, Mps, Reply, Request, Role, SOCKET_ENV};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

const USAGE: &str = "\
Simulated: a stand-in for NVIDIA's MPS control program. Nothing it reports is a real device.

Usage: nvidia-cuda-mps-control [-d | -f | -v] [-S | --static-partitioning]

  -d  serve in the background     -f  serve     -S  partition devices     -v  print the version
  without options: take commands from standard input and have them done by who serves in CUDA_MPS_PIPE_DIRECTORY
";
/// Where it serves unless told otherwise.
const PIPE_DEFAULT: &str = "/tmp/nvidia-mps";
/// How often one that nobody asks looks whether its device server is still there.
const LOOK_MS: u16 = 200;
/// Looks that one in the background is given to come up.
const START_LOOKS_MAX: u32 = 50;
/// Longest line of a command.
const LINE_BYTES_MAX: u64 = 4_096;

fn pipe_directory() -> PathBuf {
    std::env::var_os("CUDA_MPS_PIPE_DIRECTORY").map_or_else(|| PathBuf::from(PIPE_DEFAULT), PathBuf::from)
}

fn socket() -> PathBuf {
    pipe_directory().join(MPS_SOCKET)
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The caller sees the status; a closed stderr is its own business.
            drop(writeln!(std::io::stderr(), "nvidia-cuda-mps-control (simulated): {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut background, mut foreground, mut partitioned) = (false, false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "-d" => background = true,
            "-f" => foreground = true,
            "-S" | "--static-partitioning" => partitioned = true,
            "-v" => return say("CUDA MPS control version: 13010 (simulated)\n"),
            "-h" | "--help" => return say(USAGE),
            other => return Err(format!("unknown option {other}")),
        }
    }
    if (background || foreground) && UnixStream::connect(socket()).is_ok() {
        return Err("An instance of this daemon is already running".to_owned());
    }
    match (background, foreground) {
        (true, _) => detach(partitioned),
        (_, true) => serve(partitioned),
        (false, false) => forward(),
    }
}

/// Starts one that outlives this one, and waits until it serves.
fn detach(partitioned: bool) -> Result<(), String> {
    use std::os::unix::process::CommandExt as _;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("-f").args(partitioned.then_some("-S")).process_group(0);
    // Whoever started this one may wait for the end of its output, and the one in the background outlives it.
    let logs = std::env::var_os("CUDA_MPS_LOG_DIRECTORY").map_or_else(pipe_directory, PathBuf::from);
    let file = logs.join("control.log");
    let failed = |error| format!("{}: {error}", file.display());
    std::fs::create_dir_all(&logs).map_err(failed)?;
    let log = std::fs::File::create(&file).map_err(failed)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    for _ in 0..START_LOOKS_MAX {
        if UnixStream::connect(socket()).is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let said = std::fs::read_to_string(&file).unwrap_or_default();
            return Err(format!("it ended with {status}: {}", said.trim()));
        }
        wait(None).map_err(|error| error.to_string())?;
    }
    Err("it does not come up".to_owned())
}

/// Waits for somebody to speak, or for a while.
fn wait(on: Option<&UnixListener>) -> nix::Result<bool> {
    let mut fds: Vec<PollFd<'_>> =
        on.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)).collect();
    Ok(0 < poll(&mut fds, PollTimeout::from(if on.is_some() { LOOK_MS } else { LOOK_MS / 4 }))?)
}

/// Hands the commands of standard input on, one answer after another.
fn forward() -> Result<(), String> {
    let gone = |error| format!("Cannot find MPS control daemon process: {error}");
    let mut commands = String::new();
    std::io::stdin().read_to_string(&mut commands).map_err(|error| error.to_string())?;
    let mut stream = UnixStream::connect(socket()).map_err(gone)?;
    stream.write_all(commands.as_bytes()).map_err(gone)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(gone)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(gone)?;
    say(&answer)
}

struct Control {
    connection: Connection,
    percentage: u32,
}

fn serve(partitioned: bool) -> Result<(), String> {
    let directory = pipe_directory();
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let server = std::env::var_os(SOCKET_ENV).ok_or(format!("{SOCKET_ENV} is not set"))?;
    let connection = Connection::open(Path::new(&server), Role::Mps).map_err(|error| error.to_string())?;
    let devices = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let devices = devices.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let control = Control { connection, percentage: 100 };
    let pipe = directory.display().to_string();
    control.ask(Mps::Serve { pipe, devices, partitioned }).map_err(|(_, why)| why)?;
    // What a dead one left behind; a living one was looked for.
    drop(std::fs::remove_file(socket()));
    let listener =
        UnixListener::bind(socket()).map_err(|error| format!("{}: {error}", socket().display()))?;
    let pid = directory.join("nvidia-cuda-mps-control.pid");
    std::fs::write(&pid, format!("{}\n", std::process::id())).map_err(|error| error.to_string())?;
    let mut control = control;
    loop {
        let spoken = wait(Some(&listener)).map_err(|error| error.to_string())?;
        if !spoken {
            // A device server that is gone takes its control programs along.
            if control.ask(Mps::List).is_err() {
                break;
            }
            continue;
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        // Whoever hung up does not hear the answer.
        if !control.answer(stream).unwrap_or(true) {
            break;
        }
    }
    drop(std::fs::remove_file(socket()));
    drop(std::fs::remove_file(pid));
    Ok(())
}

impl Control {
    fn ask(&self, request: Mps) -> Result<Option<Value>, (u32, String)> {
        match self.connection.ask(&Request::Mps(request)) {
            Ok(Reply::Done) => Ok(None),
            Ok(Reply::Json(text)) => {
                serde_json::from_str(&text).map(Some).map_err(|error| (999, error.to_string()))
            }
            Ok(Reply::Refused { status, reason }) => Err((status, reason)),
            Ok(other) => Err((999, format!("unexpected answer {other:?}"))),
            Err(lost) => Err((999, lost.to_string())),
        }
    }

    /// Does one client's commands. Whether to go on.
    fn answer(&mut self, stream: UnixStream) -> std::io::Result<bool> {
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if (&mut lines).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
                return Ok(true);
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() == Some(&"quit") {
                return Ok(false);
            }
            let mut text = self.command(&words);
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            out.write_all(text.as_bytes())?;
        }
    }

    fn command(&mut self, words: &[&str]) -> String {
        match *words {
            [] => String::new(),
            ["get_server_list"] => match self.clients().is_empty() {
                true => String::new(),
                false => std::process::id().to_string(),
            },
            ["get_client_list", _] => self.clients().iter().map(|pid| format!("{pid}\n")).collect(),
            ["get_default_active_thread_percentage"] | ["get_active_thread_percentage", _] => {
                format!("{}.0", self.percentage)
            }
            ["set_default_active_thread_percentage", percentage]
            | ["set_active_thread_percentage", _, percentage] => {
                let asked = percentage.parse::<f64>().ok().filter(|asked| (1.0..=100.0).contains(asked));
                let Some(asked) = asked else { return format!("invalid percentage {percentage}") };
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 1 and 100"
                )]
                let whole = asked as u32;
                match self.ask(Mps::SetPercentage(whole)) {
                    Ok(_) => {
                        self.percentage = whole;
                        format!("{whole}.0")
                    }
                    Err((_, why)) => why,
                }
            }
            ["sm_partition", "add", uuid, chunks] => {
                let count = chunks.parse().unwrap_or(0);
                match self.ask(Mps::AddPartition { uuid: uuid.to_owned(), chunks: count }) {
                    Ok(name) => {
                        let name = name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                        format!("Partition {name} created")
                    }
                    Err((status, _)) => format!(
                        "Failed to fulfill the requested SM partition of {chunks} chunks, error {}",
                        named(status)
                    ),
                }
            }
            ["sm_partition", "rm", uuid, partition] => {
                let name = if partition.contains('/') {
                    partition.to_owned()
                } else {
                    format!("{uuid}/{partition}")
                };
                match self.ask(Mps::RemovePartition { name: name.clone() }) {
                    Ok(_) => format!("Partition {name} removed"),
                    Err((status, _)) => format!("Failed to remove partition {name}, error {}", named(status)),
                }
            }
            ["lspart"] => self.partitions(),
            [command, ..] => format!("Unknown command: {command}"),
        }
    }

    fn list(&self) -> Value {
        self.ask(Mps::List).ok().flatten().unwrap_or_default()
    }

    fn clients(&self) -> Vec<u64> {
        let list = self.list();
        list["clients"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    }

    /// The table of `lspart`: a line for each device, and one for each partition of it.
    fn partitions(&self) -> String {
        let mut text =
            "GPU           Partition                          free   used   free  used  clients\n".to_owned();
        text.push_str("                                                 chunk  chunk  SM    SM\n");
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        for device in self.list()["devices"].as_array().into_iter().flatten() {
            let partitions = device["partitions"].as_array().cloned().unwrap_or_default();
            let (used, sms) = partitions.iter().fold((0, 0), |(chunks, sms), one| {
                (chunks + number(&one["chunks"]), sms + number(&one["sms"]))
            });
            let whole = number(&device["sms"]);
            let free = whole / number(&device["chunk_sms"]).max(1) - used;
            let uuid = device["uuid"].as_str().unwrap_or_default();
            let short = uuid.get(..12).unwrap_or(uuid);
            text.push_str(&format!(
                "{short}  {:<33}  {free:<5}  {used:<5}  {:<4}  {sms:<4}  -\n",
                "-",
                whole - sms
            ));
            for one in partitions {
                let name =
                    one["name"].as_str().and_then(|name| name.split_once('/')).map_or("-", |(_, name)| name);
                let (chunks, sms) = (number(&one["chunks"]), number(&one["sms"]));
                let clients = if one["used"] == true { "Yes" } else { "No" };
                text.push_str(&format!(
                    "{short}  {name:<33}  {:<5}  {chunks:<5}  {:<4}  {sms:<4}  {clients}\n",
                    "-", "-"
                ));
            }
        }
        text
    }
}

fn named(status: u32) -> String {
    let name = CUresult(status).name();
    name.map_or_else(|| status.to_string(), |name| name.to_string_lossy().into_owned())
}
