//! What operations on the device do to shared memory: read gate words, write marks.

use std::sync::atomic::Ordering::{Acquire, Release};

use headgate_abi::segment::layout::{GATE_OPEN_BIT, Seat};
use headgate_abi::segment::map::LedgerSegment;
use headgate_abi::segment::{Ledger, SeatIndex, SegmentError};
use headgate_simgpu::model::{ContextId, Fault, Mark, Nanos, World};

/// An operation in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A kernel of this program.
    Kernel {
        /// Index of the program.
        program: usize,
    },
    /// The wait for this program's gate.
    Gate {
        /// Index of the program.
        program: usize,
    },
    /// A lane's batch has passed the gate.
    Started {
        /// Index of the program.
        program: usize,
        /// Its lane.
        lane: usize,
        /// The batch.
        number: u32,
    },
    /// A lane's batch is done.
    Completed {
        /// Index of the program.
        program: usize,
        /// Its lane.
        lane: usize,
        /// The batch.
        number: u32,
    },
}

/// One program's memory and what the device has done for it.
#[derive(Debug)]
pub struct Memory {
    ledger: Ledger,
    seat: SeatIndex,
    /// Kernels that ended.
    pub kernels: u64,
    /// When the last one did.
    pub last_kernel: Nanos,
    /// When the first one did after the last [`Memory::watch`].
    pub first_kernel: Option<Nanos>,
}

impl Memory {
    /// A fresh seat.
    ///
    /// # Errors
    /// When the kernel gives no shared memory.
    ///
    /// # Panics
    /// When a fresh ledger has no seat, which cannot be.
    pub fn new() -> Result<Self, SegmentError> {
        let ledger = Ledger::new(LedgerSegment::create()?.0);
        let Some(seat) = ledger.take_seat(1, 1) else { unreachable!("a fresh ledger has seats") };
        ledger.seat(seat).gates[0].store(GATE_OPEN_BIT, Release);
        Ok(Self { ledger, seat, kernels: 0, last_kernel: 0, first_kernel: None })
    }

    /// The seat.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        self.ledger.seat(self.seat)
    }

    /// Notes when the next kernel ends.
    pub fn watch(&mut self) {
        self.first_kernel = None;
    }
}

/// Every program's memory.
#[derive(Debug, Default)]
pub struct Memories(pub Vec<Memory>);

impl World<Deed> for Memories {
    fn perform(&mut self, at: Nanos, _context: ContextId, deed: Deed) -> Result<(), Fault> {
        match deed {
            Deed::Kernel { program } => {
                let memory = &mut self.0[program];
                memory.kernels += 1;
                memory.last_kernel = at;
                memory.first_kernel.get_or_insert(at);
            }
            Deed::Gate { .. } => {}
            Deed::Started { program, lane, number } => {
                self.0[program].seat().marks[lane].started.store(number, Release);
            }
            Deed::Completed { program, lane, number } => {
                self.0[program].seat().marks[lane].completed.store(number, Release);
            }
        }
        Ok(())
    }

    fn satisfied(&mut self, _at: Nanos, _context: ContextId, deed: &Deed) -> Result<bool, Fault> {
        let Deed::Gate { program } = deed else { return Ok(true) };
        Ok(self.0[*program].seat().gates[0].load(Acquire) & GATE_OPEN_BIT != 0)
    }

    fn completed(&mut self, _at: Nanos, _mark: Mark) {}

    fn faulted(&mut self, _at: Nanos, _context: ContextId, _fault: Fault) {}
}
