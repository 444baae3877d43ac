//! One block: its threads, its shared memory, its barriers.
//!
//! ```text
//!             slice used up                     all of the block have arrived
//!          +----------------+                +--------------------------------+
//!          v                |                |                                |
//!   ---> Ready --- run ---> +--- bar.sync -> Barrier --------------------> Ready
//!                           +--- shfl.sync etc. -> Warp --- all lanes named in
//!                           |                               the mask are there --> Ready
//!                           +--- exit, ret -> Exited
//! ```

use super::step::{self, Stop};
use super::{Launch, Trouble, warp};
use crate::code::{Op, Predicate, Reduction, Slot, Src};
use crate::fault::{Fault, FaultKind};
use crate::limits::{BARRIERS, SLICE_INSTRUCTIONS, WARP_LANES};

/// Who a thread is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Identity {
    pub(crate) tid: [u32; 3],
    pub(crate) ctaid: [u32; 3],
    pub(crate) block_index: u64,
    pub(crate) lane: u32,
    pub(crate) warp: u32,
}

/// A function that a thread is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) function: usize,
    /// The next instruction.
    pub(crate) at: usize,
    pub(crate) registers: usize,
    pub(crate) local: usize,
    pub(crate) params: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// At the barrier instruction it stands on.
    Barrier {
        id: u8,
        threads: Option<u32>,
    },
    /// At a warp operation.
    Warp,
    Exited,
}

#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) identity: Identity,
    pub(crate) state: State,
    pub(crate) frames: Vec<Frame>,
    /// Registers of all frames, the innermost last.
    pub(crate) registers: Vec<u64>,
    pub(crate) local: Vec<u8>,
    pub(crate) params: Vec<u8>,
    pub(crate) carry: bool,
}

impl Thread {
    /// The instruction it stands on.
    pub(crate) fn instruction<'m>(
        &self,
        launch: &Launch<'m, '_, '_>,
    ) -> Option<&'m crate::code::Instruction> {
        let frame = self.frames.last()?;
        launch.kernel.module.functions.get(frame.function)?.code.get(frame.at)
    }

    /// Reads an operand outside the instruction loop.
    pub(crate) fn read(&self, launch: &Launch<'_, '_, '_>, src: Src) -> u64 {
        let Some(frame) = self.frames.last() else { return 0 };
        match src {
            Src::Slot(slot) => self.registers.get(frame.registers + slot as usize).copied().unwrap_or(0),
            other => step::constant(launch, &self.identity, frame, other),
        }
    }

    pub(crate) fn test(&self, launch: &Launch<'_, '_, '_>, predicate: Predicate) -> bool {
        (self.read(launch, Src::Slot(predicate.slot)) != 0) != predicate.negated
    }

    pub(crate) fn write(&mut self, slot: Slot, value: u64) {
        let base = self.frames.last().map_or(0, |frame| frame.registers);
        if let Some(register) = self.registers.get_mut(base + slot as usize) {
            *register = value;
        }
    }

    /// Goes on behind the instruction it waited at.
    pub(crate) fn release(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
        }
        self.state = State::Ready;
    }
}

/// What one pass over a block did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    Moved,
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Block {
    threads: Vec<Thread>,
    shared: Vec<u8>,
    /// Lanes that have arrived without waiting, by barrier and warp.
    arrived: Vec<Vec<u32>>,
}

impl Block {
    pub(crate) fn new(launch: &Launch<'_, '_, '_>) -> Self {
        let threads = launch.config.block.iter().product::<u32>() as usize;
        let registers = launch.kernel.function.registers as usize;
        let thread = |_| Thread {
            identity: Identity::default(),
            state: State::Exited,
            frames: Vec::new(),
            registers: Vec::with_capacity(registers),
            local: Vec::new(),
            params: Vec::new(),
            carry: false,
        };
        Self {
            threads: (0..threads).map(thread).collect(),
            shared: vec![0; launch.shared_bytes as usize],
            arrived: vec![vec![0; threads.div_ceil(WARP_LANES)]; BARRIERS],
        }
    }

