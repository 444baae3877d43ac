//! The parts that other processes play.

use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use headgate_abi::limits::FRAME_BYTES_MAX;
use headgate_abi::segment::layout::{GATE_OPEN_BIT, GATE_UNGOVERNED};
use headgate_abi::segment::map::{LedgerSegment, LimitsSegment};
use headgate_abi::segment::{Ledger, SeatIndex};
use headgate_abi::wire::{Answer, Frame, Hello};
use headgate_daemon::config;
use headgate_daemon::config::model::DeviceUuid;
use headgate_daemon::devices::Fixed;
use headgate_daemon::node::DeviceFacts;
use headgate_quota::Bytes;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::MARK;

/// The one device of the made-up node.
pub(crate) const GPU: DeviceUuid = DeviceUuid([7; 16]);

/// Plays the part this process was started for, if any.
pub(crate) fn play() {
    match std::env::var(super::PART).as_deref() {
        Ok("daemon") => daemon(),
        Ok("hook") => hook(),
        _ => {}
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}").unwrap();
    out.flush().unwrap();
}

fn daemon() {
    headgate_daemon::telemetry::init(headgate_daemon::telemetry::LogFormat::Text);
    let file = std::env::var("CONFIG").unwrap();
    let loaded = config::load(Path::new(&file)).unwrap();
    let facts = DeviceFacts { uuid: GPU, name: "made up".to_owned(), memory: Bytes(80 << 30) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = headgate_daemon::run::run(
        Path::new(&file),
        loaded,
        Box::new(Fixed(vec![facts])),
        std::future::pending(),
    );
    runtime.block_on(running).unwrap();
}

struct Seated {
    limits: LimitsSegment,
    ledger: Ledger,
    seat: SeatIndex,
    generation: u64,
}

/// Does as it is told, a line at a time.
fn hook() {
    say("up");
    let mut session: Option<Seated> = None;
    let mut socket: Option<UnixStream> = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["place", tenant] => say(&place(tenant)),
            ["hello"] => say(&hello(None, &mut session, &mut socket)),
            ["hello-again"] => {
                let named = session.as_ref().map(|seated| (seated.seat, seated.generation));
                say(&hello(named, &mut session, &mut socket));
            }
            ["charge", bytes] => {
                let seated = session.as_ref().unwrap();
                let limit = seated.limits.device(0).memory_bytes_max.load(Acquire);
                let charged = seated.ledger.charge(seated.seat, 0, bytes.parse().unwrap(), limit);
                say(if charged.is_ok() { "charged" } else { "denied" });
            }
            ["limits"] => {
                let Seated { limits, ledger, seat, .. } = session.as_ref().unwrap();
                let (header, device) = (limits.header(), limits.device(0));
                let age =
                    headgate_daemon::clock::monotonic().0.saturating_sub(header.heartbeat_us.load(Acquire));
                say(&format!(
                    "memory={} governed={} open={}{} stale={} epoch={}",
                    device.memory_bytes_max.load(Acquire),
                    u8::from(device.gate_mode.load(Acquire) != GATE_UNGOVERNED),
                    device.gate.load(Acquire) & GATE_OPEN_BIT,
                    ledger.seat(*seat).gates[0].load(Acquire) & GATE_OPEN_BIT,
                    u8::from(headgate_abi::limits::HEARTBEAT_STALE_US < age),
                    header.epoch.load(Acquire),
                ));
            }
            ["close"] => {
                socket = None;
                say("closed");
            }
            ["talk"] => {
                let mut socket = socket.as_ref().unwrap();
                socket.write_all(&[1]).unwrap();
                say(&answer_text(socket));
            }
            ["exec"] => {
                say("exec");
                panic!("exec failed: {}", std::process::Command::new("sleep").arg("60").exec());
            }
            ["exec-keeping-the-socket"] => {
                // A descriptor that survives exec, as a program that clears the flag would leave it.
                let kept = nix::unistd::dup(socket.as_ref().unwrap()).unwrap();
                say("exec");
                let error = std::process::Command::new("sleep").arg("60").exec();
                panic!("exec failed with {kept:?} open: {error}");
            }
            ["raw", hex] => say(&raw(hex)),
            _ => panic!("unknown command {line}"),
        }
    }
}

fn place(tenant: &str) -> String {
    let mut stream = UnixStream::connect(std::env::var("ADMIN").unwrap()).unwrap();
    writeln!(stream, "{{\"op\":\"place\",\"tenant\":\"{tenant}\"}}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    if answer["ok"] == true { "placed".to_owned() } else { answer["error"].to_string() }
}

fn hello(
    seat: Option<(SeatIndex, u64)>,
    session: &mut Option<Seated>,
    kept: &mut Option<UnixStream>,
) -> String {
    let mut socket = UnixStream::connect(std::env::var("CONTROL").unwrap()).unwrap();
    let hello = Hello { driver_version: 13_000, text_start: 0, text_end: 0, seat, devices: vec![GPU.0] };
    socket.write_all(&hello.encode()).unwrap();
    let (answer, descriptors) = receive(&socket);
    let text = describe(&answer);
    if let Answer::Welcome(welcome) = answer {
        let [limits, ledger] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
        *session = Some(Seated {
            limits: LimitsSegment::open(limits.as_fd()).unwrap(),
            ledger: Ledger::new(LedgerSegment::open(ledger.as_fd()).unwrap()),
            seat: welcome.seat,
            generation: welcome.generation,
        });
        // Kept so that a daemon without root can find the ledger again by way of /proc/<pid>/fd.
        if std::env::var_os("FORGET_FD").is_none() {
            std::mem::forget(ledger);
        }
        *kept = Some(socket);
    }
    text
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Welcome(w) => format!(
            "welcome seat={} generation={} fresh={} off={} rows={:?} tenant={}",
            w.seat.get(),
            w.generation,
            w.fresh,
            w.off,
            w.rows,
            w.tenant_name
        ),
        Answer::Refused { reason, text } => format!("refused {reason}: {text}"),
    }
}

/// Sends bytes as they are and says what came back.
fn raw(hex: &str) -> String {
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut socket = UnixStream::connect(std::env::var("CONTROL").unwrap()).unwrap();
    socket.write_all(&bytes).unwrap();
    answer_text(&socket)
}

fn answer_text(mut socket: &UnixStream) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    match Frame::parse(&bytes) {
        Ok(Some((frame, _))) => describe(&Answer::decode(frame).unwrap()),
        other => format!("no answer: {other:?}"),
    }
}

fn receive(socket: &UnixStream) -> (Answer, Vec<OwnedFd>) {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = vec![0; FRAME_BYTES_MAX];
    let mut control = nix::cmsg_space!([i32; 2]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).unwrap();
    let length = message.bytes;
    let descriptors = message
        .cmsgs()
        .unwrap()
        .flat_map(|control| match control {
            ControlMessageOwned::ScmRights(raw) => raw,
            _ => Vec::new(),
        })
        .map(own)
        .collect();
    let (frame, _) = Frame::parse(&bytes[..length]).unwrap().unwrap();
    (Answer::decode(frame).unwrap(), descriptors)
}

#[expect(unsafe_code, reason = "received descriptors come as numbers")]
fn own(raw: i32) -> OwnedFd {
    // SAFETY: the kernel has just put this descriptor into our table for us alone.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
