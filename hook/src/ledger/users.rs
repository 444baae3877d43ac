//! Contexts that `cuCtxAttach` gave more users than the one who made them, so that it is known which `cuCtxDetach` ends
//! one, and everything in it.

use headgate_abi::cuda::types::CUcontext;

use super::{holdings, lock};

/// Each such context, and how many further users it has. Programs have a handful at most.
#[derive(Default)]
pub(super) struct Users(Vec<(CUcontext, u32)>);

/// One more user.
pub(crate) fn attach(context: CUcontext) {
    let users = &mut lock(&holdings().users).0;
    match users.iter_mut().find(|(of, _)| *of == context) {
        Some((_, count)) => *count = count.saturating_add(1),
        None => users.push((context, 1)),
    }
}

/// One user less; whether somebody is left.
pub(crate) fn detach(context: CUcontext) -> bool {
    let users = &mut lock(&holdings().users).0;
    let Some(index) = users.iter().position(|(of, _)| *of == context) else { return false };
    users[index].1 -= 1;
    if users[index].1 == 0 {
        users.swap_remove(index);
    }
    true
}

/// The context is gone; its handle may soon name another one.
pub(super) fn end_context(context: CUcontext) {
    lock(&holdings().users).0.retain(|(of, _)| *of != context);
}
