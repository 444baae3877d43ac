//! The second ledger, and the bypass witness: what the driver was seen to hand out, and whether the hook asked for it.
//!
//! # Why
//! The hook's ledger is the hook's word, and the hook lives in the tenant's process. This one is kept where the tenant cannot
//! write. Two ledgers that agree to the byte are evidence; a difference has a tenant's name.
//!
//! # How
//! An entry and a return probe on every call of the driver that hands out memory or takes it back. What it is comes from the
//! site's cookie. A thread's record follows its outermost call by stack pointer, exactly as for waits (`wait.rs`).
//!
//! ```text
//!   allocation  entry: remember where the result goes and the size    return, success: enter it, add to the process
//!   free        entry: take it out of the table                       return, success: subtract; failure: put it back
//! ```
//! A free takes its entry out before the driver sees it: afterwards another thread may be handed the same address.
//!
//! A process' bytes are in its own record, with the row of its tenant as a label; a tenant's bytes are the sum over its processes.
//! So a process that moves takes its bytes along, and one that ends takes them with it in one removal, whatever it held.
//! What is left of its allocations names a process that is no more; the loader sweeps it up.
//!
//! The witness looks at the return address at entry: a call out of the hook returns into the hook's code. Where the tenant's
//! rule says so, an allocation around the hook ends its process before the driver sees it. A process without an attested hook that
//! was there before the witness is only counted: it may have had one attested by a daemon that is no more.
//!
//! # Known drift
//! Contexts that end take allocations with them without a call for each; they are counted per process, and the sum is too
//! high from then on. Memory whose size no argument tells is counted, not summed. A process that idles after moving keeps
//! its old label until its next call. A forged return address deceives the witness, not the ledger.

#![no_std]
#![no_main]

