//! A cable to a network namespace, as long as a test wants: two tunnel devices, and this program between them, which hands on
//! each packet when its time has come. A relay of TCP would not do: its own kernel would answer for the other end.
#![expect(unsafe_code, reason = "namespaces and tunnel devices have system calls of their own")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A cable; gone with its value, and its namespace with it.
#[derive(Debug)]
pub struct Cable {
    namespace: String,
    cut: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Cable {
    /// Lays a cable from an address in this namespace to one in a namespace of its own, in the same network of 256. A packet takes
    /// `delay` each way.
    pub fn lay(here: &str, there: &str, delay: Duration) -> Result<Self, String> {
        let namespace = format!("hgc{}", std::process::id() % 100_000);
        ip(&format!("netns add {namespace}"))?;
        let mut cable = Self { namespace, cut: Arc::default(), carriers: Vec::new() };
        let name = cable.namespace.clone();
        let near = tunnel(&name)?;
        let far = {
            let namespace = File::open(format!("/run/netns/{name}")).map_err(|error| error.to_string())?;
            // A thread of its own, because a thread that has moved to a namespace stays there.
            let made = thread::spawn(move || {
                // SAFETY: a descriptor of a network namespace.
                match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
                    0 => tunnel("far"),
                    _ => Err(format!("setns: {}", std::io::Error::last_os_error())),
                }
            });
            made.join().map_err(|_| "a thread of ours has panicked")??
        };
        for line in [
            format!("addr add {here}/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {there}/24 dev far"),
            format!("-n {name} link set far up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&line)?;
        }
        for (from, to) in [(&near, &far), (&far, &near)] {
            let copies = (from.try_clone(), to.try_clone());
            let (Ok(from), Ok(to)) = copies else { return Err("no descriptors left".to_owned()) };
            cable.carry(from, to, delay);
        }
        Ok(cable)
    }

    /// The namespace at its far end.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn carry(&mut self, from: File, to: File, delay: Duration) {
        let (under_way, arriving) = mpsc::channel();
        let cut = Arc::clone(&self.cut);
        self.carriers.push(thread::spawn(move || take(from, &under_way, &cut, delay)));
        self.carriers.push(thread::spawn(move || give(to, &arriving)));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::Release);
        for carrier in self.carriers.drain(..) {
            let _panicked = carrier.join();
        }
        let _gone = Command::new("ip").args(["netns", "del", &self.namespace]).output();
    }
}

#[expect(clippy::disallowed_methods, reason = "a cable's length is a matter of time")]
fn take(mut from: File, under_way: &mpsc::Sender<(Instant, Vec<u8>)>, cut: &AtomicBool, delay: Duration) {
    let mut packet = vec![0; 64 << 10];
    while !cut.load(Ordering::Acquire) {
        let mut ready = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, valid for the call.
        if unsafe { libc::poll(&raw mut ready, 1, 20) } < 1 {
            continue;
        }
        let Ok(bytes) = from.read(&mut packet) else { continue };
        if under_way.send((Instant::now() + delay, packet[..bytes].to_vec())).is_err() {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a cable's length is a matter of time")]
fn give(mut to: File, arriving: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    for (at, packet) in arriving {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // An end that is not up takes nothing, as a cable that hangs loose.
        let _lost = to.write(&packet);
    }
}

/// `struct ifreq` as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes a tunnel device of that name in the thread's network namespace; gone with its file.
fn tunnel(name: &str) -> Result<File, String> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUN_WITHOUT_HEADER: i16 = 0x0001 | 0x1000;
    let file = File::options().read(true).write(true).open("/dev/net/tun");
    let file = file.map_err(|error| format!("/dev/net/tun: {error}"))?;
    let mut request = Request { name: [0; 16], flags: TUN_WITHOUT_HEADER, rest: [0; 22] };
    // The last byte stays zero.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the request outlives the call and has the layout that this ioctl reads.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if answer == 0 { Ok(file) } else { Err(format!("a tunnel device: {}", std::io::Error::last_os_error())) }
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {line}: {said}")) }
}
