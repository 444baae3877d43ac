//! THE table of CUDA driver entry points: every symbol Headgate knows, once.
//!
//! Three readers share it: the hook exports a shell for each `hooked` row and nothing else, the simulated
//! driver exports every row, and the benches' null driver too. Adding a symbol starts here (see
//! `CONTRIBUTING.md`, "Add a hooked symbol").
//!
//! A row is `elf_name (arguments) [base name, introduced in, thread mode, family, disposition]`:
//! * *base name* and *introduced in* are what `cuGetProcAddress` is asked with (`cudaTypedefs.h`): among the
//!   rows of one base name and thread mode, the greatest version not above the asked one is meant;
//! * *thread mode* `PerThread` marks the `_ptsz`/`_ptds` twins whose null stream is the calling thread's own;
//! * *family* says what kind of call it is and so, through [`Family::on_failure`], what happens when
//!   Headgate itself fails inside it;
//! * *disposition* says whether the hook stands in front of it (`hooked`) or never sees it (`passed`).
//!
//! Every entry point returns a `CUresult`.

/// Calls the macro `$visit` with every row of the table, behind any `$context` tokens.
///
/// The visitor receives `[context] rows...`, each row ending in `;`. The rows themselves are in `table/`, one file
/// for each area.
#[macro_export]
macro_rules! cuda_symbols {
    ($visit:path $(, $context:tt)*) => {
        $crate::cuda_rows_process! { [$visit] [$($context)*] }
    };
}

/// What kind of call an entry point is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Starts the driver.
    Init,
    /// Hands out entry points.
    Routing,
    /// Asks and changes nothing that is metered.
    Query,
    /// Tells how much memory there is.
    MemoryView,
    /// Makes a context.
    Context,
    /// Ends a context, and with it every allocation inside.
    ContextEnd,
    /// Changes which context a thread works in.
    ContextSwitch,
    /// Sets aside device memory for stacks, device-side heaps and the like.
    ContextLimit,
    /// Makes or ends a green context: a share of the SMs.
    GreenContext,
    /// Writes a process's device memory out, or takes it back in.
    Checkpoint,
    /// Takes device memory.
    Allocate,
    /// Gives device memory back.
    Free,
    /// Takes memory that moves between host and device.
    Managed,
    /// Says where such memory should be, or moves it.
    ManagedHint,
    /// Takes device memory from a pool.
    PoolAllocate,
    /// Makes, trims, tunes or ends a pool; graph memory is one.
    Pool,
    /// Takes physical memory that has no address yet. Its location may be the host.
    PhysicalMemory,
    /// Reserves addresses, maps physical memory there, and lets go of either. Memory lives until its last handle and
    /// its last mapping are gone.
    VirtualMemory,
    /// Takes device memory for an array or a mipmap.
    Array,
    /// Gives an array or a mipmap back.
    ArrayEnd,
    /// Handles objects that memory of several devices is bound to. They hold no device memory of their own.
    Multicast,
    /// Hands memory or events to another process, or takes them from one. The exporter has paid for the memory.
    Ipc,
    /// Handles memory and semaphores of other programming interfaces, which pay for them.
    External,
    /// Handles resources shared with graphics, likewise.
    Graphics,
    /// Handles host memory only.
    HostMemory,
    /// Moves or fills bytes in stream order.
    Copy,
    /// Moves bytes and waits for the device.
    SynchronousCopy,
    /// Loads code.
    Module,
    /// Starts kernels.
    Launch,
    /// Keeps arguments and shape of a launch in the oldest form of launching.
    LaunchSetup,
    /// Runs host code in stream order.
    HostFunction,
    /// Makes or joins streams.
    Stream,
    /// Ends a stream.
    StreamEnd,
    /// Asks whether work is done.
    Poll,
    /// Waits for the device.
    Synchronize,
    /// Reads or writes a word in stream order.
    MemoryOperation,
    /// Handles events.
    Event,
    /// Marks a point in a stream.
    EventRecord,
    /// Begins, ends or steers the recording of a stream into a graph.
    Capture,
    /// Builds a graph.
    Graph,
    /// Adds a node that may take device memory.
    GraphMemory,
    /// Makes a graph ready to launch.
    GraphReady,
    /// Starts a graph.
    GraphLaunch,
    /// Ends a graph, and may end allocations it owns.
    GraphEnd,
    /// Describes how kernels read memory.
    Texture,
}

