//! The one binary: see [`headgate_daemon`].

use std::process::ExitCode;

fn main() -> ExitCode {
    headgate_daemon::cli::main()
}
