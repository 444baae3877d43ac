//! What the kernel refuses on the daemon's behalf, whether or not the daemon is there.
//!
//! ```text
//!              open                            retire
//!   (nothing) ------> standing, held --------------------------> (nothing)
//!                      |          ^
//!       drop, kill -9  |          | open: adopted, programs renewed in place
//!                      v          |
//!                   standing, alone
//! ```
//! Tenants and districts go by name here and not by slot: what stands alone must be found again by whoever comes next.

mod border;
mod cidr;
mod devices;
mod gate;
mod guard;
mod load;
mod pins;
mod registry;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
};

use headgate_ebpf_records::{
    border::{LOCAL, Reason, UNKNOWN},
    counters::Counter,
    limits::TENANTS_MAX,
    maps,
    policy::{Mode, Policy},
};

pub use border::{Budget, FlowBytes, RefusalCounts};
pub(crate) use border::{check_ranges, write_ranges};
pub use cidr::{Cidr, CidrError};
pub use devices::{DeviceClass, Devices};
pub use gate::Open;
pub use guard::Side;

use crate::{
    attest::code_of,
    cgroup::Cgroup,
    error::{Error, chain},
    library::LibraryId,
    limits::{OPENS_PER_DRAIN_MAX, TENANTS_DEFAULT},
    object::{COMMITTED, Objects},
    probes::with_advice,
    rows,
    status::{self, Part, PartStatus, State},
};
use border::Border;
use gate::Gate;
use guard::Guards;
use pins::Pins;
use registry::Registry;

/// Where enforcement lives and whom it can reach.
#[derive(Debug)]
pub struct EnforcementConfig<'cgroup> {
    /// A directory for pins, by custom `/sys/fs/bpf/headgate`. It is made if need be, and so is a BPF file system for it.
    pub pins: PathBuf,
    /// The cgroup that the programs sit on: an ancestor of every tenant's, often the root of the hierarchy. What is not below
    /// it is not governed.
    pub governed: &'cgroup Cgroup,
    /// Tenants to make room for, at most [`TENANTS_MAX`]. Pins that are there already keep their size.
    pub tenants: u32,
}

impl<'cgroup> EnforcementConfig<'cgroup> {
    /// The usual places and sizes.
    #[must_use]
    pub fn new(governed: &'cgroup Cgroup) -> Self {
        Self { pins: PathBuf::from("/sys/fs/bpf/headgate"), governed, tenants: TENANTS_DEFAULT }
    }
}

/// A tenant's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The district that its data may not leave; `None` for a tenant that is bound to none.
    pub home: Option<String>,
    /// What happens to traffic that would leave it. [`Mode::Off`] without a home.
    pub border: Mode,
    /// The GPU channel's port at the other end, over TCP or UDP: the one way out, within the budget. Zero for none.
    pub channel_port: u16,
    /// What happens to a process that opens a GPU without an attested hook.
    pub gate: Mode,
}

/// The other end of a tenant's traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// An address of no known district.
    Unknown,
    /// This machine.
    Local,
    /// A district.
    District(String),
}

impl Peer {
    /// The label in metrics: the district's name, `_unknown` or `_local`.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Unknown => "_unknown",
            Self::Local => "_local",
            Self::District(name) => name,
        }
    }
}

/// The kernel's refusals, as the daemon holds them. Dropping it leaves them standing; [`Enforcement::retire`] ends them.
#[derive(Debug)]
pub struct Enforcement {
    // Before the registry and the pins they use.
    guards: Result<Guards, String>,
    border: Result<Border, String>,
    gate: Result<Gate, String>,
    tables: Result<(Registry, Pins), String>,
    has_ranges: bool,
}

impl Enforcement {
    /// Takes over what stands in the pin directory, or sets it up. Never fails: [`Enforcement::status`] says what is missing
    /// and why.
    ///
    /// An adopted tenant keeps its rules, cgroups, budget and figures until it is set again; at no instant is a program absent.
    #[must_use]
    pub fn open(config: &EnforcementConfig<'_>) -> Self {
        Self::open_objects(config, COMMITTED)
    }

