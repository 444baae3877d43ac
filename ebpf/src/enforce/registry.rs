//! Whose rows are whose: names of tenants and districts, tenants' cgroups and rules. All of it lives in pinned maps, so that a
//! loader that comes back finds the tenants where it left them.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya_obj::generated::bpf_map_type::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH};
use headgate_ebpf_records::{
    border::{FIRST_NAMED, NAME_BYTES, Name, control},
    limits::{CGROUPS_MAX, DISTRICTS_MAX},
    maps,
    policy::Policy,
};

use crate::{
    enforce::pins::Pins,
    error::{Error, chain},
    mapped::MappedWords,
    status::Part,
    sys::{self, MapShape},
};

/// [`NAME_BYTES`] as the kernel counts.
const NAME_BYTES_U32: u32 = 64;
const _: () = assert!(NAME_BYTES_U32 as usize == NAME_BYTES);

/// `BPF_F_MMAPABLE` of the UAPI.
const MMAPABLE: u32 = 1 << 10;

pub(crate) struct Registry {
    /// Rows of every per-tenant table, nobody's row zero included. Fixed when the pins were made.
    rows: u32,
    cgroups: HashMap<MapData, u64, u32>,
    policies: MappedWords,
    control: MappedWords,
    tenant_names: Array<MapData, Name>,
    district_names: Array<MapData, Name>,
    tenants: BTreeMap<String, u32>,
    districts: BTreeMap<String, u8>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("tenants", &self.tenants)
            .field("districts", &self.districts)
            .finish()
    }
}

impl Registry {
    /// Finds the tables in the pin directory, or makes them with room for so many tenants.
    pub(crate) fn open(pins: &Pins, tenants: u32) -> Result<Self, Error> {
        let refused =
            |error: MapError| Error::part(Part::Residency, "opening the tables of names", chain(&error));
        let names = |entries| shape(BPF_MAP_TYPE_ARRAY, 4, NAME_BYTES_U32, entries, 0);
        let tenant_names = open_or_make(pins, maps::TENANT_NAMES, names(tenants + 1))?;
        let rows = tenant_names.info().map_err(refused)?.max_entries();
        let district_names = open_or_make(pins, maps::DISTRICT_NAMES, names(DISTRICTS_MAX))?;
        let cgroups = open_or_make(pins, maps::CGROUPS, shape(BPF_MAP_TYPE_HASH, 8, 4, CGROUPS_MAX, 0))?;
        let policies = open_or_make(pins, maps::POLICIES, shape(BPF_MAP_TYPE_ARRAY, 4, 8, rows, MMAPABLE))?;
        let words =
            open_or_make(pins, maps::CONTROL, shape(BPF_MAP_TYPE_ARRAY, 4, 4, control::WORDS, MMAPABLE))?;
        let map = |data: &MapData, words: u32| {
            MappedWords::map(data.fd().as_fd(), words as usize)
                .map_err(|error| Error::part(Part::Residency, "mapping a table", error))
        };
        let mut registry = Self {
            rows,
            policies: map(&policies, rows)?,
            control: map(&words, control::WORDS)?,
            cgroups: typed(cgroups).map_err(refused)?,
            tenant_names: typed(tenant_names).map_err(refused)?,
            district_names: typed(district_names).map_err(refused)?,
            tenants: BTreeMap::new(),
            districts: BTreeMap::new(),
        };
        for row in 1..rows {
            if let Some(name) = registry.tenant_names.get(&row, 0).ok().and_then(text_of) {
                registry.tenants.insert(name, row);
            }
        }
        for index in FIRST_NAMED..DISTRICT_INDEXES {
            if let Some(name) = registry.district_names.get(&u32::from(index), 0).ok().and_then(text_of) {
                registry.districts.insert(name, index);
            }
        }
        if registry.word(control::EPOCH) == 0 {
            registry.next_epoch();
        }
        Ok(registry)
    }

    pub(crate) const fn rows(&self) -> u32 {
        self.rows
    }

    pub(crate) fn tenants(&self) -> &BTreeMap<String, u32> {
        &self.tenants
    }

    pub(crate) fn districts(&self) -> &BTreeMap<String, u8> {
        &self.districts
    }

    pub(crate) fn row_of(&self, tenant: &str) -> Result<u32, Error> {
        self.tenants.get(tenant).copied().ok_or_else(|| Error::NoTenant { tenant: tenant.to_owned() })
    }

    pub(crate) fn tenant_at(&self, row: u32) -> Option<String> {
        self.tenants.iter().find(|(_, of_tenant)| **of_tenant == row).map(|(name, _)| name.clone())
    }

    pub(crate) fn district(&self, name: &str) -> Result<u8, Error> {
        self.districts.get(name).copied().ok_or_else(|| Error::NoDistrict { district: name.to_owned() })
    }

