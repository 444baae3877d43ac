//! Handles as programs see them: addresses in a range that nothing can read or write.
//!
//! Each kind has a part of the range, and each number its own address in it, sixteen bytes from the next. So a handle
//! tells its kind, is never 0, 1, 2 or -1, which mean streams, never stands for something else later, and a program that
//! looks inside one stops there and not elsewhere.
#![expect(unsafe_code, reason = "reserves addresses")]

use headgate_abi::cuda::remote::{KINDS, Kind};

/// Bytes between two handles.
const STEP: usize = 16;
/// Bytes of a kind's part: room for a thousand million handles.
const PART: usize = 1 << 34;

/// The reserved range.
#[derive(Debug)]
pub(super) struct Arena {
    base: usize,
    /// Handles of contexts that somebody else has chosen, with their numbers.
    given: Vec<(usize, u32)>,
}

impl Arena {
    /// Reserves it. `None` where the process may not have so many addresses.
    pub(super) fn reserve() -> Option<Self> {
        // SAFETY: a new mapping that takes addresses and no memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PART * (KINDS.len() + 1),
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        (base != libc::MAP_FAILED).then(|| Self { base: base.addr(), given: Vec::new() })
    }

    /// Has a context's number stand for a handle of somebody else's choice.
    pub(super) fn give(&mut self, context: u32, handle: usize) {
        self.given.push((handle, context));
    }

    /// The handle of a number.
    pub(super) fn handle(&self, kind: Kind, id: u32) -> usize {
        let given = || self.given.iter().find(|(_, number)| *number == id);
        match given().filter(|_| kind == Kind::Context) {
            Some((handle, _)) => *handle,
            None => self.base + PART * kind as usize + STEP * id as usize,
        }
    }

    /// The number of a handle; `None` if it is not of the kind.
    pub(super) fn id(&self, kind: Kind, handle: usize) -> Option<u32> {
        // Mostly there are none, and never more than devices.
        if kind == Kind::Context
            && let Some((_, id)) = self.given.iter().find(|(known, _)| *known == handle)
        {
            return Some(*id);
        }
        let offset = handle.checked_sub(self.base + PART * kind as usize)?;
        (offset < PART && offset.is_multiple_of(STEP)).then(|| u32::try_from(offset / STEP).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_of_one_kind() {
        let arena = Arena::reserve().unwrap();
        for kind in KINDS {
            for id in [1, 2, 77, 1 << 29] {
                let handle = arena.handle(kind, id);
                for other in KINDS {
                    assert_eq!(
                        arena.id(other, handle),
                        (other == kind).then_some(id),
                        "{kind:?} {id} as {other:?}"
                    );
                }
                assert_eq!(arena.id(kind, handle + 1), None);
            }
        }
        assert_eq!(arena.id(Kind::Stream, 0), None);
        assert_eq!(arena.id(Kind::Stream, 2), None);
    }

    #[test]
    fn a_given_handle_is_a_context_s_and_no_other_s() {
        let mut arena = Arena::reserve().unwrap();
        arena.give(1, 0x5555_0000_1230);
        assert_eq!(arena.handle(Kind::Context, 1), 0x5555_0000_1230);
        assert_eq!(arena.id(Kind::Context, 0x5555_0000_1230), Some(1));
        assert_eq!(arena.id(Kind::Stream, 0x5555_0000_1230), None);
        let other = arena.handle(Kind::Context, 2);
        assert_eq!(arena.id(Kind::Context, other), Some(2));
        let stream = arena.handle(Kind::Stream, 1);
        assert_eq!(arena.id(Kind::Stream, stream), Some(1), "numbers are each kind's own");
    }
}