    pub(crate) fn open_objects(config: &EnforcementConfig<'_>, objects: Objects) -> Self {
        let tables = open_tables(config).map_err(|error| with_advice(chain(&error)));
        let (border, gate, guards) = match &tables {
            Err(reason) => (Err(reason.clone()), Err(reason.clone()), Err(reason.clone())),
            Ok((registry, pins)) => {
                let rows = registry.rows();
                let mut border =
                    Border::open(objects.border, pins, rows, config.governed).map_err(with_advice);
                let gate = Gate::open(objects.gate, pins, rows, config.governed).map_err(with_advice);
                let guards = match &mut border {
                    Ok(border) => Guards::adopt(border, pins).map_err(with_advice),
                    Err(reason) => Err(reason.clone()),
                };
                (border, gate, guards)
            }
        };
        if let (Ok((_, pins)), true, true) = (&tables, border.is_ok(), gate.is_ok())
            && let Err(error) = pins.retire_other_layouts()
        {
            tracing::warn!(%error, "pins of another version could not be removed; both enforce");
        }
        let this = Self { guards, border, gate, tables, has_ranges: false };
        for status in this.status() {
            tracing::info!(part = status.part.name(), state = ?status.state, reason = status.reason, "kernel enforcement");
        }
        this
    }

    /// How each part stands.
    #[must_use]
    pub fn status(&self) -> Vec<PartStatus> {
        let up = |part, mode, reason: &str| PartStatus {
            part,
            state: State::Up,
            mode: Some(mode),
            reason: reason.to_owned(),
        };
        let missing = |part, reason: &String| PartStatus {
            part,
            state: State::Missing,
            mode: None,
            reason: reason.clone(),
        };
        vec![
            match &self.border {
                Ok(_) if self.has_ranges => up(Part::Residency, status::Mode::PinnedLink, ""),
                Ok(_) => up(Part::Residency, status::Mode::PinnedLink, "no address table has been set yet"),
                Err(reason) => missing(Part::Residency, reason),
            },
            match &self.guards {
                Ok(guards) if guards.count() > 0 => up(Part::RawFrameGuard, status::Mode::Tcx, ""),
                Ok(_) => PartStatus {
                    part: Part::RawFrameGuard,
                    state: State::Idle,
                    mode: None,
                    reason: "no interface is guarded yet".to_owned(),
                },
                Err(reason) => missing(Part::RawFrameGuard, reason),
            },
            match &self.gate {
                Ok(_) => up(Part::DeviceGate, status::Mode::PinnedLink, ""),
                Err(reason) => missing(Part::DeviceGate, reason),
            },
        ]
    }

