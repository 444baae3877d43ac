//! Running a kernel: blocks one after the other, the threads of a block in turns.
//!
//! `mod` checks a launch and walks the grid, `block` schedules the threads of a block and resolves barriers, `warp`
//! does what the lanes of a warp do together, `step` is the instruction loop of one thread, `access` reaches memory.

mod access;
mod block;
mod step;
mod warp;

use crate::fault::{ConfigError, Fault, FaultKind, LaunchError};
use crate::limits;
use crate::memory::DeviceMemory;
use crate::module::{Kernel, Placement};
use block::{Block, Progress};

/// How a kernel is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchConfig<'p> {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Shared memory beyond what the kernel declares.
    pub dynamic_shared_bytes: u32,
    /// The parameter block, laid out as [`Kernel::params`] says.
    pub params: &'p [u8],
    /// All blocks are resident at once and may wait for each other (`cuLaunchCooperativeKernel`). Otherwise they run one
    /// after the other, and a block that waits for a later one uses up the budget.
    pub cooperative: bool,
    /// Instructions that all threads together may execute before the launch counts as hung.
    pub instruction_budget: u64,
    /// SMs of the device: `%nsmid`, and what `%smid` counts to.
    pub sm_count: u32,
    /// Most shared memory a block may have, static and dynamic together.
    pub shared_bytes_max: u32,
    /// What `%clock64` begins at.
    pub clock: u64,
    /// What `%globaltimer` begins at, in nanoseconds.
    pub globaltimer_ns: u64,
    /// What `%gridid` reads.
    pub grid_id: u64,
}

impl<'p> LaunchConfig<'p> {
    /// A launch on a device like an H100: 132 SMs, 227 KiB of shared memory, and a budget of 2^36 instructions.
    #[must_use]
    pub fn new(grid: [u32; 3], block: [u32; 3], params: &'p [u8]) -> Self {
        Self {
            grid,
            block,
            dynamic_shared_bytes: 0,
            params,
            cooperative: false,
            instruction_budget: 1 << 36,
            sm_count: 132,
            shared_bytes_max: 227 << 10,
            clock: 0,
            globaltimer_ns: 0,
            grid_id: 1,
        }
    }

    fn threads(&self) -> u64 {
        self.block.iter().map(|&size| u64::from(size)).product()
    }

    fn blocks(&self) -> u64 {
        // The largest grid has 2^63 blocks, less than 64 bits hold.
        self.grid.iter().fold(1, |product, &size| product.saturating_mul(u64::from(size)))
    }
}

/// What a kernel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecStats {
    /// Instructions of all threads, those that a predicate switched off among them.
    pub instructions: u64,
    /// Blocks that ran.
    pub blocks: u64,
    /// Threads that ran.
    pub threads: u64,
    /// Loads from global memory, a vector counting once.
    pub global_loads: u64,
    /// Bytes they read.
    pub global_bytes_read: u64,
    /// Stores to global memory.
    pub global_stores: u64,
    /// Bytes they wrote.
    pub global_bytes_written: u64,
    /// Atomic operations on global memory.
    pub global_atomics: u64,
    /// Barriers that completed, once a block.
    pub barriers: u64,
}

/// A launch under way: what all its threads share.
pub(crate) struct Launch<'m, 'p, 'd> {
    pub(crate) kernel: Kernel<'m>,
    pub(crate) config: &'p LaunchConfig<'p>,
    pub(crate) addresses: &'p Placement,
    pub(crate) memory: &'d mut dyn DeviceMemory,
    /// Offset of every shared variable of the module; those the kernel cannot reach have none.
    pub(crate) shared_offsets: Vec<u32>,
    pub(crate) shared_bytes: u32,
    pub(crate) stats: ExecStats,
    pub(crate) budget: u64,
}

/// Why a thread stopped for good.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: FaultKind,
    pub(crate) address: Option<u64>,
    pub(crate) detail: String,
}

impl Trouble {
    /// Boxed, so that the result of the common instruction, which has no trouble, stays small.
    pub(crate) fn new(kind: FaultKind, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self { kind, address: None, detail: detail.into() })
    }

    pub(crate) fn at(kind: FaultKind, address: u64, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self { kind, address: Some(address), detail: detail.into() })
    }
}

