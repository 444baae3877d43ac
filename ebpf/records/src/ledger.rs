//! Records of the second ledger: what the driver was seen to hand out and take back, and who asked it around the hook.

/// What a probed function of the driver does; the cookie of its site.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `f(address *out, size bytes, ..)`: plain, stream-ordered and pool memory.
    Allocate = 0,
    /// `cuMemAllocPitch(address *out, size *pitch, size width, size height, ..)`: the driver chooses the pitch.
    AllocatePitch = 1,
    /// `cuMemAllocManaged(address *out, size bytes, ..)`.
    AllocateManaged = 2,
    /// `cuMemCreate(handle *out, size bytes, properties *, ..)`.
    CreatePhysical = 3,
    /// `cuArrayCreate(array *out, descriptor *)`.
    CreateArray = 4,
    /// `cuArray3DCreate(array *out, descriptor *)`.
    CreateArray3d = 5,
    /// Hands out memory whose size its arguments do not tell.
    CreateUnsized = 6,
    /// Hands out memory that another process was charged for.
    Import = 7,
    /// `f(address, ..)` takes memory back.
    Free = 8,
    /// `cuMemRelease(handle)`.
    ReleasePhysical = 9,
    /// `cuArrayDestroy(array)`.
    DestroyArray = 10,
    /// Ends a context and with it whatever was allocated in it.
    EndContext = 11,
    /// Hands out the driver's private functions.
    ExportTable = 12,
    /// Launches work. Probed on demand only.
    Launch = 13,
    /// Takes memory from a pool, which the driver may hold more of than was asked for: as [`Operation::Allocate`].
    AllocatePooled = 14,
}

impl Operation {
    /// Every operation, by number.
    pub const ALL: [Self; 15] = [
        Self::Allocate,
        Self::AllocatePitch,
        Self::AllocateManaged,
        Self::CreatePhysical,
        Self::CreateArray,
        Self::CreateArray3d,
        Self::CreateUnsized,
        Self::Import,
        Self::Free,
        Self::ReleasePhysical,
        Self::DestroyArray,
        Self::EndContext,
        Self::ExportTable,
        Self::Launch,
        Self::AllocatePooled,
    ];

    /// The operation with this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_cookie(cookie: u64) -> Option<Self> {
        Some(match cookie {
            0 => Self::Allocate,
            1 => Self::AllocatePitch,
            2 => Self::AllocateManaged,
            3 => Self::CreatePhysical,
            4 => Self::CreateArray,
            5 => Self::CreateArray3d,
            6 => Self::CreateUnsized,
            7 => Self::Import,
            8 => Self::Free,
            9 => Self::ReleasePhysical,
            10 => Self::DestroyArray,
            11 => Self::EndContext,
            12 => Self::ExportTable,
            13 => Self::Launch,
            14 => Self::AllocatePooled,
            _ => return None,
        })
    }

    /// As what a call around the hook counts.
    #[inline(always)]
    #[must_use]
    pub const fn bypass(self) -> Bypass {
        match self {
            Self::Free | Self::ReleasePhysical | Self::DestroyArray | Self::EndContext => Bypass::Release,
            Self::ExportTable => Bypass::ExportTable,
            Self::Launch => Bypass::Launch,
            _ => Bypass::Allocate,
        }
    }
}

/// What was called around the hook.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bypass {
    /// Something that hands out memory.
    Allocate = 0,
    /// Something that takes it back.
    Release = 1,
    /// `cuGetExportTable`, the way to functions that no hook sees.
    ExportTable = 2,
    /// A launch. Seen during launch audits only.
    Launch = 3,
}

impl Bypass {
    /// Every kind, by number.
    pub const ALL: [Self; 4] = [Self::Allocate, Self::Release, Self::ExportTable, Self::Launch];

    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocate => "allocate",
            Self::Release => "release",
            Self::ExportTable => "export_table",
            Self::Launch => "launch",
        }
    }
}

/// Kinds of bypass.
pub const BYPASSES: usize = Bypass::ALL.len();

/// Calls of one tenant on one CPU, by kind, that did not come out of the hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypasses {
    /// By a process that has a hook, from outside its code.
    pub outside: [u64; BYPASSES],
    /// By a process without an attested hook.
    pub unattested: [u64; BYPASSES],
    /// Launches seen, whoever made them.
    pub launches: u64,
    /// Processes ended for one.
    pub refused: u64,
}

