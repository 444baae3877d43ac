//! `headgate-worker --listen unix:PATH|tcp:HOST:PORT`: serves one remote session with this node's driver.
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
    let address: Result<Address, String> = match words.as_slice() {
        [flag, address] if flag == "--listen" => address.parse(),
        _ => Err("usage: headgate-worker --listen unix:PATH|tcp:HOST:PORT".to_owned()),
    };
    match address.and_then(|address| run(&address)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("headgate-worker: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: &Address) -> Result<(), String> {
    let listener = Listener::bind(address).map_err(|error| format!("listening on {address}: {error}"))?;
    let bound = listener.address().map_err(|error| format!("asking where it listens: {error}"))?;
    println!("{bound}");
    std::io::stdout().flush().map_err(|error| format!("saying where it listens: {error}"))?;
    worker::serve(listener).map_err(|error| error.to_string())
}
