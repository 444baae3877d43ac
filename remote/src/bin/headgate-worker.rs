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
use headgate_remote::worker::confine::{self, Enclosed};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.as_slice() {
        [flag, address] if flag == "--listen" => address.parse().and_then(|address| listen(&address)),
        [flag] if flag == "--at-standard-input" => Listener::at_standard_input()
            .map_err(|error| format!("standard input is no Unix socket: {error}"))
            .and_then(|listener| serve(listener, true)),
        _ => Err("usage: headgate-worker --listen unix:PATH|tcp:HOST:PORT".to_owned()),
    };
    outcome.unwrap_or_else(|why| {
        say(&why);
        ExitCode::FAILURE
    })
}

fn say(what: &str) {
    eprintln!("headgate-worker: {what}");
}

fn listen(address: &Address) -> Result<ExitCode, String> {
    let listener = Listener::bind(address).map_err(|error| format!("listening on {address}: {error}"))?;
    let bound = listener.address().map_err(|error| format!("asking where it listens: {error}"))?;
    println!("{bound}");
    std::io::stdout().flush().map_err(|error| format!("saying where it listens: {error}"))?;
    serve(listener, false)
}

/// Serves, confined. Where somebody waits for the worker outside, that one tells its number if that is wanted: the
/// worker itself has no words by then.
fn serve(listener: Listener, tell: bool) -> Result<ExitCode, String> {
    let confining = |error| format!("confining the worker: {error}");
    match confine::enclose(listener.descriptor()).map_err(confining)? {
        Enclosed::Warden(warden) => {
            drop(listener);
            if tell {
                println!("worker {}", warden.worker());
            }
            warden.wait().map(ExitCode::from).map_err(|error| error.to_string())
        }
        Enclosed::Worker(refused) => {
            for what in refused {
                say(&format!("not confined by its {what}"));
            }
            let seal = || {
                if let Err(error) = confine::seal() {
                    say(&format!("not confined by refused system calls: {error}"));
                }
            };
            worker::serve(listener, seal).map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
        }
    }
}