impl Bypasses {
    /// None.
    pub const EMPTY: Self =
        Self { outside: [0; BYPASSES], unattested: [0; BYPASSES], launches: 0, refused: 0 };
}

/// What the witness does about a tenant's calls around the hook, besides counting them: an entry of the array of rules.
pub mod rule {
    /// Nothing.
    pub const COUNT: u32 = 0;
    /// It ends the process before the driver sees an allocation, or a launch that is watched.
    pub const REFUSE: u32 = 1;
}

/// What memory was handed out as: which of a process' sums it is in.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Plain and pitched memory.
    Plain = 0,
    /// Managed memory, which may lie on either side.
    Managed = 1,
    /// Physical memory of a device, to be mapped.
    Physical = 2,
    /// Arrays, by their descriptors: the driver may pad them.
    Array = 3,
    /// Stream-ordered and pool memory, by what was asked for.
    Pooled = 4,
}

/// Kinds of memory.
pub const KINDS: usize = 5;

/// What names an allocation: addresses, handles and arrays are numbers of three worlds.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// A device address.
    Address = 0,
    /// A handle of physical memory.
    Handle = 1,
    /// An array.
    Array = 2,
}

/// A process that has allocated; keyed by process id in the initial PID namespace, removed by the kernel when the process
/// executes another program or ends, and its bytes with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Tells processes apart that had one number after another; its two low bits are zero.
    pub birth: u32,
    /// Row of the tenant that its last call was made as.
    pub row: u32,
    /// Bytes held, by [`Kind`].
    pub bytes: [u64; KINDS],
    /// Allocations held.
    pub held: u64,
    /// Contexts ended: what was allocated in them is gone without a call for each, and still in `bytes`.
    pub context_ends: u64,
    /// Allocations from pools, ever: a pool may hold memory after the last of them is gone.
    pub pool_calls: u64,
}

/// Names one allocation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationKey {
    /// The process.
    pub tgid: u32,
    /// Its [`Process::birth`], and the [`Space`] in the two low bits.
    pub birth_and_space: u32,
    /// Address, handle or array.
    pub name: u64,
}

impl AllocationKey {
    /// The birth of the process it belongs to.
    #[must_use]
    pub const fn birth(self) -> u32 {
        self.birth_and_space & !3
    }
}

/// One allocation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its size.
    pub bytes: u64,
    /// Its [`Kind`].
    pub kind: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
}

/// The call that a thread is in, and the tenant it was last found to belong to; in task storage. The stack pointer is followed
/// as for waits: see [`crate::events::Waiting`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Stack pointer at the outermost entry; zero while the thread is in no call.
    pub stack_pointer: u64,
    /// Where the result will be written, or what is taken back.
    pub argument: u64,
    /// Where the pitch will be written.
    pub pitch: u64,
    /// The size asked for; of a pitched allocation the height; of a free what was found.
    pub bytes: u64,
    /// The cgroup for which `row` was found.
    pub cgroup_id: u64,
    /// The attribution epoch in which `row` was found; zero means never.
    pub epoch: u32,
    /// The tenant's row.
    pub row: u32,
    /// The [`Operation`].
    pub operation: u32,
    /// Of a free, the [`Kind`] found; [`NOT_FOUND`] if it was not ours.
    pub kind: u32,
    /// Calls begun inside the outermost one so far.
    pub nested: u32,
    /// Where durations go: the tenant's row, or its [`crate::events::Cell`] on one GPU.
    pub cell: u32,
    /// Start of the outermost call, `CLOCK_MONOTONIC` nanoseconds.
    pub started_ns: u64,
}

/// No kind: what is freed was never seen.
pub const NOT_FOUND: u32 = u32::MAX;

const _: () = {
    let mut number = 0;
    while number < Operation::ALL.len() {
        assert!(Operation::ALL[number] as usize == number, "numbers are dense and in order");
        assert!(matches!(Operation::from_cookie(number as u64), Some(op) if op as usize == number));
        number += 1;
    }
    assert!(Operation::from_cookie(Operation::ALL.len() as u64).is_none());
};
const _: () = assert!(size_of::<Process>() == 72 && align_of::<Process>() == 8);
const _: () = assert!(size_of::<AllocationKey>() == 16 && size_of::<Allocation>() == 16);
const _: () = assert!(size_of::<Call>() == 72 && size_of::<Bypasses>() == 80);
