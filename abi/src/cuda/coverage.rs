//! What an entry point's name says it does, and so whether one that nobody stands in front of matters.
//!
//! ```text
//! name --> in the table and hooked ------------------> covered
//!      \-> reviewed (fixtures/reviewed.txt) ---------> harmless, for the reason given there
//!       \-> in the table, in a metered family -------> unhooked
//!        \-> not in the table, but a word of it says
//!            that it takes memory or starts work ----> unhooked
//! ```
//!
//! Two readers: the contract test, which compares the tables with a real driver library and the newest headers, and
//! the daemon, which compares them with the driver that a process really has. A driver newer than the tables so shows
//! as a figure instead of as memory that nobody counted.

use super::symbols::{self, Disposition};

/// Why entry points that could matter are let through, one a line: `name: because`.
const REVIEWED: &str = include_str!("../../fixtures/reviewed.txt");

/// A word in a name of the driver API, and what it says of the function.
pub const RULES: &[(&str, &str)] = &[
    ("Alloc", "allocates"),
    ("MemCreate", "allocates"),
    ("PoolCreate", "allocates"),
    ("ArrayCreate", "allocates"),
    ("Array3DCreate", "allocates"),
    ("MulticastCreate", "allocates"),
    ("EndpointCreate", "allocates"),
    ("CtxCreate", "allocates: a context takes memory"),
    ("Retain", "allocates, or keeps memory alive"),
    ("Attach", "allocates, or keeps memory alive"),
    ("SetLimit", "allocates: stacks and heaps"),
    ("Restore", "allocates: what a checkpoint gave back"),
    ("Free", "frees"),
    ("Destroy", "frees"),
    ("Release", "frees"),
    ("Reset", "frees"),
    ("TrimTo", "frees"),
    ("MemTrim", "frees"),
    ("Map", "maps"),
    ("Unmap", "unmaps"),
    ("Bind", "maps"),
    ("Unbind", "unmaps"),
    ("Import", "imports"),
    ("Export", "exports"),
    ("Ipc", "imports or exports"),
    ("Register", "maps host memory"),
    ("Launch", "launches"),
    ("Upload", "launches"),
    ("GraphAdd", "builds what is launched"),
    ("Instantiate", "makes ready to launch"),
    ("ExecUpdate", "makes ready to launch"),
    ("Capture", "records what would be launched"),
    ("GreenCtx", "takes a share of the SMs"),
    ("MemGet", "reports memory"),
    ("TotalMem", "reports memory"),
    ("MemAttribute", "reports memory"),
    ("PoolGet", "reports memory"),
];

/// The same for NVML, which only reports.
pub const NVML_RULES: &[(&str, &str)] =
    &[("Mem", "reports memory"), ("Process", "reports processes"), ("Accounting", "reports processes")];

/// What a name says, by the first of `rules` that matches.
#[must_use]
pub fn says(name: &str, rules: &'static [(&str, &str)]) -> Option<&'static str> {
    rules.iter().find(|(word, _)| name.contains(word)).map(|(_, says)| *says)
}

/// Every reviewed name with its reason.
pub fn reviewed() -> impl Iterator<Item = (&'static str, &'static str)> {
    REVIEWED
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .filter_map(|line| line.split_once(": "))
}

/// What an entry point of the driver does that nobody sees, if it does anything that matters.
#[must_use]
pub fn unhooked(name: &str) -> Option<&'static str> {
    if reviewed().any(|(known, _)| known == name) {
        return None;
    }
    match symbols::by_elf_name(name).map(symbols::Symbol::row) {
        Some(row) if row.disposition == Disposition::Hooked => None,
        Some(row) => row.family.is_metered().then(|| says(name, RULES).unwrap_or("is metered")),
        None => says(name, RULES),
    }
}

/// As [`unhooked`], for NVML.
#[must_use]
pub fn unhooked_nvml(name: &str) -> Option<&'static str> {
    let hooked = crate::nvml::ROWS.iter().any(|row| row.hooked && row.elf_name == name);
    if hooked || reviewed().any(|(known, _)| known == name) { None } else { says(name, NVML_RULES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_unhooked_if_its_name_says_so() {
        assert_eq!(unhooked("cuMemAllocFromTheFuture_v9"), Some("allocates"));
        assert_eq!(unhooked("cuLaunchSomethingNew_ptsz"), Some("launches"));
        assert_eq!(unhooked("cuDeviceGetFavouriteColour"), None);
        assert_eq!(unhooked_nvml("nvmlDeviceGetMemoryInfo_v9"), Some("reports memory"));
    }

    #[test]
    fn what_is_hooked_or_reviewed_is_not() {
        assert_eq!(unhooked("cuMemAlloc_v2"), None);
        assert_eq!(unhooked("cuGLUnmapBufferObject"), None, "reviewed, and in no table");
        assert_eq!(unhooked("cuMemAddressReserve"), None, "reviewed, and in the table");
        assert_eq!(unhooked_nvml("nvmlDeviceGetMemoryInfo_v2"), None);
        assert_eq!(unhooked_nvml("nvmlDeviceGetMemoryBusWidth"), None);
    }
}
