//! Checkpoints: a process takes its own memory off the device and brings it back, as NVIDIA's sample does.
#![expect(unsafe_code, reason = "calls the driver API")]

use std::ffi::{CStr, c_void};
use std::io::{BufRead, Write};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use cudarc::driver::sys;

use crate::gpu::{Code, Gpu, NOT_SUPPORTED, UNIT, check};
use crate::transcript::{Case, Lines};

/// The cases in order.
pub const CASES: &[Case] = &[
    ("checkpoint/steps in their order, and no other", steps),
    ("checkpoint/memory comes back to its addresses, with its bytes", bytes),
    ("checkpoint/calls wait while the process is locked", waiting),
];

/// Looks for a call that waits, and the pause between two.
const LOOKS_MAX: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(2);

type Step = unsafe extern "C" fn(i32, *mut c_void) -> sys::CUresult;

/// The entry points, as a program of any release finds them.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    state: unsafe extern "C" fn(i32, *mut u32) -> sys::CUresult,
    lock: Step,
    checkpoint: Step,
    restore: Step,
    unlock: Step,
    pid: i32,
}

/// `CUcheckpointLockArgs`.
#[repr(C)]
struct LockArgs {
    timeout_ms: u32,
    reserved0: u32,
    reserved1: [u64; 7],
}

fn find(name: &CStr) -> Result<*mut c_void, Code> {
    let mut found = null_mut();
    // SAFETY: a terminated name and a place for the answer; the status need not be asked for.
    let status = unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &raw mut found, 12_080, 0, null_mut()) };
    check(status).map_err(|_| NOT_SUPPORTED)?;
    if found.is_null() { Err(NOT_SUPPORTED) } else { Ok(found) }
}

fn step(name: &CStr) -> Result<Step, Code> {
    // SAFETY: the driver's function of that name has this signature (cuda.h).
    find(name).map(|found| unsafe { std::mem::transmute::<*mut c_void, Step>(found) })
}

impl Checkpoint {
    fn find() -> Result<Self, Code> {
        let state = find(c"cuCheckpointProcessGetState")?;
        Ok(Self {
            // SAFETY: the driver's function of that name has this signature (cuda.h).
            state: unsafe {
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(i32, *mut u32) -> _>(state)
            },
            lock: step(c"cuCheckpointProcessLock")?,
            checkpoint: step(c"cuCheckpointProcessCheckpoint")?,
            restore: step(c"cuCheckpointProcessRestore")?,
            unlock: step(c"cuCheckpointProcessUnlock")?,
            pid: i32::try_from(std::process::id()).unwrap_or(-1),
        })
    }

    fn state(self) -> Result<u32, Code> {
        let mut state = u32::MAX;
        // SAFETY: a place for the answer.
        check(unsafe { (self.state)(self.pid, &raw mut state) })?;
        Ok(state)
    }

    fn lock(self) -> Result<(), Code> {
        let mut args = LockArgs { timeout_ms: 5_000, reserved0: 0, reserved1: [0; 7] };
        // SAFETY: arguments as cuda.h lays them out.
        check(unsafe { (self.lock)(self.pid, (&raw mut args).cast()) })
    }

    fn run(self, step: Step) -> Result<(), Code> {
        // SAFETY: the arguments of these steps may be left out.
        check(unsafe { step(self.pid, null_mut()) })
    }
}

/// The entry points, unless this driver says that it does not support them.
fn offered(lines: &mut Lines) -> Result<Option<Checkpoint>, Code> {
    let known = Checkpoint::find().and_then(|steps| steps.state().map(|_| steps));
    match known {
        Err(NOT_SUPPORTED) => {
            lines.note("not supported", NOT_SUPPORTED);
            Ok(None)
        }
        known => known.map(Some),
    }
}

fn steps(_: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let Some(it) = offered(lines)? else { return Ok(()) };
    lines.note("at first", it.state()?);
    lines.note(
        "unlock, checkpoint, restore a running one",
        [it.run(it.unlock), it.run(it.checkpoint), it.run(it.restore)],
    );
    lines.note("lock", (it.lock(), it.state()?));
    lines.note("lock and restore a locked one", (it.lock(), it.run(it.restore)));
    lines.note("checkpoint", (it.run(it.checkpoint), it.state()?));
    lines.note("checkpoint and unlock a checkpointed one", (it.run(it.checkpoint), it.run(it.unlock)));
    lines.note("restore", (it.run(it.restore), it.state()?));
    lines.note("unlock", (it.run(it.unlock), it.state()?));
    Ok(())
}

