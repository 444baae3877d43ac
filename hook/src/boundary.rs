//! The one way from an exported shell into this library and out again.
//!
//! * A call that the driver makes into its own exported functions while it serves one of ours goes straight
//!   through: it is part of the call that was already judged.
//! * A panic never crosses: it becomes what the symbol family's policy says, and is counted.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use headgate_abi::cuda::{CUresult, OnFailure, Symbol};

use crate::session;
use crate::verdict::{Bypass, Denial, Verdict};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread as being inside a call of ours; unmarks it on drop.
struct Guard;

impl Guard {
    /// `None` when the thread is inside already.
    fn enter() -> Option<Self> {
        (!INSIDE.replace(true)).then_some(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Whether the thread is inside a call of ours now.
pub(crate) fn inside() -> bool {
    INSIDE.get()
}

/// Judges a call and acts on the verdict. `forward` calls the driver with the program's own arguments.
///
/// One panic guard stands around the judgement and the settlement together: what passes between them then stays in
/// registers instead of travelling through memory (`cargo xtask bench memory`; it was a third of an allocation's
/// cost). How far the call had come decides what a panic means.
#[inline]
pub(crate) fn cross<S: FnOnce(CUresult) -> CUresult>(
    symbol: Symbol,
    judge: impl FnOnce() -> Verdict<S>,
    forward: impl Fn() -> CUresult,
) -> CUresult {
    let Some(_guard) = Guard::enter() else { return forward() };
    let answered = Cell::new(None);
    let forwarded = || {
        let status = forward();
        answered.set(Some(status));
        status
    };
    let judged = catch_unwind(AssertUnwindSafe(|| match judge() {
        Verdict::Forward => forwarded(),
        Verdict::ForwardThen(settle) => settle(forwarded()),
        Verdict::Bypass(reason) => {
            bypassed(symbol, reason);
            forwarded()
        }
        Verdict::Deny(status, reason) => {
            denied(symbol, reason);
            status
        }
    }));
    judged.unwrap_or_else(|_| after_fault(symbol, answered.get(), &forward))
}

#[cold]
fn bypassed(symbol: Symbol, reason: Bypass) {
    crate::log::event(format_args!("{symbol:?}: not metered: {reason:?}"));
}

#[cold]
fn denied(symbol: Symbol, reason: Denial) {
    crate::log::event(format_args!("{symbol:?}: denied: {reason:?}"));
}

/// The status of a call in which Headgate itself failed: the driver's, if it has answered already.
#[cold]
fn after_fault(symbol: Symbol, answered: Option<CUresult>, forward: &dyn Fn() -> CUresult) -> CUresult {
    fault(symbol);
    match (answered, symbol.row().family.on_failure()) {
        (Some(status), _) => status,
        (None, OnFailure::Forward) => forward(),
        // Out of memory is the one refusal that programs are written to survive.
        (None, OnFailure::Deny) => CUresult::ERROR_OUT_OF_MEMORY,
    }
}

/// Runs code of ours that must not unwind into a caller, giving `otherwise` if it does.
pub(crate) fn shield<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

#[cold]
fn fault(symbol: Symbol) {
    session::count_fault();
    crate::log::event(format_args!("{symbol:?}: a fault in the hook itself; please report it"));
}

/// Keeps our panics from printing to a stranger's standard error: they are counted and logged instead. The
/// panic hook is private to this library's own copy of the standard library.
pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| crate::log::event(format_args!("panic in the hook: {info}"))));
    });
}
