//! The border's loader: address tables, budgets, figures.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key},
    programs::ProgramError,
};
use aya_obj::generated::bpf_attach_type::{
    self, BPF_CGROUP_INET_EGRESS, BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET4_CONNECT,
    BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG,
};
use headgate_ebpf_records::{
    border::{
        AddressV4, AddressV6, Flow, LOCAL, REASONS, Reason, Refusals, Spend, control, district_row,
        refusal_row,
    },
    limits::{DISTRICTS_MAX, RANGES_MAX},
    maps,
};

use crate::{
    cgroup::Cgroup,
    enforce::{
        cidr::{Cidr, RangeKey},
        load::{Bound, load_bound},
        pins::Pins,
        registry::Registry,
    },
    error::{Error, chain},
    mapped::MappedWords,
    rows,
    status::Part,
    sys,
};

/// The programs on the governed cgroup, and how each is attached.
const PROGRAMS: [(&str, bpf_attach_type); 6] = [
    (maps::BORDER_EGRESS, BPF_CGROUP_INET_EGRESS),
    (maps::BORDER_INGRESS, BPF_CGROUP_INET_INGRESS),
    (maps::BORDER_CONNECT4, BPF_CGROUP_INET4_CONNECT),
    (maps::BORDER_CONNECT6, BPF_CGROUP_INET6_CONNECT),
    (maps::BORDER_SENDMSG4, BPF_CGROUP_UDP4_SENDMSG),
    (maps::BORDER_SENDMSG6, BPF_CGROUP_UDP6_SENDMSG),
];

/// 64-bit words of one [`Spend`].
const SPEND_WORDS: usize = size_of::<Spend>() / size_of::<u64>();

pub(crate) struct Border {
    pub(crate) ebpf: Ebpf,
    grants: MappedWords,
    spends: MappedWords,
    /// Descriptors of the pinned links: they keep what is attached attached if somebody removes the pins under us.
    _links: Vec<OwnedFd>,
}

impl std::fmt::Debug for Border {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Border").finish_non_exhaustive()
    }
}

impl Border {
    pub(crate) fn open(object: &[u8], pins: &Pins, rows: u32, governed: &Cgroup) -> Result<Self, String> {
        let per_district = rows * DISTRICTS_MAX;
        let mut ebpf = load_bound(
            object,
            pins,
            &[
                Bound::pinned(maps::CGROUPS),
                Bound::pinned(maps::POLICIES).entries(rows),
                Bound::pinned(maps::CONTROL),
                Bound::pinned(maps::RANGES_V4),
                Bound::pinned(maps::RANGES_V6),
                Bound::pinned(maps::GRANTS).entries(per_district),
                Bound::pinned(maps::SPENDS).entries(per_district),
                Bound::pinned(maps::FLOWS).entries(per_district),
                Bound::pinned(maps::REFUSALS).entries(rows * REASONS),
                Bound::pinned(maps::GUARDED),
            ],
        )?;
        let mapped = |name: &str, words: usize| {
            let fd = ebpf.map(name).and_then(rows::borrowed_fd_of).ok_or_else(|| format!("no map {name}"))?;
            MappedWords::map(fd, words).map_err(|error| format!("mapping {name}: {error}"))
        };
        let grants = mapped(maps::GRANTS, per_district as usize)?;
        let spends = mapped(maps::SPENDS, per_district as usize * SPEND_WORDS)?;
        let mut links = Vec::with_capacity(PROGRAMS.len());
        for (name, attach_type) in PROGRAMS {
            let program =
                ebpf.program_mut(name).ok_or_else(|| format!("the object holds no program {name}"))?;
            load_program(program).map_err(|error| format!("{name}: {}", chain(&error)))?;
            let fd = program.fd().map_err(|error| chain(&error))?.as_fd();
            let link = pins
                .link_cgroup(name, fd, governed.as_fd(), governed.id(), attach_type)
                .map_err(|error| format!("attaching {name}: {error}"))?;
            links.push(link);
        }
        Ok(Self { ebpf, grants, spends, _links: links })
    }

    /// Puts a new address table into force, as a whole: a packet is judged by the old one or by the new one.
    pub(crate) fn set_ranges(&mut self, registry: &Registry, ranges: &[(Cidr, u8)]) -> Result<(), Error> {
        let table = check_ranges(ranges)?;
        let next = 1 - registry.word(control::GENERATION).min(1);
        let refused =
            |error: MapError| Error::part(Part::Residency, "writing the address table", chain(&error));
        write_ranges(&mut self.ebpf, &table, next).map_err(refused)?;
        registry.set_word(control::GENERATION, next);
        registry.next_epoch();
        // The old table is cleared by the next change; programs that still read it must have ended by then.
        if let Err(error) = sys::wait_for_programs() {
            tracing::debug!(%error, "no grace period could be asked for; the next table is written later anyway");
        }
        Ok(())
    }

    /// From now on so many bytes may pass, and not one more. What is left of an earlier grant is void.
    pub(crate) fn refill(&self, row: u32, district: u8, bytes: u64) {
        let index = district_row(row, district) as usize;
        // `passed` is never too high, so what was granted never exceeds what has passed by more than the bytes asked for.
        let passed = self.spends.load(index * SPEND_WORDS + 1);
        self.grants.store(index, passed.saturating_add(bytes));
    }

