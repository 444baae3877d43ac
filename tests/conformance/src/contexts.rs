//! What is left of a context that has ended, and what begins anew in its place.
#![expect(unsafe_code, reason = "calls the driver API")]

use std::ptr::null_mut;

use cudarc::driver::sys;

use crate::gpu::{Code, Gpu, UNIT, check};
use crate::transcript::{Case, Lines};

/// The cases in order. The last one ends whatever others have left in the primary context.
pub const CASES: &[Case] = &[
    ("contexts/one that was destroyed is so for whoever is in it", destroyed),
    ("contexts/a reset ends the primary one, and the next user makes it anew", reset),
];

/// What calls in the current context answer, by the way each of them takes to it.
fn note_calls(gpu: &Gpu, lines: &mut Lines) {
    lines.note("allocating", gpu.allocate(UNIT).err());
    lines.note("allocating in order", gpu.allocate_async(UNIT, None, null_mut()).err());
    lines.note("making a stream", gpu.stream().err());
    lines.note("free memory", gpu.memory().err());
    lines.note("waiting", gpu.synchronise());
    let mut flags = 0;
    // SAFETY: a place for the answer.
    lines.note("its flags", check(unsafe { sys::cuCtxGetFlags(&raw mut flags) }));
}

fn destroyed(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let made = gpu.make_context()?;
    // SAFETY: a live context.
    check(unsafe { sys::cuCtxPushCurrent_v2(made) })?;
    // SAFETY: as above; it stays below the one that this takes off.
    check(unsafe { sys::cuCtxDestroy_v2(made) })?;
    note_calls(gpu, lines);
    // SAFETY: nobody asks which it was.
    check(unsafe { sys::cuCtxPopCurrent_v2(null_mut()) })?;
    lines.note("what was current before", gpu.synchronise());
    Ok(())
}

fn reset(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    // SAFETY: nothing of the context is used any more.
    check(unsafe { sys::cuDevicePrimaryCtxReset_v2(gpu.device) })?;
    note_calls(gpu, lines);
    let mut device = -1;
    // SAFETY: a place for the answer.
    lines.note("its device", check(unsafe { sys::cuCtxGetDevice(&raw mut device) }).map(|()| device));
    let mut version = 0;
    // SAFETY: as above.
    lines.note("its version", check(unsafe { sys::cuCtxGetApiVersion(null_mut(), &raw mut version) }));
    lines.note("entering it", gpu.enter());
    let again = Gpu::start_on(gpu.device)?;
    lines.note("allocating anew", again.allocate(UNIT).and_then(|address| again.free(address)));
    lines.note("waiting with the handle of before", gpu.enter().and_then(|()| gpu.synchronise()));
    Ok(())
}