    /// Makes it the block of an index: threads at the beginning of the kernel, memory cleared.
    pub(crate) fn start(&mut self, launch: &mut Launch<'_, '_, '_>, block_index: u64) {
        let kernel = launch.kernel;
        let function = kernel.module.functions.iter().position(|f| std::ptr::eq(f, kernel.function));
        let ctaid = launch.ctaid(block_index);
        let [width, height, _] = launch.config.block;
        for (index, thread) in (0u32..).zip(&mut self.threads) {
            thread.identity = Identity {
                tid: [index % width, index / width % height, index / width / height],
                ctaid,
                block_index,
                lane: index % 32,
                warp: index / 32,
            };
            thread.state = State::Ready;
            thread.frames.clear();
            thread.frames.push(Frame {
                function: function.unwrap_or(0),
                at: 0,
                registers: 0,
                local: 0,
                params: 0,
            });
            thread.registers.clear();
            thread.registers.resize(kernel.function.registers as usize, 0);
            thread.local.clear();
            thread.local.resize(kernel.function.local_bytes as usize, 0);
            thread.params.clear();
            thread.params.resize(kernel.function.param_bytes as usize, 0);
            thread.carry = false;
        }
        self.shared.fill(0);
        for barrier in &mut self.arrived {
            barrier.fill(0);
        }
        launch.stats.blocks += 1;
        launch.stats.threads += self.threads.len() as u64;
    }

    /// Gives every ready thread a slice, then lets go whoever waits for what has happened.
    pub(crate) fn advance(&mut self, launch: &mut Launch<'_, '_, '_>) -> Result<Progress, Box<Fault>> {
        let mut moved = false;
        for start in (0..self.threads.len()).step_by(WARP_LANES) {
            let end = (start + WARP_LANES).min(self.threads.len());
            loop {
                moved |= self.run_warp(launch, start..end)?;
                // Warp operations are resolved at once, so that a reduction costs no pass over the block.
                match warp::resolve(launch, &mut self.threads[start..end]) {
                    Ok(true) => moved = true,
                    Ok(false) => break,
                    Err((lane, trouble)) => return Err(self.fault(launch, start + lane, *trouble)),
                }
            }
        }
        moved |= self.release_barriers(launch);
        if self.threads.iter().all(|thread| thread.state == State::Exited) {
            return Ok(Progress::Done);
        }
        Ok(if moved { Progress::Moved } else { Progress::Stuck })
    }

    fn run_warp(
        &mut self,
        launch: &mut Launch<'_, '_, '_>,
        lanes: std::ops::Range<usize>,
    ) -> Result<bool, Box<Fault>> {
        let mut moved = false;
        for index in lanes {
            let Some(thread) = self.threads.get_mut(index) else { break };
            if thread.state != State::Ready {
                continue;
            }
            moved = true;
            let slice = SLICE_INSTRUCTIONS.min(launch.budget);
            let before = launch.stats.instructions;
            let stop = step::run(launch, thread, &mut self.shared, slice);
            launch.budget = launch.budget.saturating_sub(launch.stats.instructions - before);
            let trouble = match stop {
                Ok(Stop::Slice) if launch.budget == 0 => Trouble::new(
                    FaultKind::BudgetExceeded,
                    format!("the launch used up its {} instructions", launch.config.instruction_budget),
                ),
                Ok(Stop::Slice) => continue,
                Ok(Stop::Exit) => {
                    thread.state = State::Exited;
                    continue;
                }
                Ok(Stop::Warp) => {
                    thread.state = State::Warp;
                    continue;
                }
                Ok(Stop::Barrier { id, threads }) => {
                    thread.state = State::Barrier { id, threads };
                    continue;
                }
                Ok(Stop::Arrive { id }) => {
                    let (warp, lane) = (index / WARP_LANES, index % WARP_LANES);
                    self.arrived[usize::from(id)][warp] |= 1 << lane;
                    continue;
                }
                Err(trouble) => trouble,
            };
            return Err(self.fault(launch, index, *trouble));
        }
        Ok(moved)
    }