mod attribution;
mod cells;

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, pt_regs},
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::generated::{
        bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user,
        bpf_send_signal,
    },
    macros::{btf_map, raw_tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use headgate_ebpf_programs::{
    count::{add, count, count_by, observe},
    session::is_return,
    storage::TaskStorage,
};
use headgate_ebpf_records::{
    counters::Counter,
    gate::Attested,
    histogram::Histogram,
    ledger::{
        Allocation, AllocationKey, Bypass, Bypasses, Call, KINDS, Kind, NOT_FOUND, Operation, Process, Space,
        rule,
    },
    limits::{ALLOCATIONS_MAX, ATTESTED_MAX, NESTED_CALLS_MAX, NESTED_STACK_BYTES, PROCESSES_MAX},
    slots::ROWS_MAX,
};

use crate::{
    attribution::{current_cgroup, current_row},
    cells::cell_of,
};

/// See [`headgate_ebpf_records::maps::EPOCH`].
#[btf_map]
static EPOCH: Array<u32, 1> = Array::new();

#[btf_map]
static CALLS: TaskStorage<Call> = TaskStorage::new();

#[btf_map]
static PROCESSES: HashMap<u32, Process, { PROCESSES_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static ALLOCATIONS: HashMap<
    AllocationKey,
    Allocation,
    { ALLOCATIONS_MAX as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
static ATTESTED: HashMap<u32, Attested, { ATTESTED_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static BYPASSES: PerCpuArray<Bypasses, { ROWS_MAX as usize }> = PerCpuArray::new();

#[btf_map]
static RULES: Array<u32, { ROWS_MAX as usize }> = Array::new();

#[btf_map]
static CALL_TIMES: PerCpuArray<Histogram, { ROWS_MAX as usize }> = PerCpuArray::new();

/// `SIGKILL`.
const KILL: u32 = 9;

/// What x86-64's `call` pushed and `ret` has popped by the time the return probe runs.
const RETURN_ADDRESS_BYTES: u64 = 8;

/// Entry and return of a call by one program, where the kernel has links that tell it both.
#[uprobe]
pub fn ledger_session(context: ProbeContext) -> u32 {
    if is_return(&context) {
        leave(context.regs);
        return 0;
    }
    u32::from(!enter(&context))
}

#[uprobe]
pub fn ledger_enter(context: ProbeContext) -> u32 {
    enter(&context);
    0
}

#[uretprobe]
pub fn ledger_leave(context: RetProbeContext) -> u32 {
    leave(context.regs);
    0
}

/// Takes the beginning of a call in; answers whether its return matters.
#[inline(always)]
fn enter(context: &ProbeContext) -> bool {
    // SAFETY: the context of a uprobe.
    let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    let Some(operation) = Operation::from_cookie(cookie) else { return false };
    let call = CALLS.of_current_or_new();
    if call.is_null() {
        count(Counter::LedgerLost);
        return false;
    }
    let registers: *const pt_regs = context.regs;
    // SAFETY: the kernel passes the registers of the probed thread, here and below.
    let stack_pointer = unsafe { (*registers).rsp };
    // SAFETY: not null, and only the current thread touches its own record, here and below.
    let outermost = unsafe { (*call).stack_pointer };
    if outermost != 0 {
        // SAFETY: as above.
        let nested = unsafe { (*call).nested };
        let below = outermost.wrapping_sub(stack_pointer);
        if below != 0 && below < NESTED_STACK_BYTES && nested < NESTED_CALLS_MAX {
            // SAFETY: as above.
            unsafe { (*call).nested = nested + 1 };
            count(Counter::LedgerNested);
            return false;
        }
        // In the very frame of a call under way it is a tail call, which lost nothing.
        if below != 0 {
            count(Counter::LedgerAbandoned);
        }
    }
    // SAFETY: the thread's own record.
    let row = unsafe { row_of(call) };
    let tgid = current_process();
    witness(stack_pointer, tgid, row, operation.bypass());
    // SAFETY: as above.
    let started = unsafe { (*registers).rdi };
    // SAFETY: as above.
    unsafe { (*call).nested = 0 };
    // SAFETY: as above.
    unsafe { (*call).operation = operation as u32 };
    // SAFETY: as above.
    unsafe { (*call).argument = started };
    // SAFETY: as above.
    let (second, third, fourth) = unsafe { ((*registers).rsi, (*registers).rdx, (*registers).rcx) };
    let (mut bytes, mut kind) = (second, NOT_FOUND);
    match operation {
        Operation::AllocatePitch => {
            // SAFETY: as above.
            unsafe { (*call).pitch = second };
            bytes = fourth;
        }
        Operation::CreatePhysical => {
            // Memory of the host, to be mapped, is none of a GPU's.
            if !is_of_device(third) {
                bytes = 0;
            }
        }
        Operation::CreateArray => bytes = array_bytes(second),
        Operation::CreateArray3d => bytes = array_3d_bytes(second),
        Operation::Free | Operation::ReleasePhysical | Operation::DestroyArray => {
            // SAFETY: copied at once.
            let process = unsafe { PROCESSES.get(tgid) }.copied();
            bytes = 0;
            if let Some(process) = process {
                let key = key(tgid, process.birth, space_of(operation), started);
                // SAFETY: copied at once.
                if let Some(found) = unsafe { ALLOCATIONS.get(key) }.copied()
                    && ALLOCATIONS.remove(key).is_ok()
                {
                    bytes = found.bytes;
                    kind = found.kind;
                }
            }
        }
        _ => {}
    }
    // SAFETY: as above.
    unsafe { (*call).bytes = bytes };
    // SAFETY: as above.
    unsafe { (*call).kind = kind };
    // SAFETY: as above; the helper takes nothing.
    unsafe { (*call).started_ns = bpf_ktime_get_ns() };
    // SAFETY: as above.
    unsafe { (*call).stack_pointer = stack_pointer };
    true
}

/// Takes the end of a call in.
#[inline(always)]
fn leave(registers: *const pt_regs) {
    let call = CALLS.of_current();
    if call.is_null() {
        count(Counter::LedgerUnmatched);
        return;
    }
    // SAFETY: the kernel passes the registers of the probed thread, here and below.
    let frame = unsafe { (*registers).rsp }.wrapping_sub(RETURN_ADDRESS_BYTES);
    // SAFETY: not null, and only the current thread touches its own record.
    let outermost = unsafe { (*call).stack_pointer };
    if outermost == 0 {
        count(Counter::LedgerUnmatched);
        return;
    }
    if frame < outermost {
        return;
    }
    // SAFETY: as above.
    unsafe { (*call).stack_pointer = 0 };
    if frame > outermost {
        count(Counter::LedgerAbandoned);
        return;
    }
    // SAFETY: as above.
    let call = unsafe { *call };
    // SAFETY: the helper takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    observe(&CALL_TIMES, call.cell, now_ns.wrapping_sub(call.started_ns));
    // A driver function answers 32 bits.
    // SAFETY: as above.
    let succeeded = unsafe { (*registers).rax } as u32 == 0;
    let Some(operation) = Operation::from_cookie(u64::from(call.operation)) else { return };
    match operation {
        Operation::Free | Operation::ReleasePhysical | Operation::DestroyArray => {
            settle_free(&call, operation, succeeded);
        }
        _ if !succeeded => {}
        Operation::CreateUnsized => count(Counter::LedgerUnsized),
        Operation::Import => count(Counter::LedgerImported),
        Operation::EndContext => {
            if let Some(process) = PROCESSES.get_ptr_mut(current_process()) {
                // SAFETY: the value was just looked up.
                unsafe { add(&raw mut (*process).context_ends, 1) };
            }
        }
        Operation::ExportTable | Operation::Launch => {}
        _ => settle_allocation(&call, operation),
    }
}

/// A launch, while launches are audited.
#[uprobe]
pub fn ledger_launch(context: ProbeContext) -> u32 {
    let call = CALLS.of_current_or_new();
    if call.is_null() {
        count(Counter::LedgerLost);
        return 0;
    }
    // SAFETY: the thread's own record.
    let row = unsafe { row_of(call) };
    if let Some(bypasses) = BYPASSES.get_ptr_mut(row) {
        // SAFETY: the value was just looked up.
        unsafe { add(&raw mut (*bypasses).launches, 1) };
    }
    // SAFETY: the kernel passes the registers of the probed thread.
    let stack_pointer = unsafe { (*context.regs).rsp };
    witness(stack_pointer, current_process(), row, Bypass::Launch);
    0
}

/// The tracepoint's second argument says whether the last thread is ending. A kernel without it refuses the attachment.
#[raw_tracepoint]
pub fn ledger_exit(context: RawTracePointContext) -> i32 {
    let last: u64 = context.arg(1);
    if last as u8 != 0 {
        forget();
    }
    0
}

#[raw_tracepoint]
pub fn ledger_exit_leader(_: RawTracePointContext) -> i32 {
    // SAFETY: the helper takes nothing.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    if (ids >> 32) as u32 == ids as u32 {
        forget();
    }
    0
}

#[raw_tracepoint]
pub fn ledger_exec(_: RawTracePointContext) -> i32 {
    forget();
    0
}

/// Forgets the current process: its bytes, its attestation.
#[inline(always)]
fn forget() {
    let tgid = current_process();
    // Most processes have neither.
    let _absent = ATTESTED.remove(tgid);
    // SAFETY: copied at once.
    if let Some(process) = unsafe { PROCESSES.get(tgid) }.copied()
        && PROCESSES.remove(tgid).is_ok()
    {
        count_by(Counter::LedgerOrphans, process.held);
    }
}

/// Enters what was handed out.
#[inline(always)]
fn settle_allocation(call: &Call, operation: Operation) {
    let Some(name) = read_user::<u64>(call.argument) else {
        count(Counter::LedgerLost);
        return;
    };
    let mut bytes = call.bytes;
    if operation == Operation::AllocatePitch {
        let Some(pitch) = read_user::<u64>(call.pitch) else {
            count(Counter::LedgerLost);
            return;
        };
        bytes = pitch.wrapping_mul(call.bytes);
    }
    if bytes == 0 {
        if matches!(operation, Operation::CreateArray | Operation::CreateArray3d) {
            count(Counter::LedgerUnsized);
        }
        return;
    }
    let tgid = current_process();
    let Some(process) = process_record(tgid, call.row) else {
        count(Counter::LedgerFull);
        return;
    };
    let kind = match operation {
        Operation::AllocateManaged => Kind::Managed,
        Operation::CreatePhysical => Kind::Physical,
        Operation::CreateArray | Operation::CreateArray3d => Kind::Array,
        Operation::AllocatePooled => Kind::Pooled,
        _ => Kind::Plain,
    } as u32;
    // SAFETY: the value was just looked up.
    let birth = unsafe { (*process).birth };
    let key = key(tgid, birth, space_of(operation), name);
    if ALLOCATIONS.insert(key, Allocation { bytes, kind, reserved: 0 }, 0).is_err() {
        count(Counter::LedgerFull);
        return;
    }
    // SAFETY: as above.
    unsafe { add_bytes(process, kind, bytes) };
    // SAFETY: as above.
    unsafe { add(&raw mut (*process).held, 1) };
    if kind == Kind::Pooled as u32 {
        // SAFETY: as above.
        unsafe { add(&raw mut (*process).pool_calls, 1) };
    }
}

/// Takes off what was given back, or puts it back if the driver refused.
#[inline(always)]
fn settle_free(call: &Call, operation: Operation, succeeded: bool) {
    if call.kind == NOT_FOUND {
        // Freeing nothing is allowed and frees nothing.
        if succeeded && call.argument != 0 {
            count(Counter::LedgerUnknownFree);
        }
        return;
    }
    let tgid = current_process();
    let Some(process) = PROCESSES.get_ptr_mut(tgid) else { return };
    // SAFETY: the value was just looked up, here and below.
    unsafe { (&raw mut (*process).row).write_volatile(call.row) };
    if succeeded {
        // SAFETY: as above.
        unsafe { add_bytes(process, call.kind, call.bytes.wrapping_neg()) };
        // SAFETY: as above.
        unsafe { add(&raw mut (*process).held, 1u64.wrapping_neg()) };
        return;
    }
    // SAFETY: as above.
    let birth = unsafe { (*process).birth };
    let key = key(tgid, birth, space_of(operation), call.argument);
    let allocation = Allocation { bytes: call.bytes, kind: call.kind, reserved: 0 };
    if ALLOCATIONS.insert(key, allocation, 0).is_err() {
        count(Counter::LedgerFull);
    }
}

/// Adds to one of a process' sums.
///
/// # Safety
/// `process` was looked up in this run of the program.
#[inline(always)]
unsafe fn add_bytes(process: *mut Process, kind: u32, bytes: u64) {
    // Spelled out, so that every offset is a constant to the verifier.
    match kind {
        // SAFETY: the caller's promise, here and below.
        0 => unsafe { add(&raw mut (*process).bytes[0], bytes) },
        // SAFETY: as above.
        1 => unsafe { add(&raw mut (*process).bytes[1], bytes) },
        // SAFETY: as above.
        2 => unsafe { add(&raw mut (*process).bytes[2], bytes) },
        // SAFETY: as above.
        3 => unsafe { add(&raw mut (*process).bytes[3], bytes) },
        // SAFETY: as above.
        _ => unsafe { add(&raw mut (*process).bytes[4], bytes) },
    }
}

/// The current process' record, made if it has none, with the tenant it is now.
#[inline(always)]
fn process_record(tgid: u32, row: u32) -> Option<*mut Process> {
    if let Some(process) = PROCESSES.get_ptr_mut(tgid) {
        // SAFETY: the value was just looked up; a 32-bit label, stored whole.
        unsafe { (&raw mut (*process).row).write_volatile(row) };
        return Some(process);
    }
    // Microseconds, without the two bits that tell spaces apart: a number that comes again after an hour, for a process id
    // that comes again.
    // SAFETY: the helper takes nothing.
    let birth = (unsafe { bpf_ktime_get_ns() } >> 10) as u32 & !3;
    let fresh = Process { birth, row, bytes: [0; KINDS], held: 0, context_ends: 0, pool_calls: 0 };
    // Another thread of the process may have been faster: then its record counts.
    let _there = PROCESSES.insert(tgid, fresh, u64::from(BPF_NOEXIST));
    PROCESSES.get_ptr_mut(tgid)
}

#[inline(always)]
const fn key(tgid: u32, birth: u32, space: Space, name: u64) -> AllocationKey {
    AllocationKey { tgid, birth_and_space: birth | space as u32, name }
}

#[inline(always)]
const fn space_of(operation: Operation) -> Space {
    match operation {
        Operation::CreatePhysical | Operation::ReleasePhysical => Space::Handle,
        Operation::CreateArray | Operation::CreateArray3d | Operation::DestroyArray => Space::Array,
        _ => Space::Address,
    }
}

/// Counts a call that does not return into the hook.
#[inline(always)]
fn witness(stack_pointer: u64, tgid: u32, row: u32, bypass: Bypass) {
    // SAFETY: copied at once.
    let attested = unsafe { ATTESTED.get(tgid) }.copied();
    // An address that cannot be read is nobody's code.
    let caller = read_user::<u64>(stack_pointer).unwrap_or(0);
    if let Some(hook) = attested
        && hook.start <= caller
        && caller < hook.end
    {
        return;
    }
    let Some(bypasses) = BYPASSES.get_ptr_mut(row) else { return };
    // SAFETY: the value was just looked up, here and below.
    // A process from before the witness is entered without code.
    let has_hook = attested.is_some_and(|hook| hook.end != 0);
    let counts = if has_hook {
        unsafe { &raw mut (*bypasses).outside }
    } else {
        // SAFETY: as above.
        unsafe { &raw mut (*bypasses).unattested }
    };
    let counts: *mut u64 = counts.cast();
    // Spelled out, so that every offset is a constant to the verifier.
    let number = match bypass {
        Bypass::Allocate => counts,
        // SAFETY: inside the array of four, here and below.
        Bypass::Release => unsafe { counts.add(1) },
        // SAFETY: as above.
        Bypass::ExportTable => unsafe { counts.add(2) },
        // SAFETY: as above.
        Bypass::Launch => unsafe { counts.add(3) },
    };
    // SAFETY: as above.
    unsafe { add(number, 1) };
    let is_older = attested.is_some_and(|hook| hook.end == 0);
    if is_older || !matches!(bypass, Bypass::Allocate | Bypass::Launch) {
        return;
    }
    // SAFETY: a 32-bit number in a value just looked up; the loader stores it whole.
    let rule = RULES.get_ptr(row).map_or(rule::COUNT, |rule| unsafe { rule.read_volatile() });
    // The thread has not left the kernel since it hit the probe, so it never executes the driver's next instruction.
    // SAFETY: the helper takes a number.
    if rule == rule::REFUSE && unsafe { bpf_send_signal(KILL) } == 0 {
        // SAFETY: as above.
        unsafe { add(&raw mut (*bypasses).refused, 1) };
    }
}

/// Whether properties of physical memory ask for a device's. What cannot be read is taken for it.
#[inline(always)]
fn is_of_device(properties: u64) -> bool {
    // CUmemAllocationProp: type, handle types, then the location's type, of which 1 is a device.
    read_user::<[u32; 3]>(properties).is_none_or(|[_, _, location]| location == 1)
}

/// CUDA_ARRAY_DESCRIPTOR.
#[inline(always)]
fn array_bytes(descriptor: u64) -> u64 {
    read_user::<[u64; 3]>(descriptor).map_or(0, |[width, height, format]| extent(width, height, 1, format))
}

/// CUDA_ARRAY3D_DESCRIPTOR. Sparse and deferred arrays have no memory of their own.
#[inline(always)]
fn array_3d_bytes(descriptor: u64) -> u64 {
    const WITHOUT_MEMORY: u64 = 0x40 | 0x80;
    match read_user::<[u64; 5]>(descriptor) {
        Some([width, height, depth, format, flags]) if flags & WITHOUT_MEMORY == 0 => {
            extent(width, height, depth, format)
        }
        _ => 0,
    }
}

/// Bytes of the elements of an array; zero if its format is none of the plain ones. The number of channels is in the upper half
/// of the last word.
#[inline(always)]
fn extent(width: u64, height: u64, depth: u64, format_and_channels: u64) -> u64 {
    let element = match format_and_channels as u32 {
        0x01 | 0x08 => 1,
        0x02 | 0x09 | 0x10 => 2,
        0x03 | 0x0a | 0x20 => 4,
        _ => return 0,
    };
    let rows = if height == 0 { 1 } else { height };
    let layers = if depth == 0 { 1 } else { depth };
    width
        .wrapping_mul(rows)
        .wrapping_mul(layers)
        .wrapping_mul(element)
        .wrapping_mul(format_and_channels >> 32)
}

/// Reads a value of the process.
#[inline(always)]
fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the buffer is as long as its size says; the helper checks the address and every T here is numbers only.
    let answer =
        unsafe { bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) };
    // SAFETY: the helper filled it.
    (answer == 0).then(|| unsafe { value.assume_init() })
}

/// The current process.
#[inline(always)]
fn current_process() -> u32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The tenant row of the current thread, from its record if neither its cgroup nor the table has changed since: see `wait.rs`.
///
/// # Safety
/// `call` is the current thread's own record.
#[inline(always)]
unsafe fn row_of(call: *mut Call) -> u32 {
    // SAFETY: a 32-bit number in a map value just looked up; one load.
    let epoch = EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { epoch.read_volatile() });
    let cgroup_id = current_cgroup();
    // SAFETY: the caller's promise, here and below.
    if unsafe { (*call).epoch } == epoch && unsafe { (*call).cgroup_id } == cgroup_id {
        // SAFETY: as above.
        return unsafe { (*call).row };
    }
    let row = current_row();
    // SAFETY: as above.
    unsafe { (*call).cgroup_id = cgroup_id };
    // SAFETY: as above.
    unsafe { (*call).epoch = epoch };
    // SAFETY: as above.
    unsafe { (*call).row = row };
    // SAFETY: as above.
    unsafe { (*call).cell = cell_of(row, 0) };
    row
}
