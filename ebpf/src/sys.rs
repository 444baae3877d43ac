//! The two uses of `bpf(2)` that aya 0.14 lacks: loading a program for multi-uprobes, and linking it to many sites.
//!
//! Layouts are those of `union bpf_attr` in the kernel's UAPI; the kernel takes any length and reads zeros past its end.

#![expect(unsafe_code, reason = "bpf(2) takes pointers inside its argument")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_type};

use crate::error::verdict;

/// Bytes kept of a verifier's refusal; one of its last lines names the reason.
const VERIFIER_LOG_BYTES: usize = 64 * 1024;

/// `BPF_F_UPROBE_MULTI_RETURN`: probe returns instead of entries.
const UPROBE_MULTI_RETURN: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<ProgramLoad>() == 72, "as the UAPI lays it out");
const _: () = assert!(size_of::<LinkCreate>() == 64, "as the UAPI lays it out");

/// Loads a kprobe-type program that may be attached by [`link_uprobes`] only. On refusal the verifier's
/// verdict is in the error.
pub(crate) fn load_uprobe_multi(name: &str, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    let mut attribute = ProgramLoad {
        program_type: bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        expected_attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
        ..ProgramLoad::default()
    };
    // The last byte stays zero: the kernel wants a terminated name.
    for (to, from) in attribute.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attribute) {
        Err(error) if error.raw_os_error() != Some(libc::EPERM) => {
            let mut log = vec![0u8; VERIFIER_LOG_BYTES];
            attribute.log_level = 1;
            attribute.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
            attribute.log_buffer = log.as_mut_ptr().addr() as u64;
            bpf(bpf_cmd::BPF_PROG_LOAD, &mut attribute).map_err(|again| {
                io::Error::new(again.kind(), format!("{again}: {}", verdict(&text_of(&log))))
            })
        }
        answer => answer,
    }
}

fn text_of(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// What a link fires on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Entry,
    Return,
}

/// Links a program to many file offsets of one executable at once. The link ends when its descriptor is closed.
pub(crate) fn link_uprobes(
    program: BorrowedFd<'_>,
    path: &CStr,
    offsets: &[u64],
    when: When,
) -> io::Result<OwnedFd> {
    let mut attribute = LinkCreate {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
        path: path.as_ptr().addr() as u64,
        offsets: offsets.as_ptr().addr() as u64,
        count: u32::try_from(offsets.len()).map_err(io::Error::other)?,
        multi_flags: match when {
            When::Entry => 0,
            When::Return => UPROBE_MULTI_RETURN,
        },
        ..LinkCreate::default()
    };
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attribute)
}

fn bpf<T>(command: bpf_cmd, attribute: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: `attribute` is one of the two structures above, whose pointers name buffers that their makers keep alive
    // across the call and whose lengths they state; the kernel writes to the verifier log only.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attribute), size_of::<T>())
    };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
