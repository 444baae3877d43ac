//! Which entry points the drivers on this node have that nothing stands in front of.
//!
//! A driver may be newer than the hook's table. Each driver library that a process has loaded is read once, whatever its
//! names: its list of exports, nothing else, and on the probes' thread, so that no program waits for it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use headgate_abi::cuda::coverage;
use headgate_ebpf::LibraryId;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSymbol as _, ReadCache};
use serde::{Deserialize, Serialize};

use crate::limits::{DRIVER_BYTES_MAX, DRIVERS_MAX};

/// What the libraries are called, up to their version.
const CUDA: &str = "libcuda.so";
const NVML: &str = "libnvidia-ml.so";

/// An entry point that takes memory, starts work or tells of memory, and is neither hooked nor reviewed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Unhooked {
    /// `libcuda` or `libnvidia-ml`.
    pub library: String,
    /// Its name.
    pub symbol: String,
    /// What its name says it does.
    pub does: String,
}

/// The drivers seen so far.
#[derive(Debug, Default)]
pub struct Drivers(BTreeMap<LibraryId, Vec<Unhooked>>);

/// Whether a file is named as a library of the driver.
#[must_use]
pub fn is_driver(path: &Path) -> bool {
    library(path).is_some()
}

fn library(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    [CUDA, NVML].into_iter().find(|library| name.starts_with(library))
}

impl Drivers {
    /// Reads a driver library that has not been read yet.
    pub fn note(&mut self, path: &Path) {
        let Some(library) = library(path) else { return };
        let Ok(id) = LibraryId::of(path) else { return };
        if self.0.contains_key(&id) || DRIVERS_MAX <= self.0.len() {
            return;
        }
        match unhooked(path, library) {
            Ok(found) => {
                if !found.is_empty() {
                    let names: Vec<&str> = found.iter().map(|entry| entry.symbol.as_str()).collect();
                    tracing::warn!(
                        library = %path.display(), symbols = names.join(", "),
                        "this driver has entry points that nothing stands in front of; a newer Headgate may know them"
                    );
                }
                self.0.insert(id, found);
            }
            Err(error) => {
                tracing::debug!(library = %path.display(), %error, "a driver library cannot be read");
            }
        }
    }

    /// Every entry point that some driver has and nothing stands in front of; `None` while no driver has been seen.
    #[must_use]
    pub fn unhooked(&self) -> Option<Vec<Unhooked>> {
        let mut all: Vec<Unhooked> = self.0.values().flatten().cloned().collect();
        all.sort();
        all.dedup();
        (!self.0.is_empty()).then_some(all)
    }
}

/// Entry points of a library that matter and have nothing in front of them.
fn unhooked(path: &Path, library: &str) -> io::Result<Vec<Unhooked>> {
    // A tenant's container can put anything there: a pipe must not hold us up, nor a huge file fill our memory.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || DRIVER_BYTES_MAX < metadata.len() {
        return Err(io::Error::other("no regular file of a driver's size"));
    }
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).map_err(io::Error::other)?;
    let does = if library == CUDA { coverage::unhooked } else { coverage::unhooked_nvml };
    let names = elf.dynamic_symbols().filter(|symbol| symbol.is_definition()).filter_map(|symbol| {
        let name = symbol.name().ok()?.to_owned();
        // Private entry points have other prefixes; programs do not call them.
        (name.starts_with("cu") || name.starts_with("nvml")).then_some(name)
    });
    let mut found: Vec<Unhooked> = names
        .filter_map(|symbol| {
            let does = does(&symbol)?.to_owned();
            Some(Unhooked { library: library.trim_end_matches(".so").to_owned(), symbol, does })
        })
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn build(directory: &Path, name: &str, functions: &[&str]) -> std::path::PathBuf {
        let source = directory.join("driver.c");
        let code: String =
            functions.iter().map(|name| format!("int {name}(void) {{ return 0; }}\n")).collect();
        std::fs::write(&source, code).unwrap();
        let library = directory.join(name);
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(status.unwrap().success());
        library
    }

    #[test]
    fn a_newer_driver_shows_what_nobody_stands_in_front_of() {
        let directory = tempfile::tempdir().unwrap();
        let mut drivers = Drivers::default();
        assert_eq!(drivers.unhooked(), None, "nothing is known before a driver was seen");
        let known =
            ["cuMemAlloc_v2", "cuMemAddressReserve", "cuDeviceGetCount", "cuDeviceGetFavouriteColour"];
        drivers.note(&build(directory.path(), "libcuda.so.1", &known));
        assert_eq!(drivers.unhooked(), Some(vec![]));
        let newer = build(directory.path(), "libcuda.so.999", &["cuMemAlloc_v2", "cuMemAllocSideways_v7"]);
        drivers.note(&newer);
        drivers.note(&newer);
        let found = drivers.unhooked().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].symbol.as_str(), found[0].does.as_str()),
            ("cuMemAllocSideways_v7", "allocates")
        );
        drivers.note(&build(directory.path(), "libnvidia-ml.so.1", &["nvmlDeviceGetMemoryInfo_v7"]));
        assert_eq!(drivers.unhooked().unwrap().len(), 2);
        drivers.note(&build(directory.path(), "libother.so.1", &["cuMemAllocNever"]));
        assert_eq!(drivers.unhooked().unwrap().len(), 2, "no driver by its name");
    }

    #[test]
    fn what_is_no_library_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, text) = (directory.path().join("libcuda.so.1"), directory.path().join("libcuda.so.2"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&text, "no ELF").unwrap();
        let mut drivers = Drivers::default();
        drivers.note(&pipe);
        drivers.note(&text);
        assert_eq!(drivers.unhooked(), None);
    }
}
