//! Answers that nobody waits for: they change what the client knows when they come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use headgate_abi::cuda::types::CUresult;

use super::credits::Credits;
use super::objects::{Context, lock};

/// What an answer will tell.
#[derive(Debug)]
pub(super) enum Foreseen {
    /// Whether a primary context is there. The program has it already, and hears of a failure from whatever it does with it.
    Context(Arc<Context>),
    /// Where a slab of so many bytes is.
    Slab(Arc<Context>, u64),
    /// Whether a slab was given back that was called back: where it was, and its bytes.
    Returned(Arc<Context>, u64, u64),
}

/// All of them, by the number of the operation.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// How many, so that whoever waits for others looks no further.
    count: AtomicUsize,
    open: Mutex<HashMap<u64, Foreseen>>,
}

impl Answers {
    /// An answer will come.
    pub(super) fn expect(&self, operation: u64, foreseen: Foreseen) {
        self.count.fetch_add(1, Ordering::AcqRel);
        lock(&self.open).insert(operation, foreseen);
    }

    /// It has come. `false` where somebody waits for it himself.
    pub(super) fn take(&self, credits: &Credits, operation: u64, status: CUresult, results: &[u8]) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let Some(foreseen) = lock(&self.open).remove(&operation) else { return false };
        self.count.fetch_sub(1, Ordering::AcqRel);
        match foreseen {
            Foreseen::Context(context) if !status.is_success() => context.fail(status),
            Foreseen::Context(_) => {}
            Foreseen::Returned(context, base, bytes) => {
                if !status.is_success() && context.alive.load(Ordering::Acquire) {
                    credits.kept(context.id, context.device, base, bytes);
                }
            }
            // A slab of a context that has ended meanwhile has ended with it.
            Foreseen::Slab(context, _) if !context.alive.load(Ordering::Acquire) => {}
            Foreseen::Slab(context, bytes) => match results.first_chunk().filter(|_| status.is_success()) {
                Some(base) => credits.came(context.id, context.device, u64::from_le_bytes(*base), bytes),
                None => credits.refused(context.id),
            },
        }
        true
    }
}
