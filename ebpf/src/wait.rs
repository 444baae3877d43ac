//! The probe of synchronous calls, and of launches while they are audited, as [`crate::Probes`] holds it.

use std::{collections::BTreeMap, sync::Arc};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use headgate_ebpf_records::{
    events::{Cell, CellKey},
    histogram::Histogram,
    maps,
    slots::Slot,
};

use crate::{
    cells::Change,
    error::{Error, chain},
    library::{Attached, Engine, Library, LibraryFile, LibraryId, Suite},
    objects::{absent_is_fine, load_object, naming, remove_row, set_row, write_epoch},
    probes::AttachPreference,
    rows,
    site::Site,
    status::{Mode, Part, Probe, ProbeStatus, State},
};

/// The programs on synchronous calls.
const WAITS: Suite =
    Suite { enter: maps::WAIT_ENTER, leave: Some(maps::WAIT_LEAVE), session: Some(maps::WAIT_SESSION) };

/// Those on launches, on demand.
const LAUNCHES: Suite =
    Suite { enter: maps::WAIT_LAUNCH, leave: Some(maps::WAIT_LAUNCHED), session: Some(maps::LAUNCH_SESSION) };

/// The arrays of histograms, each with a row for every tenant and cell.
const HISTOGRAMS: [&str; 3] = [maps::WAITS, maps::LAUNCH_TIMES, maps::SPANS];

#[derive(Debug)]
pub(crate) struct Wait {
    // Before the programs and maps they use.
    libraries: BTreeMap<LibraryId, Watched>,
    engine: Engine,
    launches: Result<Engine, String>,
    /// Whether launches are audited now.
    auditing: bool,
    epoch: u32,
    pub(crate) ebpf: Ebpf,
    /// Why the last library was refused, until one is accepted.
    pub(crate) trouble: Option<String>,
}

/// A library whose synchronous calls are probed.
#[derive(Debug)]
struct Watched {
    file: Arc<LibraryFile>,
    waits: Library,
    launch_sites: Vec<Site>,
    launches: Option<Library>,
}

impl Watched {
    fn into_links(self) -> impl Iterator<Item = Library> {
        [self.waits].into_iter().chain(self.launches)
    }
}

impl Wait {
    pub(crate) fn load(object: &[u8], rows: u32, attach: AttachPreference) -> Result<Self, String> {
        let mut ebpf = load_object(object, &HISTOGRAMS.map(|map| (map, rows)))?;
        let engine = Engine::load(&mut ebpf, object, WAITS, attach)?;
        let launches = Engine::load(&mut ebpf, object, LAUNCHES, attach);
        let libraries = BTreeMap::new();
        let mut wait = Self { libraries, engine, launches, auditing: false, epoch: 0, ebpf, trouble: None };
        wait.next_epoch().map_err(|error| error.to_string())?;
        Ok(wait)
    }

    pub(crate) fn status(&self) -> ProbeStatus {
        let mode = self.libraries.values().map(|watched| watched.waits.mode()).max();
        let mut reasons: Vec<&str> = self.trouble.as_deref().into_iter().collect();
        if self.libraries.is_empty() && reasons.is_empty() {
            reasons.push("no driver library has been found yet");
        }
        if mode == Some(Mode::UprobePerf) {
            reasons.push(self.engine.fallback_reason());
        }
        let state = if self.libraries.is_empty() { State::Idle } else { State::Up };
        ProbeStatus { probe: Probe::GpuWait, state, mode, reason: reasons.join("; ") }
    }

    /// What attaching a library came to, if it is.
    pub(crate) fn known(&self, library: LibraryId) -> Option<Attached> {
        Some(self.libraries.get(&library)?.waits.report(true))
    }

    pub(crate) fn libraries(&self) -> impl Iterator<Item = LibraryId> {
        self.libraries.keys().copied()
    }

