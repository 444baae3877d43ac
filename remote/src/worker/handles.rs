//! What the client's numbers stand for.

use std::collections::HashMap;

use headgate_abi::cuda::remote::{KINDS, Kind};
use headgate_abi::cuda::types::CUresult;

use crate::limits::HANDLES_MAX;

/// A handle of the driver, and what it ends with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The driver's handle.
    pub(super) real: u64,
    /// The context it was made in.
    pub(super) context: u32,
    /// The module or library a kernel is of, the library a module is of; 0 for none.
    pub(super) parent: u32,
    /// Whether the parent is a library.
    pub(super) of_library: bool,
}

/// The client's numbers, one space for each kind.
#[derive(Debug, Default)]
pub(super) struct Handles {
    spaces: [HashMap<u32, Entry>; KINDS.len()],
}

impl Handles {
    fn space(&self, kind: Kind) -> &HashMap<u32, Entry> {
        &self.spaces[kind as usize - 1]
    }

    fn space_mut(&mut self, kind: Kind) -> &mut HashMap<u32, Entry> {
        &mut self.spaces[kind as usize - 1]
    }

    /// What a number stands for.
    pub(super) fn entry(&self, kind: Kind, id: u32) -> Option<Entry> {
        self.space(kind).get(&id).copied()
    }

    /// Live contexts: the client's number and the driver's handle.
    pub(super) fn contexts(&self) -> Vec<(u32, u64)> {
        self.space(Kind::Context).iter().map(|(&id, entry)| (id, entry.real)).collect()
    }

    /// The driver's streams that were made in a context.
    pub(super) fn streams(&self, context: u32) -> Vec<u64> {
        let streams = self.space(Kind::Stream).values();
        streams.filter(|entry| entry.context == context).map(|entry| entry.real).collect()
    }

    /// The driver's handle; null for 0, which is null on the wire.
    pub(super) fn real(&self, kind: Kind, id: u32) -> Result<u64, CUresult> {
        match (id, kind) {
            (0, _) => Ok(0),
            (_, Kind::Context) => {
                self.entry(kind, id).map(|entry| entry.real).ok_or(CUresult::ERROR_INVALID_CONTEXT)
            }
            _ => self.entry(kind, id).map(|entry| entry.real).ok_or(CUresult::ERROR_INVALID_HANDLE),
        }
    }

    /// Whether a number may stand for something new.
    pub(super) fn check_new(&self, kind: Kind, id: u32) -> Result<(), CUresult> {
        let space = self.space(kind);
        // A primary context is retained again and again under one number.
        let taken = space.contains_key(&id) && kind != Kind::Context;
        match id != 0 && !taken && space.len() < HANDLES_MAX {
            true => Ok(()),
            false => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// Remembers what a number stands for.
    pub(super) fn insert(&mut self, kind: Kind, id: u32, entry: Entry) {
        self.space_mut(kind).insert(id, entry);
    }

    /// Forgets a number, and what ends with it.
    pub(super) fn remove(&mut self, kind: Kind, id: u32) {
        self.space_mut(kind).remove(&id);
        match kind {
            Kind::Context => {
                for space in &mut self.spaces {
                    space.retain(|_, entry| entry.context != id || entry.context == 0);
                }
            }
            Kind::Module => {
                self.space_mut(Kind::Function).retain(|_, entry| entry.of_library || entry.parent != id)
            }
            Kind::Library => {
                for space in [Kind::Function, Kind::Module] {
                    self.space_mut(space).retain(|_, entry| !entry.of_library || entry.parent != id);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(context: u32, parent: u32, of_library: bool) -> Entry {
        Entry { real: 77, context, parent, of_library }
    }

    #[test]
    fn numbers_are_of_one_kind_and_end_with_what_they_belong_to() {
        let mut handles = Handles::default();
        handles.insert(Kind::Context, 1, entry(0, 0, false));
        handles.insert(Kind::Stream, 1, entry(1, 0, false));
        handles.insert(Kind::Module, 2, entry(1, 0, false));
        handles.insert(Kind::Library, 2, entry(0, 0, false));
        handles.insert(Kind::Function, 3, entry(1, 2, false));
        handles.insert(Kind::Function, 4, entry(0, 2, true));
        assert_eq!(handles.real(Kind::Event, 1), Err(CUresult::ERROR_INVALID_HANDLE));
        assert_eq!(handles.real(Kind::Stream, 0), Ok(0));
        assert_eq!(handles.check_new(Kind::Stream, 1), Err(CUresult::ERROR_INVALID_VALUE), "taken");
        assert_eq!(handles.check_new(Kind::Stream, 0), Err(CUresult::ERROR_INVALID_VALUE), "null");
        handles.remove(Kind::Module, 2);
        assert!(handles.entry(Kind::Function, 3).is_none(), "a kernel ends with its module");
        assert!(handles.entry(Kind::Function, 4).is_some(), "not with a module of its library's number");
        handles.remove(Kind::Library, 2);
        assert!(handles.entry(Kind::Function, 4).is_none());
        handles.remove(Kind::Context, 1);
        assert_eq!(handles.real(Kind::Stream, 1), Err(CUresult::ERROR_INVALID_HANDLE));
        assert_eq!(handles.real(Kind::Context, 1), Err(CUresult::ERROR_INVALID_CONTEXT));
    }
}
