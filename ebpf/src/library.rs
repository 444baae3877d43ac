//! Driver libraries: which file is which, and how one is attached.
//!
//! A uprobe belongs to an inode, not to a path or a process. A container that brings its own libcuda has another inode,
//! so every (device, inode) is attached once, and however many names lead to it.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};

use crate::{
    error::{Error, chain},
    limits::DETACHERS_MAX,
    multi::MultiPrograms,
    probes::AttachPreference,
    site::{Site, Wanted, sites},
    status::Mode,
};

/// A file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LibraryId {
    /// Device number of its file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl LibraryId {
    /// The file that a path leads to.
    ///
    /// # Errors
    /// If it leads nowhere.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// What attaching a library came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Which file.
    pub library: LibraryId,
    /// By what means.
    pub mode: Mode,
    /// Distinct code addresses probed.
    pub sites: usize,
    /// Of those, how many the kernel must single-step (some ten times the cost of the others).
    pub single_stepped: usize,
    /// Exported names covered, sorted.
    pub symbols: Vec<String>,
    /// Whether it had been attached before, so that this call changed nothing.
    pub already: bool,
}

/// An open library file.
#[derive(Debug)]
pub(crate) struct LibraryFile {
    file: File,
    id: LibraryId,
}

impl LibraryFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Library { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let id = LibraryId { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { file, id })
    }

    pub(crate) const fn id(&self) -> LibraryId {
        self.id
    }

    /// The sites of each set of functions.
    pub(crate) fn sites<const SETS: usize>(
        &self,
        path: &Path,
        wanted: [Wanted; SETS],
    ) -> Result<[Vec<Site>; SETS], Error> {
        sites(&self.file, path, wanted)
    }

    /// A path that leads to this very file even if its name now leads elsewhere.
    fn stable_path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// Programs that are attached together: at the entry of functions, and at their return if they come in pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) enter: &'static str,
    pub(crate) leave: Option<&'static str>,
    /// One program that does for both.
    pub(crate) session: Option<&'static str>,
}

impl Suite {
    /// Returns before entries, so that every start that is seen can also end.
    fn names(self) -> impl Iterator<Item = &'static str> {
        self.leave.into_iter().chain([self.enter])
    }
}

