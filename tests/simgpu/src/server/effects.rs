//! What operations do when their moment has come.

use std::sync::Arc;

use headgate_abi::cuda::CUresult;
use headgate_simgpu_ptx::{DeviceMemory, NotMapped};

use super::journal::Entry;
use super::node::{Node, SessionId};
use super::session::{Module, Session, read_process, write_process};
use crate::limits::COPY_CHUNK_BYTES;
use crate::mappings;
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
        /// It has left its pool already.
        pooled: bool,
    },
    UseNode {
        address: u64,
        in_use: bool,
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
            Action::Free { address, pooled } => {
                self.free(at, id, address, pooled).map_err(|refusal| Fault(refusal.status.0))
            }
            Action::UseNode { address, in_use } => {
                self.use_graph_node(id, address, in_use).map_err(|status| Fault(status.0))
            }
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

/// Works through a range of device memory, one piece after another. `work` is told how far it has come.
fn through(
    session: &Session,
    address: u64,
    bytes: usize,
    write: bool,
    mut work: impl FnMut(usize, &mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut done = 0;
    while done < bytes {
        let at = address.checked_add(done as u64).ok_or(ILLEGAL)?;
        let piece = session.piece(at, write).ok_or(ILLEGAL)?;
        let length = usize::try_from(piece.bytes).unwrap_or(usize::MAX).min(bytes - done);
        piece.store.with(piece.offset, length, |part| work(done, part))?;
        // Ordinary allocations end where the range must; only mappings may follow each other.
        done += length;
        if done < bytes && at < mappings::FIRST {
            return Err(ILLEGAL);
        }
    }
    Ok(())
}

fn read(session: &mut Session, place: Place, into: &mut [u8]) -> Result<(), Fault> {
    match place {
        Place::Host(address) => read_process(session.pid, address, into).map_err(|_| ILLEGAL),
        Place::Device(address) => through(session, address, into.len(), false, |at, part| {
            into[at..at + part.len()].copy_from_slice(part);
            Ok(())
        }),
    }
}

fn write(session: &mut Session, place: Place, from: &[u8]) -> Result<(), Fault> {
    match place {
        Place::Host(address) => write_process(session.pid, address, from).map_err(|_| ILLEGAL),
        Place::Device(address) => through(session, address, from.len(), true, |at, part| {
            part.copy_from_slice(&from[at..at + part.len()]);
            Ok(())
        }),
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
                let width = usize::try_from(width).map_err(|_| ILLEGAL)?;
                through(session, device, width, false, |at, part| {
                    write_process(session.pid, host.wrapping_add(at as u64), part).map_err(|_| ILLEGAL)
                })?;
            }
            (Place::Device(device), Place::Host(host)) => {
                let width = usize::try_from(width).map_err(|_| ILLEGAL)?;
                through(session, device, width, true, |at, part| {
                    read_process(session.pid, host.wrapping_add(at as u64), part).map_err(|_| ILLEGAL)
                })?;
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
    let row_bytes = usize::try_from(row_bytes).map_err(|_| ILLEGAL)?;
    for row in 0..height {
        let address = start.wrapping_add(pitch.wrapping_mul(row));
        if session.is_pinned(address, row_bytes as u64) {
            fill_host(session.pid, address, pattern, row_bytes)?;
            continue;
        }
        if value == 0
            && let Some(piece) = session.piece(address, true).filter(|piece| piece.bytes >= row_bytes as u64)
        {
            // Costs no memory.
            piece.store.clear(piece.offset, row_bytes);
            continue;
        }
        through(session, address, row_bytes, true, |_, part| {
            part.chunks_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(&pattern[..chunk.len()]));
            Ok(())
        })?;
    }
    Ok(())
}

/// Fills managed or pinned memory, which is the host's.
fn fill_host(pid: u32, address: u64, pattern: &[u8], bytes: usize) -> Result<(), Fault> {
    // Whole elements, so that each part begins where an element does.
    let part: Vec<u8> = pattern.iter().copied().cycle().take(bytes.min(COPY_CHUNK_BYTES)).collect();
    let mut done = 0;
    while done < bytes {
        let length = part.len().min(bytes - done);
        write_process(pid, address.wrapping_add(done as u64), &part[..length]).map_err(|_| ILLEGAL)?;
        done += length;
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
