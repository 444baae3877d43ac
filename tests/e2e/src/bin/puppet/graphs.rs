//! Commands about graphs.
//!
//! ```text
//! capture N        captures N launches of the loaded kernel and makes them ready; answers the number of nodes
//! capture-join N   the same in a stream that joins the capture of another
//! capture-beside N another thread makes N launches while this one captures nothing; answers the number of nodes
//! replay N         launches that graph N times
//! ```

use std::ffi::{c_uint, c_void};

use crate::{Libraries, NOT_FOUND, State, Status, answer, call, launch, number};

/// `CU_STREAM_CAPTURE_MODE_GLOBAL`.
const GLOBAL: c_uint = 0;

pub(crate) fn obey(libraries: &Libraries, state: &mut State, words: &[&str]) -> String {
    let times = number(words, 1);
    match words[0] {
        "capture" => match captured(libraries, state, times) {
            Ok(nodes) => answer(0, &[nodes]),
            Err(status) => answer(status, &[]),
        },
        "capture-join" => match joined(libraries, state, times) {
            Ok(nodes) => answer(0, &[nodes]),
            Err(status) => answer(status, &[]),
        },
        "capture-beside" => match beside(libraries, state, times) {
            Ok(nodes) => answer(0, &[nodes]),
            Err(status) => answer(status, &[]),
        },
        _ => {
            let (exec, stream) = (state.exec, state.stream);
            let replay = || call!(libraries, "cuGraphLaunch", 10000, (usize, usize), (exec, stream));
            let status = (0..times).map(|_| replay()).find(|&status| status != 0);
            answer(status.unwrap_or(0), &[])
        }
    }
}

fn check(status: Status) -> Result<(), Status> {
    if status == 0 { Ok(()) } else { Err(status) }
}

fn captured(libraries: &Libraries, state: &mut State, launches: u64) -> Result<u64, Status> {
    let stream = state.stream;
    check(call!(libraries, "cuStreamBeginCapture_v2", 10010, (usize, c_uint), (stream, GLOBAL)))?;
    let outcome = (0..launches).try_for_each(|_| check(launch(libraries, state)));
    finish(libraries, state, stream, outcome)
}

/// The launches go into the loaded kernel's stream, which joins a capture that another thread has begun elsewhere.
fn joined(libraries: &Libraries, state: &mut State, launches: u64) -> Result<u64, Status> {
    const NON_BLOCKING: c_uint = 1;
    const UNTIMED: c_uint = 2;
    let (mut origin, mut fork, mut join, mut context) = (0usize, 0usize, 0usize, 0usize);
    let out = &raw mut context;
    check(call!(libraries, "cuCtxGetCurrent", 4000, (*mut usize), (out)))?;
    let make =
        |event: *mut usize| call!(libraries, "cuEventCreate", 2000, (*mut usize, c_uint), (event, UNTIMED));
    check(make(&raw mut fork))?;
    check(make(&raw mut join))?;
    let out = &raw mut origin;
    check(call!(libraries, "cuStreamCreate", 2000, (*mut usize, c_uint), (out, NON_BLOCKING)))?;
    let by_proc_address = libraries.by_proc_address;
    let begin = move || {
        let libraries = &Libraries::open(by_proc_address);
        check(call!(libraries, "cuCtxSetCurrent", 4000, (usize), (context)))?;
        // Relaxed, so that this thread may end what that one has begun.
        check(call!(libraries, "cuStreamBeginCapture_v2", 10010, (usize, c_uint), (origin, 2)))?;
        check(call!(libraries, "cuEventRecord", 2000, (usize, usize), (fork, origin)))
    };
    std::thread::scope(|threads| threads.spawn(begin).join()).map_err(|_| NOT_FOUND)??;
    let wait = |stream: usize, event: usize| {
        check(call!(libraries, "cuStreamWaitEvent", 3020, (usize, usize, c_uint), (stream, event, 0)))
    };
    wait(state.stream, fork)?;
    let outcome = (0..launches).try_for_each(|_| check(launch(libraries, state)));
    check(call!(libraries, "cuEventRecord", 2000, (usize, usize), (join, state.stream)))?;
    wait(origin, join)?;
    finish(libraries, state, origin, outcome)
}

/// The launches are another thread's, in the loaded kernel's stream, and have nothing to do with the capture that this
/// thread has begun elsewhere, in the mode that calls of any thread can end.
fn beside(libraries: &Libraries, state: &mut State, launches: u64) -> Result<u64, Status> {
    const NON_BLOCKING: c_uint = 1;
    let (mut origin, mut context) = (0usize, 0usize);
    let out = &raw mut context;
    check(call!(libraries, "cuCtxGetCurrent", 4000, (*mut usize), (out)))?;
    let out = &raw mut origin;
    check(call!(libraries, "cuStreamCreate", 2000, (*mut usize, c_uint), (out, NON_BLOCKING)))?;
    check(call!(libraries, "cuStreamBeginCapture_v2", 10010, (usize, c_uint), (origin, GLOBAL)))?;
    let by_proc_address = libraries.by_proc_address;
    let other = &*state;
    let work = move || {
        let libraries = &Libraries::open(by_proc_address);
        check(call!(libraries, "cuCtxSetCurrent", 4000, (usize), (context)))?;
        (0..launches).try_for_each(|_| check(launch(libraries, other)))
    };
    let outcome = std::thread::scope(|threads| threads.spawn(work).join()).map_err(|_| NOT_FOUND)?;
    finish(libraries, state, origin, outcome)
}

fn finish(
    libraries: &Libraries,
    state: &mut State,
    stream: usize,
    outcome: Result<(), Status>,
) -> Result<u64, Status> {
    let (mut graph, mut nodes) = (0usize, 0usize);
    let out = &raw mut graph;
    let ended = check(call!(libraries, "cuStreamEndCapture", 10000, (usize, *mut usize), (stream, out)));
    outcome.and(ended)?;
    let (none, out) = (std::ptr::null_mut(), &raw mut nodes);
    check(call!(libraries, "cuGraphGetNodes", 10000, (usize, *mut c_void, *mut usize), (graph, none, out)))?;
    let out = &raw mut state.exec;
    check(call!(libraries, "cuGraphInstantiateWithFlags", 11040, (*mut usize, usize, u64), (out, graph, 0)))?;
    Ok(nodes as u64)
}
