//! What operations do when their moment has come.

use std::sync::Arc;

use headgate_abi::cuda::CUresult;
use headgate_simgpu_ptx::{DeviceMemory, NotMapped};

use super::journal::Entry;
use super::node::{Node, SessionId};
use super::session::{Module, Session, read_process, write_process};
use crate::limits::COPY_CHUNK_BYTES;
use crate::model::{Condition, ContextId, Fault, Mark, Nanos, Width, World, holds};
use crate::protocol::{Launch, Place, Rows};

/// An operation's deed, and whose it is.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) session: SessionId,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    Launch {
        module: Arc<Module>,
        launch: Launch,
        execute: bool,
    },
    Copy {
        to: Rows,
        from: Rows,
        width: u64,
        height: u64,
        staged: Option<Vec<u8>>,
    },
    Fill {
        at: u64,
        pitch: u64,
        value: u32,
        element: u32,
        width: u64,
        height: u64,
    },
    WaitValue {
        at: Place,
        value: u64,
        width: Width,
        condition: Condition,
    },
    WriteValue {
        at: Place,
        value: u64,
        width: Width,
    },
    Stamp {
        event: u64,
    },
    ForgetEvent {
        event: u64,
    },
    Free {
        address: u64,
    },
    Nothing,
    /// The command was malformed when it came.
    Fail(Fault),
}

/// An access that went wrong while the device worked: the context dies of it.
const ILLEGAL: Fault = Fault(CUresult::ERROR_ILLEGAL_ADDRESS.0);

impl World<Payload> for Node {
    fn perform(&mut self, at: Nanos, _context: ContextId, payload: Payload) -> Result<(), Fault> {
        let id = payload.session;
        match payload.action {
            Action::Launch { module, launch, execute } => self.run_kernel(at, id, &module, &launch, execute),
            Action::Copy { to, from, width, height, staged } => {
                let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
                let moved = match staged {
                    Some(bytes) => unstage(session, to, width, &bytes),
                    None => copy_rows(session, to, from, width, height),
                };
                let bytes = Some(width.saturating_mul(height));
                self.log_outcome(at, id, "copy", bytes, moved)
            }
            Action::Fill { at: start, pitch, value, element, width, height } => {
                let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
                let filled = fill_rows(session, start, pitch, (value, element), width, height);
                let bytes = Some(width.saturating_mul(height).saturating_mul(element.into()));
                self.log_outcome(at, id, "fill", bytes, filled)
            }
            Action::WriteValue { at: place, value, width } => {
                let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
                write(session, place, &value.to_le_bytes()[..width.bytes()])
            }
            Action::Stamp { event } => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.events.insert(event, at);
                }
                Ok(())
            }
            Action::ForgetEvent { event } => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.events.remove(&event);
                }
                Ok(())
            }
            Action::Free { address } => self.free(at, id, address).map_err(|refusal| Fault(refusal.status.0)),
            Action::Nothing | Action::WaitValue { .. } => Ok(()),
            Action::Fail(fault) => Err(fault),
        }
    }

    fn satisfied(&mut self, _at: Nanos, _context: ContextId, payload: &Payload) -> Result<bool, Fault> {
        let Action::WaitValue { at: place, value, width, condition } = payload.action else {
            return Ok(true);
        };
        let Some(session) = self.sessions.get_mut(&payload.session) else { return Ok(true) };
        let mut word = [0; 8];
        read(session, place, &mut word[..width.bytes()])?;
        Ok(holds(condition, width, u64::from_le_bytes(word), value))
    }

    fn completed(&mut self, _at: Nanos, mark: Mark) {
        if let Some(&(id, slot)) = self.stream_owner.get(&mark.stream)
            && let Some(page) = self.sessions.get(&id).and_then(|session| session.page.as_ref())
        {
            page.set_completed(slot as usize, mark.seq);
        }
    }

    fn faulted(&mut self, at: Nanos, context: ContextId, fault: Fault) {
        let Some(&(id, number)) = self.context_owner.get(&context) else { return };
        if let Some(page) = self.sessions.get(&id).and_then(|session| session.page.as_ref()) {
            page.set_error(number as usize, fault.0);
        }
        self.log(at, id, "fault", None, None, CUresult(fault.0));
    }
}

impl Node {
    fn run_kernel(
        &mut self,
        at: Nanos,
        id: SessionId,
        module: &Module,
        launch: &Launch,
        execute: bool,
    ) -> Result<(), Fault> {
        let most = self.config.instructions_max;
        let device = self.info.devices.get(module.device);
        let Some(device) = device else { return Ok(()) };
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let outcome = if execute {
            let mut memory = KernelMemory { session };
            module.code.run(launch, device, at, most, &mut memory)
        } else {
            Ok(())
        };
        let (detail, status) = match outcome {
            Ok(()) => (module.names.get(launch.kernel as usize).cloned(), CUresult::SUCCESS),
            Err(error) => (Some(error.message.into()), CUresult(error.status)),
        };
        self.log(at, id, "kernel", detail, None, status);
        if status.is_success() { Ok(()) } else { Err(Fault(status.0)) }
    }

    fn log_outcome(
        &mut self,
        at: Nanos,
        id: SessionId,
        call: &'static str,
        bytes: Option<u64>,
        outcome: Result<(), Fault>,
    ) -> Result<(), Fault> {
        let status = outcome.err().map_or(0, |fault| fault.0);
        let pid = self.sessions.get(&id).map_or(0, |session| session.pid);
        self.note(Entry { at_ns: at, pid, call: call.into(), detail: None, bytes, status });
        outcome
    }
}

