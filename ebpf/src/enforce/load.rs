//! Loading an object over tables that may be pinned already.

use aya::{Ebpf, EbpfLoader};

use crate::{enforce::pins::Pins, error::chain};

/// A map of an object that is tied to a pin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    name: &'static str,
    entries: Option<u32>,
}

impl Bound {
    pub(crate) const fn pinned(name: &'static str) -> Self {
        Self { name, entries: None }
    }

    /// Its size, if it has to be made.
    pub(crate) const fn entries(self, entries: u32) -> Self {
        Self { entries: Some(entries), ..self }
    }
}

/// Creates an object's maps, except those that are pinned already: these are used as they are.
pub(crate) fn load_bound(object: &[u8], pins: &Pins, bound: &[Bound]) -> Result<Ebpf, String> {
    let mut loader = EbpfLoader::new();
    for map in bound {
        loader.map_pin_path(map.name, pins.path(map.name));
        if let Some(entries) = map.entries {
            loader.map_max_entries(map.name, entries);
        }
    }
    loader.load(object).map_err(|error| chain(&error))
}
