//! All sites of a library by one link.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd, RawFd},
};

use crate::{
    library::Suite,
    object::relocated,
    site::Site,
    sys::{When, link_uprobes, load_uprobe_multi},
};

/// The programs of a suite, loaded so that one link can attach each to many sites.
#[derive(Debug)]
pub(crate) struct MultiPrograms {
    enter: OwnedFd,
    leave: Option<OwnedFd>,
}

impl MultiPrograms {
    /// Loads the programs over maps that exist already.
    pub(crate) fn load(
        object: &[u8],
        suite: Suite,
        map_fd: impl Fn(&str) -> Option<RawFd>,
    ) -> Result<Self, String> {
        let load = |name: &str| {
            let instructions = relocated(object, name, &map_fd)?;
            load_uprobe_multi(name, &instructions).map_err(|error| format!("loading {name}: {error}"))
        };
        Ok(Self { enter: load(suite.enter)?, leave: suite.leave.map(load).transpose()? })
    }

    /// Attaches the programs; answers the links, each of which detaches when it is closed. Returns come first, so that every
    /// start that is seen can also end.
    pub(crate) fn attach(&self, path: &CStr, sites: &[Site]) -> io::Result<Vec<OwnedFd>> {
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let cookies: Vec<u64> = sites.iter().map(|site| site.cookie).collect();
        let mut links = Vec::with_capacity(2);
        if let Some(leave) = &self.leave {
            links.push(link_uprobes(leave.as_fd(), path, &offsets, &cookies, When::Return)?);
        }
        links.push(link_uprobes(self.enter.as_fd(), path, &offsets, &cookies, When::Entry)?);
        Ok(links)
    }
}
