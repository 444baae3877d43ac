//! From a client's command to an operation of the model: how long it takes, what it waits for, what it will do.

use headgate_abi::cuda::CUresult;

use super::effects::{Action, Payload};
use super::node::{Answer, Node, Refusal, SessionId};
use super::session::read_process;
use crate::limits::{BACKLOG_MAX, PENDING_MAX};
use crate::model::{CopyEngine, FOREVER, Fault, Mark, Model, Nanos, Op, Work};
use crate::protocol::{Command, Launch, Place, Reply, Rows};

impl Node {
    pub(super) fn submit(
        &mut self,
        model: &mut Model<Payload>,
        id: SessionId,
        slot: u32,
        seq: u64,
        command: Command,
    ) -> Answer {
        let session = self.session(id)?;
        let Some(&stream) = session.slots.get(&slot) else {
            return Err(Refusal::handle("no such stream"));
        };
        if model.backlog(stream) >= BACKLOG_MAX {
            self.doom(id, &format!("more than {PENDING_MAX} operations are pending in one stream"));
            return Err(Refusal::value("too many pending operations"));
        }
        // The client's numbers must stay in step with the model's: a command that cannot be carried out still takes
        // its number, as an operation that does nothing, and kills the context.
        let behind = model.backlog(stream) > 0;
        let (op, refusal) = match self.operation(id, slot, command, behind) {
            Ok(op) => (op, None),
            Err(refusal) => {
                let action = Action::Fail(Fault(refusal.status.0));
                (
                    Op { work: Work::Instant, after: Vec::new(), payload: Payload { session: id, action } },
                    Some(refusal),
                )
            }
        };
        let given = model.submit(stream, op, self);
        if given != Some(seq) {
            self.doom(id, &format!("operation {seq} of stream {slot} came as {given:?}"));
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Reply::Done),
        }
    }

    /// `behind` says that the stream has work pending.
    fn operation(
        &mut self,
        id: SessionId,
        slot: u32,
        command: Command,
        behind: bool,
    ) -> Result<Op<Payload>, Refusal> {
        let mut after = Vec::new();
        let copies = self.config.copies;
        let before = self.session(id)?.last_kernels.remove(&slot).filter(|_| behind);
        let (work, action) = match command {
            Command::Launch(launch) => self.launch(id, slot, launch, before)?,
            Command::Copy { to, from, width, height, staged } => {
                let bytes = width.saturating_mul(height);
                let host_source = matches!(from.at, Place::Host(_));
                let work = match (to.at, from.at) {
                    (Place::Device(_), Place::Device(_)) => {
                        let duration = copies.span(bytes, copies.on_device_bytes_per_s);
                        Work::Kernel { duration, sms: u32::MAX }
                    }
                    (Place::Host(_), _) => Work::Copy {
                        engine: CopyEngine::FromDevice,
                        duration: copies.span(bytes, copies.from_device_bytes_per_s),
                    },
                    (Place::Device(_), Place::Host(_)) => Work::Copy {
                        engine: CopyEngine::ToDevice,
                        duration: copies.span(bytes, copies.to_device_bytes_per_s),
                    },
                };
                let staged = match from.at {
                    Place::Host(_) if staged && host_source => Some(self.stage(id, from, width, height)?),
                    _ => None,
                };
                (work, Action::Copy { to, from, width, height, staged })
            }
            Command::Fill { element, .. } if !matches!(element, 1 | 2 | 4) => {
                return Err(Refusal::value("a fill has elements of 1, 2 or 4 bytes"));
            }
            Command::Fill { at, pitch, value, element, width, height } => {
                let bytes = width.saturating_mul(height).saturating_mul(element.into());
                let duration = copies.span(bytes, copies.on_device_bytes_per_s);
                let work = Work::Kernel { duration, sms: u32::MAX };
                (work, Action::Fill { at, pitch, value, element, width, height })
            }
            Command::WaitValue { at, value, width, condition } => {
                (Work::Wait, Action::WaitValue { at, value, width, condition })
            }
            Command::WriteValue { at, value, width } => {
                (Work::Instant, Action::WriteValue { at, value, width })
            }
            Command::After { slot, seq } => {
                if let Some(&stream) = self.session(id)?.slots.get(&slot) {
                    after.push(Mark { stream, seq });
                }
                (Work::Instant, Action::Nothing)
            }
            Command::Stamp { event } => (Work::Instant, Action::Stamp { event }),
            Command::ForgetEvent { event } => (Work::Instant, Action::ForgetEvent { event }),
            Command::Free { address } => {
                let pooled = self.leave_pool(id, address, slot);
                (Work::Instant, Action::Free { address, pooled })
            }
            Command::TakeNode { address } => (Work::Instant, Action::UseNode { address, in_use: true }),
            Command::ReturnNode { address } => (Work::Instant, Action::UseNode { address, in_use: false }),
            Command::Nothing => (Work::Instant, Action::Nothing),
            Command::HostFunction => (Work::Host, Action::Nothing),
        };
        Ok(Op { work, after, payload: Payload { session: id, action } })
    }

    /// `before` is how long the kernel takes that is right before it in its stream and not done.
    fn launch(
        &mut self,
        id: SessionId,
        slot: u32,
        launch: Launch,
        before: Option<Nanos>,
    ) -> Result<(Work, Action), Refusal> {
        let module = self.session(id)?.modules.get(&launch.module).cloned();
        let module = module.ok_or_else(|| Refusal::handle("no such module"))?;
        let name =
            module.names.get(launch.kernel as usize).ok_or_else(|| Refusal::handle("no such kernel"))?;
        let rule = *self.times.rule(name);
        let context = self.session(id)?.contexts.get(&module.context);
        let device =
            context.map(|context| context.device).ok_or_else(|| Refusal::handle("no such context"))?;
        let of = self.devices[device].info.sms;
        let session = self.session(id)?;
        let most =
            session.mps.as_ref().and_then(|client| client.parts.get(&device)).map_or(of, |part| part.sms);
        let share = session.shares.get(&slot).copied();
        let sms = share.map_or(most, |share| share.sms.min(most));
        let volume = |of: [u32; 3]| of.into_iter().fold(1_u64, |all, side| all.saturating_mul(side.into()));
        let blocks = volume(launch.grid);
        let mut duration = rule.duration_on(blocks, volume(launch.block), sms, of);
        let held = match rule.spread_ns {
            0 => u32::try_from(blocks).unwrap_or(u32::MAX).clamp(1, sms),
            _ => sms,
        };
        let session = self.session(id)?;
        if duration != FOREVER {
            session.last_kernels.insert(slot, duration);
        }
        if let Some(before) = before.filter(|_| launch.overlaps && duration != FOREVER) {
            duration -= rule.prologue_ns.min(before).min(duration);
            session.use_of[device].overlapped += 1;
        }
        let work = Work::Kernel { duration, sms: held };
        Ok((work, Action::Launch { module, launch, execute: rule.execute }))
    }

    /// Reads host bytes now. The call blocks until it is done, as the CUDA documentation says of pageable memory.
    fn stage(&mut self, id: SessionId, from: Rows, width: u64, height: u64) -> Result<Vec<u8>, Refusal> {
        let Place::Host(address) = from.at else { return Ok(Vec::new()) };
        let bytes = width.checked_mul(height).and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| Refusal::value("too many bytes"))?;
        let row_bytes = usize::try_from(width).map_err(|_| Refusal::value("too many bytes"))?;
        let mut staged = Vec::new();
        staged
            .try_reserve_exact(bytes)
            .map_err(|_| Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "no memory to stage the copy"))?;
        staged.resize(bytes, 0);
        let pid = self.session(id)?.pid;
        if row_bytes == 0 {
            return Ok(staged);
        }
        for (index, row) in staged.chunks_mut(row_bytes).enumerate() {
            let address = address.wrapping_add(from.pitch.wrapping_mul(index as u64));
            read_process(pid, address, row)
                .map_err(|why| Refusal::value(format!("host memory cannot be read: {why}")))?;
        }
        Ok(staged)
    }
}
