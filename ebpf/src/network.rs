//! The probe of TCP connections, as [`crate::Probes`] holds it.

use std::collections::{BTreeMap, BTreeSet};

#[expect(deprecated, reason = "the map that works without CO-RE; see the kernel program")]
use aya::maps::cgroup_storage::{CgroupStorage, CgroupStorageKey};
use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, PerCpuHashMap},
    programs::{CgroupAttachMode, SockOps, sock_ops::SockOpsLink},
};
use aya_obj::generated::bpf_attach_type::BPF_CGROUP_SOCK_OPS;
use headgate_ebpf_records::{
    border::{LOCAL, UNKNOWN},
    counters::Sockets,
    events::{self, PeerKey},
    limits::DISTRICTS_MAX,
    maps,
    slots::Slot,
};

use crate::{
    cgroup::Cgroup,
    enforce::{Cidr, check_ranges, write_ranges},
    error::{Error, chain},
    figures::{Durations, SocketCounts},
    objects::{absent_is_fine, load_object, program},
    status::{Mode, Probe, ProbeStatus, State},
    sys,
};

/// A slot's connections, by the district of their other end.
pub type Peers = BTreeMap<String, PeerCounts>;

/// What a tenant's connections to one district did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Round trips.
    pub round_trips: Durations,
    /// Connections and segments sent again.
    pub sockets: SocketCounts,
}

#[derive(Debug)]
pub(crate) struct Rtt {
    attachments: BTreeMap<u64, SockOpsLink>,
    /// Names of districts by index; an empty one is free.
    districts: Vec<String>,
    /// Which of the two tables that share a trie is in force.
    generation: u32,
    pub(crate) ebpf: Ebpf,
    /// Why the last cgroup was refused, until one is accepted.
    trouble: Option<String>,
}

impl Rtt {
    pub(crate) fn load(object: &[u8]) -> Result<Self, String> {
        let mut ebpf = load_object(object, &[])?;
        program::<&mut SockOps>(&mut ebpf, maps::SOCKET_EVENT)?.load().map_err(|error| chain(&error))?;
        let mut districts = vec![String::new(); DISTRICTS_MAX as usize];
        for (index, name) in [(UNKNOWN, "_unknown"), (LOCAL, "_local")] {
            name.clone_into(&mut districts[usize::from(index)]);
        }
        let mut rtt = Self { attachments: BTreeMap::new(), districts, generation: 0, ebpf, trouble: None };
        // Loopback is this machine, whatever the districts are.
        rtt.set_districts(&[]).map_err(|error| error.to_string())?;
        Ok(rtt)
    }

    pub(crate) fn status(&self) -> ProbeStatus {
        let idle = self.attachments.is_empty();
        let reason = match &self.trouble {
            Some(trouble) => trouble.clone(),
            None if idle => "no tenant has a cgroup yet".to_owned(),
            None => String::new(),
        };
        ProbeStatus {
            probe: Probe::NetworkRtt,
            state: if idle { State::Idle } else { State::Up },
            mode: (!idle).then_some(Mode::CgroupLink),
            reason,
        }
    }

    pub(crate) fn set(&mut self, cgroup: &Cgroup, slot: Slot) -> Result<(), Error> {
        let outcome = self.attach(cgroup).and_then(|()| self.name(cgroup, slot)).map_err(|reason| {
            self.attachments.remove(&cgroup.id());
            Error::kernel(Probe::NetworkRtt, "attaching to a cgroup's sockets", reason)
        });
        self.trouble = outcome.as_ref().err().map(ToString::to_string);
        outcome
    }

    pub(crate) fn remove(&mut self, cgroup_id: u64) {
        self.attachments.remove(&cgroup_id);
    }

    fn attach(&mut self, cgroup: &Cgroup) -> Result<(), String> {
        if self.attachments.contains_key(&cgroup.id()) {
            return Ok(());
        }
        let program: &mut SockOps = program(&mut self.ebpf, maps::SOCKET_EVENT)?;
        // A link is always one of several on its cgroup, whatever the mode; `Single` sends no flags, which links want.
        let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
        let link = program.take_link(id).map_err(|error| chain(&error))?;
        self.attachments.insert(cgroup.id(), link);
        Ok(())
    }

    /// Tells the attachment whose it is.
    #[expect(deprecated, reason = "the map that works without CO-RE; see the kernel program")]
    fn name(&mut self, cgroup: &Cgroup, slot: Slot) -> Result<(), String> {
        let map = self
            .ebpf
            .map_mut(maps::ATTACHED)
            .ok_or_else(|| "the object holds no attachment storage".to_owned())?;
        let mut storage: CgroupStorage<&mut MapData, events::Attached> =
            map.try_into().map_err(|error: MapError| chain(&error))?;
        let key = CgroupStorageKey::new(cgroup.id(), BPF_CGROUP_SOCK_OPS as u32);
        let attached = events::Attached { cgroup_id: cgroup.id(), row: slot.row(), reserved: 0 };
        storage.insert(key, attached, 0).map_err(|error| chain(&error))
    }

