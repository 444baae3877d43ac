//! Ways around the hook, as the known bypasses of other sharing layers take them.

use std::ffi::{CString, c_int, c_void};

use super::{answer, number};

/// What was loaded to go around.
#[derive(Default)]
pub(super) struct Around(usize);

/// `around PATH` loads a library so that its own dependencies come first; `around-alloc BYTES`, `around-table` and
/// `around-init` have it call the driver, `fork-around` in a forked child that executes nothing; `share-device NODE SOCKET` opens a
/// device and hands it to whoever connects, `take-device SOCKET` receives it.
pub(super) fn obey(state: &mut Around, words: &[&str]) -> String {
    let bytes = usize::try_from(number(words, 1)).unwrap_or(usize::MAX);
    match words[0] {
        "around" => match CString::new(words[1]) {
            Ok(path) => {
                // SAFETY: a terminated path; the library has no constructors.
                let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_DEEPBIND) };
                state.0 = library.addr();
                answer(u32::from(library.is_null()), &[])
            }
            Err(_) => "no path".into(),
        },
        "around-alloc" => told(state.call(c"around_alloc", bytes)),
        "around-table" => told(state.call(c"around_table", 0)),
        "around-init" => told(state.call(c"around_init", 0)),
        "fork-around" => told(fork(state)),
        "share-device" => share(words[1], words[2]),
        _ => take(words[1]),
    }
}

fn told(status: c_int) -> String {
    answer(status.unsigned_abs(), &[])
}

impl Around {
    fn call(&self, name: &std::ffi::CStr, argument: usize) -> c_int {
        let library = std::ptr::with_exposed_provenance_mut::<c_void>(self.0);
        // SAFETY: a handle of dlopen, and a terminated name.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        if found.is_null() {
            return -1;
        }
        type Function = unsafe extern "C" fn(usize) -> c_int;
        // SAFETY: each takes one number or none, which is the same in this calling convention.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(found) };
        // SAFETY: as above.
        unsafe { function(argument) }
    }
}

fn fork(state: &Around) -> c_int {
    // SAFETY: nothing else runs in this process; the child makes one call and leaves.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = state.call(c"around_init", 0);
        // SAFETY: leaves at once.
        unsafe { libc::_exit(status.min(255)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}

/// Room for one descriptor in a control message.
const CONTROL_BYTES: usize = 24;

fn share(node: &str, socket: &str) -> String {
    use std::os::fd::AsRawFd as _;
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(node);
    let (Ok(device), Ok(listener)) = (opened, std::os::unix::net::UnixListener::bind(socket)) else {
        return "err 1".into();
    };
    // Answered first: whoever asked starts the other end only then.
    std::thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else { return };
        let mut byte = 0u8;
        let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut control = [0u64; CONTROL_BYTES / 8];
        let mut message = message(&mut part, &mut control);
        // SAFETY: the control buffer has room for one header and one descriptor.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: there is room for one, so it is not null.
        let header = unsafe { &mut *first };
        header.cmsg_level = libc::SOL_SOCKET;
        header.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: arithmetic on sizes only.
        header.cmsg_len = unsafe { libc::CMSG_LEN(4) } as usize;
        // SAFETY: inside the control buffer.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: as above; four bytes.
        unsafe { data.cast::<c_int>().write_unaligned(device.as_raw_fd()) };
        // SAFETY: a message whose parts outlive the call.
        unsafe { libc::sendmsg(stream.as_raw_fd(), &raw mut message, 0) };
    });
    "ok".into()
}

fn take(socket: &str) -> String {
    use std::os::fd::AsRawFd as _;
    let Ok(stream) = std::os::unix::net::UnixStream::connect(socket) else { return "err 1".into() };
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0u64; CONTROL_BYTES / 8];
    let mut message = message(&mut part, &mut control);
    // SAFETY: a message whose parts outlive the call.
    if unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, 0) } != 1 {
        return "err 2".into();
    }
    // SAFETY: the kernel wrote the control buffer.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return "err 3".into();
    }
    // SAFETY: one descriptor was sent.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: as above.
    let fd = unsafe { data.cast::<c_int>().read_unaligned() };
    let mut facts = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a buffer of the type that the call fills.
    let status = unsafe { libc::fstat(fd, facts.as_mut_ptr()) };
    // SAFETY: zeros are a value of it, too.
    let kind = unsafe { facts.assume_init() }.st_mode & libc::S_IFMT;
    answer(u32::from(status != 0 || kind != libc::S_IFCHR), &[])
}

fn message(part: &mut libc::iovec, control: &mut [u64]) -> libc::msghdr {
    // SAFETY: zeros are a value of it: no address, no parts.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    message
}