    /// Completes every barrier that all who take part have reached. Threads that have exited are not waited for.
    fn release_barriers(&mut self, launch: &mut Launch<'_, '_, '_>) -> bool {
        let mut waiting = [false; BARRIERS];
        for thread in &self.threads {
            if let State::Barrier { id, .. } = thread.state {
                waiting[usize::from(id)] = true;
            }
        }
        let mut released = false;
        for id in (0..16u8).filter(|&id| waiting[usize::from(id)]) {
            if self.is_complete(id) {
                self.complete(launch, id);
                released = true;
            }
        }
        released
    }

    fn is_complete(&self, id: u8) -> bool {
        let mut wanted = None;
        // Barriers count whole warps: a warp has arrived when each of its lanes that still runs has.
        let (mut whole, mut missing) = (0u32, false);
        for (warp, lanes) in self.threads.chunks(WARP_LANES).enumerate() {
            let (mut here, mut absent) = (self.arrived[usize::from(id)][warp] != 0, false);
            for (lane, thread) in lanes.iter().enumerate() {
                match thread.state {
                    State::Barrier { id: at, threads } if at == id => {
                        here = true;
                        wanted = wanted.or(threads);
                    }
                    State::Exited => {}
                    _ => absent |= self.arrived[usize::from(id)][warp] >> lane & 1 == 0,
                }
            }
            whole += u32::from(here && !absent);
            missing |= absent;
        }
        match wanted {
            Some(threads) => whole.saturating_mul(32) >= threads,
            None => !missing,
        }
    }

    fn complete(&mut self, launch: &mut Launch<'_, '_, '_>, id: u8) {
        let here = |thread: &Thread| matches!(thread.state, State::Barrier { id: at, .. } if at == id);
        let reduction = |thread: &Thread, launch: &Launch<'_, '_, '_>| match thread.instruction(launch)?.op {
            Op::Barrier { reduction, .. } => reduction,
            _ => None,
        };
        let (mut count, mut all) = (0u64, true);
        for thread in self.threads.iter().filter(|thread| here(thread)) {
            let Some(found) = reduction(thread, launch) else { continue };
            let (Reduction::Population(_, predicate)
            | Reduction::And(_, predicate)
            | Reduction::Or(_, predicate)) = found;
            let holds = thread.test(launch, predicate);
            count += u64::from(holds);
            all &= holds;
        }
        for thread in self.threads.iter_mut().filter(|thread| here(thread)) {
            match reduction(thread, launch) {
                Some(Reduction::Population(to, _)) => thread.write(to, count),
                Some(Reduction::And(to, _)) => thread.write(to, u64::from(all)),
                Some(Reduction::Or(to, _)) => thread.write(to, u64::from(count > 0)),
                None => {}
            }
            thread.release();
        }
        self.arrived[usize::from(id)].fill(0);
        launch.stats.barriers += 1;
    }

    /// The fault of threads that wait for each other.
    pub(crate) fn deadlock(&self, launch: &Launch<'_, '_, '_>) -> Box<Fault> {
        let waiting = |thread: &Thread| !matches!(thread.state, State::Exited | State::Ready);
        let count = self.threads.iter().filter(|thread| waiting(thread)).count();
        let index = self.threads.iter().position(waiting).unwrap_or(0);
        let what = match self.threads.get(index).map(|thread| thread.state) {
            Some(State::Barrier { id, .. }) => format!("barrier {id}"),
            _ => "a warp operation".to_owned(),
        };
        let detail = format!("{count} threads wait for each other; this one waits at {what}");
        self.fault(launch, index, *Trouble::new(FaultKind::Deadlock, detail))
    }

    fn fault(&self, launch: &Launch<'_, '_, '_>, index: usize, trouble: Trouble) -> Box<Fault> {
        let thread = self.threads.get(index);
        let functions = &launch.kernel.module.functions;
        let function = thread.and_then(|thread| functions.get(thread.frames.last()?.function));
        Box::new(Fault {
            kind: trouble.kind,
            kernel: launch.kernel.name().to_owned(),
            function: function.unwrap_or(launch.kernel.function).name.clone(),
            line: thread.and_then(|thread| thread.instruction(launch)).map_or(0, |found| found.line),
            block: thread.map_or([0; 3], |thread| thread.identity.ctaid),
            thread: thread.map_or([0; 3], |thread| thread.identity.tid),
            address: trouble.address,
            detail: trouble.detail,
        })
    }
}
