//! What the lanes of a warp do together.
//!
//! A lane that reaches such an instruction waits until every lane its mask names, other than those that have exited,
//! waits at the same instruction with the same mask. `activemask` names nobody: it is resolved last, for all lanes that
//! wait at it together, which is as converged as a warp can be.

use super::block::{State, Thread};
use super::{Launch, Trouble};
use crate::code::{Op, Slot};
use crate::code::{Shuffle, Vote, WarpOp};
use crate::fault::FaultKind;

/// A lane that waits: where, for whom.
#[derive(Debug, Clone, Copy)]
struct Wait {
    function: usize,
    at: usize,
    /// `None` for `activemask`.
    mask: Option<u32>,
    is_sync: bool,
}

fn wait<'m>(launch: &Launch<'m, '_, '_>, thread: &Thread) -> Option<(Wait, &'m WarpOp)> {
    if thread.state != State::Warp {
        return None;
    }
    let Op::Warp(op) = &thread.instruction(launch)?.op else { return None };
    let frame = thread.frames.last()?;
    let mask = match **op {
        WarpOp::Shuffle { mask, .. }
        | WarpOp::Vote { mask, .. }
        | WarpOp::Match { mask, .. }
        | WarpOp::Reduce { mask, .. }
        | WarpOp::Elect { mask, .. }
        | WarpOp::Sync { mask } => Some(mask),
        WarpOp::ActiveMask { .. } => None,
    };
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let mask = mask.map(|src| low(thread.read(launch, src)));
    let is_sync = matches!(**op, WarpOp::Sync { .. });
    Some((Wait { function: frame.function, at: frame.at, mask, is_sync }, op))
}

/// Performs every warp operation whose lanes are all there. Returns whether any lane was let go, or the lane that did
/// something impossible.
pub(crate) fn resolve(
    launch: &Launch<'_, '_, '_>,
    lanes: &mut [Thread],
) -> Result<bool, (usize, Box<Trouble>)> {
    if lanes.iter().all(|thread| thread.state != State::Warp) {
        return Ok(false);
    }
    let alive = mask_of(lanes, |thread| thread.state != State::Exited);
    let mut released = 0u32;
    for lane in 0..lanes.len() {
        if released >> lane & 1 == 1 {
            continue;
        }
        let Some((leader, op)) = wait(launch, &lanes[lane]) else { continue };
        let Some(mask) = leader.mask else { continue };
        if mask >> lane & 1 == 0 {
            let detail = format!("the mask {mask:#010x} does not name lane {lane}, which executes it");
            return Err((lane, Trouble::new(FaultKind::IllegalInstruction, detail)));
        }
        // Lanes may meet at different `bar.warp.sync`, at nothing else.
        let joins = |thread: &Thread| {
            wait(launch, thread).is_some_and(|(other, _)| {
                let same = (other.function, other.at) == (leader.function, leader.at);
                other.mask == Some(mask) && (same || (leader.is_sync && other.is_sync))
            })
        };
        let together = mask_of(lanes, joins) & mask;
        if together == mask & alive {
            perform(launch, lanes, together, op);
            released |= together;
        }
    }
    if released != 0 {
        return Ok(true);
    }
    if lanes.iter().any(|thread| thread.state == State::Ready) {
        return Ok(false);
    }
    // Nobody in the warp can move: whoever asks for the active mask gets it.
    let leader = lanes.iter().find_map(|thread| {
        let (wait, op) = wait(launch, thread)?;
        wait.mask.is_none().then_some((wait, op))
    });
    let Some((leader, op)) = leader else { return Ok(false) };
    let same = |thread: &Thread| {
        wait(launch, thread)
            .is_some_and(|(other, _)| (other.function, other.at) == (leader.function, leader.at))
    };
    let together = mask_of(lanes, same);
    perform(launch, lanes, together, op);
    Ok(true)
}

fn mask_of(lanes: &[Thread], holds: impl Fn(&Thread) -> bool) -> u32 {
    lanes.iter().enumerate().filter(|(_, thread)| holds(thread)).fold(0, |mask, (lane, _)| mask | 1 << lane)
}

