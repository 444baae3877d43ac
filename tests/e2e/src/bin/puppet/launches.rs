//! `dependent N`: N launches of the loaded kernel, each of which may overlap the one before it. `timed ROUNDS N`: rounds of N launches
//! and a synchronisation, and how many nanoseconds they took by this program's own clock. `held N`: N launches behind a word that this
//! very thread writes after the last of them.

use std::ffi::{c_uint, c_void};

use crate::{Libraries, NOT_FOUND, State, Status, answer, call, launch};

/// `CUlaunchAttribute` of programmatic stream serialization.
#[repr(C, align(8))]
struct Attribute {
    id: c_uint,
    pad: [u8; 4],
    value: [u32; 16],
}

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: usize,
    attributes: *mut Attribute,
    count: c_uint,
}

pub(crate) fn dependent(libraries: &Libraries, state: &mut State, launches: u64) -> String {
    const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;
    let mut value = [0; 16];
    value[0] = 1;
    let mut attribute = Attribute { id: PROGRAMMATIC_STREAM_SERIALIZATION, pad: [0; 4], value };
    let config = Config {
        grid: [1; 3],
        block: [32, 1, 1],
        shared_bytes: 0,
        stream: state.stream,
        attributes: &raw mut attribute,
        count: 1,
    };
    let mut counter = state.counter;
    let mut parameters = [(&raw mut counter).cast::<c_void>()];
    for _ in 0..launches {
        let (function, parameters) = (state.function, parameters.as_mut_ptr());
        let status = call!(
            libraries,
            "cuLaunchKernelEx",
            11060,
            (*const Config, usize, *mut *mut c_void, *mut *mut c_void),
            (&raw const config, function, parameters, std::ptr::null_mut())
        );
        if status != 0 {
            return answer(status, &[]);
        }
    }
    answer(0, &[])
}

/// The program's own word for how long it waited for everything.
#[expect(clippy::disallowed_methods, reason = "a program has a clock of its own")]
pub(crate) fn timed(libraries: &Libraries, state: &mut State, rounds: u64, launches: u64) -> String {
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        for _ in 0..launches {
            let status = launch(libraries, state);
            if status != 0 {
                return answer(status, &[]);
            }
        }
        let status = call!(libraries, "cuCtxSynchronize", 2000, (), ());
        if status != 0 {
            return answer(status, &[]);
        }
    }
    answer(0, &[u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)])
}

/// Launches into a stream that waits for what the same thread does only then.
pub(crate) fn held(libraries: &Libraries, state: &mut State, launches: u64) -> String {
    /// `CU_MEMHOSTALLOC_DEVICEMAP`.
    const DEVICE_MAP: c_uint = 2;
    /// `CU_STREAM_WAIT_VALUE_GEQ`.
    const AT_LEAST: c_uint = 0;
    let mut word = std::ptr::null_mut::<c_void>();
    let mut address = 0u64;
    let out = &raw mut word;
    let mut status =
        call!(libraries, "cuMemHostAlloc", 2020, (*mut *mut c_void, usize, c_uint), (out, 4, DEVICE_MAP));
    if status == 0 {
        // SAFETY: the driver has just given these four bytes, aligned to a page.
        unsafe { word.cast::<u32>().write_volatile(0) };
        let out = &raw mut address;
        status = call!(
            libraries,
            "cuMemHostGetDevicePointer_v2",
            3020,
            (*mut u64, *mut c_void, c_uint),
            (out, word, 0)
        );
    }
    if status == 0 {
        status = call!(
            libraries,
            "cuStreamWaitValue32_v2",
            11070,
            (usize, u64, u32, c_uint),
            (state.stream, address, 1, AT_LEAST)
        );
    }
    for _ in 0..launches {
        if status == 0 {
            status = launch(libraries, state);
        }
    }
    if !word.is_null() {
        // SAFETY: still the program's; the device reads it as a word.
        unsafe { word.cast::<u32>().write_volatile(1) };
        let done = call!(libraries, "cuCtxSynchronize", 2000, (), ());
        let freed = call!(libraries, "cuMemFreeHost", 2000, (*mut c_void), (word));
        status = [status, done, freed].into_iter().find(|&status| status != 0).unwrap_or(0);
    }
    answer(status, &[])
}