    /// Puts a new address table into force. A name keeps its index for as long as it is listed; one that is taken over starts
    /// with no figures.
    pub(crate) fn set_districts(&mut self, districts: &[(String, Vec<Cidr>)]) -> Result<(), Error> {
        let refused =
            |error: MapError| Error::kernel(Probe::NetworkRtt, "writing the address table", chain(&error));
        let listed: BTreeSet<&str> = districts.iter().map(|(name, _)| name.as_str()).collect();
        let mut ranges = Vec::new();
        for (name, cidrs) in districts {
            let index = match self.districts.iter().position(|known| known == name) {
                Some(index) => index,
                None => self.take_index(&listed, name).map_err(refused)?,
            };
            let index = u8::try_from(index)
                .map_err(|_| Error::Full { what: "districts", limit: DISTRICTS_MAX as usize })?;
            ranges.extend(cidrs.iter().map(|cidr| (*cidr, index)));
        }
        let table = check_ranges(&ranges)?;
        let next = 1 - self.generation;
        write_ranges(&mut self.ebpf, &table, next).map_err(refused)?;
        let map = self
            .ebpf
            .map_mut(maps::GENERATION)
            .ok_or_else(|| refused(MapError::InvalidName { name: maps::GENERATION.to_owned() }))?;
        let mut generation: Array<&mut MapData, u32> = map.try_into().map_err(refused)?;
        generation.set(0, next, 0).map_err(refused)?;
        self.generation = next;
        // The old table is cleared by the next change; programs that still read it must have ended by then.
        if let Err(error) = sys::wait_for_programs() {
            tracing::debug!(%error, "no grace period could be asked for; the next table is written later anyway");
        }
        Ok(())
    }

    /// An index for a new name: one never used, or one whose name is listed no more. [`DISTRICTS_MAX`] if there is none.
    fn take_index(&mut self, listed: &BTreeSet<&str>, name: &str) -> Result<usize, MapError> {
        let own = usize::from(LOCAL) + 1;
        let free = |known: &String| known.is_empty() || !listed.contains(known.as_str());
        let Some(index) = self.districts.iter().skip(own).position(free).map(|index| index + own) else {
            return Ok(usize::MAX);
        };
        if !self.districts[index].is_empty() {
            self.forget(|key| key.district as usize == index)?;
        }
        name.clone_into(&mut self.districts[index]);
        Ok(index)
    }

    pub(crate) fn clear(&mut self, row: u32) -> Result<(), MapError> {
        self.forget(|key| key.row == row)
    }

    fn forget(&mut self, whose: impl Fn(&PeerKey) -> bool) -> Result<(), MapError> {
        let map = self
            .ebpf
            .map_mut(maps::SOCKETS)
            .ok_or_else(|| MapError::InvalidName { name: maps::SOCKETS.to_owned() })?;
        let mut sockets: PerCpuHashMap<&mut MapData, PeerKey, Sockets> = map.try_into()?;
        let stale: Vec<PeerKey> = sockets.keys().filter_map(Result::ok).filter(whose).collect();
        stale.iter().try_for_each(|key| absent_is_fine(sockets.remove(key)))
    }

    pub(crate) fn peers(&self) -> Result<BTreeMap<Slot, Peers>, Error> {
        let refused =
            |error: MapError| Error::kernel(Probe::NetworkRtt, "reading tenants' sockets", chain(&error));
        let map = self
            .ebpf
            .map(maps::SOCKETS)
            .ok_or_else(|| refused(MapError::InvalidName { name: maps::SOCKETS.to_owned() }))?;
        let sockets: PerCpuHashMap<&MapData, PeerKey, Sockets> = map.try_into().map_err(refused)?;
        let mut all: BTreeMap<Slot, Peers> = BTreeMap::new();
        // An entry that goes while the table is read makes the kernel start over: each is taken once.
        let keys: BTreeSet<PeerKey> = sockets.keys().filter_map(Result::ok).collect();
        for key in keys {
            let (Some(slot), Ok(values)) = (Slot::from_row(key.row), sockets.get(&key, 0)) else { continue };
            let name = self.districts.get(key.district as usize).filter(|name| !name.is_empty());
            let name = name.unwrap_or(&self.districts[usize::from(UNKNOWN)]).clone();
            let peer = all.entry(slot).or_default().entry(name).or_default();
            for cpu in values.iter() {
                peer.round_trips.add(&cpu.round_trips);
                peer.sockets.established = peer.sockets.established.wrapping_add(cpu.established);
                peer.sockets.retransmits = peer.sockets.retransmits.wrapping_add(cpu.retransmits);
            }
        }
        Ok(all)
    }
}
