//! Every bound of this crate, with its reason. Reaching one is a named error, never an endless run or an allocation
//! that the caller did not ask for.

/// Longest PTX text taken: about ten times the largest module of the CUDA libraries.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// Most instructions in one module; decoded they take about 64 bytes each.
pub const INSTRUCTIONS_MAX: usize = 4 << 20;
/// Most registers one function may use: 1,024 threads of such a function hold 128 MiB.
pub const REGISTERS_MAX: u32 = 16 << 10;
/// Most bytes of call-site and formal parameters in one function. PTX allows 4 KiB, 32,764 since ISA 8.1, for each.
pub const FUNCTION_PARAM_BYTES_MAX: u64 = 1 << 20;
/// Largest parameter block of a kernel (PTX ISA 8.1, `sm_70` and later).
pub const KERNEL_PARAM_BYTES_MAX: u64 = 32_764;
/// Largest alignment a variable may ask for; the driver's allocations are aligned to no more than this.
pub const ALIGNMENT_MAX: u64 = 512;
/// Most initialised bytes of one variable; an uninitialised tail costs nothing.
pub const INITIALISER_BYTES_MAX: u64 = 256 << 20;
/// All `.const` variables of a module together (CUDA C++ Programming Guide, "Technical Specifications").
pub const CONST_BYTES_MAX: u64 = 64 << 10;
/// Largest size of one variable: the 48 bits that device addresses have.
pub const VARIABLE_BYTES_MAX: u64 = 1 << 48;
/// Local memory of one thread (CUDA C++ Programming Guide, "Technical Specifications").
pub const LOCAL_BYTES_MAX: u64 = 512 << 10;
/// Shared memory one block can have on the largest device there is (227 KiB on compute capability 9.0).
pub const SHARED_BYTES_MAX: u64 = 227 << 10;
/// Deepest nesting of `{ }` in a function.
pub const SCOPE_DEPTH_MAX: usize = 64;
/// Deepest chain of calls in one thread; real stacks of the default 1 KiB hold fewer.
pub const CALL_DEPTH_MAX: usize = 1024;
/// Most register slots all frames of one thread may hold together; beyond it the hardware stack has overflowed.
pub const STACK_REGISTERS_MAX: usize = 128 << 10;
/// Most threads of a block, on every compute capability so far.
pub const BLOCK_THREADS_MAX: u32 = 1024;
/// Largest block, by dimension.
pub const BLOCK_DIM_MAX: [u32; 3] = [1024, 1024, 64];
/// Largest grid, by dimension.
pub const GRID_DIM_MAX: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];
/// Resident threads of one SM, on every compute capability since 8.0 but 8.6 and 8.9.
pub const SM_THREADS_MAX: u32 = 2048;
/// Most state that the threads of a cooperative launch, all of which live at once, may take on the host.
pub const COOPERATIVE_BYTES_MAX: u64 = 2 << 30;
/// Named barriers of a block.
pub const BARRIERS: usize = 16;
/// Threads of a warp.
pub const WARP_LANES: usize = 32;
/// Instructions one thread runs before the others of its block get a turn, so that a thread that spins on a lock
/// cannot starve the holder.
pub const SLICE_INSTRUCTIONS: u64 = 4096;
/// Cycles that the clock registers advance for each instruction of a thread.
pub const CYCLES_PER_INSTRUCTION: u64 = 4;

// Relations that other code relies on.
const _: () = assert!((BLOCK_THREADS_MAX as usize).is_multiple_of(WARP_LANES));
const _: () = assert!(REGISTERS_MAX as usize <= STACK_REGISTERS_MAX);
const _: () = assert!(LOCAL_BYTES_MAX < crate::memory::WINDOW_BYTES);
const _: () = assert!(SHARED_BYTES_MAX < crate::memory::WINDOW_BYTES);
const _: () = assert!(KERNEL_PARAM_BYTES_MAX < crate::memory::WINDOW_BYTES);
