//! The uses of `bpf(2)` that aya 0.14 lacks or cannot do without a gap: multi-uprobes, links that are made, replaced, looked at and
//! pinned, maps that no object mentions; and the calls around them (`mmap`, `mount`, `membarrier`).
//!
//! Layouts are those of `union bpf_attr` in the kernel's UAPI; the kernel takes any length and reads zeros past its end.

#![expect(unsafe_code, reason = "bpf(2) takes pointers inside its argument")]

use std::{
    ffi::{CStr, CString},
    io,
    ops::Range,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::NonNull,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_type};

use crate::error::verdict;

/// Bytes kept of a verifier's refusal; one of its last lines names the reason.
const VERIFIER_LOG_BYTES: usize = 64 * 1024;

/// `BPF_F_UPROBE_MULTI_RETURN`: probe returns instead of entries.
const UPROBE_MULTI_RETURN: u32 = 1;

/// `BPF_TRACE_UPROBE_SESSION` (Linux 6.13), which the generated bindings are too old for.
const UPROBE_SESSION: u32 = 57;

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

/// What a program that may be attached by [`link_uprobes`] only is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Entries or returns, as its link says.
    OneEnd,
    /// Entries, and the returns of those for which it answered zero.
    BothEnds,
}

impl Runs {
    const fn attach_type(self) -> u32 {
        match self {
            Self::OneEnd => bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
            Self::BothEnds => UPROBE_SESSION,
        }
    }
}

/// Loads a kprobe-type program that may be attached by [`link_uprobes`] only. On refusal the verifier's
/// verdict is in the error.
pub(crate) fn load_uprobe_multi(name: &str, instructions: &[bpf_insn], runs: Runs) -> io::Result<OwnedFd> {
    let mut attribute = ProgramLoad {
        program_type: bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        expected_attach_type: runs.attach_type(),
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
    /// Both, by a program that was loaded for it.
    Session,
}

/// Links a program to many file offsets of one executable at once, each with its cookie. The link ends when its descriptor is
/// closed.
pub(crate) fn link_uprobes(
    program: BorrowedFd<'_>,
    path: &CStr,
    offsets: &[u64],
    cookies: &[u64],
    when: When,
) -> io::Result<OwnedFd> {
    assert_eq!(offsets.len(), cookies.len(), "one for each");
    let mut attribute = LinkCreate {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        attach_type: match when {
            When::Entry | When::Return => Runs::OneEnd.attach_type(),
            When::Session => Runs::BothEnds.attach_type(),
        },
        path: path.as_ptr().addr() as u64,
        offsets: offsets.as_ptr().addr() as u64,
        cookies: cookies.as_ptr().addr() as u64,
        count: u32::try_from(offsets.len()).map_err(io::Error::other)?,
        multi_flags: match when {
            When::Entry | When::Session => 0,
            When::Return => UPROBE_MULTI_RETURN,
        },
        ..LinkCreate::default()
    };
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attribute)
}

/// Where a program other than a uprobe is linked to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'fd> {
    /// A cgroup directory.
    Cgroup(BorrowedFd<'fd>),
    /// A network interface of the calling thread's network namespace, by number.
    Interface(u32),
}

/// Links a program to a cgroup or an interface, beside what is there. The link ends when its last descriptor is closed and
/// it is not pinned.
pub(crate) fn link(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let mut attribute = LinkCreate {
        program: number_of(program)?,
        target: match target {
            Target::Cgroup(cgroup) => number_of(cgroup)?,
            Target::Interface(number) => number,
        },
        attach_type: attach_type as u32,
        ..LinkCreate::default()
    };
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attribute)
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Puts another program in a link's place, at once for whoever runs into it.
pub(crate) fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute =
        LinkUpdate { link: number_of(link)?, program: number_of(program)?, ..LinkUpdate::default() };
    bpf_plain(bpf_cmd::BPF_LINK_UPDATE, &mut attribute)
}

#[repr(C)]
#[derive(Default)]
struct LinkDetach {
    link: u32,
}

/// Ends a link's attachment now, whoever holds the link. Links of raw tracepoints end with their last holder only.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf_plain(bpf_cmd::BPF_LINK_DETACH, &mut LinkDetach { link: number_of(link)? })
}

#[repr(C)]
#[derive(Default)]
struct RawTracepointOpen {
    name: u64,
    program: u32,
    reserved: u32,
}

/// Links a program to a raw tracepoint.
pub(crate) fn link_raw_tracepoint(program: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let mut attribute =
        RawTracepointOpen { name: name.as_ptr().addr() as u64, program: number_of(program)?, reserved: 0 };
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attribute)
}

#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives a map or link a name in a BPF file system, so that it outlives its descriptors.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = Object { path: path.as_ptr().addr() as u64, fd: number_of(fd)?, flags: 0 };
    bpf_plain(bpf_cmd::BPF_OBJ_PIN, &mut attribute)
}

/// Opens what is pinned at a path; `None` if nothing is.
pub(crate) fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attribute = Object { path: path.as_ptr().addr() as u64, ..Object::default() };
    match bpf(bpf_cmd::BPF_OBJ_GET, &mut attribute) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(Default)]
