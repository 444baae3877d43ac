//! Starts simulated devices, daemons and programs, for tests, benches and the demo.
//!
//! Everything is the real thing in its own process: the daemon's binary, the hook's library, programs that know
//! nothing of either. Only the GPU and its driver are stand-ins. What is started ends with the value that
//! started it.
//!
//! It never sleeps in the hope that something has happened: [`eventually`] waits for a condition with a
//! deadline and says what it last saw. Figures of real time are judged by [`quiet::holds`], which knows a machine that is
//! busy with others.
//!
//! Read in this order: [`workspace`] (where built things are), [`device`], [`node`], [`pair`], [`demo`], [`quiet`].

pub mod workspace;
pub mod device;
pub mod node;
pub mod nats;
pub mod process;
pub mod prometheus;
pub mod remote;
pub mod relay;
pub mod pair;
pub mod demo;
pub mod quiet;

use std::fmt::Debug;
use std::time::Duration;

pub use device::Device;
pub use nats::Nats;
pub use node::{Node, NodeOptions, TenantSpec};
pub use pair::{Pair, PairOptions};
pub use process::Program;

/// Waits until `look` gives `Some`, looking every few milliseconds.
///
/// # Panics
/// When `patience` runs out; the message says what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    match wait_for(patience, &mut look) {
        Some(found) => found,
        None => panic!("{what}: not within {patience:?}"),
    }
}

/// Waits until `look` gives `Some`; `None` when `patience` runs out.
#[expect(clippy::disallowed_methods, reason = "the one place where tests wait")]
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if patience < start.elapsed() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Says by name that a test could not run here. Tests that need root, a kernel feature or an interpreter call
/// this and return; the run's output then tells what was not covered.
#[expect(clippy::print_stdout, reason = "a skip that nobody sees looks like a pass")]
pub fn skipped(test: &str, why: &dyn Debug) {
    println!("SKIPPED: {test}: {why:?}");
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
