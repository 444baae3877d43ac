//! Sessions: one program at the entry and at the return of a function.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_get_func_ip, programs::ProbeContext};

/// Whether a program that is linked to both runs for a return.
///
/// The kernel's own way to say so is a function that only programs with its BTF may call. But it also names the address
/// that is probed, and at an entry that is where the thread stands.
#[inline(always)]
pub fn is_return(context: &ProbeContext) -> bool {
    // SAFETY: the context of a uprobe; a program linked to many may ask for this.
    let probed = unsafe { bpf_get_func_ip(context.as_ptr()) };
    // SAFETY: the kernel passes the registers of the probed thread.
    unsafe { (*context.regs).rip != probed }
}
