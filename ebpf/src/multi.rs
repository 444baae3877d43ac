//! All sites of a library by one link.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd, RawFd},
};

use headgate_ebpf_records::maps;

use crate::{
    object::relocated,
    sys::{When, link_uprobes, load_uprobe_multi},
};

/// The wait programs, loaded so that one link can attach each to many sites.
#[derive(Debug)]
pub(crate) struct MultiPrograms {
    enter: OwnedFd,
    leave: OwnedFd,
}

/// A library attached by two links.
#[derive(Debug)]
pub(crate) struct MultiLinks {
    // Dropped in this order: with entries gone first no wait starts that could not end.
    _enter: OwnedFd,
    _leave: OwnedFd,
}

impl MultiPrograms {
    /// Loads the wait programs over maps that exist already.
    pub(crate) fn load(object: &[u8], map_fd: impl Fn(&str) -> Option<RawFd>) -> Result<Self, String> {
        let load = |name: &str| {
            let instructions = relocated(object, name, &map_fd)?;
            load_uprobe_multi(name, &instructions).map_err(|error| format!("loading {name}: {error}"))
        };
        Ok(Self { enter: load(maps::WAIT_ENTER)?, leave: load(maps::WAIT_LEAVE)? })
    }

    /// Attaches both programs. Returns come first, so that every start that is seen can also end.
    pub(crate) fn attach(&self, path: &CStr, offsets: &[u64]) -> io::Result<MultiLinks> {
        let leave = link_uprobes(self.leave.as_fd(), path, offsets, When::Return)?;
        let enter = link_uprobes(self.enter.as_fd(), path, offsets, When::Entry)?;
        Ok(MultiLinks { _enter: enter, _leave: leave })
    }
}
