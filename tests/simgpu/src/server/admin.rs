//! Questions of NVML and of the harness: what the devices measured.

use std::collections::BTreeSet;

use headgate_abi::cuda::CUresult;
use headgate_abi::cuda::symbols::ROWS;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::effects::Payload;
use super::node::{Answer, Node, Refusal, SessionId};
use crate::clock;
use crate::limits::{ENDED_MAX, XIDS_MAX};
use crate::model::{ContextMeter, DeviceMeter, Fault, Model, Nanos};
use crate::protocol::{Admin, ProcessInfo, ProcessSample, Reply, Role, Share};

/// What a process did on a device since the mark.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProcessUse {
    pid: u32,
    name: String,
    alive: bool,
    device: usize,
    busy_ns: Nanos,
    sm_ns: Nanos,
    kernels: u64,
    overlapped: u64,
    memory_bytes: u64,
    memory_peak_bytes: u64,
    allocations_refused: u64,
    contexts: usize,
    /// Most SMs of a client of MPS, and the chunks that nobody else has.
    mps_sms: Option<u32>,
    mps_chunks: Option<Vec<u32>>,
    /// The parts that its green contexts' streams keep to.
    green: BTreeSet<Share>,
    /// Calls of each driver entry point, over the process's life.
    calls: Map<String, Value>,
}

/// A process that has ended since the mark.
pub(crate) type EndedProcess = ProcessUse;

impl Node {
    pub(crate) fn administer(&mut self, model: &mut Model<Payload>, request: Admin) -> Answer {
        match request {
            Admin::SetKernel { name, rule } => match name {
                Some(name) => {
                    self.times.named.insert(name, rule);
                }
                None => self.times.default = rule,
            },
            Admin::InjectFault { call, status, count, pid } => {
                self.faults.push(super::node::InjectedFault { call, status, count, pid });
                self.faults.retain(|fault| fault.count > 0);
                self.arm_pages();
            }
            Admin::LoseDevice { device, status } => {
                self.device(device)?;
                let contexts = self.sessions.values().flat_map(|session| session.contexts.values());
                let doomed: Vec<_> = contexts
                    .filter(|context| context.device == device as usize)
                    .map(|context| context.id)
                    .collect();
                for context in doomed {
                    model.fault(context, Fault(status), self);
                }
            }
            Admin::Xid { device, code } => {
                self.device(device)?;
                if self.xids.len() >= XIDS_MAX {
                    return Err(Refusal::value("too many Xid errors"));
                }
                self.xids.push((device, code));
            }
            Admin::Mark => self.mark(model),
            Admin::Statistics => return Ok(Reply::Json(self.statistics(model).to_string())),
            Admin::Journal => return Ok(Reply::Json(self.journal.json().to_string())),
            Admin::ClearJournal => self.journal.clear(),
            Admin::JournalAll(all) => {
                self.journal_all = all;
                self.arm_pages();
            }
        }
        Ok(Reply::Done)
    }

    fn mark(&mut self, model: &Model<Payload>) {
        self.marked_at = model.now();
        self.ended.clear();
        for (index, book) in self.devices.iter_mut().enumerate() {
            book.peak = book.used;
            book.at_mark = model.device_meter(index).unwrap_or_default();
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            for device in 0..self.devices.len() {
                let meter = self.total(model, id, device);
                if let Some(session) = self.sessions.get_mut(&id) {
                    let use_of = &mut session.use_of[device];
                    use_of.at_mark = meter;
                    use_of.bytes_peak = use_of.bytes;
                    use_of.refused = 0;
                    use_of.overlapped = 0;
                }
            }
        }
    }

    /// All a session ever used of a device.
    fn total(&self, model: &Model<Payload>, id: SessionId, device: usize) -> ContextMeter {
        let Some(session) = self.sessions.get(&id) else { return ContextMeter::default() };
        let live = session.contexts.values().filter(|context| context.device == device);
        live.filter_map(|context| model.context_meter(context.id)).fold(
            session.use_of[device].ended,
            |sum, meter| ContextMeter {
                busy_ns: sum.busy_ns + meter.busy_ns,
                sm_ns: sum.sm_ns + meter.sm_ns,
                kernels: sum.kernels + meter.kernels,
            },
        )
    }

    /// What a session used of each device since the mark.
    fn uses(&self, model: &Model<Payload>, id: SessionId, alive: bool) -> Vec<ProcessUse> {
        let Some(session) = self.sessions.get(&id).filter(|session| session.role == Some(Role::Driver))
        else {
            return Vec::new();
        };
        let touched = session.use_of.iter().enumerate().filter(|(_, use_of)| use_of.touched);
        touched
            .map(|(device, use_of)| {
                let meter = self.total(model, id, device);
                let counted = ROWS.iter().enumerate().filter_map(|(index, row)| {
                    let calls = session.page.as_ref().map_or(0, |page| page.calls(index));
                    (calls > 0).then(|| (row.elf_name.to_owned(), calls.into()))
                });
                let part = session.mps.as_ref().and_then(|client| client.parts.get(&device));
                let chunks = part.and_then(|part| part.chunks.as_ref());
                ProcessUse {
                    mps_sms: part.map(|part| part.sms),
                    green: session.shares.values().copied().collect(),
                    mps_chunks: chunks.map(|chunks| chunks.iter().copied().collect()),
                    pid: session.pid,
                    name: session.name.clone(),
                    alive,
                    device,
                    busy_ns: meter.busy_ns - use_of.at_mark.busy_ns,
                    sm_ns: meter.sm_ns - use_of.at_mark.sm_ns,
                    kernels: meter.kernels - use_of.at_mark.kernels,
                    overlapped: use_of.overlapped,
                    memory_bytes: use_of.bytes,
                    memory_peak_bytes: use_of.bytes_peak,
                    allocations_refused: use_of.refused,
                    contexts: session.contexts.values().filter(|context| context.device == device).count(),
                    calls: counted.collect(),
                }
            })
            .collect()
    }

