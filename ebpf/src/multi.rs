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
    status::Mode,
    sys::{Runs, When, link_uprobes, load_uprobe_multi},
};

/// The programs of a suite, loaded so that one link can attach each to many sites.
#[derive(Debug)]
pub(crate) enum MultiPrograms {
    /// One program for entries and returns.
    Session(OwnedFd),
    /// One for each, or for entries only.
    Apart { enter: OwnedFd, leave: Option<OwnedFd> },
}

impl MultiPrograms {
    /// Loads the one program for both ends over maps that exist already; `None` if the suite has none.
    pub(crate) fn load_session(
        object: &[u8],
        suite: Suite,
        map_fd: impl Fn(&str) -> Option<RawFd>,
    ) -> Option<Result<Self, String>> {
        let load = |name| load(object, name, Runs::BothEnds, map_fd).map(Self::Session);
        suite.session.map(load)
    }

    /// Loads the programs over maps that exist already.
    pub(crate) fn load(
        object: &[u8],
        suite: Suite,
        map_fd: impl Fn(&str) -> Option<RawFd>,
    ) -> Result<Self, String> {
        let load = |name| load(object, name, Runs::OneEnd, &map_fd);
        Ok(Self::Apart { enter: load(suite.enter)?, leave: suite.leave.map(load).transpose()? })
    }

    /// By what means its links attach.
    pub(crate) const fn mode(&self) -> Mode {
        match self {
            Self::Session(_) => Mode::UprobeSession,
            Self::Apart { .. } => Mode::UprobeMulti,
        }
    }

    /// Attaches the programs; answers the links, each of which detaches when it is closed. Returns come first, so that every
    /// start that is seen can also end.
    pub(crate) fn attach(&self, path: &CStr, sites: &[Site]) -> io::Result<Vec<OwnedFd>> {
        let offsets: Vec<u64> = sites.iter().map(|site| site.offset).collect();
        let cookies: Vec<u64> = sites.iter().map(|site| site.cookie).collect();
        let link = |program: &OwnedFd, when| link_uprobes(program.as_fd(), path, &offsets, &cookies, when);
        match self {
            Self::Session(program) => Ok(vec![link(program, When::Session)?]),
            Self::Apart { enter, leave } => {
                let mut links = Vec::with_capacity(2);
                if let Some(leave) = leave {
                    links.push(link(leave, When::Return)?);
                }
                links.push(link(enter, When::Entry)?);
                Ok(links)
            }
        }
    }
}

fn load(
    object: &[u8],
    name: &str,
    runs: Runs,
    map_fd: impl Fn(&str) -> Option<RawFd>,
) -> Result<OwnedFd, String> {
    let instructions = relocated(object, name, map_fd)?;
    load_uprobe_multi(name, &instructions, runs).map_err(|error| format!("loading {name}: {error}"))
}