    pub(crate) fn budget(&self, row: u32, district: u8) -> Budget {
        let index = district_row(row, district) as usize;
        let granted = self.grants.load(index);
        let taken = self.spends.load(index * SPEND_WORDS);
        Budget { remaining: granted.saturating_sub(taken), passed: self.spends.load(index * SPEND_WORDS + 1) }
    }

    pub(crate) fn flow(&self, row: u32, district: u8) -> Result<FlowBytes, Error> {
        let values = rows::read::<Flow>(&self.ebpf, maps::FLOWS, district_row(row, district))
            .map_err(|error| Error::part(Part::Residency, "reading a tenant's bytes", chain(&error)))?;
        Ok(values.iter().fold(FlowBytes::default(), |sum, cpu| FlowBytes {
            egress: sum.egress.wrapping_add(cpu.egress),
            ingress: sum.ingress.wrapping_add(cpu.ingress),
        }))
    }

    /// Sets a row to what a new tenant begins with.
    pub(crate) fn clear(&mut self, row: u32) -> Result<(), Error> {
        let refused =
            |error: MapError| Error::part(Part::Residency, "clearing a tenant's figures", chain(&error));
        for index in 0..DISTRICTS_MAX {
            let cell = row * DISTRICTS_MAX + index;
            // Nothing granted, whatever was taken.
            self.grants.store(cell as usize, 0);
            rows::fill(&mut self.ebpf, maps::FLOWS, cell, Flow::EMPTY).map_err(refused)?;
        }
        for reason in Reason::ALL {
            rows::fill(&mut self.ebpf, maps::REFUSALS, refusal_row(row, reason), Refusals::EMPTY)
                .map_err(refused)?;
        }
        Ok(())
    }
}

/// A budget now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that may still pass.
    pub remaining: u64,
    /// Bytes that have passed on it, ever.
    pub passed: u64,
}

/// Bytes of IP packets between a tenant and a district.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowBytes {
    /// Sent by the tenant.
    pub egress: u64,
    /// Received by it.
    pub ingress: u64,
}

/// How often something was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalCounts {
    /// Refused.
    pub refused: u64,
    /// Let through because the tenant is only audited.
    pub audited: u64,
}

impl RefusalCounts {
    pub(crate) fn read(ebpf: &Ebpf, map: &str, row: u32, reason: Reason) -> Result<Self, MapError> {
        let values = rows::read::<Refusals>(ebpf, map, refusal_row(row, reason))?;
        Ok(values.iter().fold(Self::default(), |sum, cpu| Self {
            refused: sum.refused.wrapping_add(cpu.refused),
            audited: sum.audited.wrapping_add(cpu.audited),
        }))
    }
}

/// The ranges with loopback's, if no range is two districts' and the tries hold them all.
pub(crate) fn check_ranges(ranges: &[(Cidr, u8)]) -> Result<BTreeMap<Cidr, u8>, Error> {
    let mut table: BTreeMap<Cidr, u8> = Cidr::loopback().into_iter().map(|range| (range, LOCAL)).collect();
    for (range, district) in ranges {
        if let Some(other) = table.insert(*range, *district)
            && other != *district
        {
            return Err(Error::RangeTwice { range: *range });
        }
    }
    if table.len() > RANGES_MAX as usize {
        return Err(Error::Full { what: "address ranges", limit: RANGES_MAX as usize });
    }
    Ok(table)
}

/// Writes the table of one generation into an object's tries, in the place of what it was.
pub(crate) fn write_ranges(
    ebpf: &mut Ebpf,
    table: &BTreeMap<Cidr, u8>,
    generation: u32,
) -> Result<(), MapError> {
    clear(&mut trie::<AddressV4>(ebpf, maps::RANGES_V4)?, |key| key.generation == generation)?;
    clear(&mut trie::<AddressV6>(ebpf, maps::RANGES_V6)?, |key| key.generation == generation)?;
    for (range, district) in table {
        let district = u32::from(*district);
        match range.key(generation) {
            RangeKey::V4(key) => trie::<AddressV4>(ebpf, maps::RANGES_V4)?.insert(&key, district, 0)?,
            RangeKey::V6(key) => trie::<AddressV6>(ebpf, maps::RANGES_V6)?.insert(&key, district, 0)?,
        }
    }
    Ok(())
}

fn trie<'ebpf, K: aya::Pod>(
    ebpf: &'ebpf mut Ebpf,
    name: &str,
) -> Result<LpmTrie<&'ebpf mut MapData, K, u32>, MapError> {
    ebpf.map_mut(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?.try_into()
}

fn clear<K: aya::Pod>(
    trie: &mut LpmTrie<&mut MapData, K, u32>,
    stale: impl Fn(&K) -> bool,
) -> Result<(), MapError> {
    let mut keys: Vec<Key<K>> = Vec::new();
    for key in trie.keys() {
        let key = key?;
        if stale(&key.data()) {
            keys.push(key);
        }
    }
    keys.iter().try_for_each(|key| trie.remove(key))
}

/// Loads a program of any of the kinds used here.
pub(crate) fn load_program(program: &mut aya::programs::Program) -> Result<(), ProgramError> {
    use aya::programs::Program;
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupDevice(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Every map of the object that a refusal's count is read from.
pub(crate) fn map_of<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<&'ebpf mut Map, MapError> {
    ebpf.map_mut(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
}