/// One thing that holds a library attached; dropping it detaches, and waits for the kernel's grace period.
#[derive(Debug)]
enum Link {
    Multi(#[expect(dead_code, reason = "held for its drop")] OwnedFd),
    Perf(#[expect(dead_code, reason = "held for its drop")] UProbeLink),
}

/// A library attached.
#[derive(Debug)]
pub(crate) struct Library {
    links: Vec<Link>,
    report: Attached,
}

impl Library {
    pub(crate) fn report(&self, already: bool) -> Attached {
        Attached { already, ..self.report.clone() }
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.report.mode
    }
}

/// Detaches libraries, all their links side by side: each waits for a grace period of its own, and these pass together.
pub(crate) fn detach(libraries: impl IntoIterator<Item = Library>) {
    let links: Vec<Link> = libraries.into_iter().flat_map(|library| library.links).collect();
    let share = links.len().div_ceil(DETACHERS_MAX).max(1);
    let mut links = links.into_iter().peekable();
    std::thread::scope(|scope| {
        while links.peek().is_some() {
            let batch: Vec<Link> = links.by_ref().take(share).collect();
            let outcome = std::thread::Builder::new()
                .name("headgate-detach".to_owned())
                .spawn_scoped(scope, || drop(batch));
            if let Err(error) = outcome {
                // The batch went with the closure, so it is detached all the same, only here.
                tracing::debug!(%error, "no thread to detach probes on");
            }
        }
    });
}

/// The ways this kernel offers to attach a suite, found out by using them.
#[derive(Debug)]
pub(crate) struct Engine {
    suite: Suite,
    /// The one program for entries and returns; `None` if there is none, or if the kernel refused it or its link.
    session: Option<MultiPrograms>,
    /// The programs for one link per library each, or why they are not used.
    multi: Result<MultiPrograms, String>,
    /// Whether aya has loaded the programs for perf events.
    perf_loaded: bool,
}

impl Engine {
    /// Loads the programs for the ways preferred; for perf events only if no other is to be had.
    pub(crate) fn load(
        ebpf: &mut Ebpf,
        object: &[u8],
        suite: Suite,
        preference: AttachPreference,
    ) -> Result<Self, String> {
        let session = (preference == AttachPreference::Best)
            .then(|| MultiPrograms::load_session(object, suite, |name| map_fd(ebpf, name)))
            .flatten();
        let session = session.and_then(|session| {
            session
                .inspect_err(
                    |error| tracing::info!(%error, "no sessions here; entries and returns are probed apart"),
                )
                .ok()
        });
        let multi = if preference == AttachPreference::PerfOnly {
            Err("perf events were asked for".to_owned())
        } else {
            MultiPrograms::load(object, suite, |name| map_fd(ebpf, name))
        };
        let mut engine = Self { suite, session, multi, perf_loaded: false };
        if engine.session.is_none() && engine.multi.is_err() {
            engine.load_perf(ebpf)?;
        }
        Ok(engine)
    }

    /// Why the cheaper way is not used; empty if it is.
    pub(crate) fn fallback_reason(&self) -> &str {
        self.multi.as_ref().err().map_or("", String::as_str)
    }

    fn load_perf(&mut self, ebpf: &mut Ebpf) -> Result<(), String> {
        if self.perf_loaded {
            return Ok(());
        }
        for name in self.suite.names() {
            uprobe(ebpf, name)?.load().map_err(|error| chain(&error))?;
        }
        self.perf_loaded = true;
        Ok(())
    }

    /// Attaches a library by the best way that works. A kernel that loads programs and then refuses their link (before Linux
    /// 6.6 the attach type is not checked when loading) is remembered as one without.
    pub(crate) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        file: &LibraryFile,
        sites: &[Site],
    ) -> Result<Library, String> {
        let path = file.stable_path();
        let linked = |programs: &MultiPrograms| {
            let links = programs.attach(&c_string(&path), sites)?;
            let links = links.into_iter().map(Link::Multi).collect();
            Ok::<_, std::io::Error>(Library { links, report: report(file.id(), programs.mode(), sites) })
        };
        if let Some(programs) = &self.session {
            match linked(programs) {
                Ok(library) => return Ok(library),
                Err(error) => {
                    tracing::info!(%error, "a session was refused; entries and returns are probed apart from now on");
                    self.session = None;
                }
            }
        }
        if let Ok(programs) = &self.multi {
            match linked(programs) {
                Ok(library) => return Ok(library),
                Err(error) => {
                    tracing::info!(%error, "one link for many uprobes was refused; using perf events from now on");
                    self.multi = Err(format!("linking many uprobes: {error}"));
                }
            }
        }
        self.load_perf(ebpf)?;
        let links = attach_perf(ebpf, self.suite, &path, sites)?;
        Ok(Library { links, report: report(file.id(), Mode::UprobePerf, sites) })
    }
}

fn report(library: LibraryId, mode: Mode, sites: &[Site]) -> Attached {
    let mut symbols: Vec<String> = sites.iter().flat_map(|site| site.symbols.iter().cloned()).collect();
    symbols.sort();
    let single_stepped = sites.iter().filter(|site| !site.cheap).count();
    Attached { library, mode, sites: sites.len(), single_stepped, symbols, already: false }
}

fn attach_perf(ebpf: &mut Ebpf, suite: Suite, path: &str, sites: &[Site]) -> Result<Vec<Link>, String> {
    let mut links = Vec::with_capacity(2 * sites.len());
    for name in suite.names() {
        for site in sites {
            let program = uprobe(ebpf, name)?;
            let location = UProbeAttachLocation::AbsoluteOffset(site.offset);
            // Kernels before 5.15 know no cookies; the wait programs need none.
            let cookie = (site.cookie != 0).then_some(site.cookie);
            let id = program
                .attach(UProbeAttachPoint { location, cookie }, path, UProbeScope::AllProcesses)
                .map_err(|error| format!("{name} at {:#x}: {}", site.offset, chain(&error)))?;
            links.push(Link::Perf(program.take_link(id).map_err(|error| chain(&error))?));
        }
    }
    Ok(links)
}

fn uprobe<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<&'ebpf mut UProbe, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object holds no program {name}"))?;
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn map_fd(ebpf: &Ebpf, name: &str) -> Option<RawFd> {
    crate::rows::fd_of(ebpf.map(name)?)
}

fn c_string(path: &str) -> CString {
    // `/proc/self/fd/N` holds no zero byte; an empty path would be refused by the kernel, not misread.
    CString::new(path).unwrap_or_else(|_| CStr::to_owned(c""))
}
