//! The atomics that shared memory is made of.
//!
//! Everywhere but under the model checker they are the processor's own. Under `--cfg loom` (`cargo xtask loom`, tests of
//! this crate only) they are loom's, which tries every order that threads and the memory model allow, and each of their
//! operations is a place where the process that performs it may die.

#[cfg(not(all(test, loom)))]
pub use core::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(all(test, loom))]
pub use modelled::{AtomicU32, AtomicU64, Killed, mortal};

/// A hint that a loop waits for others.
pub(crate) fn pause() {
    #[cfg(not(all(test, loom)))]
    core::hint::spin_loop();
    #[cfg(all(test, loom))]
    loom::thread::yield_now();
}

#[cfg(all(test, loom))]
mod modelled {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::Ordering;

    loom::thread_local! {
        static STEPS_LEFT: Cell<Option<usize>> = Cell::new(None);
    }

    /// The process was killed before it came to its end.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Killed;

    /// Runs the work of a process that is killed before its operation number `steps`, counting from zero.
    pub fn mortal<T>(steps: usize, work: impl FnOnce() -> T) -> Result<T, Killed> {
        STEPS_LEFT.with(|left| left.set(Some(steps)));
        let outcome = catch_unwind(AssertUnwindSafe(work));
        STEPS_LEFT.with(|left| left.set(None));
        outcome.map_err(|panic| match panic.downcast::<Killed>() {
            Ok(killed) => *killed,
            Err(other) => resume_unwind(other),
        })
    }

    fn step() {
        STEPS_LEFT.with(|left| match left.get() {
            Some(0) => resume_unwind(Box::new(Killed)),
            Some(steps) => left.set(Some(steps - 1)),
            None => {}
        });
    }

    macro_rules! word {
        ($name:ident: $integer:ty) => {
            /// loom's atomic of this width, with an owner that may die.
            #[derive(Debug)]
            pub struct $name(loom::sync::atomic::$name);

            #[allow(missing_docs, reason = "as core's")]
            impl $name {
                pub fn new(value: $integer) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $integer {
                    step();
                    self.0.load(order)
                }

                pub fn store(&self, value: $integer, order: Ordering) {
                    step();
                    self.0.store(value, order);
                }

                pub fn swap(&self, value: $integer, order: Ordering) -> $integer {
                    step();
                    self.0.swap(value, order)
                }

                pub fn fetch_add(&self, value: $integer, order: Ordering) -> $integer {
                    step();
                    self.0.fetch_add(value, order)
                }

                pub fn fetch_max(&self, value: $integer, order: Ordering) -> $integer {
                    step();
                    self.0.fetch_max(value, order)
                }

                pub fn compare_exchange_weak(
                    &self,
                    current: $integer,
                    new: $integer,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$integer, $integer> {
                    step();
                    self.0.compare_exchange_weak(current, new, success, failure)
                }

                pub fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut update: impl FnMut($integer) -> Option<$integer>,
                ) -> Result<$integer, $integer> {
                    let mut seen = self.load(fetch);
                    while let Some(next) = update(seen) {
                        match self.compare_exchange_weak(seen, next, set, fetch) {
                            Ok(previous) => return Ok(previous),
                            Err(now) => seen = now,
                        }
                    }
                    Err(seen)
                }
            }
        };
    }
    word!(AtomicU32: u32);
    word!(AtomicU64: u64);
}
