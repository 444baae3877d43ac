//! Allocations and frees in an order nobody planned, with a sum that is kept beside.

use std::ffi::{c_int, c_uint, c_void};

use super::{Libraries, NOT_FOUND, Status, answer, call, init, number};

/// Most allocations held at once.
const HELD_MAX: usize = 48;

/// Physical memory comes in pieces of this.
const GRANULARITY: u64 = 2 << 20;

/// What is held: address or handle, bytes, and whether it is physical memory.
type Held = (u64, u64, bool);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: good enough to be unlike any order a person would write.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// `random SEED OPERATIONS` keeps what it holds at the end and answers its bytes; `children COUNT SEED OPERATIONS` forks, before CUDA
/// is started here: each child starts CUDA by itself, and ends or is killed with all that it holds.
pub(super) fn obey(libraries: &Libraries, held: &mut Vec<Held>, words: &[&str]) -> String {
    if words[0] == "random" {
        return match work(libraries, held, number(words, 1), number(words, 2)) {
            Ok(bytes) => answer(0, &[bytes]),
            Err(status) => answer(status, &[]),
        };
    }
    for child in 0..number(words, 1) {
        let status = bear(libraries, child, number(words, 2) + child, number(words, 3));
        let as_told = if child % 2 == 0 {
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        } else {
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
        };
        if !as_told {
            return format!("child {child} ended with {status:#x}");
        }
    }
    answer(0, &[])
}

fn bear(libraries: &Libraries, child: u64, seed: u64, operations: u64) -> c_int {
    // SAFETY: nothing else runs in this process; the child makes driver calls and leaves without destructors.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut held = Vec::new();
        let fine = init(libraries).starts_with("ok") && work(libraries, &mut held, seed, operations).is_ok();
        if child % 2 == 1 && fine {
            // SAFETY: asks who this process is.
            let own = unsafe { libc::getpid() };
            // SAFETY: ends this process, as an operator's `kill -9` would.
            unsafe { libc::kill(own, libc::SIGKILL) };
        }
        // SAFETY: leaves at once.
        unsafe { libc::_exit(c_int::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

fn work(libraries: &Libraries, held: &mut Vec<Held>, seed: u64, operations: u64) -> Result<u64, Status> {
    let mut random = Random(seed | 1);
    for _ in 0..operations {
        let give_back = held.len() == HELD_MAX || (!held.is_empty() && random.below(100) < 45);
        if give_back {
            let index = usize::try_from(random.below(held.len() as u64)).unwrap_or(0);
            let (name, _, is_physical) = held.swap_remove(index);
            let status = if is_physical {
                call!(libraries, "cuMemRelease", 10020, (u64), (name))
            } else {
                call!(libraries, "cuMemFree_v2", 3020, (u64), (name))
            };
            check(status)?;
        } else {
            held.push(allocate(libraries, &mut random)?);
        }
    }
    Ok(held.iter().map(|(_, bytes, _)| bytes).sum())
}

fn check(status: Status) -> Result<(), Status> {
    if status == 0 { Ok(()) } else { Err(status) }
}

fn allocate(libraries: &Libraries, random: &mut Random) -> Result<Held, Status> {
    let mut name = 0u64;
    let out = &raw mut name;
    let bytes = 1 + random.below(256 << 10);
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    match random.below(16) {
        0..=9 => {
            check(call!(libraries, "cuMemAlloc_v2", 3020, (*mut u64, usize), (out, size)))?;
            Ok((name, bytes, false))
        }
        10..=11 => {
            const GLOBAL: c_uint = 1;
            let status =
                call!(libraries, "cuMemAllocManaged", 6000, (*mut u64, usize, c_uint), (out, size, GLOBAL));
            check(status)?;
            Ok((name, bytes, false))
        }
        12..=13 => {
            let (mut pitch, height) = (0usize, 1 + random.below(32));
            let rows = usize::try_from(height).unwrap_or(1);
            let status = call!(
                libraries,
                "cuMemAllocPitch_v2",
                3020,
                (*mut u64, *mut usize, usize, usize, c_uint),
                (out, &raw mut pitch, size.min(4096), rows, 4)
            );
            check(status)?;
            Ok((name, pitch as u64 * height, false))
        }
        _ => {
            // CUmemAllocationProp: pinned, no handle type, on device 0; no flags.
            let properties = [1u32, 0, 1, 0, 0, 0, 0, 0];
            let bytes = GRANULARITY * (1 + random.below(2));
            let size = usize::try_from(bytes).unwrap_or(usize::MAX);
            let from = properties.as_ptr().cast::<c_void>();
            let status = call!(
                libraries,
                "cuMemCreate",
                10020,
                (*mut u64, usize, *const c_void, u64),
                (out, size, from, 0)
            );
            check(status)?;
            Ok((name, bytes, true))
        }
    }
}