/// What a shell does when Headgate itself fails (a panic, a lost session), not the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// Hand the call to the driver as if the hook were not there.
    Forward,
    /// Refuse it: a call that takes memory must not slip past the ledger.
    Deny,
}

impl Family {
    /// The failure policy of the family. Only what takes memory is refused: refusing a launch, a free or a
    /// query would break a tenant for our fault, and a launch that slips through is still seen by the device's
    /// own accounting.
    #[must_use]
    pub fn on_failure(self) -> OnFailure {
        match self {
            Self::Allocate
            | Self::Managed
            | Self::PoolAllocate
            | Self::PhysicalMemory
            | Self::Array
            | Self::GraphMemory => OnFailure::Deny,
            _ => OnFailure::Forward,
        }
    }
}

impl Family {
    /// Whether an isolating hook has something to do in the family: it takes or gives back device memory, tells how
    /// much there is, or starts work on the device.
    #[must_use]
    pub fn is_metered(self) -> bool {
        match self {
            Self::MemoryView
            | Self::Context
            | Self::ContextEnd
            | Self::Allocate
            | Self::Free
            | Self::Managed
            | Self::PoolAllocate
            | Self::Pool
            | Self::PhysicalMemory
            | Self::VirtualMemory
            | Self::Array
            | Self::ArrayEnd
            | Self::Ipc
            | Self::Launch
            | Self::Capture
            | Self::GraphMemory
            | Self::GraphReady
            | Self::GraphLaunch
            | Self::GraphEnd => true,
            Self::Init
            | Self::Routing
            | Self::Query
            | Self::ContextSwitch
            | Self::ContextLimit
            | Self::GreenContext
            | Self::Checkpoint
            | Self::ManagedHint
            | Self::Multicast
            | Self::External
            | Self::Graphics
            | Self::HostMemory
            | Self::Copy
            | Self::SynchronousCopy
            | Self::Module
            | Self::LaunchSetup
            | Self::HostFunction
            | Self::Stream
            | Self::StreamEnd
            | Self::Poll
            | Self::Synchronize
            | Self::MemoryOperation
            | Self::Event
            | Self::EventRecord
            | Self::Graph
            | Self::Texture => false,
        }
    }
}

/// Whose default stream the null stream means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadMode {
    /// The legacy default stream, or the call takes no stream.
    Base,
    /// The calling thread's own default stream (`_ptsz`, `_ptds`).
    PerThread,
}

/// Whether the hook stands in front of an entry point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The hook exports a shell for it.
    Hooked,
    /// The caller gets the driver's own pointer.
    Passed,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Name in the driver library's symbol table.
    pub elf_name: &'static str,
    /// Name `cuGetProcAddress` knows it by.
    pub base_name: &'static str,
    /// CUDA version that introduced this form, as 1000 x major + 10 x minor.
    pub since: u32,
    /// Whose default stream the null stream means.
    pub thread_mode: ThreadMode,
    /// What kind of call it is.
    pub family: Family,
    /// Whether the hook stands in front of it.
    pub disposition: Disposition,
}

macro_rules! disposition {
    (hooked) => {
        Disposition::Hooked
    };
    (passed) => {
        Disposition::Passed
    };
}

