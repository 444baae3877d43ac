//! `headgate daemon`.

use std::future::pending;
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{self, ConfigError};
use crate::devices::nvml::NvmlDevices;
use crate::limits::{RUNTIME_THREADS_MAX, RUNTIME_THREADS_MIN};
use crate::run;
use crate::telemetry::{self, LogFormat};

/// 0 stopped by a signal, 1 configuration wrong, 2 unreadable, 3 cannot run.
pub(super) fn main(file: &Path, format: LogFormat) -> ExitCode {
    telemetry::init(format);
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("the configuration cannot be used:\n{error}");
            return ExitCode::from(if matches!(error, ConfigError::Wrong(_)) { 1 } else { 2 });
        }
    };
    raise_open_files();
    // Two threads: one for the node, one for whatever blocks it least. Gates and probes have their own. More, where there are
    // processors for them, encrypt the connections of a session side by side.
    let processors = std::thread::available_parallelism().map_or(RUNTIME_THREADS_MIN, NonZero::get);
    let threads = processors.clamp(RUNTIME_THREADS_MIN, RUNTIME_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run::run(file, loaded, Box::new(NvmlDevices::default()), pending())),
        Err(source) => Err(run::RunError::Kernel { step: "starting the runtime", source }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(3)
        }
    }
}

/// Every process takes two descriptors, so the usual soft limit of 1024 would be the real limit of seats.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files; it bounds the seats"),
    }
}
