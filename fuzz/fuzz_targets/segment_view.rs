//! Shared memory a tenant scribbles on, between any two steps of the daemon and of its own hook.
//!
//! The bytes are a script: scribble a word anywhere in the ledger, charge, credit, take a seat, reap, recount, look at
//! progress. Nothing may panic or run on; a charge that is accepted never passes the limit; a reaped seat is free; after
//! a recount that was exact, the totals are the sum of the live seats. And of files that a stranger hands over only
//! those with the right size, seals, magic and version are mapped.
#![no_main]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use headgate_abi::limits::{DEVICES_MAX, SEATS_MAX};
use headgate_abi::segment::layout::{LEDGER_BYTES, LIMITS_BYTES, SEAT_FREE};
use headgate_abi::segment::map::{LedgerSegment, LimitsSegment};
use headgate_abi::segment::progress::progress;
use headgate_abi::segment::{Charge, Ledger, SeatIndex};
use headgate_fuzz::Numbers;
use libfuzzer_sys::fuzz_target;

fn seat(number: u64) -> SeatIndex {
    SeatIndex::new((number % SEATS_MAX as u64) as u32).expect("in range")
}

/// Writes a word where any process of the tenant could.
fn scribble(file: &OwnedFd, offset: u64, value: u64) {
    let offset = (offset % (LEDGER_BYTES as u64 - 8)) as libc::off_t;
    // SAFETY: eight bytes of a local value, into a file of ours.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), (&raw const value).cast(), 8, offset) };
    assert_eq!(written, 8);
}

fn stranger(bytes: &[u8], size: usize, seals: i32) -> OwnedFd {
    // SAFETY: a terminated name and valid flags.
    let raw = unsafe { libc::memfd_create(c"stranger".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    assert!(raw >= 0);
    // SAFETY: just made, owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    let head = &bytes[..bytes.len().min(64)];
    // SAFETY: as many bytes as there are, into a file of ours.
    unsafe { libc::pwrite(file.as_raw_fd(), head.as_ptr().cast(), head.len(), 0) };
    // SAFETY: a file of ours.
    unsafe { libc::ftruncate(file.as_raw_fd(), size as libc::off_t) };
    // SAFETY: a file of ours.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals & 0x1e) };
    file
}

/// Opens what a stranger made; every view of it must be usable, should it be taken.
fn foreign(data: &[u8], choice: u8) {
    let mut numbers = Numbers(data);
    let size = match choice % 4 {
        0 => LIMITS_BYTES,
        1 => LEDGER_BYTES,
        _ => (numbers.u64() % (2 * LEDGER_BYTES as u64)) as usize,
    };
    let file = stranger(numbers.0, size, i32::from(choice >> 2));
    if let Ok(limits) = LimitsSegment::open(file.as_fd()) {
        assert_eq!(size, LIMITS_BYTES);
        assert!((0..DEVICES_MAX).all(|device| limits.device(device).gate.load(Relaxed) == 0));
    }
    if let Ok(ledger) = LedgerSegment::open(file.as_fd()) {
        assert_eq!(size, LEDGER_BYTES);
        assert!((0..SEATS_MAX).all(|seat| ledger.seat(seat).state.load(Relaxed) == SEAT_FREE));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let choice = numbers.u8();
    if choice & 1 == 1 {
        return foreign(numbers.0, choice >> 1);
    }
    let (segment, file) = LedgerSegment::create().expect("a segment");
    let ledger = Ledger::new(segment);
    let mut held: Vec<(SeatIndex, Charge)> = Vec::new();
    for _ in 0..64 {
        if !numbers.more() {
            break;
        }
        let device = usize::from(numbers.u8()) % DEVICES_MAX;
        match numbers.u8() % 8 {
            0 | 1 => scribble(&file, numbers.u64(), numbers.u64()),
            2 => {
                let (who, bytes, limit) = (seat(numbers.u64()), numbers.u64(), numbers.u64());
                match ledger.charge(who, device, bytes, limit) {
                    Ok(charge) => {
                        assert!(ledger.used_bytes(device) <= limit);
                        held.push((who, charge));
                    }
                    Err(refusal) => assert!(refusal.limit_bytes < refusal.used_bytes.saturating_add(bytes)),
                }
            }
            3 => {
                if let Some((who, charge)) = held.pop() {
                    ledger.credit(who, charge);
                }
            }
            4 => drop(ledger.take_seat(numbers.u64() as u32, numbers.u64())),
            5 => {
                let who = seat(numbers.u64());
                ledger.reap(who);
                assert_eq!(ledger.seat(who).state.load(Relaxed), SEAT_FREE);
            }
            6 => {
                if ledger.recount() {
                    let sum = ledger
                        .live()
                        .fold(0u64, |sum, row| sum.saturating_add(row.charged_bytes[device].load(Relaxed)));
                    assert_eq!(ledger.used_bytes(device), sum);
                }
            }
            _ => drop(progress(ledger.seat(seat(numbers.u64())), device)),
        }
    }
});
