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
use crate::verdict::Verdict;

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
#[inline]
pub(crate) fn cross<S: FnOnce(CUresult) -> CUresult>(
    symbol: Symbol,
    judge: impl FnOnce() -> Verdict<S>,
    forward: impl Fn() -> CUresult,
) -> CUresult {
    let Some(_guard) = Guard::enter() else { return forward() };
    match catch_unwind(AssertUnwindSafe(judge)) {
        Ok(Verdict::Forward) => forward(),
        Ok(Verdict::Bypass(reason)) => {
            crate::log::event(format_args!("{symbol:?}: not metered: {reason:?}"));
            forward()
        }
        Ok(Verdict::ForwardThen(settle)) => {
            let status = forward();
            catch_unwind(AssertUnwindSafe(|| settle(status))).unwrap_or_else(|_| {
                fault(symbol);
                status
            })
        }
        Ok(Verdict::Deny(status, reason)) => {
            crate::log::event(format_args!("{symbol:?}: denied: {reason:?}"));
            status
        }
        Err(_) => {
            fault(symbol);
            match symbol.row().family.on_failure() {
                OnFailure::Forward => forward(),
                // Out of memory is the one refusal that programs are written to survive.
                OnFailure::Deny => CUresult::ERROR_OUT_OF_MEMORY,
            }
        }
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
