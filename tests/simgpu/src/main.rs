//! `headgate-simgpu`: serves a simulated node's GPUs on a Unix socket.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use headgate_simgpu::config::Config;
use headgate_simgpu::server::Server;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const USAGE: &str = "\
Serves simulated GPUs to the libcuda and libnvidia-ml stand-ins of Headgate's tests. Nothing it reports is a real device.

Usage: headgate-simgpu --socket PATH [--config FILE]

  --socket PATH   Unix socket to listen on; programs find it by HEADGATE_SIMGPU_SOCKET
  --config FILE   JSON: devices, times, sizes (default: one device of 132 SMs and 80 GiB)
  --print-config  print the configuration in effect as JSON and exit
  --help          print this

Prints `ready` when it listens. Ends on SIGTERM or SIGINT.
";

#[derive(Debug, Default)]
struct Arguments {
    socket: Option<PathBuf>,
    config: Option<PathBuf>,
    print_config: bool,
    help: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        let mut value =
            || given.next().map(PathBuf::from).ok_or(format!("{} needs a value", argument.display()));
        match argument.to_str() {
            Some("--socket") => parsed.socket = Some(value()?),
            Some("--config") => parsed.config = Some(value()?),
            Some("--print-config") => parsed.print_config = true,
            Some("--help" | "-h") => parsed.help = true,
            _ => return Err(format!("unknown argument {}; see --help", argument.display())),
        }
    }
    Ok(parsed)
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))
}

fn serve() -> Result<(), String> {
    let arguments = arguments()?;
    if arguments.help {
        return say(USAGE);
    }
    let config = match &arguments.config {
        None => Config::default(),
        Some(path) => {
            let place = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| place(&error))?;
            Config::parse(&text).map_err(|error| place(&error))?
        }
    };
    if arguments.print_config {
        let text = serde_json::to_string_pretty(&config).map_err(|error| error.to_string())?;
        return say(&format!("{text}\n"));
    }
    let socket = arguments.socket.ok_or("--socket PATH is needed; see --help")?;
    // Blocked before anything else, so that a signal in between is not lost.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    stop.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    let stop = SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC)
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let mut server = Server::bind(&socket, config).map_err(|error| error.to_string())?;
    say("ready\n")?;
    server.run(stop.as_fd()).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The caller sees the status; a closed stderr is its own business.
            drop(writeln!(std::io::stderr(), "headgate-simgpu: {why}"));
            ExitCode::FAILURE
        }
    }
}
