//! Arrays and mipmapped arrays, by handle.

use headgate_abi::cuda::types::CUcontext;
use headgate_abi::segment::Charge;

use super::{Held, Map, holdings, lock};

pub(super) type Arrays = Map<Held>;

/// Notes an array that the driver made.
pub(crate) fn hold(array: usize, held: Held) {
    let previous = lock(&holdings().arrays).insert(array as u64, held);
    if let Some(previous) = previous {
        previous.end();
    }
}

/// Forgets an array that is about to be destroyed.
pub(crate) fn let_go(array: usize) -> Option<Held> {
    lock(&holdings().arrays).remove(&(array as u64))
}

pub(super) fn end_context(context: CUcontext) -> Vec<Held> {
    lock(&holdings().arrays).extract_if(|_, held| held.context == context).map(|(_, held)| held).collect()
}

pub(super) fn each(add: &mut impl FnMut(Charge)) {
    lock(&holdings().arrays).values().for_each(|held| add(held.charge));
}
