//! Device memory that was taken ahead of its use, so that small allocations wait for nobody.
//!
//! ```text
//! a context is made ──Ahead──> worker: an allocation as any other, under the guest's quota ──> slab
//!                                                        allocation <──carved── gaps of the slab
//!                              half of it is used ──Ahead──> the next, twice as long
//!                              all of it is given back, or nothing was asked for a while ──> freed
//! ```
//!
//! A slab is charged to the guest before anything is carved from it, so nothing that this room grants can turn out not to be
//! there. What is refused for want of memory gets slabs that are wholly unused given back first ([`Credits::take_unused`]),
//! and is carved itself if it fits into one that is not. The guest's view of its memory counts what is unused as free
//! ([`Credits::unused`]).
//!
//! A block is handed out again when what used it is done, or when a barrier is behind that work, as behind the driver's own
//! `cuMemFree`. Until then it is parked ([`Credits::park`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::objects::{Reached, lock};
use crate::limits::{CARVED_BYTES_MAX, SLAB_BYTES_MAX, SLAB_BYTES_MIN, SLABS_BYTES_MAX};

/// Blocks begin at multiples of this, as the driver's own allocations do (CUDA promises 256).
pub(super) const GRANULE: u64 = 512;

/// Blocks that were given out: first address and what was asked for.
type Blocks = BTreeMap<u64, u64>;

#[derive(Debug)]
struct Slab {
    context: u32,
    device: usize,
    bytes: u64,
    /// Free runs: first address and length.
    gaps: BTreeMap<u64, u64>,
    blocks: Blocks,
    /// Bytes asked for in blocks: what the driver would have been asked for.
    asked: u64,
}

impl Slab {
    fn new(context: u32, device: usize, base: u64, bytes: u64) -> Self {
        let gaps = BTreeMap::from([(base, bytes)]);
        Self { context, device, bytes, gaps, blocks: Blocks::new(), asked: 0 }
    }

    /// The shortest gap that is long enough, and its length.
    fn fit(&self, length: u64) -> Option<(u64, u64)> {
        let fits = self.gaps.iter().filter(|(_, gap)| **gap >= length);
        fits.min_by_key(|(_, gap)| **gap).map(|(&at, &gap)| (at, gap))
    }

    fn carve(&mut self, at: u64, gap: u64, bytes: u64, length: u64) -> u64 {
        self.gaps.remove(&at);
        if gap > length {
            self.gaps.insert(at + length, gap - length);
        }
        self.blocks.insert(at, bytes);
        self.asked += bytes;
        at
    }

    fn give_back(&mut self, at: u64) {
        let Some(bytes) = self.blocks.remove(&at) else { return };
        self.asked -= bytes;
        let mut run = (at, length(bytes).unwrap_or(0));
        if let Some((&before, &gap)) = self.gaps.range(..at).next_back()
            && before + gap == at
        {
            self.gaps.remove(&before);
            run = (before, gap + run.1);
        }
        if let Some(gap) = self.gaps.remove(&(run.0 + run.1)) {
            run.1 += gap;
        }
        self.gaps.insert(run.0, run.1);
    }
}

/// What a block of so many bytes takes.
fn length(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(GRANULE)
}

/// A block that was given back while what used it may be at work.
#[derive(Debug)]
struct Parked {
    address: u64,
    context: u32,
    /// It is out of use when all of these are reached.
    behind: Vec<Reached>,
}

/// What is kept for a context besides its slabs.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Bytes of the next slab.
    next: u64,
    /// Bytes of the slab that is on its way; 0 while none is.
    coming: u64,
    /// The worker has refused one. Nothing is asked for until memory is given back.
    refused: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { next: SLAB_BYTES_MIN, coming: 0, refused: false }
    }
}

#[derive(Debug, Default)]
struct State {
    /// By first address.
    slabs: BTreeMap<u64, Slab>,
    /// By context.
    plans: HashMap<u32, Plan>,
    parked: Vec<Parked>,
    /// Others were short of memory: until some is taken ahead again, none is kept that nothing is in.
    modest: bool,
    /// How often slabs were taken off to be given back.
    given: u64,
}

impl State {
    fn slab_of(&mut self, address: u64) -> Option<&mut Slab> {
        let (&base, slab) = self.slabs.range_mut(..=address).next_back()?;
        (address - base < slab.bytes).then_some(slab)
    }

