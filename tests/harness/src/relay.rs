//! A wire between two programs that is as long, as thin and as broken as a test wants it: a TCP relay in user space.
//!
//! Bytes of each direction wait in a queue until their time has come. Nothing is lost within a connection, as TCP
//! promises; a cut ends the connection and everything in it.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;

/// What the wire is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire {
    /// How long a byte takes, each way.
    pub delay: Duration,
    /// How much longer a batch of bytes may take, by chance.
    pub jitter: Duration,
    /// Bytes a second of each connection, each way; 0 for as fast as can be. In front of a wire that is so thin no more than
    /// [`QUEUE_BYTES`] wait, as in a switch; who sends more has to wait himself.
    pub bytes_per_second: u64,
}

/// Bytes that wait in front of a thin wire, each way.
const QUEUE_BYTES: usize = 256 << 10;

/// A relay to one address. Its threads end with their connections; it takes new ones until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: String,
    wire: Wire,
    down: AtomicBool,
    ended: AtomicBool,
    connections: Mutex<Vec<Connection>>,
    carried: AtomicU64,
}

#[derive(Debug)]
struct Connection {
    ends: [TcpStream; 2],
    carried: Arc<AtomicU64>,
}

impl Connection {
    fn cut(&self) {
        for end in &self.ends {
            // It may be gone already.
            let _gone = end.shutdown(Shutdown::Both);
        }
    }
}

impl Relay {
    /// Starts a relay to a worker's address (`tcp:HOST:PORT`).
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn to(target: &str, wire: Wire) -> Result<Self> {
        let target = target.strip_prefix("tcp:").context("a relay is for TCP")?.to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening")?;
        let address = format!("tcp:{}", listener.local_addr()?);
        let state = Arc::new(State {
            target,
            wire,
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
            carried: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Ok(Self { address, state })
    }

    /// Where programs connect.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes carried so far, both ways.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.state.carried.load(Ordering::Acquire)
    }

    /// Cuts every connection and refuses new ones until [`Relay::mend`].
    pub fn cut(&self) {
        self.state.down.store(true, Ordering::Release);
        self.state.drop_connections();
    }

    /// Cuts the connection that came last of those that have carried so many bytes, and no other. `None` without such a one.
    #[must_use]
    pub fn cut_last(&self, carried: u64) -> Option<()> {
        let mut connections = self.state.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let index = connections.iter().rposition(|one| carried <= one.carried.load(Ordering::Acquire))?;
        connections.remove(index).cut();
        Some(())
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.state.down.store(false, Ordering::Release);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
        self.state.drop_connections();
        // Wakes the accepting thread, so that it sees the end.
        let _woken = TcpStream::connect(self.address.trim_start_matches("tcp:"));
    }
}

impl State {
    fn drop_connections(&self) {
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            connection.cut();
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.ended.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        if state.down.load(Ordering::Acquire) {
            continue;
        }
        let Ok(server) = TcpStream::connect(&state.target) else { continue };
        if carry(client, server, state).is_err() {
            continue;
        }
    }
}

fn carry(client: TcpStream, server: TcpStream, state: &Arc<State>) -> std::io::Result<()> {
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let carried = Arc::new(AtomicU64::new(0));
    let connection =
        Connection { ends: [client.try_clone()?, server.try_clone()?], carried: Arc::clone(&carried) };
    state.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    let pairs = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (seed, (from, to)) in (1u64..).zip(pairs) {
        let queue = Arc::new(Queue::default());
        let (reader, state, wire) = (Arc::clone(&queue), Arc::clone(state), state.wire);
        let carried = Arc::clone(&carried);
        thread::spawn(move || take(from, &reader, wire, seed));
        thread::spawn(move || give(to, &queue, &[&state.carried, &carried]));
    }
    Ok(())
}

/// Bytes under way.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    change: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with the moment it arrives.
    batches: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// Nothing more will come.
    ended: bool,
}

#[expect(clippy::disallowed_methods, reason = "a wire's length is a matter of time")]
fn take(mut from: TcpStream, queue: &Queue, wire: Wire, seed: u64) {
    let mut buffer = vec![0; 256 << 10];
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut last = Instant::now();
    let is_thin = wire.bytes_per_second > 0;
    if is_thin {
        // Else what waits would wait in this socket, whose buffer grows; of fewer bytes than some segments of this host's own
        // wire, each would wait for a timer. Refused, the wire is only less exact.
        let _refused = setsockopt(&from, RcvBuf, &QUEUE_BYTES);
        buffer.truncate(QUEUE_BYTES / 8);
    }
    loop {
        let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while is_thin && QUEUE_BYTES < waiting.bytes && !waiting.ended {
            waiting = queue.change.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        drop(waiting);
        let count = from.read(&mut buffer).unwrap_or(0);
        let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            waiting.ended = true;
            queue.change.notify_all();
            return;
        }
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter = wire.jitter.mul_f64(f64::from(u16::try_from(chance >> 48).unwrap_or(0)) / 65_536.0);
        let long = (count as u64 * 1_000_000_000).checked_div(wire.bytes_per_second);
        // Bytes keep their order, and the next can only begin when these have ended.
        last = (Instant::now() + wire.delay + jitter).max(last) + Duration::from_nanos(long.unwrap_or(0));
        waiting.batches.push_back((last, buffer[..count].to_vec()));
        waiting.bytes += count;
        queue.change.notify_all();
    }
}

#[expect(clippy::disallowed_methods, reason = "a wire's length is a matter of time")]
fn give(mut to: TcpStream, queue: &Queue, counts: &[&AtomicU64; 2]) {
    loop {
        let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, bytes) = loop {
            if let Some(batch) = waiting.batches.pop_front() {
                waiting.bytes -= batch.1.len();
                queue.change.notify_all();
                break batch;
            }
            if waiting.ended {
                let _gone = to.shutdown(Shutdown::Write);
                return;
            }
            waiting = queue.change.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        };
        drop(waiting);
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
        if to.write_all(&bytes).is_err() {
            queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            queue.change.notify_all();
            return;
        }
        for count in counts {
            count.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        }
    }
}
