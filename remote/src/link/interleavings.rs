//! Who sleeps at a ring is woken, and reads what was written, under every order of the steps of both sides.
//!
//! Run by `cargo xtask loom`. Nobody here waits for a time, so a wake-up that is lost is a deadlock, which the model checker
//! finds. Rings and the daemon's end of them are the code that is shipped; the few lines that [`super::near`] and the daemon
//! have around them are done here as they are there, because their socket is the kernel's.

use std::time::Duration;

use loom::model::Builder;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::Awaited;
use super::memory::Memory;
use super::ring::{Reader, Writer};

/// Switches from one runnable thread to another in one run, where two threads run.
const PREEMPTIONS_OF_TWO: usize = 3;
/// And where three do: one more takes a minute and finds nothing new.
const PREEMPTIONS_OF_THREE: usize = 2;

fn check(preemptions: usize, law: impl Fn() + Send + Sync + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(law);
}

/// A socket over which nothing goes but bytes that ring.
#[derive(Debug)]
struct Socket(Mutex<bool>, Condvar);

impl Socket {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(false), Condvar::new()))
    }

    fn nudge(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn sleep(&self) {
        let mut rung = self.0.lock().unwrap();
        while !*rung {
            rung = self.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Writes as [`super::Near`] does: a byte at a time, asleep at its word while there is no room.
fn write(out: &Writer, reader: &Socket, count: u8) {
    for byte in 1..=count {
        while out.room().unwrap() == 0 {
            out.sleep(Duration::MAX).unwrap();
        }
        out.put(0, &[byte]);
        if out.tell(1) {
            reader.nudge();
        }
    }
}

/// Reads as [`super::Near`] does, asleep at its socket while nothing is there.
fn read(come: &Reader, own: &Socket, writer: &Socket, count: u8) {
    for expected in 1..=count {
        let mut byte = [0];
        loop {
            let (taken, sleeps) = come.take(&mut byte).unwrap();
            if sleeps {
                writer.nudge();
            }
            if taken == 1 {
                break;
            }
            if come.lie_down() {
                own.sleep();
            }
            come.get_up();
        }
        assert_eq!(byte[0], expected, "what was written comes out, in order");
    }
}

/// Carries as a daemon does, both ways in one thread, asleep at the one socket while it can do neither.
fn carry(end: &Awaited, own: &Socket, program: &Socket, down: u8, up: u8) {
    let (mut sent, mut come) = (0, 0);
    while sent < down || come < up {
        let mut idle = true;
        if sent < down && end.put(&[sent + 1], || program.nudge()).unwrap().is_some() {
            (sent, idle) = (sent + 1, false);
        }
        if come < up && end.held().unwrap().is_some() {
            let mut byte = [0];
            assert_eq!(end.take(&mut byte, || program.nudge()).unwrap(), 1);
            (come, idle) = (come + 1, false);
            assert_eq!(byte[0], come);
        }
        if idle {
            own.sleep();
        }
    }
}

#[test]
fn of_two_that_sleep_at_their_word_and_their_socket_neither_sleeps_for_ever() {
    check(PREEMPTIONS_OF_TWO, || {
        let memory = Arc::new(Memory::alone());
        let (out, come) = (Writer::new(memory.clone(), 0), Reader::new(memory, 0));
        let (here, there) = (Socket::new(), Socket::new());
        let reader = {
            let (here, there) = (here.clone(), there.clone());
            thread::spawn(move || read(&come, &there, &here, 4))
        };
        write(&out, &there, 4);
        reader.join().unwrap();
    });
}

#[test]
fn a_daemon_that_writes_sleeps_at_its_socket_and_not_for_ever() {
    check(PREEMPTIONS_OF_TWO, || {
        let memory = Arc::new(Memory::alone());
        let (end, come) = (Awaited::on(memory.clone()), Reader::new(memory, 1));
        let (here, there) = (Socket::new(), Socket::new());
        let reader = {
            let (here, there) = (here.clone(), there.clone());
            thread::spawn(move || read(&come, &there, &here, 4))
        };
        carry(&end, &here, &there, 4, 0);
        reader.join().unwrap();
    });
}

#[test]
fn a_daemon_that_reads_and_writes_at_one_socket_misses_neither() {
    check(PREEMPTIONS_OF_THREE, || {
        let memory = Arc::new(Memory::alone());
        let end = Awaited::on(memory.clone());
        let (out, come) = (Writer::new(memory.clone(), 0), Reader::new(memory, 1));
        let (here, there) = (Socket::new(), Socket::new());
        let reader = {
            let (here, there) = (here.clone(), there.clone());
            thread::spawn(move || read(&come, &there, &here, 3))
        };
        let writer = {
            let here = here.clone();
            thread::spawn(move || write(&out, &here, 1))
        };
        carry(&end, &here, &there, 3, 1);
        reader.join().unwrap();
        writer.join().unwrap();
    });
}
