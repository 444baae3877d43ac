//! What can go wrong while a kernel runs, and what a launch can be refused for.

use std::fmt;

/// What a thread did. Each kind is the CUDA error that the real driver reports for it; all are sticky there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside every allocation, or outside the block's shared or the thread's local memory.
    IllegalAddress,
    /// An access whose address is not a multiple of its size.
    MisalignedAddress,
    /// An instruction that cannot be executed as written, such as a warp operation without its own lane in the mask.
    IllegalInstruction,
    /// Calls nested too deeply, or more local memory than a thread has.
    HardwareStackError,
    /// An instruction for some address spaces got an address in another.
    InvalidAddressSpace,
    /// A jump or indirect call to something that is not code.
    InvalidPc,
    /// The kernel executed `trap` or, without a debugger, `brkpt`. Drivers report it as a launch failure; some parts and
    /// releases have been seen to say `CUDA_ERROR_ILLEGAL_INSTRUCTION` instead.
    Trap,
    /// The instruction budget of the launch was used up.
    BudgetExceeded,
    /// Threads wait at barriers or warp operations that can never complete; real hardware hangs.
    Deadlock,
}

impl FaultKind {
    /// The value of `CUresult` that later calls in the context answer with (CUDA driver API, `cuda.h`). Hangs count as
    /// `CUDA_ERROR_LAUNCH_TIMEOUT`, which is what a display watchdog makes of them.
    #[must_use]
    pub fn cuda_code(self) -> u32 {
        match self {
            Self::IllegalAddress => 700,
            Self::BudgetExceeded | Self::Deadlock => 702,
            Self::HardwareStackError => 714,
            Self::IllegalInstruction => 715,
            Self::MisalignedAddress => 716,
            Self::InvalidAddressSpace => 717,
            Self::InvalidPc => 718,
            Self::Trap => 719,
        }
    }

    /// The name of [`Self::cuda_code`].
    #[must_use]
    pub fn cuda_name(self) -> &'static str {
        match self {
            Self::IllegalAddress => "CUDA_ERROR_ILLEGAL_ADDRESS",
            Self::BudgetExceeded | Self::Deadlock => "CUDA_ERROR_LAUNCH_TIMEOUT",
            Self::HardwareStackError => "CUDA_ERROR_HARDWARE_STACK_ERROR",
            Self::IllegalInstruction => "CUDA_ERROR_ILLEGAL_INSTRUCTION",
            Self::MisalignedAddress => "CUDA_ERROR_MISALIGNED_ADDRESS",
            Self::InvalidAddressSpace => "CUDA_ERROR_INVALID_ADDRESS_SPACE",
            Self::InvalidPc => "CUDA_ERROR_INVALID_PC",
            Self::Trap => "CUDA_ERROR_LAUNCH_FAILED",
        }
    }
}

/// A kernel that was stopped, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The kernel that was launched.
    pub kernel: String,
    /// The function the thread was in; the kernel itself unless it had called one.
    pub function: String,
    /// Line of the instruction in the PTX text.
    pub line: u32,
    /// `ctaid` of the thread.
    pub block: [u32; 3],
    /// `tid` of the thread.
    pub thread: [u32; 3],
    /// The address, where there is one.
    pub address: Option<u64>,
    /// What exactly was wrong.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(
            f,
            "{} in kernel {}, function {}, ptx line {}, block ({bx},{by},{bz}), thread ({tx},{ty},{tz})",
            self.kind.cuda_name(),
            self.kernel,
            self.function,
            self.line
        )?;
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl std::error::Error for Fault {}

/// A launch that the driver refuses before any thread runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// A dimension is zero or larger than any device has, or the parameter block has the wrong size.
    /// `CUDA_ERROR_INVALID_VALUE`.
    InvalidValue(String),
    /// More threads, shared memory or local memory than a block can have. `CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES`.
    OutOfResources(String),
    /// A cooperative grid whose blocks cannot all be resident at once. `CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE`.
    CooperativeTooLarge(String),
}

impl ConfigError {
    /// The value of `CUresult` that `cuLaunchKernel` answers with.
    #[must_use]
    pub fn cuda_code(&self) -> u32 {
        match self {
            Self::InvalidValue(_) => 1,
            Self::OutOfResources(_) => 701,
            Self::CooperativeTooLarge(_) => 720,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidValue(why) => write!(f, "invalid launch: {why}"),
            Self::OutOfResources(why) => write!(f, "launch out of resources: {why}"),
            Self::CooperativeTooLarge(why) => write!(f, "cooperative launch too large: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Why a launch did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchError {
    /// It never started.
    Config(ConfigError),
    /// A thread faulted; what the kernel had written until then stays written.
    Fault(Box<Fault>),
}

impl LaunchError {
    /// The value of `CUresult` for it.
    #[must_use]
    pub fn cuda_code(&self) -> u32 {
        match self {
            Self::Config(error) => error.cuda_code(),
            Self::Fault(fault) => fault.kind.cuda_code(),
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

impl From<ConfigError> for LaunchError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
