//! Programs of several threads, each with a stream of its own.
//!
//! `threads leave N L`: N threads, one after the other, that launch L kernels and end; each second one launches one more, so
//! that not all of them stop where a batch ends. `threads stay N L`: the same, but
//! they stay and do nothing more. `threads beside N L`: one thread that launches L kernels N times, while the first one
//! makes and destroys a stream each time.

use std::ffi::{c_uint, c_void};
use std::sync::mpsc;
use std::thread;

use crate::{Libraries, NOT_FOUND, State, Status, answer, call, launch, number};

/// What another thread needs to know. The libraries' handles are good in every thread.
struct Shared {
    by_proc_address: bool,
    context: usize,
    function: usize,
    counter: u64,
}

pub(crate) fn obey(libraries: &Libraries, state: &State, words: &[&str]) -> String {
    let mut context: *mut c_void = std::ptr::null_mut();
    let status = call!(libraries, "cuCtxGetCurrent", 4000, (*mut *mut c_void), (&raw mut context));
    if status != 0 {
        return answer(status, &[]);
    }
    let shared = || Shared {
        by_proc_address: libraries.by_proc_address,
        context: context.addr(),
        function: state.function,
        counter: state.counter,
    };
    let (count, launches) = (number(words, 2), number(words, 3));
    let status = match words.get(1).copied() {
        Some("beside") => beside(libraries, shared(), count, launches),
        how => (0..count).find_map(|index| {
            let status = one(shared(), launches + index % 2, how == Some("stay"));
            (status != 0).then_some(status)
        }),
    };
    answer(status.unwrap_or(0), &[])
}

fn one(shared: Shared, launches: u64, stays: bool) -> Status {
    let (tell, told) = mpsc::channel();
    let worker = thread::spawn(move || {
        let (libraries, mut state) = shared.enter();
        let status = stream(&libraries, &mut state);
        let status = (0..launches).fold(status, |status, _| status.max(launch(&libraries, &state)));
        let _nobody_listens = tell.send(status);
        if stays {
            // Whoever wakes it for no reason finds it there again.
            loop {
                thread::park();
            }
        }
    });
    let status = told.recv().unwrap_or(NOT_FOUND);
    if !stays && worker.join().is_err() {
        return NOT_FOUND;
    }
    status
}

fn beside(libraries: &Libraries, shared: Shared, rounds: u64, launches: u64) -> Option<Status> {
    let (go, going) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (libraries, mut state) = shared.enter();
        let first = stream(&libraries, &mut state);
        let mut round = 0;
        while let Ok(()) = going.recv() {
            round += 1;
            let launches = launches + (round + 1) % 2;
            let status = (0..launches).fold(first, |status, _| status.max(launch(&libraries, &state)));
            if tell.send(status).is_err() {
                return;
            }
        }
    });
    let mut own = State::default();
    (0..rounds).find_map(|_| {
        go.send(()).ok()?;
        let made = stream(libraries, &mut own);
        let status = told.recv().unwrap_or(NOT_FOUND);
        let ended = call!(libraries, "cuStreamDestroy_v2", 4000, (usize), (own.stream));
        [made, status, ended].into_iter().find(|status| *status != 0)
    })
}

impl Shared {
    fn enter(self) -> (Libraries, State) {
        let libraries = Libraries::open(self.by_proc_address);
        let context = std::ptr::without_provenance_mut::<c_void>(self.context);
        let _checked_by_the_next_call = call!(libraries, "cuCtxSetCurrent", 4000, (*mut c_void), (context));
        (libraries, State { function: self.function, counter: self.counter, ..State::default() })
    }
}

fn stream(libraries: &Libraries, state: &mut State) -> Status {
    const NON_BLOCKING: c_uint = 1;
    let out = &raw mut state.stream;
    call!(libraries, "cuStreamCreate", 2000, (*mut usize, c_uint), (out, NON_BLOCKING))
}
