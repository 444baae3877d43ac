//! Processes that are checkpointed: their memory leaves the devices, and comes back to the addresses it had.
//!
//! ```text
//!            lock                checkpoint
//!  running ───────> locked ───────────────────> checkpointed      (NVIDIA's driver API, "CUDA Checkpointing")
//!     ^    unlock     │  ^        restore            │
//!     └───────────────┘  └───────────────────────────┘
//! ```
//!
//! As that documentation says: a locked process's calls block; what it had submitted is done before it is locked; each step
//! needs the state before it. A process may checkpoint itself, as NVIDIA's own sample does, or another. Where the
//! documentation is silent, this is what is simulated: a step from the wrong state is `CUDA_ERROR_ILLEGAL_STATE`, a process without the
//! driver `CUDA_ERROR_INVALID_VALUE`, a restore without room `CUDA_ERROR_OUT_OF_MEMORY` (the process stays checkpointed), and memory that other
//! processes or the host see as well (exported, imported, managed), or the Multi-Process Service, `CUDA_ERROR_NOT_SUPPORTED`.

use headgate_abi::cuda::CUresult;

use super::effects::Payload;
use super::node::{Answer, Node, Refusal, SessionId};
use crate::model::Model;
use crate::protocol::{CheckpointStep, Reply, Role};

/// `CUprocessState`, with what a checkpoint has put aside.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum ProcessState {
    #[default]
    Running,
    /// Calls are kept out, but not everything that was submitted is done.
    Locking,
    Locked,
    /// Bytes that each device had.
    Checkpointed(Vec<u64>),
}

impl ProcessState {
    /// The number the driver API gives it.
    fn number(&self) -> u64 {
        match self {
            Self::Running | Self::Locking => 0,
            Self::Locked => 1,
            Self::Checkpointed(_) => 2,
        }
    }
}

fn illegal(what: &str) -> Refusal {
    Refusal::new(CUresult::ERROR_ILLEGAL_STATE, what)
}

impl Node {
    pub(super) fn checkpoint(
        &mut self,
        model: &Model<Payload>,
        caller: SessionId,
        pid: Option<u32>,
        step: CheckpointStep,
    ) -> Answer {
        let of_pid = |pid: u32| {
            let mut drivers = self.sessions.iter().filter(|(_, session)| session.role == Some(Role::Driver));
            drivers.find_map(|(&id, session)| (session.pid == pid).then_some(id))
        };
        let id = pid.map_or(Some(caller), of_pid);
        let id = id.ok_or_else(|| Refusal::value("that process does not use the driver"))?;
        match step {
            CheckpointStep::State => Ok(Reply::Value(self.session(id)?.checkpoint.number())),
            CheckpointStep::Lock => self.lock(model, id),
            CheckpointStep::GiveUp => self.unlock(id, &ProcessState::Locking),
            CheckpointStep::Unlock => self.unlock(id, &ProcessState::Locked),
            CheckpointStep::Checkpoint => self.put_aside(id),
            CheckpointStep::Restore => self.restore(id),
        }
    }

    fn lock(&mut self, model: &Model<Payload>, id: SessionId) -> Answer {
        let session = self.session(id)?;
        if !matches!(session.checkpoint, ProcessState::Running | ProcessState::Locking) {
            return Err(illegal("only a running process can be locked"));
        }
        let Some(page) = &session.page else { return Err(Refusal::value("it has not introduced itself")) };
        page.lock(true);
        session.checkpoint = ProcessState::Locking;
        let at_work = page.inside() > 0 || session.slots.values().any(|&stream| model.backlog(stream) > 0);
        if !at_work {
            session.checkpoint = ProcessState::Locked;
        }
        Ok(Reply::Value((!at_work).into()))
    }

    fn unlock(&mut self, id: SessionId, from: &ProcessState) -> Answer {
        let session = self.session(id)?;
        if session.checkpoint != *from {
            return Err(illegal("only a locked process can be unlocked"));
        }
        session.checkpoint = ProcessState::Running;
        if let Some(page) = &session.page {
            page.lock(false);
        }
        Ok(Reply::Done)
    }

    fn put_aside(&mut self, id: SessionId) -> Answer {
        if self.is_entangled(id) {
            let why = "memory that others see as well cannot be taken off the device";
            return Err(Refusal::new(CUresult::ERROR_NOT_SUPPORTED, why));
        }
        let session = self.session(id)?;
        if session.checkpoint != ProcessState::Locked {
            return Err(illegal("only a locked process can be checkpointed"));
        }
        let aside: Vec<u64> = session.use_of.iter().map(|use_of| use_of.bytes).collect();
        session.checkpoint = ProcessState::Checkpointed(aside.clone());
        for (device, bytes) in aside.into_iter().enumerate() {
            self.release(id, device, bytes);
        }
        Ok(Reply::Done)
    }

    fn restore(&mut self, id: SessionId) -> Answer {
        let ProcessState::Checkpointed(aside) = &self.session(id)?.checkpoint else {
            return Err(illegal("only a checkpointed process can be restored"));
        };
        let aside = aside.clone();
        if aside.iter().enumerate().any(|(device, &bytes)| !self.has_room(id, device, bytes)) {
            return Err(Refusal::new(CUresult::ERROR_OUT_OF_MEMORY, "no room for what was checkpointed"));
        }
        self.put_back(id);
        Ok(Reply::Done)
    }

    /// Charges the devices again with what was put aside, if anything was.
    pub(super) fn put_back(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let ProcessState::Checkpointed(aside) = std::mem::take(&mut session.checkpoint) else { return };
        session.checkpoint = ProcessState::Locked;
        for (device, bytes) in aside.into_iter().enumerate() {
            self.charge_to(Some(id), device, bytes);
        }
    }
}