    /// The tenants that have rows, adopted ones included.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().flat_map(|(registry, _)| registry.tenants().keys().map(String::as_str))
    }

    /// The districts that have names, past ones included.
    pub fn districts(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().flat_map(|(registry, _)| registry.districts().keys().map(String::as_str))
    }

    /// Says which addresses lie in which district: the whole table, in force at once for every packet. Of overlapping ranges
    /// the narrower counts. Loopback needs no entry; this machine's own addresses do.
    ///
    /// # Errors
    /// [`Error::Full`] past the limits, [`Error::RangeTwice`], [`Error::Name`], [`Error::PartMissing`] or what the kernel
    /// refuses. The table before stays in force then.
    pub fn set_districts<'name>(
        &mut self,
        districts: impl IntoIterator<Item = (&'name str, Vec<Cidr>)>,
    ) -> Result<(), Error> {
        let (registry, _) = tables(&mut self.tables)?;
        let border = self.border.as_mut().map_err(|_| Error::PartMissing(Part::Residency))?;
        let mut ranges = Vec::new();
        for (name, of_district) in districts {
            let index = registry.enter_district(name)?;
            ranges.extend(of_district.into_iter().map(|range| (range, index)));
        }
        border.set_ranges(registry, &ranges)?;
        self.has_ranges = true;
        Ok(())
    }

    /// Sets a tenant's rules and cgroups, live; a new tenant gets a row. The rules are in force before the cgroups are.
    ///
    /// Processes in these cgroups and below them are the tenant's, and so are the sockets they make; of nested ones the
    /// innermost decides. Naming another tenant's cgroup takes it from that tenant.
    ///
    /// # Errors
    /// [`Error::NoDistrict`] if the home has no name yet, [`Error::Full`], [`Error::Name`], or what the kernel refuses.
    pub fn set_tenant<'cgroup>(
        &mut self,
        tenant: &str,
        rules: &Rules,
        cgroups: impl IntoIterator<Item = &'cgroup Cgroup>,
    ) -> Result<(), Error> {
        let (registry, _) = tables(&mut self.tables)?;
        let policy = match &rules.home {
            Some(home) => Policy::new(rules.border, registry.district(home)?, rules.channel_port, rules.gate),
            None => Policy::new(Mode::Off, UNKNOWN, 0, rules.gate),
        };
        let row = registry.enter_tenant(tenant)?;
        registry.set_policy(row, policy);
        let ids: BTreeSet<u64> = cgroups.into_iter().map(Cgroup::id).collect();
        registry.set_cgroups(row, &ids)
    }

    /// Forgets a tenant: its processes, if any are left, are nobody's and under no rules; its budgets and figures are gone.
    ///
    /// # Errors
    /// [`Error::NoTenant`], or what the kernel refuses.
    pub fn remove_tenant(&mut self, tenant: &str) -> Result<(), Error> {
        let (registry, _) = tables(&mut self.tables)?;
        let row = registry.row_of(tenant)?;
        registry.leave_tenant(tenant)?;
        if let Ok(border) = &mut self.border {
            border.clear(row)?;
        }
        if let Ok(gate) = &mut self.gate {
            gate.clear(row)?;
        }
        Ok(())
    }

    /// From now on, so many bytes may pass from a tenant to a district on the GPU channel, and not one more; what was left
    /// before is void. Bytes are those of IP packets as they are on the wire, headers and repeated segments included.
    ///
    /// # Errors
    /// [`Error::NoTenant`], [`Error::NoDistrict`], [`Error::PartMissing`].
    pub fn refill(&mut self, tenant: &str, district: &str, bytes: u64) -> Result<(), Error> {
        let (row, index) = self.cell(tenant, district)?;
        self.loaded_border()?.refill(row, index, bytes);
        Ok(())
    }

    /// A tenant's budget towards a district, as it is now.
    ///
    /// # Errors
    /// As [`Enforcement::refill`].
    pub fn budget(&self, tenant: &str, district: &str) -> Result<Budget, Error> {
        let (row, index) = self.cell(tenant, district)?;
        Ok(self.loaded_border()?.budget(row, index))
    }

    /// Bytes between a tenant and every district that has a name, this machine and the unknown.
    ///
    /// # Errors
    /// [`Error::NoTenant`], [`Error::PartMissing`], or what the kernel refuses.
    pub fn flows(&self, tenant: &str) -> Result<BTreeMap<Peer, FlowBytes>, Error> {
        let border = self.loaded_border()?;
        let (registry, _) = self.tables.as_ref().map_err(|_| Error::PartMissing(Part::Residency))?;
        let row = registry.row_of(tenant)?;
        let named = registry.districts().iter().map(|(name, index)| (Peer::District(name.clone()), *index));
        [(Peer::Unknown, UNKNOWN), (Peer::Local, LOCAL)]
            .into_iter()
            .chain(named)
            .map(|(peer, index)| Ok((peer, border.flow(row, index)?)))
            .collect()
    }

    /// What a tenant was refused, or would have been, by reason.
    ///
    /// # Errors
    /// [`Error::NoTenant`], or what the kernel refuses.
    pub fn refusals(&self, tenant: &str) -> Result<BTreeMap<Reason, RefusalCounts>, Error> {
        let (registry, _) = self.tables.as_ref().map_err(|_| Error::PartMissing(Part::Residency))?;
        let row = registry.row_of(tenant)?;
        let mut counts = BTreeMap::new();
        for reason in Reason::ALL {
            let is_gates = matches!(reason, Reason::Unattested | Reason::Rdma);
            let read = match (&self.border, &self.gate) {
                (_, Ok(gate)) if is_gates => {
                    RefusalCounts::read(&gate.ebpf, maps::GATE_REFUSALS, row, reason)
                }
                (Ok(border), _) if !is_gates => {
                    RefusalCounts::read(&border.ebpf, maps::REFUSALS, row, reason)
                }
                _ => continue,
            };
            let part = if is_gates { Part::DeviceGate } else { Part::Residency };
            counts
                .insert(reason, read.map_err(|error| Error::part(part, "reading refusals", chain(&error)))?);
        }
        Ok(counts)
    }

    /// Guards a network interface of a tenant, by its number in the calling thread's network namespace. The guard's
    /// refusals are counted for this tenant and follow its mode.
    ///
    /// # Errors
    /// [`Error::NoTenant`], [`Error::PartMissing`], or what the kernel refuses.
    pub fn guard_interface(&mut self, tenant: &str, interface: u32, side: Side) -> Result<(), Error> {
        let (registry, pins) = tables(&mut self.tables)?;
        let row = registry.row_of(tenant)?;
        let border = self.border.as_mut().map_err(|_| Error::PartMissing(Part::RawFrameGuard))?;
        let guards = self.guards.as_mut().map_err(|_| Error::PartMissing(Part::RawFrameGuard))?;
        guards.set(border, pins, interface, side, row)?;
        // What a CPU remembers of this interface is from before.
        registry.next_epoch();
        Ok(())
    }

    /// Takes a guard off an interface. One that was not there is no error.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or what the kernel refuses.
    pub fn unguard_interface(&mut self, interface: u32, side: Side) -> Result<(), Error> {
        let (registry, pins) = tables(&mut self.tables)?;
        let border = self.border.as_mut().map_err(|_| Error::PartMissing(Part::RawFrameGuard))?;
        let guards = self.guards.as_mut().map_err(|_| Error::PartMissing(Part::RawFrameGuard))?;
        guards.remove(border, pins, interface, side)?;
        registry.next_epoch();
        Ok(())
    }

    /// Says which devices the gate guards: exactly these from now on. Usually [`Devices::of_this_node`], asked again now and
    /// then, since drivers get their numbers when they are loaded. Cheap if nothing changed.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or what the kernel refuses.
    pub fn set_devices(&mut self, devices: &Devices) -> Result<(), Error> {
        self.loaded_gate()?.set_devices(devices)
    }

    /// Attests a process after looking at its memory: the hook's file is mapped as code, and still is once the kernel knows.
    /// Answers where. From then on the process may open GPUs; the kernel revokes that when it executes another program or ends.
    ///
    /// The number alone does not say which process is meant: whoever holds a pidfd should check afterwards that it has not ended.
    ///
    /// # Errors
    /// [`Error::NoHook`] if the hook is not there, [`Error::PartMissing`], [`Error::Part`] if the table is full.
    pub fn attest_process(&mut self, process: u32, hook: LibraryId) -> Result<Range<u64>, Error> {
        let look = || {
            code_of(process, hook)
                .map_err(|source| Error::NoHook { process, reason: source.to_string() })?
                .ok_or_else(|| Error::NoHook { process, reason: "its file is not mapped as code".to_owned() })
        };
        let text = look()?;
        self.attest(process, &text)?;
        // It may have executed another program just before it was entered, too early to be revoked.
        match look() {
            Ok(still) if still == text => Ok(text),
            other => {
                self.revoke(process)?;
                Err(other
                    .err()
                    .unwrap_or_else(|| Error::NoHook { process, reason: "it has just moved".to_owned() }))
            }
        }
    }

    /// Attests a process on the caller's word: its hook's code lies in this range.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or what the kernel refuses.
    pub fn attest(&mut self, process: u32, hook_code: &Range<u64>) -> Result<(), Error> {
        self.loaded_gate()?.attest(process, hook_code)
    }

    /// Takes an attestation back. Devices that are open stay open. One that was not there is no error.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or what the kernel refuses.
    pub fn revoke(&mut self, process: u32) -> Result<(), Error> {
        self.loaded_gate()?.revoke(process)
    }

    /// The attested processes and where each has its hook, those of an earlier loader included.
    ///
    /// # Errors
    /// [`Error::PartMissing`], or what the kernel refuses.
    pub fn attested(&self) -> Result<BTreeMap<u32, Range<u64>>, Error> {
        self.gate.as_ref().map_err(|_| Error::PartMissing(Part::DeviceGate))?.attested()
    }

    /// Readable when an open waits to be drained; `None` if the gate is missing.
    #[must_use]
    pub fn opens_fd(&self) -> Option<BorrowedFd<'_>> {
        self.gate.as_ref().ok().map(|gate| gate.opens.as_fd())
    }

    /// Hands out attempts of tenants' processes without an attested hook to open a GPU, oldest first, those made while nobody held
    /// the gate included; answers how many. Never blocks. Such a process should be looked at for a copy of the driver
    /// ([`crate::Probes::attach_process`]).
    pub fn drain_opens(&mut self, mut each: impl FnMut(Open)) -> usize {
        let (Ok((registry, _)), Ok(gate)) = (&self.tables, &mut self.gate) else { return 0 };
        let mut drained = 0;
        while drained < OPENS_PER_DRAIN_MAX {
            let Some(record) = gate.opens.next() else { break };
            drained += 1;
            match gate::read_open(&record) {
                Some((row, open)) => each(Open { tenant: registry.tenant_at(row), ..open }),
                None => tracing::warn!(bytes = record.len(), "malformed open record; is the object current?"),
            }
        }
        drained
    }

    /// What the programs gave up on: opens that were not told because the ring buffer was full.
    ///
    /// # Errors
    /// [`Error::Part`] if the kernel refuses.
    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, Error> {
        let mut counters = BTreeMap::from([(Counter::GateUntold, 0)]);
        if let Ok(gate) = &self.gate {
            rows::add_counters(&gate.ebpf, &mut counters)
                .map_err(|error| Error::part(Part::DeviceGate, "reading counters", chain(&error)))?;
        }
        Ok(counters)
    }

    /// Ends all enforcement and removes its pins.
    ///
    /// # Errors
    /// [`Error::Pins`] if they cannot be removed.
    pub fn retire(self) -> Result<(), Error> {
        let root = match &self.tables {
            Ok((_, pins)) => pins.root().to_owned(),
            // Nothing of ours was made.
            Err(_) => return Ok(()),
        };
        retire(&root)
    }

    fn cell(&self, tenant: &str, district: &str) -> Result<(u32, u8), Error> {
        let (registry, _) = self.tables.as_ref().map_err(|_| Error::PartMissing(Part::Residency))?;
        Ok((registry.row_of(tenant)?, registry.district(district)?))
    }

    fn loaded_border(&self) -> Result<&Border, Error> {
        self.border.as_ref().map_err(|_| Error::PartMissing(Part::Residency))
    }

    fn loaded_gate(&mut self) -> Result<&mut Gate, Error> {
        self.gate.as_mut().map_err(|_| Error::PartMissing(Part::DeviceGate))
    }
}

/// Ends the enforcement that stands in a pin directory, whoever set it up and still holds it.
///
/// # Errors
/// [`Error::Pins`] if the pins cannot be removed.
pub fn retire(pins: &std::path::Path) -> Result<(), Error> {
    pins::retire(pins)
}

fn open_tables(config: &EnforcementConfig<'_>) -> Result<(Registry, Pins), Error> {
    let pins = Pins::open(&config.pins)?;
    let registry = Registry::open(&pins, config.tenants.min(TENANTS_MAX))?;
    Ok((registry, pins))
}

fn tables(tables: &mut Result<(Registry, Pins), String>) -> Result<(&mut Registry, &Pins), Error> {
    match tables {
        Ok((registry, pins)) => Ok((registry, pins)),
        Err(_) => Err(Error::PartMissing(Part::Residency)),
    }
}