    pub(crate) fn attach(
        &mut self,
        file: Arc<LibraryFile>,
        sites: &[Site],
        launch_sites: Vec<Site>,
    ) -> Result<Attached, Error> {
        let waits = self
            .engine
            .attach(&mut self.ebpf, &file, sites)
            .map_err(|reason| Error::kernel(Probe::GpuWait, "attaching to the driver library", reason))?;
        let report = waits.report(false);
        let mut watched = Watched { file, waits, launch_sites, launches: None };
        if self.auditing {
            audit(&mut self.launches, &mut self.ebpf, &mut watched)?;
        }
        self.libraries.insert(watched.file.id(), watched);
        Ok(report)
    }

    /// Lets a library go; its links are the caller's to drop.
    pub(crate) fn release(&mut self, library: LibraryId) -> Vec<Library> {
        self.libraries.remove(&library).into_iter().flat_map(Watched::into_links).collect()
    }

    /// Lets every library go.
    pub(crate) fn release_all(&mut self) -> Vec<Library> {
        std::mem::take(&mut self.libraries).into_values().flat_map(Watched::into_links).collect()
    }

    pub(crate) fn audit_launches(&mut self) -> Result<(), Error> {
        self.auditing = true;
        let mut libraries = self.libraries.values_mut();
        libraries.try_for_each(|watched| audit(&mut self.launches, &mut self.ebpf, watched))
    }

    /// Ends it; the links are the caller's to drop.
    pub(crate) fn end_launch_audit(&mut self) -> Vec<Library> {
        self.auditing = false;
        self.libraries.values_mut().filter_map(|watched| watched.launches.take()).collect()
    }

    pub(crate) fn set(&mut self, cgroup_id: u64, slot: Slot) -> Result<(), Error> {
        set_row(&mut self.ebpf, cgroup_id, slot).map_err(naming(Probe::GpuWait))?;
        self.next_epoch()
    }

    pub(crate) fn remove(&mut self, cgroup_id: u64) -> Result<(), Error> {
        remove_row(&mut self.ebpf, cgroup_id).map_err(naming(Probe::GpuWait))?;
        self.next_epoch()
    }

    pub(crate) fn seat(&mut self, change: &Change) -> Result<(), Error> {
        write_cells(&mut self.ebpf, change)
            .map_err(|error| Error::kernel(Probe::GpuWait, "seating processes", chain(&error)))?;
        self.next_epoch()
    }

    pub(crate) fn clear(&mut self, row: u32) -> Result<(), MapError> {
        HISTOGRAMS.iter().try_for_each(|map| rows::fill(&mut self.ebpf, map, row, Histogram::EMPTY))
    }

    /// Makes every thread look its tenant up again. After the table has changed, never before.
    fn next_epoch(&mut self) -> Result<(), Error> {
        // Zero is what a thread that never looked has; skipping it costs one comparison in four billion changes.
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        write_epoch(&mut self.ebpf, self.epoch)
            .map_err(|error| Error::kernel(Probe::GpuWait, "starting a new epoch", chain(&error)))
    }
}

fn audit(engine: &mut Result<Engine, String>, ebpf: &mut Ebpf, watched: &mut Watched) -> Result<(), Error> {
    if watched.launches.is_none() && !watched.launch_sites.is_empty() {
        let refused = |reason: String| Error::part(Part::LaunchAudit, "timing launches", reason);
        let engine = engine.as_mut().map_err(|reason| refused(reason.clone()))?;
        let links = engine.attach(ebpf, &watched.file, &watched.launch_sites).map_err(refused)?;
        watched.launches = Some(links);
    }
    Ok(())
}

/// Tells an object who sits where.
pub(crate) fn write_cells(ebpf: &mut Ebpf, change: &Change) -> Result<(), MapError> {
    let map =
        ebpf.map_mut(maps::CELLS).ok_or_else(|| MapError::InvalidName { name: maps::CELLS.to_owned() })?;
    let mut cells: HashMap<&mut MapData, CellKey, Cell> = map.try_into()?;
    for key in &change.gone {
        absent_is_fine(cells.remove(key))?;
    }
    change.seated.iter().try_for_each(|(key, cell)| cells.insert(key, cell, 0))
}