macro_rules! define {
    ([] $($name:ident ($($arg:ident: $ty:ty),*) [$base:literal, $since:literal, $thread:ident, $family:ident, $hook:ident];)*) => {
        /// An entry point of the table; its value is the row's index.
        #[allow(non_camel_case_types, missing_docs, reason = "the variants are the C names themselves")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Symbol { $($name,)* }

        /// The rows in table order.
        pub static ROWS: &[Row] = &[$(Row {
            elf_name: stringify!($name),
            base_name: $base,
            since: $since,
            thread_mode: ThreadMode::$thread,
            family: Family::$family,
            disposition: disposition!($hook),
        },)*];

        /// The symbols in table order.
        pub static SYMBOLS: &[Symbol] = &[$(Symbol::$name,)*];
    };
}
cuda_symbols!(define);

/// Number of rows.
pub const COUNT: usize = ROWS.len();

impl Symbol {
    /// The symbol's row.
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Index into arrays kept per symbol.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The symbol of that name in the driver library's symbol table.
#[must_use]
pub fn by_elf_name(name: &str) -> Option<Symbol> {
    ROWS.iter().position(|row| row.elf_name == name).map(|index| SYMBOLS[index])
}

/// What `cuGetProcAddress(base_name, version, thread_mode)` means: the newest form not above `version`.
///
/// A base name without a per-thread twin answers its base form whatever the mode, as the driver does.
/// `Err(true)` says the name exists but every form of it is newer; `Err(false)` that the name is unknown.
pub fn select(base_name: &str, version: u32, mode: ThreadMode) -> Result<Symbol, bool> {
    let mut known = false;
    let mut best: Option<usize> = None;
    for wanted in [mode, ThreadMode::Base] {
        for (index, row) in ROWS.iter().enumerate() {
            if row.base_name != base_name || row.thread_mode != wanted {
                continue;
            }
            known = true;
            if row.since <= version && best.is_none_or(|b| ROWS[b].since <= row.since) {
                best = Some(index);
            }
        }
        if let Some(index) = best {
            return Ok(SYMBOLS[index]);
        }
    }
    Err(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.elf_name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);
    }

    #[test]
    fn selection_follows_version_and_mode() {
        assert_eq!(select("cuMemAlloc", 12000, ThreadMode::Base), Ok(Symbol::cuMemAlloc_v2));
        assert_eq!(select("cuLaunchKernel", 12000, ThreadMode::PerThread), Ok(Symbol::cuLaunchKernel_ptsz));
        assert_eq!(select("cuLaunchKernel", 5000, ThreadMode::PerThread), Ok(Symbol::cuLaunchKernel));
        assert_eq!(select("cuMemAlloc", 12000, ThreadMode::PerThread), Ok(Symbol::cuMemAlloc_v2));
        assert_eq!(select("cuCtxSynchronize", 12000, ThreadMode::Base), Ok(Symbol::cuCtxSynchronize));
        assert_eq!(select("cuCtxSynchronize", 13000, ThreadMode::Base), Ok(Symbol::cuCtxSynchronize_v2));
        assert_eq!(select("cuGetProcAddress", 11030, ThreadMode::Base), Ok(Symbol::cuGetProcAddress));
        assert_eq!(select("cuLaunchKernelEx", 11000, ThreadMode::Base), Err(true));
        assert_eq!(select("cuNoSuchCall", 13000, ThreadMode::Base), Err(false));
        assert_eq!(select("", 0, ThreadMode::Base), Err(false));
    }

    #[test]
    fn only_what_takes_memory_fails_closed() {
        let denied = ROWS.iter().filter(|row| row.family.on_failure() == OnFailure::Deny);
        for row in denied {
            let takes = ["Alloc", "Create", "AddNode", "AddMemAllocNode"];
            assert!(takes.iter().any(|word| row.base_name.contains(word)), "{} takes memory?", row.elf_name);
        }
        for row in
            ROWS.iter().filter(|row| row.base_name.contains("Free") || row.base_name.contains("Destroy"))
        {
            assert_eq!(row.family.on_failure(), OnFailure::Forward, "{} gives memory back", row.elf_name);
        }
    }
}
