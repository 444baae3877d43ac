//! `headgate-worker --listen unix:PATH|tcp:HOST:PORT`: serves one remote session with this node's driver. A daemon
//! starts it with `--at-standard-input`, where it finds the socket.
//!
//! It prints the address it listens on, one line, when it is ready. Started by `headgate run --tenant T --
//! headgate-worker ..` it is an ordinary tenant: the lender's quota is its quota.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "how a worker says where it listens and why it ended"
)]

use std::io::Write as _;
use std::process::ExitCode;

use headgate_remote::link::{Address, Listener};
use headgate_remote::worker;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.as_slice() {
        [flag, address] if flag == "--listen" => address.parse().and_then(|address| listen(&address)),
        [flag] if flag == "--at-standard-input" => Listener::at_standard_input()
            .map_err(|error| format!("standard input is no Unix socket: {error}"))
            .and_then(serve),
        _ => Err("usage: headgate-worker --listen unix:PATH|tcp:HOST:PORT".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("headgate-worker: {why}");
            ExitCode::FAILURE
        }
    }
}

fn listen(address: &Address) -> Result<(), String> {
    let listener = Listener::bind(address).map_err(|error| format!("listening on {address}: {error}"))?;
    let bound = listener.address().map_err(|error| format!("asking where it listens: {error}"))?;
    println!("{bound}");
    std::io::stdout().flush().map_err(|error| format!("saying where it listens: {error}"))?;
    serve(listener)
}

fn serve(listener: Listener) -> Result<(), String> {
    worker::serve(listener).map_err(|error| error.to_string())
}
