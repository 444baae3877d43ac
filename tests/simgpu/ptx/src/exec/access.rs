//! Reaching memory: which space an address belongs to, whether it is aligned, whether it exists.

use super::{Launch, Trouble};
use crate::fault::FaultKind;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::types::Space;

/// The memory of one thread and its block.
pub(crate) struct Areas<'t> {
    pub(crate) shared: &'t mut [u8],
    pub(crate) local: &'t mut [u8],
    pub(crate) params: &'t mut [u8],
}

/// First generic address of a space that has a window.
pub(crate) fn window(space: Space) -> Option<u64> {
    match space {
        Space::Shared => Some(SHARED_WINDOW),
        Space::Local => Some(LOCAL_WINDOW),
        Space::KernelParam => Some(PARAM_WINDOW),
        _ => None,
    }
}

/// The space of a generic address, and the address within it.
pub(crate) fn resolve(generic: u64) -> (Space, u64) {
    for space in [Space::Shared, Space::Local, Space::KernelParam] {
        if let Some(offset) = window(space).and_then(|start| generic.checked_sub(start))
            && offset < WINDOW_BYTES
        {
            return (space, offset);
        }
    }
    (Space::Global, generic)
}

/// Space and address of an access, alignment checked.
fn locate(space: Space, address: u64, bytes: usize) -> Result<(Space, u64), Box<Trouble>> {
    if address & (bytes as u64 - 1) != 0 {
        let detail = format!("an access of {bytes} bytes needs an address that is a multiple of {bytes}");
        return Err(Trouble::at(FaultKind::MisalignedAddress, address, detail));
    }
    match space {
        Space::Generic => Ok(resolve(address)),
        Space::Global | Space::Const => match resolve(address) {
            (Space::Global, address) => Ok((Space::Global, address)),
            (other, _) => {
                let detail = format!("an access to {space:?} memory got an address of {other:?} memory");
                Err(Trouble::at(FaultKind::InvalidAddressSpace, address, detail))
            }
        },
        _ => Ok((space, address)),
    }
}

fn outside(space: Space, address: u64, bytes: usize, have: usize) -> Box<Trouble> {
    let detail = format!("{bytes} bytes at offset {address:#x} of {have} bytes of {space:?} memory");
    Trouble::at(FaultKind::IllegalAddress, address, detail)
}

fn unmapped(address: u64, bytes: usize, verb: &str) -> Box<Trouble> {
    let detail = format!("{verb} of {bytes} bytes, not all of them in one live allocation");
    Trouble::at(FaultKind::IllegalAddress, address, detail)
}

/// The part of an area that an access touches.
fn part(area: &mut [u8], space: Space, address: u64, bytes: usize) -> Result<&mut [u8], Box<Trouble>> {
    let have = area.len();
    let range = usize::try_from(address).ok().and_then(|from| Some(from..from.checked_add(bytes)?));
    range.and_then(|range| area.get_mut(range)).ok_or_else(|| outside(space, address, bytes, have))
}

impl Launch<'_, '_, '_> {
    /// Fills `into`, whose length is a power of two.
    pub(crate) fn load(
        &mut self,
        areas: &mut Areas<'_>,
        space: Space,
        address: u64,
        into: &mut [u8],
    ) -> Result<(), Box<Trouble>> {
        let bytes = into.len();
        let (space, at) = locate(space, address, bytes)?;
        match space {
            Space::Shared => into.copy_from_slice(part(areas.shared, space, at, bytes)?),
            Space::Local => into.copy_from_slice(part(areas.local, space, at, bytes)?),
            Space::FrameParam => into.copy_from_slice(part(areas.params, space, at, bytes)?),
            Space::KernelParam => {
                let params = self.config.params;
                let range = usize::try_from(at).ok().and_then(|from| Some(from..from.checked_add(bytes)?));
                let found = range.and_then(|range| params.get(range));
                into.copy_from_slice(found.ok_or_else(|| outside(space, at, bytes, params.len()))?);
            }
            _ => {
                self.memory.load(at, into).map_err(|_| unmapped(at, bytes, "a read"))?;
                self.stats.global_loads += 1;
                self.stats.global_bytes_read += bytes as u64;
            }
        }
        Ok(())
    }

    pub(crate) fn store(
        &mut self,
        areas: &mut Areas<'_>,
        space: Space,
        address: u64,
        from: &[u8],
    ) -> Result<(), Box<Trouble>> {
        let bytes = from.len();
        let (space, at) = locate(space, address, bytes)?;
        match space {
            Space::Shared => part(areas.shared, space, at, bytes)?.copy_from_slice(from),
            Space::Local => part(areas.local, space, at, bytes)?.copy_from_slice(from),
            Space::FrameParam => part(areas.params, space, at, bytes)?.copy_from_slice(from),
            Space::KernelParam => {
                let detail = "the parameters of a kernel cannot be written";
                return Err(Trouble::at(FaultKind::IllegalAddress, address, detail));
            }
            _ => {
                self.memory.store(at, from).map_err(|_| unmapped(at, bytes, "a write"))?;
                self.stats.global_stores += 1;
                self.stats.global_bytes_written += bytes as u64;
            }
        }
        Ok(())
    }

    /// Replaces a value by a function of it and returns the old one.
    pub(crate) fn update(
        &mut self,
        areas: &mut Areas<'_>,
        space: Space,
        address: u64,
        bytes: usize,
        change: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Box<Trouble>> {
        let (space, at) = locate(space, address, bytes)?;
        match space {
            Space::Shared => {
                let place = part(areas.shared, space, at, bytes)?;
                let mut buffer = [0; 8];
                buffer[..bytes].copy_from_slice(place);
                let old = u64::from_le_bytes(buffer);
                place.copy_from_slice(&change(old).to_le_bytes()[..bytes]);
                Ok(old)
            }
            Space::Global => {
                self.stats.global_atomics += 1;
                self.memory.update(at, bytes, change).map_err(|_| unmapped(at, bytes, "an atomic"))
            }
            other => {
                let detail = format!("atomics do not work on {other:?} memory");
                Err(Trouble::at(FaultKind::InvalidAddressSpace, address, detail))
            }
        }
    }
}
