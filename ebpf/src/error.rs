//! What can go wrong after loading, by who can do something about it.

use std::{io, path::PathBuf};

use crate::{
    enforce::Cidr,
    status::{Part, Probe},
};

/// A refusal by this crate or by the kernel. None of them stops the probes that are already up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The probe is missing on this node; its status says why.
    #[error("probe {0} is not loaded on this node: see its status for the kernel's reason")]
    NotLoaded(Probe),

    /// The kernel refused something that a loaded probe needs.
    #[error("probe {probe}: {action} was refused by the kernel: {source}")]
    Kernel {
        /// Which probe.
        probe: Probe,
        /// What was asked of the kernel.
        action: &'static str,
        /// The kernel's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A part of enforcement is missing on this node; its status says why.
    #[error("{0} is not loaded on this node: see its status for the kernel's reason")]
    PartMissing(Part),

    /// The kernel refused something that a loaded part needs.
    #[error("{part}: {action} was refused by the kernel: {source}")]
    Part {
        /// Which part.
        part: Part,
        /// What was asked of the kernel.
        action: &'static str,
        /// The kernel's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The directory for pins cannot be used.
    #[error(
        "{path}: enforcement cannot be kept there: {source}; name a directory on a BPF file system (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Pins {
        /// The directory or pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// No such tenant was set.
    #[error("tenant {tenant:?} has no rules in the kernel: set them first")]
    NoTenant {
        /// The name asked for.
        tenant: String,
    },

    /// No such district has a name.
    #[error("district {district:?} has no address ranges: set the districts first")]
    NoDistrict {
        /// The name asked for.
        district: String,
    },

    /// A name that cannot be kept in the kernel.
    #[error("{name:?} cannot name a tenant or district: give it 1 to {limit} bytes, none of them zero")]
    Name {
        /// The name.
        name: String,
        /// Its longest.
        limit: usize,
    },

    /// A table has no room.
    #[error(
        "the kernel's table of {what} holds {limit}: remove some, or retire the pins and open them with more room"
    )]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },

    /// The same addresses are claimed for two districts.
    #[error("{range} is listed for two districts: keep it in one of them")]
    RangeTwice {
        /// The range.
        range: Cidr,
    },

    /// A process without the hook.
    #[error("process {process} cannot be attested: {reason}")]
    NoHook {
        /// Its number.
        process: u32,
        /// What was found instead.
        reason: String,
    },

    /// The path is no cgroup v2 directory.
    #[error(
        "{path}: not a cgroup v2 directory: {reason}; the unified hierarchy is where /proc/mounts shows type cgroup2"
    )]
    NotCgroup {
        /// The path asked for.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },

    /// The slot has no row: the probes were loaded for fewer tenants.
    #[error(
        "tenant index {tenant} has no row: probes were loaded for {rows} tenants; raise the configured number and restart"
    )]
    NoRow {
        /// The tenant's index.
        tenant: u32,
        /// How many tenants have rows.
        rows: u32,
    },

    /// The driver library could not be read.
    #[error("{path}: {source}")]
    Library {
        /// The library.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },

    /// The driver library is not what it should be.
    #[error("{path}: not a driver library that can be probed: {reason}")]
    NotDriver {
        /// The library.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },

    /// Too many libraries at once.
    #[error("{path}: {limit} driver libraries are attached already; detach those whose containers are gone")]
    TooManyLibraries {
        /// The library that was refused.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    pub(crate) fn kernel(
        probe: Probe,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Kernel { probe, action, source: source.into() }
    }

    pub(crate) fn part(
        part: Part,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Part { part, action, source: source.into() }
    }
}

/// An error with its causes on one line. Of a verifier's log only the line that says what was wrong.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = one_line(&inner.to_string());
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

fn one_line(text: &str) -> String {
    // aya's wording; should it change, a reason is long, not wrong.
    match text.split_once("Verifier output: ") {
        Some((refusal, log)) => format!("{refusal}{}", verdict(log)),
        None => text.to_owned(),
    }
}

/// The line of a verifier's log that says what was wrong: the last before its statistics.
pub(crate) fn verdict(log: &str) -> &str {
    let statistics = ["processed ", "verification time ", "stack depth "];
    let mut lines = log.lines().rev().map(str::trim);
    lines
        .find(|line| !line.is_empty() && !statistics.iter().any(|word| line.starts_with(word)))
        .unwrap_or("the verifier left no log")
}

#[cfg(test)]
mod tests {
    use super::{one_line, verdict};

    #[test]
    fn of_a_verifiers_log_only_the_verdict_is_kept() {
        let log =
            "0: R1=ctx()\n1: (85) call\nmath between map_value pointer and register\nprocessed 2 insns\n\n";
        assert_eq!(verdict(log), "math between map_value pointer and register");
        assert_eq!(
            one_line(&format!("loading returned EINVAL. Verifier output: {log}")),
            "loading returned EINVAL. math between map_value pointer and register"
        );
        assert_eq!(one_line("one line"), "one line");
        assert_eq!(verdict(""), "the verifier left no log");
    }
}
