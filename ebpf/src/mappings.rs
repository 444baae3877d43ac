//! New code in processes' memory, as it is mapped: how a driver is found the moment a program loads it.
//!
//! The kernel tells of every mapping of code through perf events (`PERF_RECORD_MMAP2`), executed programs included. No program of ours
//! runs for that and no system call is traced; a process that maps nothing pays nothing.

#![expect(unsafe_code, reason = "perf_event_open(2) and its ring buffer")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{limits::MAPPINGS_RING_PAGES, sys};

/// A file's code has been mapped by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Process id in the initial PID namespace.
    pub process: u32,
    /// First address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// The file as the kernel tells it apart: device and inode. On layered file systems not what `stat` says.
    pub file: (u32, u32, u64),
}

impl Mapping {
    /// A path that leads to the file whatever its name is and in whatever mount namespace, for as long as it is mapped.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/map_files/{:x}-{:x}", self.process, self.start, self.end))
    }
}

/// The code that a process has mapped now.
///
/// # Errors
/// If the process is gone or may not be looked at.
pub fn of(process: u32) -> io::Result<Vec<Mapping>> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    Ok(maps.lines().filter_map(|line| read(process, line)).collect())
}

/// A line of `maps`, if it maps a file's code.
fn read(process: u32, line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()?.as_bytes().get(2) == Some(&b'x');
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let address = |text| u64::from_str_radix(text, 16).ok();
    let file = (number(major)?, number(minor)?, inode);
    (is_code && inode != 0).then_some(Mapping { process, start: address(start)?, end: address(end)?, file })
}

/// Every mapping of code on this node from now on.
#[derive(Debug)]
pub struct Mappings {
    rings: Vec<Ring>,
}

impl Mappings {
    /// Begins to watch, on every CPU.
    ///
    /// # Errors
    /// What the kernel says: without `CAP_PERFMON`, or where perf events are switched off.
    pub fn open() -> io::Result<Self> {
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
        Ok(Self { rings: cpus.into_iter().map(Ring::open).collect::<io::Result<_>>()? })
    }