impl Kernel<'_> {
    /// Checks everything about a launch that `cuLaunchKernel` checks before it returns.
    ///
    /// # Errors
    /// [`ConfigError`] as the driver would answer.
    pub fn check(&self, config: &LaunchConfig<'_>) -> Result<(), ConfigError> {
        let invalid = |why: String| Err(ConfigError::InvalidValue(why));
        for (axis, name) in ["x", "y", "z"].into_iter().enumerate() {
            let (grid, block) = (config.grid[axis], config.block[axis]);
            let (grid_max, block_max) = (limits::GRID_DIM_MAX[axis], limits::BLOCK_DIM_MAX[axis]);
            if grid == 0 || grid > grid_max {
                return invalid(format!("grid.{name} is {grid}, not 1 to {grid_max}"));
            }
            if block == 0 || block > block_max {
                return invalid(format!("block.{name} is {block}, not 1 to {block_max}"));
            }
        }
        let threads = config.threads();
        if threads > u64::from(limits::BLOCK_THREADS_MAX) {
            return invalid(format!("{threads} threads a block; at most {}", limits::BLOCK_THREADS_MAX));
        }
        if threads > u64::from(self.max_threads_per_block()) {
            let most = self.max_threads_per_block();
            return invalid(format!("{threads} threads a block; the kernel is compiled for at most {most}"));
        }
        if let Some(required) = self.required_block().filter(|&required| required != config.block) {
            return invalid(format!("the kernel is compiled for blocks of {required:?} threads only"));
        }
        if config.params.len() != self.param_bytes() as usize {
            return invalid(format!(
                "{} bytes of parameters; the kernel has {}",
                config.params.len(),
                self.param_bytes()
            ));
        }
        let shared = u64::from(self.static_shared_bytes()) + u64::from(config.dynamic_shared_bytes);
        if shared > u64::from(config.shared_bytes_max) {
            return invalid(format!(
                "{shared} bytes of shared memory; a block has {}",
                config.shared_bytes_max
            ));
        }
        if config.cooperative {
            let resident = u64::from(config.sm_count) * u64::from(limits::SM_THREADS_MAX);
            let all = config.blocks().saturating_mul(threads);
            let state =
                all.saturating_mul(u64::from(self.function.registers) * 8 + u64::from(self.local_bytes()));
            if all > resident || state > limits::COOPERATIVE_BYTES_MAX {
                return Err(ConfigError::CooperativeTooLarge(format!(
                    "{all} threads with {state} bytes of state; {resident} threads and {} bytes can be resident",
                    limits::COOPERATIVE_BYTES_MAX
                )));
            }
        }
        Ok(())
    }

    /// Runs the whole grid. Blocks run in the order of their index, so a kernel without races gives the same result
    /// every time.
    ///
    /// # Errors
    /// [`LaunchError::Config`] when [`Self::check`] fails, [`LaunchError::Fault`] for the first thread that went wrong; its
    /// block and those before it have left their writes in memory.
    pub fn launch(
        &self,
        config: &LaunchConfig<'_>,
        placement: &Placement,
        memory: &mut dyn DeviceMemory,
    ) -> Result<ExecStats, LaunchError> {
        self.check(config)?;
        let mut shared_offsets = vec![0; self.module.shared.len()];
        for &(variable, offset) in &self.layout.shared {
            if let Some(slot) = shared_offsets.get_mut(variable as usize) {
                *slot = offset;
            }
        }
        let mut launch = Launch {
            kernel: *self,
            config,
            addresses: placement,
            memory,
            shared_offsets,
            shared_bytes: self.static_shared_bytes() + config.dynamic_shared_bytes,
            stats: ExecStats::default(),
            budget: config.instruction_budget,
        };
        let done = if config.cooperative { launch.run_together() } else { launch.run_in_turn() };
        match done {
            Ok(()) => Ok(launch.stats),
            Err(fault) => Err(LaunchError::Fault(fault)),
        }
    }
}

impl Launch<'_, '_, '_> {
    fn run_in_turn(&mut self) -> Result<(), Box<Fault>> {
        let mut block = Block::new(self);
        for index in 0..self.config.blocks() {
            block.start(self, index);
            loop {
                match block.advance(self)? {
                    Progress::Done => break,
                    Progress::Moved => {}
                    Progress::Stuck => return Err(block.deadlock(self)),
                }
            }
        }
        Ok(())
    }

    fn run_together(&mut self) -> Result<(), Box<Fault>> {
        let mut blocks = Vec::new();
        for index in 0..self.config.blocks() {
            let mut block = Block::new(self);
            block.start(self, index);
            blocks.push(block);
        }
        loop {
            let mut stuck = None;
            let (mut moved, mut done) = (false, true);
            for (index, block) in blocks.iter_mut().enumerate() {
                match block.advance(self)? {
                    Progress::Done => {}
                    Progress::Moved => (moved, done) = (true, false),
                    Progress::Stuck => {
                        stuck.get_or_insert(index);
                        done = false;
                    }
                }
            }
            if done {
                return Ok(());
            }
            // A block that cannot move is stuck for good: nothing outside it ends its barriers.
            if let (Some(index), false) = (stuck, moved) {
                return Err(blocks[index].deadlock(self));
            }
        }
    }

    /// `ctaid` of a block.
    pub(crate) fn ctaid(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.config.grid.map(u64::from);
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        [narrow(index % x), narrow(index / x % y), narrow(index / x / y)]
    }

    pub(crate) fn cycles(&self) -> u64 {
        let elapsed = self.stats.instructions.wrapping_mul(limits::CYCLES_PER_INSTRUCTION);
        self.config.clock.wrapping_add(elapsed)
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        // Two cycles a nanosecond, about the boost clock of current parts.
        let elapsed = self.stats.instructions.wrapping_mul(limits::CYCLES_PER_INSTRUCTION) / 2;
        self.config.globaltimer_ns.wrapping_add(elapsed)
    }
}
