//! Contexts, and groups of SMs.

use std::ffi::{c_int, c_uint, c_void};

use super::{Libraries, NOT_FOUND, State, Status, answer, call, number};

/// `CUdevResource`: SMs at byte 96.
type Resource = [u32; 36];
const SM: c_uint = 1;

/// Its own green context.
#[derive(Default)]
pub(super) struct Groups {
    green: usize,
}

/// `sms`: SMs of the device, and of the current context. `green SMS`: a green context of the first group of so many; its SMs, and
/// how many such groups there are. `green-stream`: launches go into a stream of it from now on. `own-context`: `cuCtxCreate`.
/// `current`: whether the current context and the stream's are the primary one, and whether a green one is the stream's.
/// `release`: the primary context.
pub(super) fn obey(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    match words[0] {
        "sms" => sms(libraries),
        "green" => make(libraries, state, words),
        "green-stream" => {
            let (out, green) = (&raw mut state.stream, state.groups.green);
            let types = call!(
                libraries,
                "cuGreenCtxStreamCreate",
                12050,
                (*mut usize, usize, c_uint, c_int),
                (out, green, 1, 0)
            );
            answer(types, &[])
        }
        "own-context" => {
            let mut context = 0usize;
            let out = &raw mut context;
            answer(call!(libraries, "cuCtxCreate_v2", 3020, (*mut usize, c_uint, c_int), (out, 0, 0)), &[])
        }
        "current" => current(libraries, state),
        _ => answer(call!(libraries, "cuDevicePrimaryCtxRelease_v2", 11000, (c_int), (0)), &[]),
    }
}

fn of_device(libraries: &Libraries) -> (Status, Resource) {
    let mut resource: Resource = [0; 36];
    let out = resource.as_mut_ptr();
    let status = call!(libraries, "cuDeviceGetDevResource", 12040, (c_int, *mut u32, c_uint), (0, out, SM));
    (status, resource)
}

fn sms(libraries: &Libraries) -> String {
    let (mut status, device) = of_device(libraries);
    let mut context: Resource = [0; 36];
    if status == 0 {
        let out = context.as_mut_ptr();
        status = call!(libraries, "cuCtxGetDevResource", 12040, (usize, *mut u32, c_uint), (0, out, SM));
    }
    answer(status, &[device[24].into(), context[24].into()])
}

fn make(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    let least = c_uint::try_from(number(words, 1)).unwrap_or(c_uint::MAX);
    let (mut status, device) = of_device(libraries);
    let (mut groups, mut count, mut desc) = ([[0; 36]; 32], 32 as c_uint, 0usize);
    if status == 0 {
        let (to, from, rest) = (groups.as_mut_ptr(), device.as_ptr(), std::ptr::null_mut::<c_void>());
        status = call!(
            libraries,
            "cuDevSmResourceSplitByCount",
            12040,
            (*mut Resource, *mut c_uint, *const u32, *mut c_void, c_uint, c_uint),
            (to, &raw mut count, from, rest, 0, least)
        );
    }
    if status == 0 {
        let (out, first) = (&raw mut desc, groups.as_mut_ptr());
        status = call!(
            libraries,
            "cuDevResourceGenerateDesc",
            12040,
            (*mut usize, *mut Resource, c_uint),
            (out, first, 1)
        );
    }
    if status == 0 {
        let out = &raw mut state.groups.green;
        status = call!(
            libraries,
            "cuGreenCtxCreate",
            12040,
            (*mut usize, usize, c_int, c_uint),
            (out, desc, 0, 1)
        );
    }
    let mut own: Resource = [0; 36];
    if status == 0 {
        let (green, out) = (state.groups.green, own.as_mut_ptr());
        status =
            call!(libraries, "cuGreenCtxGetDevResource", 12040, (usize, *mut u32, c_uint), (green, out, SM));
    }
    answer(status, &[own[24].into(), count.into()])
}

fn current(libraries: &Libraries, state: &State) -> String {
    let (mut primary, mut current, mut of_stream, mut green) = (0usize, 0usize, 0usize, 0usize);
    let steps = [
        call!(libraries, "cuDevicePrimaryCtxRetain", 7000, (*mut usize, c_int), (&raw mut primary, 0)),
        call!(libraries, "cuDevicePrimaryCtxRelease_v2", 11000, (c_int), (0)),
        call!(libraries, "cuCtxGetCurrent", 4000, (*mut usize), (&raw mut current)),
        call!(libraries, "cuStreamGetCtx", 9020, (usize, *mut usize), (state.stream, &raw mut of_stream)),
        call!(libraries, "cuStreamGetGreenCtx", 12040, (usize, *mut usize), (state.stream, &raw mut green)),
    ];
    let status = steps.into_iter().find(|status| *status != 0).unwrap_or(0);
    answer(status, &[(current == primary).into(), (of_stream == primary).into(), (green != 0).into()])
}
