//! The directory in which enforcement outlives its loader.
//!
//! ```text
//! ROOT/                          on a BPF file system; mounted if it is not on one yet
//! └── v1/                        one directory per layout of the records
//!     ├── POLICIES, GRANTS, ..   maps
//!     ├── border_egress, ..      links: the program stays attached as long as the file or a descriptor is there
//!     └── guard-IFINDEX-SIDE     links of interface guards
//! ```
//! A loader that finds a link there puts its own program in the link's place, which is atomic in the kernel; so an
//! upgrade has no instant without a program, and no instant with two.

use std::{
    ffi::CStr,
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_attach_type;

use crate::{
    error::Error,
    sys::{self, Target},
};

/// Raised whenever a record or map changes in a way that an older loader's pins do not fit.
const LAYOUT: &str = "v1";

/// Where distributions mount the BPF file system.
const USUAL_MOUNT: &str = "/sys/fs/bpf";

/// An open pin directory.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    directory: PathBuf,
}

impl Pins {
    /// Opens the directory, making it and mounting a BPF file system if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let refused = |source: io::Error| Error::Pins { path: root.to_owned(), source };
        ensure_bpffs(root).map_err(refused)?;
        let directory = root.join(LAYOUT);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(refused)?;
        Ok(Self { root: root.to_owned(), directory })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Attaches a cgroup program, in place of the one that a pinned link holds there if there is one.
    pub(crate) fn link_cgroup(
        &self,
        name: &str,
        program: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        cgroup_id: u64,
        attach_type: bpf_attach_type,
    ) -> io::Result<OwnedFd> {
        if let Some(link) = sys::open_pinned(&self.path(name))? {
            // The link of a cgroup that is gone or is not the governed one any more stays until the new one is up.
            if sys::target_of_link(link.as_fd(), false)? == cgroup_id {
                sys::replace_program(link.as_fd(), program)?;
                return Ok(link);
            }
        }
        let link = sys::link(program, Target::Cgroup(cgroup), attach_type)?;
        self.pin_over(name, &link)?;
        Ok(link)
    }

    /// Attaches an interface program, in place of the one that a pinned link holds there if there is one.
    pub(crate) fn link_interface(
        &self,
        name: &str,
        program: BorrowedFd<'_>,
        interface: u32,
        attach_type: bpf_attach_type,
    ) -> io::Result<OwnedFd> {
        if let Some(link) = sys::open_pinned(&self.path(name))?
            && sys::target_of_link(link.as_fd(), true)? == u64::from(interface)
        {
            sys::replace_program(link.as_fd(), program)?;
            return Ok(link);
        }
        let link = sys::link(program, Target::Interface(interface), attach_type)?;
        self.pin_over(name, &link)?;
        Ok(link)
    }

    /// Attaches to a raw tracepoint. Such links cannot change their program: the old one goes when the new one is up.
    pub(crate) fn link_raw_tracepoint(
        &self,
        name: &str,
        program: BorrowedFd<'_>,
        tracepoint: &CStr,
    ) -> io::Result<OwnedFd> {
        let link = sys::link_raw_tracepoint(program, tracepoint)?;
        self.pin_over(name, &link)?;
        Ok(link)
    }

    /// Pins a link under a name, replacing what has it.
    fn pin_over(&self, name: &str, link: &OwnedFd) -> io::Result<()> {
        let fresh = self.path(&format!("{name}-new"));
        remove_if_there(&fresh)?;
        sys::pin(link.as_fd(), &fresh)?;
        fs::rename(&fresh, self.path(name))
    }

    /// Removes one pin. What it held ends with the last descriptor.
    pub(crate) fn unpin(&self, name: &str) -> io::Result<()> {
        remove_if_there(&self.path(name))
    }

    /// Names of pins with a prefix.
    pub(crate) fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.starts_with(prefix)
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes what loaders of other layouts have left, now that ours is up.
    pub(crate) fn retire_other_layouts(&self) -> io::Result<()> {
        layouts(&self.root)?
            .iter()
            .filter(|path| **path != self.directory)
            .try_for_each(|path| remove_tree(path))
    }
}

/// Removes every pin below a root: enforcement ends.
pub(crate) fn retire(root: &Path) -> Result<(), Error> {
    let refused = |source: io::Error| Error::Pins { path: root.to_owned(), source };
    match sys::is_bpffs(root) {
        Ok(true) => {}
        // Nothing of ours is on another kind of file system.
        Ok(false) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
    }
    for layout in layouts(root).map_err(refused)? {
        remove_tree(&layout).map_err(refused)?;
    }
    match fs::remove_dir(root) {
        // A mount point, or somebody else's pins beside ours.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) =>
        {
            Ok(())
        }
        other => other.map_err(refused),
    }
}

/// The directories of all layouts below a root.
fn layouts(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let is_layout = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix('v'))
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
        if is_layout && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Links before maps: a program must not meet a table that is going away half way.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { files.push(entry.path()) }
    }
    // Links have lower-case names, maps upper-case ones, and lower case sorts last.
    files.sort();
    for file in files.iter().rev() {
        // The kernel lets go of what was pinned some time after the pin is gone. Where a link can be ended, it ends here;
        // where not, and for maps, that is the end.
        if let Ok(Some(link)) = sys::open_pinned(file) {
            let _ends_with_its_last_holder = sys::detach(link.as_fd());
        }
        remove_if_there(file)?;
    }
    fs::remove_dir(directory)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Sees to it that a directory can be made at the path, on a BPF file system.
fn ensure_bpffs(root: &Path) -> io::Result<()> {
    let usual = Path::new(USUAL_MOUNT);
    let mut existing = root;
    while !existing.exists() {
        existing = existing.parent().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    }
    if sys::is_bpffs(existing)? {
        return Ok(());
    }
    if root.starts_with(usual) && usual.is_dir() {
        return sys::mount_bpffs(usual);
    }
    fs::create_dir_all(root)?;
    sys::mount_bpffs(root)
}
