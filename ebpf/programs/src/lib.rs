//! Headgate's kernel programs: what several of them share.
//!
//! Kernel programs here never read a kernel structure (so they need no CO-RE and no BTF of the kernel), never loop
//! without a constant bound, never send an event per GPU call, and give up on no path without counting it.
//!
//! Read in this order: [`count`] (counters), [`storage`] (records that live and die with a thread or a socket), [`session`] (entry and return by one program),
//! `attribution.rs` (whose process is this; a module of the programs that ask, so that the others do not carry its
//! table); then the programs that watch: `wait.rs`, `rtt.rs`, `exit.rs`,
//! `ledger.rs`, `ioctl.rs`; and those that refuse: `border.rs`, `gate.rs`.

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod count;
pub mod session;
pub mod storage;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: if something could, the verifier would meet this loop and refuse the program.
    loop {}
}

/// The licence the kernel checks helpers against; see the licence line of this crate's manifest.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 4] = *b"GPL\0";