    /// Waits until there is something, or until the time is over.
    ///
    /// # Errors
    /// What the kernel says; an interrupted wait is none.
    pub fn wait(&self, most: Duration) -> io::Result<()> {
        let mut waited: Vec<libc::pollfd> = self
            .rings
            .iter()
            .map(|ring| libc::pollfd { fd: ring.event.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let millis = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: an array of that many entries, each with a descriptor that this value holds open.
        let answer = unsafe { libc::poll(waited.as_mut_ptr(), waited.len() as libc::nfds_t, millis) };
        if answer < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Hands out what has come in; answers how many were lost because nobody looked for too long.
    pub fn drain(&mut self, mut each: impl FnMut(Mapping)) -> u64 {
        self.rings.iter_mut().map(|ring| ring.drain(&mut each)).sum()
    }
}

/// `struct perf_event_attr` of the UAPI's perf_event.h, as far as it is used: zeros mean absence.
#[repr(C)]
#[derive(Default)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
}

const _: () = assert!(size_of::<EventAttributes>() == 72, "PERF_ATTR_SIZE_VER1");

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
/// `mmap`, `watermark`, `mmap2`.
const FLAGS: u64 = 1 << 8 | 1 << 14 | 1 << 23;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_MMAP2: u32 = 10;

/// Where `struct perf_event_mmap_page` has the numbers of the ring.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

const PAGE_BYTES: usize = 4096;
const RING_BYTES: usize = MAPPINGS_RING_PAGES * PAGE_BYTES;

/// One CPU's.
#[derive(Debug)]
struct Ring {
    event: OwnedFd,
    page: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value, which alone reads from it.
unsafe impl Send for Ring {}

impl Ring {
    fn open(cpu: u32) -> io::Result<Self> {
        let attributes = EventAttributes {
            kind: PERF_TYPE_SOFTWARE,
            size: u32::try_from(size_of::<EventAttributes>()).map_err(io::Error::other)?,
            config: PERF_COUNT_SW_DUMMY,
            flags: FLAGS,
            // Every record wakes.
            wakeup_watermark: 1,
            ..EventAttributes::default()
        };
        // SAFETY: the structure says how long it is; every process on one CPU, in no group.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                std::ptr::from_ref(&attributes),
                -1,
                cpu,
                -1,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let page = sys::map_shared(std::os::fd::AsFd::as_fd(&event), PAGE_BYTES + RING_BYTES)?;
        Ok(Self { event, page })
    }

    fn number(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the first page, and aligned because the page is and both offsets are multiples of eight.
        let pointer = unsafe { self.page.add(offset) }.cast::<u64>();
        // SAFETY: valid as long as `self`; the kernel stores and loads it whole.
        unsafe { AtomicU64::from_ptr(pointer.as_ptr()) }
    }

    fn drain(&mut self, each: &mut impl FnMut(Mapping)) -> u64 {
        let head = self.number(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.number(DATA_TAIL).load(Ordering::Relaxed);
        let mut lost = 0;
        while tail < head {
            let header: [u8; 8] = self.read(tail);
            let [a, b, c, d, _, _, low, high] = header;
            let bytes = u64::from(u16::from_ne_bytes([low, high]));
            // The kernel writes whole records; anything else would never end.
            if bytes < 8 {
                tail = head;
                break;
            }
            match u32::from_ne_bytes([a, b, c, d]) {
                PERF_RECORD_MMAP2 if bytes >= 72 => each(mapping(&self.read(tail + 8))),
                PERF_RECORD_LOST if bytes >= 24 => lost += u64::from_ne_bytes(self.read(tail + 16)),
                _ => {}
            }
            tail += bytes;
        }
        self.number(DATA_TAIL).store(tail, Ordering::Release);
        lost
    }

    /// Bytes of the ring, which a record may lie across the end of.
    fn read<const BYTES: usize>(&self, at: u64) -> [u8; BYTES] {
        std::array::from_fn(|index| {
            let offset = usize::try_from(at).unwrap_or(0).wrapping_add(index) % RING_BYTES;
            // SAFETY: inside the mapping behind its first page; the kernel does not write between tail and head.
            let byte = unsafe { self.page.add(PAGE_BYTES + offset) };
            // SAFETY: as above.
            unsafe { byte.read_volatile() }
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nothing refers to it any more.
        unsafe { sys::unmap(self.page, PAGE_BYTES + RING_BYTES) };
    }
}

/// The record behind its header: process, thread, address, length, offset, device, inode.
fn mapping(bytes: &[u8; 48]) -> Mapping {
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
    let start = long(8);
    Mapping {
        process: word(0),
        start,
        end: start.saturating_add(long(16)),
        file: (word(32), word(36), long(40)),
    }
}

const _: () = assert!(MAPPINGS_RING_PAGES.is_power_of_two(), "the kernel wants it so");

#[cfg(test)]
mod tests {
    use super::{Mapping, Mappings, of, read};
    use std::time::Duration;

    #[test]
    fn lines_of_maps_are_read() {
        let line = "7f1200000000-7f1200021000 r-xp 00002000 fe:01 1311   /usr/lib/libx.so";
        let mapping =
            Mapping { process: 7, start: 0x7f12_0000_0000, end: 0x7f12_0002_1000, file: (0xfe, 1, 1311) };
        assert_eq!(read(7, line), Some(mapping));
        assert_eq!(read(7, &line.replace("r-xp", "r--p")), None);
        assert_eq!(read(7, "7ffd0000-7ffd1000 r-xp 00000000 00:00 0 [vdso]"), None);
    }

    #[test]
    fn a_program_that_starts_is_told_of() {
        let mut mappings = match Mappings::open() {
            Ok(mappings) => mappings,
            Err(error) => {
                println!("SKIPPED: a_program_that_starts_is_told_of: {error}");
                return;
            }
        };
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("everywhere");
        let mut seen = Vec::new();
        for _ in 0..100 {
            mappings.wait(Duration::from_millis(100)).expect("there is something to wait for");
            mappings.drain(|mapping| seen.push(mapping));
            if seen.iter().any(|mapping| mapping.process == child.id()) {
                break;
            }
        }
        let own = seen.iter().find(|mapping| mapping.process == child.id()).expect("it maps its own program");
        let now = of(child.id()).expect("it waits for its input");
        assert!(now.iter().any(|mapping| mapping.file == own.file), "{own:?} in {now:?}");
        drop(child.stdin.take());
        child.wait().expect("its input has ended");
    }
}