struct ObjectInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_link_info` as cgroup links and interface links fill it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    /// Cgroup number, or interface number in its lower half.
    target: u64,
    attach_type: u32,
    reserved2: u32,
}

/// The number of the cgroup or interface that a link is on; zero once that is gone.
pub(crate) fn target_of_link(link: BorrowedFd<'_>, is_interface: bool) -> io::Result<u64> {
    let mut info = LinkInfo::default();
    let mut attribute = ObjectInfo {
        fd: number_of(link)?,
        length: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info).addr() as u64,
    };
    bpf_plain(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attribute)?;
    Ok(if is_interface { info.target & u64::from(u32::MAX) } else { info.target })
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// What a map is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapShape {
    pub(crate) map_type: bpf_map_type,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) entries: u32,
    pub(crate) flags: u32,
}

/// Makes a map that no object file describes.
pub(crate) fn create_map(name: &str, shape: MapShape) -> io::Result<OwnedFd> {
    let mut attribute = MapCreate {
        map_type: shape.map_type as u32,
        key_size: shape.key_size,
        value_size: shape.value_size,
        entries: shape.entries,
        flags: shape.flags,
        ..MapCreate::default()
    };
    for (to, from) in attribute.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bpf(bpf_cmd::BPF_MAP_CREATE, &mut attribute)
}

const _: () = assert!(size_of::<LinkUpdate>() == 16 && size_of::<Object>() == 16);
const _: () = assert!(size_of::<RawTracepointOpen>() == 16 && size_of::<ObjectInfo>() == 16);
const _: () = assert!(size_of::<MapCreate>() == 44 && size_of::<LinkInfo>() == 32);

#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    next_key: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Element>() == 32);

/// The key behind another one in a map's own order, or the first; `None` behind the last. A key that is gone counts as the one
/// before the first.
pub(crate) fn next_key<K: aya::Pod>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = std::mem::MaybeUninit::<K>::uninit();
    let mut attribute = Element {
        map: number_of(map)?,
        key: key.map_or(0, |key| std::ptr::from_ref(key).addr() as u64),
        next_key: next.as_mut_ptr().addr() as u64,
        ..Element::default()
    };
    match bpf_plain(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attribute) {
        // SAFETY: the kernel filled it with a key of the map, whose keys are K by the caller's choice of map; K is plain data.
        Ok(()) => Ok(Some(unsafe { next.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Maps a map's values into this process, shared with the kernel.
pub(crate) fn map_shared(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping where the kernel likes; nothing of ours lies there.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at zero"))
}

/// Takes back what [`map_shared`] answered.
///
/// # Safety
/// The mapping is that long and nothing refers to it any more.
pub(crate) unsafe fn unmap(address: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::munmap(address.as_ptr().cast(), bytes) };
    debug_assert_eq!(answer, 0, "a mapping of ours");
}

/// Mounts a BPF file system.
pub(crate) fn mount_bpffs(directory: &Path) -> io::Result<()> {
    let directory = c_path(directory)?;
    let (kind, options) = (c"bpf", c"mode=0700");
    // SAFETY: four terminated strings that outlive the call.
    let answer =
        unsafe { libc::mount(kind.as_ptr(), directory.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a path lies on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    let mut buffer = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a terminated string, and a buffer of the type the call fills.
    let answer = unsafe { libc::statfs(path.as_ptr(), buffer.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the buffer.
    Ok(unsafe { buffer.assume_init() }.f_type == BPF_FS_MAGIC)
}

/// `BPF_FS_MAGIC` of the UAPI's magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Waits until every program run that is under way has ended (the call waits for an RCU grace period).
pub(crate) fn wait_for_programs() -> io::Result<()> {
    // SAFETY: the call takes three numbers.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct procmap_query` of the UAPI's fs.h.
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_bytes: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_bytes: u32,
    build_id_bytes: u32,
    name: u64,
    build_id: u64,
}

const _: () = assert!(size_of::<ProcmapQuery>() == 104, "as the UAPI lays it out");

/// `PROCMAP_QUERY`: `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
/// `PROCMAP_QUERY_VMA_EXECUTABLE | PROCMAP_QUERY_FILE_BACKED_VMA`.
const CODE_OF_A_FILE: u64 = 0x04 | 0x20;

/// The mapping of a file's code that covers an address of a process. An error if there is none, or if the kernel is older
/// than Linux 6.11.
pub(crate) fn code_mapping(process: u32, address: u64) -> io::Result<Range<u64>> {
    let maps = std::fs::File::open(format!("/proc/{process}/maps"))?;
    let mut query = ProcmapQuery {
        size: size_of::<ProcmapQuery>() as u64,
        flags: CODE_OF_A_FILE,
        address,
        ..ProcmapQuery::default()
    };
    // SAFETY: the structure is as long as it says and asks for no name and no build id, so nothing else is written.
    let answer = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, std::ptr::from_mut(&mut query)) };
    if answer == 0 { Ok(query.start..query.end) } else { Err(io::Error::last_os_error()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn number_of(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

fn bpf<T>(command: bpf_cmd, attribute: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attribute)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_plain<T>(command: bpf_cmd, attribute: &mut T) -> io::Result<()> {
    call(command, attribute).map(|_zero| ())
}

fn call<T>(command: bpf_cmd, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: `attribute` is one of the structures above, whose pointers name buffers that their makers keep alive across the
    // call and whose lengths they state; the kernel writes to the verifier log, the link info and the next key only.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attribute), size_of::<T>())
    };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}