fn bytes(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let Some(it) = offered(lines)? else { return Ok(()) };
    // Physical memory with a handle is of the process as well.
    let (plain, other, handle) = (gpu.allocate(2 * UNIT)?, gpu.allocate(UNIT)?, gpu.create(UNIT, false)?);
    for (address, value) in [(plain, 7u32), (other, 11)] {
        // SAFETY: the memory was just taken and is longer.
        check(unsafe { sys::cuMemsetD32_v2(address, value, 1024) })?;
    }
    let before = gpu.memory()?;
    it.lock()?;
    it.run(it.checkpoint)?;
    it.run(it.restore)?;
    it.run(it.unlock)?;
    lines.note("as much in use as before", before == gpu.memory()?);
    for address in [plain, other] {
        let mut seen = [0u32; 1024];
        // SAFETY: as long as what is read.
        check(unsafe { sys::cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), address, size_of_val(&seen)) })?;
        lines.note("bytes", (seen[0], seen.iter().all(|word| *word == seen[0])));
    }
    gpu.release(handle)?;
    gpu.free(other)?;
    gpu.free(plain)
}

fn waiting(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let Some(it) = offered(lines)? else { return Ok(()) };
    let ordinal = gpu.device;
    it.lock()?;
    let answered = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            // SAFETY: it takes nothing and cannot fail.
            let number = unsafe { libc::gettid() };
            // Whoever asked ends later than this thread.
            let _told = tell.send(number);
            let answer = Gpu::start_on(ordinal).and_then(|gpu| gpu.memory()).map(|_| ());
            answered.store(true, Ordering::SeqCst);
            answer
        });
        let thread = told.recv().unwrap_or(0);
        until_waiting(thread, || answered.load(Ordering::SeqCst));
        lines.note("answered while locked", answered.load(Ordering::SeqCst));
        it.run(it.unlock)?;
        lines.note("answer", asking.join().unwrap_or(Err(0)));
        Ok(())
    })
}

/// Where a thread of this process waits for others (futex(2)): the call with its arguments. Nothing while it does anything
/// else, or where the kernel does not say.
fn waits_at(thread: libc::pid_t) -> Option<String> {
    let at = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    let number = at.split_ascii_whitespace().next()?.parse::<libc::c_long>().ok()?;
    (number == libc::SYS_futex).then_some(at)
}

/// Returns when a thread waits, which it does if it is seen in the same wait twice, or has its answer. A driver whose calls wait in
/// another way is given as long as any call takes that does not wait.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks")]
fn until_waiting(thread: libc::pid_t, is_answered: impl Fn() -> bool) {
    let mut before = None;
    for _ in 0..LOOKS_MAX {
        let now = waits_at(thread);
        if is_answered() || now.is_some() && now == before {
            return;
        }
        before = now;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Takes so many units, puts them aside, and tries to bring them back whenever a line comes; what came of it, a line each.
///
/// # Errors
/// The driver's own; what this process's input and output say becomes [`NOT_SUPPORTED`].
pub fn on_order(gpu: &Gpu, units: u64) -> Result<(), Code> {
    let address = gpu.allocate(units * UNIT)?;
    // SAFETY: the memory was just taken and is longer.
    check(unsafe { sys::cuMemsetD32_v2(address, 7, 1024) })?;
    let it = Checkpoint::find()?;
    it.lock()?;
    it.run(it.checkpoint)?;
    let say = |text: &dyn std::fmt::Display| {
        writeln!(std::io::stdout(), "{text}")
            .and_then(|()| std::io::stdout().flush())
            .map_err(|_| NOT_SUPPORTED)
    };
    say(&"aside")?;
    let mut orders = std::io::stdin().lock().lines();
    let code = |done: Result<(), Code>| done.err().unwrap_or(0);
    let restored = loop {
        orders.next();
        let done = it.run(it.restore);
        if done.is_ok() {
            break done;
        }
        say(&code(done))?;
    };
    say(&code(restored))?;
    it.run(it.unlock)?;
    orders.next();
    let mut seen = [0u32; 1024];
    // SAFETY: as long as what is read.
    check(unsafe { sys::cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), address, size_of_val(&seen)) })?;
    say(&seen.iter().all(|word| *word == 7))?;
    gpu.free(address)
}