    /// The tenant's row, a free one if it has none yet.
    pub(crate) fn enter_tenant(&mut self, tenant: &str) -> Result<u32, Error> {
        if let Some(row) = self.tenants.get(tenant) {
            return Ok(*row);
        }
        let name = name_of(tenant)?;
        let taken: BTreeSet<u32> = self.tenants.values().copied().collect();
        let row = (1..self.rows)
            .find(|row| !taken.contains(row))
            .ok_or(Error::Full { what: "tenants", limit: self.rows as usize - 1 })?;
        self.tenant_names
            .set(row, name, 0)
            .map_err(|error| Error::part(Part::Residency, "naming a tenant's row", chain(&error)))?;
        self.tenants.insert(tenant.to_owned(), row);
        Ok(row)
    }

    /// Forgets a tenant: its cgroups and rules first, then its name.
    pub(crate) fn leave_tenant(&mut self, tenant: &str) -> Result<(), Error> {
        let row = self.row_of(tenant)?;
        self.set_cgroups(row, &BTreeSet::new())?;
        self.set_policy(row, Policy::default());
        self.tenant_names
            .set(row, Name([0; NAME_BYTES]), 0)
            .map_err(|error| Error::part(Part::Residency, "freeing a tenant's row", chain(&error)))?;
        self.tenants.remove(tenant);
        Ok(())
    }

    /// The district's index, a free one if it has none yet. An index keeps its name for as long as the pins live: figures and
    /// budgets of the past are under it.
    pub(crate) fn enter_district(&mut self, district: &str) -> Result<u8, Error> {
        if let Some(index) = self.districts.get(district) {
            return Ok(*index);
        }
        let name = name_of(district)?;
        let taken: BTreeSet<u8> = self.districts.values().copied().collect();
        let index = (FIRST_NAMED..DISTRICT_INDEXES)
            .find(|index| !taken.contains(index))
            .ok_or(Error::Full { what: "districts", limit: usize::from(DISTRICT_INDEXES - FIRST_NAMED) })?;
        self.district_names
            .set(u32::from(index), name, 0)
            .map_err(|error| Error::part(Part::Residency, "naming a district", chain(&error)))?;
        self.districts.insert(district.to_owned(), index);
        Ok(index)
    }

    /// Makes exactly these cgroups the tenant's. New ones come before old ones go, so that one that was made again under the
    /// same name is never nobody's.
    pub(crate) fn set_cgroups(&mut self, row: u32, wanted: &BTreeSet<u64>) -> Result<(), Error> {
        let refused =
            |error: MapError| Error::part(Part::Residency, "naming a tenant's cgroups", chain(&error));
        let mut has = BTreeSet::new();
        for entry in self.cgroups.iter() {
            let (id, owner) = entry.map_err(refused)?;
            if owner == row {
                has.insert(id);
            }
        }
        for id in wanted.difference(&has) {
            self.cgroups.insert(id, row, 0).map_err(refused)?;
        }
        for id in has.difference(wanted) {
            // Only this loader removes; the entry was there a moment ago.
            self.cgroups.remove(id).map_err(refused)?;
        }
        if *wanted != has {
            self.next_epoch();
        }
        Ok(())
    }

    pub(crate) fn set_policy(&self, row: u32, policy: Policy) {
        self.policies.store(row as usize, policy.0);
    }

    pub(crate) fn word(&self, index: u32) -> u32 {
        // The kernel's value is the first half; the other is padding.
        let [a, b, c, d, ..] = self.control.load(index as usize).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    pub(crate) fn set_word(&self, index: u32, value: u32) {
        self.control.store(index as usize, u64::from(value));
    }

    /// Makes every socket look its tenant up again, and every address its district. After the tables have changed, never before.
    pub(crate) fn next_epoch(&self) {
        // Zero is what a socket that never looked has.
        let next = self.word(control::EPOCH).checked_add(1).unwrap_or(1);
        self.set_word(control::EPOCH, next);
    }
}

/// One past the last index of a district.
const DISTRICT_INDEXES: u8 = 64;
const _: () = assert!(DISTRICT_INDEXES as u32 == DISTRICTS_MAX);

const fn shape(map_type: bpf_map_type, key_size: u32, value_size: u32, entries: u32, flags: u32) -> MapShape {
    MapShape { map_type, key_size, value_size, entries, flags }
}

fn open_or_make(pins: &Pins, name: &'static str, shape: MapShape) -> Result<MapData, Error> {
    let path = pins.path(name);
    let refused = |source: std::io::Error| Error::Pins { path: path.clone(), source };
    let fd = match sys::open_pinned(&path).map_err(refused)? {
        Some(fd) => fd,
        None => {
            let fd = sys::create_map(name, shape).map_err(refused)?;
            sys::pin(fd.as_fd(), &path).map_err(refused)?;
            fd
        }
    };
    MapData::from_fd(fd)
        .map_err(|error| Error::part(Part::Residency, "looking at a pinned table", chain(&error)))
}

fn typed<M: TryFrom<Map, Error = MapError>>(data: MapData) -> Result<M, MapError> {
    M::try_from(Map::from_map_data(data)?)
}

fn name_of(text: &str) -> Result<Name, Error> {
    let mut bytes = [0; NAME_BYTES];
    // The last byte stays zero.
    if text.is_empty() || text.len() >= NAME_BYTES || text.bytes().any(|byte| byte == 0) {
        return Err(Error::Name { name: text.to_owned(), limit: NAME_BYTES - 1 });
    }
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(Name(bytes))
}

fn text_of(Name(bytes): Name) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}