fn read(session: &mut Session, place: Place, into: &mut [u8]) -> Result<(), Fault> {
    match place {
        Place::Host(address) => read_process(session.pid, address, into).map_err(|_| ILLEGAL),
        Place::Device(address) => {
            let space = session.space_of(address).ok_or(ILLEGAL)?;
            into.copy_from_slice(space.bytes(address, into.len() as u64).map_err(|_| ILLEGAL)?);
            Ok(())
        }
    }
}

fn write(session: &mut Session, place: Place, from: &[u8]) -> Result<(), Fault> {
    match place {
        Place::Host(address) => write_process(session.pid, address, from).map_err(|_| ILLEGAL),
        Place::Device(address) => {
            let space = session.space_of(address).ok_or(ILLEGAL)?;
            space.bytes_mut(address, from.len() as u64).map_err(|_| ILLEGAL)?.copy_from_slice(from);
            Ok(())
        }
    }
}

fn shifted(place: Place, by: u64) -> Place {
    match place {
        Place::Host(address) => Place::Host(address.wrapping_add(by)),
        Place::Device(address) => Place::Device(address.wrapping_add(by)),
    }
}

/// Rows as one piece where they lie without gaps.
fn pieces(to: Rows, from_pitch: u64, width: u64, height: u64) -> (u64, u64) {
    if to.pitch == width && from_pitch == width {
        // A range too long to be true is refused as out of bounds where it is used.
        (width.saturating_mul(height), height.min(1))
    } else {
        (width, height)
    }
}

fn copy_rows(session: &mut Session, to: Rows, from: Rows, width: u64, height: u64) -> Result<(), Fault> {
    let (width, height) = pieces(to, from.pitch, width, height);
    for row in 0..height {
        let to = shifted(to.at, to.pitch.wrapping_mul(row));
        let from = shifted(from.at, from.pitch.wrapping_mul(row));
        match (to, from) {
            (Place::Host(host), Place::Device(device)) => {
                let pid = session.pid;
                let space = session.space_of(device).ok_or(ILLEGAL)?;
                let bytes = space.bytes(device, width).map_err(|_| ILLEGAL)?;
                write_process(pid, host, bytes).map_err(|_| ILLEGAL)?;
            }
            (Place::Device(device), Place::Host(host)) => {
                let pid = session.pid;
                let space = session.space_of(device).ok_or(ILLEGAL)?;
                let bytes = space.bytes_mut(device, width).map_err(|_| ILLEGAL)?;
                read_process(pid, host, bytes).map_err(|_| ILLEGAL)?;
            }
            (to, from) => copy_through(session, to, from, width)?,
        }
    }
    Ok(())
}

/// Device to device or host to host, through a buffer. Overlapping ranges are undefined in CUDA, too.
fn copy_through(session: &mut Session, to: Place, from: Place, bytes: u64) -> Result<(), Fault> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(COPY_CHUNK_BYTES)];
    let mut done = 0;
    while done < bytes {
        let left = usize::try_from(bytes - done).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let part = &mut buffer[..length];
        read(session, shifted(from, done), part)?;
        write(session, shifted(to, done), part)?;
        done += part.len() as u64;
    }
    Ok(())
}

/// Puts bytes that were staged when the copy was called where they belong.
fn unstage(session: &mut Session, to: Rows, width: u64, staged: &[u8]) -> Result<(), Fault> {
    let Some(width) = usize::try_from(width).ok().filter(|&width| width > 0) else { return Ok(()) };
    for (row, bytes) in staged.chunks(width).enumerate() {
        write(session, shifted(to.at, to.pitch.wrapping_mul(row as u64)), bytes)?;
    }
    Ok(())
}

fn fill_rows(
    session: &mut Session,
    start: u64,
    pitch: u64,
    (value, element): (u32, u32),
    width: u64,
    height: u64,
) -> Result<(), Fault> {
    let pattern = &value.to_le_bytes()[..(element as usize).min(4)];
    let row_bytes = width.saturating_mul(element.into());
    let rows = Rows { at: Place::Device(start), pitch };
    let (row_bytes, height) = pieces(rows, row_bytes, row_bytes, height);
    if row_bytes == 0 || height == 0 {
        return Ok(());
    }
    let space = session.space_of(start).ok_or(ILLEGAL)?;
    for row in 0..height {
        let address = start.wrapping_add(pitch.wrapping_mul(row));
        if value == 0 {
            space.clear(address, row_bytes).map_err(|_| ILLEGAL)?;
            continue;
        }
        let bytes = space.bytes_mut(address, row_bytes).map_err(|_| ILLEGAL)?;
        bytes.chunks_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(&pattern[..chunk.len()]));
    }
    Ok(())
}

/// What a kernel sees: its process's device memory, and the host memory that was pinned for the device.
struct KernelMemory<'a> {
    session: &'a mut Session,
}

impl KernelMemory<'_> {
    fn place(&self, address: u64, bytes: usize) -> Place {
        if self.session.is_pinned(address, bytes as u64) {
            Place::Host(address)
        } else {
            Place::Device(address)
        }
    }
}

impl DeviceMemory for KernelMemory<'_> {
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), NotMapped> {
        read(self.session, self.place(address, into.len()), into).map_err(|_| NotMapped)
    }

    fn store(&mut self, address: u64, bytes: &[u8]) -> Result<(), NotMapped> {
        write(self.session, self.place(address, bytes.len()), bytes).map_err(|_| NotMapped)
    }
}