    fn unused_of(&self, context: u32) -> u64 {
        self.slabs.values().filter(|slab| slab.context == context).map(|slab| slab.bytes - slab.asked).sum()
    }

    /// Bytes of all slabs, of those on their way too.
    fn taken(&self) -> u64 {
        let coming: u64 = self.plans.values().map(|plan| plan.coming).sum();
        coming + self.slabs.values().map(|slab| slab.bytes).sum::<u64>()
    }

    /// Takes in what was parked and is out of use by now.
    fn unpark(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let is_done = |parked: &mut Parked| parked.behind.iter().all(Reached::is_done);
        let ready: Vec<Parked> = self.parked.extract_if(.., is_done).collect();
        for Parked { address, context, .. } in ready {
            self.give_back(context, address);
        }
    }

    fn give_back(&mut self, context: u32, address: u64) {
        if let Some(slab) = self.slab_of(address) {
            slab.give_back(address);
        }
        self.plans.entry(context).or_default().refused = false;
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Credits(Mutex<State>);

impl Credits {
    /// Memory of a context for an allocation of a size that is mostly carved; `None` where there is none.
    pub(super) fn carve(&self, context: u32, bytes: u64) -> Option<u64> {
        if bytes > CARVED_BYTES_MAX { None } else { self.carve_any(context, bytes) }
    }

    /// The same for any size: before an allocation is refused that would fit.
    pub(super) fn carve_any(&self, context: u32, bytes: u64) -> Option<u64> {
        let length = length(bytes).filter(|_| bytes > 0)?;
        let mut state = lock(&self.0);
        state.unpark();
        let slabs = state.slabs.values_mut().filter(|slab| slab.context == context);
        let fits = slabs.filter_map(|slab| slab.fit(length).map(|(at, gap)| (slab, at, gap)));
        let (slab, at, gap) = fits.min_by_key(|(_, _, gap)| *gap)?;
        Some(slab.carve(at, gap, bytes, length))
    }

    /// Whether an address is that of a block.
    pub(super) fn holds(&self, address: u64) -> bool {
        lock(&self.0).slab_of(address).is_some_and(|slab| slab.blocks.contains_key(&address))
    }

    /// Whether a range lies in one block, or has nothing to do with any slab: then the driver knows better. What begins in
    /// a slab and not in a block, or goes beyond the block, is no memory of the program's, whatever the driver thinks.
    pub(super) fn admits(&self, address: u64, bytes: u64) -> bool {
        let mut state = lock(&self.0);
        let Some(slab) = state.slab_of(address) else { return true };
        let block = slab.blocks.range(..=address).next_back();
        block.is_some_and(|(&at, &asked)| address.checked_add(bytes).is_some_and(|end| end <= at + asked))
    }

    /// Takes a block of a context back. Whoever uses it next is behind everything that used it before.
    pub(super) fn give_back(&self, context: u32, address: u64) {
        lock(&self.0).give_back(context, address);
    }

    /// Takes a block back that is out of use when some points of streams are reached.
    pub(super) fn park(&self, context: u32, address: u64, behind: Vec<Reached>) {
        lock(&self.0).parked.push(Parked { address, context, behind });
    }

    /// Memory of a context was given back that was not carved: what was refused is worth asking for again.
    pub(super) fn freed(&self, context: u32) {
        if let Some(plan) = lock(&self.0).plans.get_mut(&context) {
            plan.refused = false;
        }
    }

    /// How many bytes to ask the worker for, for a context; notes that they are on their way. `None` while there is
    /// enough.
    pub(super) fn wants(&self, context: u32) -> Option<u64> {
        let mut state = lock(&self.0);
        let (unused, taken) = (state.unused_of(context), state.taken());
        let plan = state.plans.entry(context).or_default();
        if plan.coming > 0 || plan.refused || unused > plan.next / 4 || taken + plan.next > SLABS_BYTES_MAX {
            return None;
        }
        plan.coming = plan.next;
        Some(plan.next)
    }

    /// A slab has come.
    pub(super) fn came(&self, context: u32, device: usize, base: u64, bytes: u64) {
        let mut state = lock(&self.0);
        let plan = state.plans.entry(context).or_default();
        plan.coming = 0;
        plan.next = (bytes * 2).min(SLAB_BYTES_MAX);
        state.slabs.insert(base, Slab::new(context, device, base, bytes));
        state.modest = false;
    }

    /// A slab that was to be given back could not be.
    pub(super) fn kept(&self, context: u32, device: usize, base: u64, bytes: u64) {
        lock(&self.0).slabs.insert(base, Slab::new(context, device, base, bytes));
    }

    /// Others are short of memory.
    pub(super) fn be_modest(&self) {
        lock(&self.0).modest = true;
    }

    /// How many slabs of a context are kept though nothing is in them.
    pub(super) fn spares(&self) -> usize {
        usize::from(!lock(&self.0).modest)
    }

    /// How often slabs were taken off so far.
    pub(super) fn given(&self) -> u64 {
        lock(&self.0).given
    }

    /// None has.
    pub(super) fn refused(&self, context: u32) {
        let mut state = lock(&self.0);
        let plan = state.plans.entry(context).or_default();
        (plan.coming, plan.refused) = (0, true);
    }

    /// Bytes of a device that were taken and that nobody has asked for.
    pub(super) fn unused(&self, device: usize) -> u64 {
        let state = lock(&self.0);
        let of_device = state.slabs.values().filter(|slab| slab.device == device);
        of_device.map(|slab| slab.bytes - slab.asked).sum()
    }

    /// Takes slabs off that nothing is in, save so many of each context, and only of contexts that may lose them: the caller
    /// frees them. Address, context and bytes.
    pub(super) fn take_unused(&self, keep: usize, may_lose: impl Fn(u32) -> bool) -> Vec<(u64, u32, u64)> {
        let mut state = lock(&self.0);
        state.unpark();
        let mut kept: HashMap<u32, usize> = HashMap::new();
        let mut taken = Vec::new();
        for (&base, slab) in state.slabs.iter().filter(|(_, slab)| slab.blocks.is_empty()) {
            let kept = kept.entry(slab.context).or_default();
            *kept += 1;
            if *kept > keep && may_lose(slab.context) {
                taken.push((base, slab.context, slab.bytes));
            }
        }
        state.given += u64::from(!taken.is_empty());
        for (base, context, _) in &taken {
            state.slabs.remove(base);
            let plan = state.plans.entry(*context).or_default();
            plan.next = SLAB_BYTES_MIN;
        }
        taken
    }

    /// Forgets what ends with a context.
    pub(super) fn end(&self, context: u32) {
        let mut state = lock(&self.0);
        state.slabs.retain(|_, slab| slab.context != context);
        state.parked.retain(|parked| parked.context != context);
        state.plans.remove(&context);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use proptest::prelude::*;

    use super::*;
    use crate::client::objects::Stream;

    const BASE: u64 = 0xa000_0000_0000;

    fn with_slab() -> Credits {
        let credits = Credits::default();
        assert_eq!(credits.wants(1), Some(SLAB_BYTES_MIN));
        assert_eq!(credits.wants(1), None, "it is on its way");
        credits.came(1, 0, BASE, SLAB_BYTES_MIN);
        credits
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(u64),
        Any(u64),
        Return(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..2 * CARVED_BYTES_MAX).prop_map(Step::Take),
            (1u64..4096).prop_map(Step::Take),
            (1..SLAB_BYTES_MIN).prop_map(Step::Any),
            any::<usize>().prop_map(Step::Return),
        ]
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_nothing_is_lost(steps in proptest::collection::vec(step(), 0..200)) {
            let credits = with_slab();
            let mut live: Vec<(u64, u64)> = Vec::new();
            for step in steps {
                let (found, bytes) = match step {
                    Step::Take(bytes) => (credits.carve(1, bytes), bytes),
                    Step::Any(bytes) => (credits.carve_any(1, bytes), bytes),
                    Step::Return(which) if !live.is_empty() => {
                        let (at, _) = live.swap_remove(which % live.len());
                        prop_assert!(credits.holds(at));
                        credits.give_back(1, at);
                        prop_assert!(!credits.holds(at));
                        prop_assert!(!credits.admits(at, 1), "it is nobody's now");
                        (None, 0)
                    }
                    Step::Return(_) => (None, 0),
                };
                if let Some(at) = found {
                    prop_assert!(bytes > 0);
                    prop_assert!(at % GRANULE == 0 && at >= BASE && at + bytes <= BASE + SLAB_BYTES_MIN);
                    let apart = |&(other, length): &(u64, u64)| at + bytes <= other || other + length <= at;
                    prop_assert!(live.iter().all(apart), "{at:x} overlaps");
                    prop_assert!(credits.admits(at, bytes) && credits.admits(at + bytes - 1, 1));
                    prop_assert!(!credits.admits(at, bytes + 1), "what is behind it is another's or nobody's");
                    live.push((at, bytes));
                }
                let asked: u64 = live.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(credits.unused(0), SLAB_BYTES_MIN - asked);
                prop_assert_eq!(credits.unused(1), 0);
            }
            for (at, _) in live {
                credits.give_back(1, at);
            }
            prop_assert_eq!(credits.carve_any(1, SLAB_BYTES_MIN), Some(BASE), "one gap again");
        }
    }

    #[test]
    fn a_slab_is_asked_for_ahead_and_given_back_when_nothing_is_in_it() {
        let credits = with_slab();
        assert_eq!(credits.carve(2, 8), None, "another context's");
        assert_eq!(credits.carve(1, CARVED_BYTES_MAX + 1), None, "too large to be carved unless it must");
        assert_eq!(credits.wants(1), None, "all of it is left");
        let large = credits.carve_any(1, SLAB_BYTES_MIN / 2 + 1).unwrap();
        assert_eq!(credits.wants(1), Some(2 * SLAB_BYTES_MIN), "half of it is not");
        credits.refused(1);
        assert_eq!(credits.wants(1), None, "the worker has none");
        credits.freed(1);
        assert_eq!(credits.wants(1), Some(2 * SLAB_BYTES_MIN), "it may have some now");
        credits.refused(1);
        let any = |_| true;
        assert!(credits.take_unused(0, any).is_empty(), "something is in it");
        let stream = Arc::new(Stream::new(0, 1, true, 0, 0));
        stream.touch(1);
        credits.park(1, large, vec![Reached::now(&stream)]);
        assert!(credits.take_unused(0, any).is_empty(), "what used it may still be at work");
        assert_eq!(credits.carve_any(1, SLAB_BYTES_MIN), None, "for the same reason");
        stream.completed.store(1, Ordering::Release);
        assert!(credits.take_unused(1, any).is_empty(), "one is kept");
        assert!(credits.take_unused(0, |_| false).is_empty(), "its context is at work");
        assert_eq!(credits.take_unused(0, any), [(BASE, 1, SLAB_BYTES_MIN)]);
        assert_eq!(credits.unused(0), 0);
        assert_eq!(credits.wants(1), Some(SLAB_BYTES_MIN), "memory was given back: it is worth asking");
        credits.came(1, 0, BASE, SLAB_BYTES_MIN);
        credits.end(1);
        assert_eq!(credits.carve(1, 8), None);
        assert!(credits.admits(BASE, u64::MAX), "it is the driver's to say");
    }

    #[test]
    fn what_is_called_back_is_kept_by_nobody_until_more_is_taken() {
        let credits = with_slab();
        assert_eq!((credits.spares(), credits.given()), (1, 0));
        credits.be_modest();
        assert_eq!(credits.spares(), 0);
        assert_eq!(credits.take_unused(0, |_| true), [(BASE, 1, SLAB_BYTES_MIN)]);
        assert_eq!(credits.given(), 1, "whoever is refused meanwhile may ask again");
        assert_eq!((credits.carve(1, 8), credits.unused(0)), (None, 0), "it is on its way back");
        credits.kept(1, 0, BASE, SLAB_BYTES_MIN);
        assert_eq!(credits.spares(), 0, "it could not be given back, and is wanted still");
        assert_eq!((credits.carve(1, 8), credits.unused(0)), (Some(BASE), SLAB_BYTES_MIN - 8));
        assert!(credits.take_unused(0, |_| true).is_empty());
        assert_eq!(credits.given(), 1);
        credits.came(1, 0, BASE + SLAB_BYTES_MAX, SLAB_BYTES_MIN);
        assert_eq!(credits.spares(), 1);
    }

    #[test]
    fn so_much_is_taken_and_no_more() {
        let credits = Credits::default();
        let mut taken = 0;
        for context in 1.. {
            let Some(bytes) = credits.wants(context) else { break };
            // Half of them are still on their way.
            if context % 2 == 0 {
                credits.came(context, 0, BASE + taken, bytes);
            }
            taken += bytes;
            assert!(taken <= SLABS_BYTES_MAX);
        }
        assert!(taken + SLAB_BYTES_MIN > SLABS_BYTES_MAX, "{taken}");
    }
}