/// The lanes of a mask, in order.
fn members(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

fn perform(launch: &Launch<'_, '_, '_>, lanes: &mut [Thread], group: u32, op: &WarpOp) {
    let first = group.trailing_zeros();
    let mut writes: Vec<(usize, Slot, u64)> = Vec::with_capacity(64);
    match *op {
        WarpOp::Sync { .. } => {}
        WarpOp::ActiveMask { to } => {
            writes.extend(members(group).map(|lane| (lane, to, u64::from(group))));
        }
        WarpOp::Elect { lane: to, elected, .. } => {
            for lane in members(group) {
                writes.push((lane, to, u64::from(first)));
                writes.push((lane, elected, u64::from(first as usize == lane)));
            }
        }
        WarpOp::Reduce { combine, to, value, .. } => {
            let values = members(group).map(|lane| lanes[lane].read(launch, value));
            let result = values.reduce(combine).unwrap_or(0);
            writes.extend(members(group).map(|lane| (lane, to, result)));
        }
        WarpOp::Vote { mode, to, predicate, .. } => {
            let votes = members(group)
                .filter(|&lane| lanes[lane].test(launch, predicate))
                .fold(0u32, |votes, lane| votes | 1 << lane);
            let result = match mode {
                Vote::All => u64::from(votes == group),
                Vote::Any => u64::from(votes != 0),
                Vote::Uniform => u64::from(votes == group || votes == 0),
                Vote::Ballot => u64::from(votes),
            };
            writes.extend(members(group).map(|lane| (lane, to, result)));
        }
        WarpOp::Match { all, to, agreed, value, .. } => {
            let values: Vec<_> = members(group).map(|lane| (lane, lanes[lane].read(launch, value))).collect();
            let same = |wanted: u64| {
                values
                    .iter()
                    .filter(|(_, value)| *value == wanted)
                    .fold(0u32, |mask, (lane, _)| mask | 1 << lane)
            };
            for &(lane, value) in &values {
                let equal = same(value);
                let everyone = equal == group;
                let result = if all && !everyone { 0 } else { equal };
                writes.push((lane, to, u64::from(result)));
                writes.push((lane, agreed, u64::from(everyone)));
            }
        }
        WarpOp::Shuffle { mode, to, valid, value, lane: src, clamp, .. } => {
            for lane in members(group) {
                let thread = &lanes[lane];
                let (b, c) = (thread.read(launch, src), thread.read(launch, clamp));
                let (from, in_range) = shuffle_source(mode, lane as u64, b, c);
                // A lane outside the group has no defined value; its own is as good as any.
                let from = usize::try_from(from).unwrap_or(lane);
                let from = if group >> from & 1 == 1 { from } else { lane };
                writes.push((lane, to, lanes[from].read(launch, value)));
                writes.push((lane, valid, u64::from(in_range)));
            }
        }
    }
    for (lane, slot, value) in writes {
        lanes[lane].write(slot, value);
    }
    for lane in members(group) {
        lanes[lane].release();
    }
}

/// The source lane of a shuffle and whether it lies within the segment (PTX ISA, "shfl.sync").
fn shuffle_source(mode: Shuffle, lane: u64, b: u64, c: u64) -> (u64, bool) {
    let (b, clamp, segment) = (b & 0x1f, c & 0x1f, c >> 8 & 0x1f);
    let highest = (lane & segment) | (clamp & !segment & 0x1f);
    let lowest = lane & segment;
    let (from, in_range) = match mode {
        Shuffle::Up => {
            let from = lane.wrapping_sub(b);
            // `up` compares with the lower bound that its clamp operand gives.
            (from, from.cast_signed() >= highest.cast_signed())
        }
        Shuffle::Down => (lane + b, lane + b <= highest),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= highest),
        Shuffle::Index => {
            let from = lowest | (b & !segment & 0x1f);
            (from, from <= highest)
        }
    };
    if in_range { (from & 0x1f, true) } else { (lane, false) }
}