    /// Remembers what a session used, which is about to end. Called before its contexts are closed.
    pub(crate) fn remember(&mut self, model: &Model<Payload>, id: SessionId) {
        for ended in self.uses(model, id, false) {
            if self.ended.len() == ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back(ProcessUse { memory_bytes: 0, contexts: 0, ..ended });
        }
    }

    fn statistics(&self, model: &Model<Payload>) -> Value {
        let ids = self.sessions.keys().copied();
        let living = ids.flat_map(|id| self.uses(model, id, true));
        let processes: Vec<ProcessUse> = self.ended.iter().cloned().chain(living).collect();
        let devices: Vec<Value> = self
            .devices
            .iter()
            .enumerate()
            .map(|(index, book)| {
                let meter = since(model.device_meter(index).unwrap_or_default(), book.at_mark);
                json!({
                    "index": index,
                    "name": book.info.name,
                    "uuid": book.info.uuid_text(),
                    "sms": book.info.sms,
                    "busy_ns": meter.busy_ns,
                    "idle_ns": meter.idle_ns,
                    "switch_ns": meter.switch_ns,
                    "switches": meter.switches,
                    "copy_ns": meter.copy_ns,
                    "memory_total_bytes": book.info.memory_bytes,
                    "memory_used_bytes": book.used,
                    "memory_peak_bytes": book.peak,
                })
            })
            .collect();
        json!({
            "simulated": true,
            "now_ns": model.now(),
            "elapsed_ns": model.now() - self.marked_at,
            "devices": devices,
            "processes": processes,
        })
    }

    pub(crate) fn processes(&self, device: u32) -> Answer {
        self.device(device)?;
        let mut found: Vec<ProcessInfo> = Vec::new();
        for session in self.sessions.values() {
            if session.contexts.values().any(|context| context.device == device as usize) {
                let bytes = session.use_of[device as usize].bytes;
                match found.iter_mut().find(|process| process.pid == session.pid) {
                    Some(process) => process.bytes += bytes,
                    None => found.push(ProcessInfo { pid: session.pid, bytes }),
                }
            }
        }
        Ok(Reply::Processes(found))
    }

    pub(crate) fn utilisation(&self, model: &Model<Payload>, device: u32) -> Answer {
        let book = self.device(device)?;
        let meter = model.device_meter(device as usize).unwrap_or_default();
        let now = model.now();
        let gpu = book.busy.percent(now, now, meter.busy_ns).unwrap_or(0);
        let memory = book.copying.percent(now, now, meter.copy_ns).unwrap_or(0);
        Ok(Reply::Utilisation { gpu, memory })
    }

    pub(crate) fn process_utilisation(&self, model: &Model<Payload>, device: u32, since_us: u64) -> Answer {
        self.device(device)?;
        let now = model.now();
        let at_us = clock::real_us();
        let since = now.saturating_sub(at_us.saturating_sub(since_us).saturating_mul(1_000));
        let mut samples: Vec<ProcessSample> = Vec::new();
        for (&id, session) in &self.sessions {
            let use_of = &session.use_of[device as usize];
            if !session.contexts.values().any(|context| context.device == device as usize) {
                continue;
            }
            let busy = self.total(model, id, device as usize).busy_ns;
            let Some(percent) = use_of.samples.percent(since, now, busy) else { continue };
            match samples.iter_mut().find(|sample| sample.pid == session.pid) {
                Some(sample) => sample.percent = (sample.percent + percent).min(100),
                None => samples.push(ProcessSample { pid: session.pid, percent, at_us }),
            }
        }
        if samples.is_empty() {
            return Err(Refusal::new(CUresult::ERROR_NOT_FOUND, "no process has a context there"));
        }
        Ok(Reply::ProcessSamples(samples))
    }

    /// Notes how busy everything was.
    pub(crate) fn sample(&mut self, model: &Model<Payload>) {
        let now = model.now();
        for (index, book) in self.devices.iter_mut().enumerate() {
            let meter = model.device_meter(index).unwrap_or_default();
            book.busy.take(now, meter.busy_ns);
            book.copying.take(now, meter.copy_ns);
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            for device in 0..self.devices.len() {
                if !self.sessions.get(&id).is_some_and(|session| session.use_of[device].touched) {
                    continue;
                }
                let busy = self.total(model, id, device).busy_ns;
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.use_of[device].samples.take(now, busy);
                }
            }
        }
    }
}

fn since(now: DeviceMeter, then: DeviceMeter) -> DeviceMeter {
    DeviceMeter {
        busy_ns: now.busy_ns - then.busy_ns,
        idle_ns: now.idle_ns - then.idle_ns,
        switch_ns: now.switch_ns - then.switch_ns,
        switches: now.switches - then.switches,
        copy_ns: now.copy_ns - then.copy_ns,
    }
}
