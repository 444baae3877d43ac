//! The Multi-Process Service: control programs that serve devices, partitions of SMs, and their clients.
//!
//! As NVIDIA's documentation of MPS says: clients of one server run beside each other. With static partitioning a client
//! names the partition it was made for, has those SMs for itself, and cannot start without one; percentages mean nothing
//! then. Otherwise a client may use as many SMs as the least of its own percentage and the server's, whichever they are.
//!
//! Where the documentation is silent, this is what is simulated: a chunk has 8 SMs from compute capability 9.0 on and 4
//! before; a partition in use cannot be removed; a percentage is rounded down to pairs of SMs; and when a control program
//! dies, so do the contexts of its clients. A client may use the devices that its control program serves, and sees the
//! others without being able to make contexts there.

use std::collections::{BTreeMap, BTreeSet};

use headgate_abi::cuda::CUresult;
use serde_json::json;

use super::effects::Payload;
use super::node::{Answer, Node, Refusal, SessionId};
use crate::config::DeviceInfo;
use crate::limits::PARTITIONS_MAX;
use crate::model::{Fault, Model, Part, TurnId};
use crate::protocol::{Mps, Reply};

/// `CUDA_ERROR_MPS_RPC_FAILURE`: the server is gone.
const SERVER_GONE: u32 = 806;
/// Marks parts of the device that MPS made, so that they are told from those of green contexts.
const MPS_PART: u64 = 1 << 63;
const WHOLE: u32 = 100;

/// A control program and what it serves.
#[derive(Debug)]
pub(crate) struct MpsServer {
    session: SessionId,
    pipe: String,
    partitioned: bool,
    percentage: u32,
    /// The turn that all its clients share, on each device it serves.
    turns: BTreeMap<usize, TurnId>,
    partitions: BTreeMap<String, Partition>,
    made: u64,
}

/// SMs set aside.
#[derive(Clone, Debug)]
struct Partition {
    number: u64,
    device: usize,
    chunks: BTreeSet<u32>,
}

/// What a client has of each device.
#[derive(Debug)]
pub(crate) struct MpsClient {
    server: SessionId,
    pub(crate) partition: Option<String>,
    pub(crate) parts: BTreeMap<usize, MpsPart>,
}

/// A client's part of one device.
#[derive(Clone, Debug)]
pub(crate) struct MpsPart {
    /// Most SMs its kernels hold.
    pub(crate) sms: u32,
    /// The chunks that are its own; `None` where the SMs are a ceiling only.
    pub(crate) chunks: Option<BTreeSet<u32>>,
    part: Part,
    turn: TurnId,
}

fn chunk_sms(info: &DeviceInfo) -> u32 {
    if 9 <= info.compute_capability.0 { 8 } else { 4 }
}

fn impossible(reason: impl Into<String>) -> Refusal {
    Refusal::new(CUresult::ERROR_INVALID_RESOURCE_CONFIGURATION, reason)
}

impl Node {
    pub(crate) fn serve_mps(&mut self, model: &mut Model<Payload>, id: SessionId, request: Mps) -> Answer {
        match request {
            Mps::Serve { pipe, devices, partitioned } => {
                self.open_mps(model, id, pipe, &devices, partitioned)
            }
            Mps::AddPartition { uuid, chunks } => self.add_partition(id, &uuid, chunks),
            Mps::RemovePartition { name } => self.remove_partition(id, &name),
            Mps::SetPercentage(percentage) => {
                if !(1..=WHOLE).contains(&percentage) {
                    return Err(Refusal::value("a percentage is from 1 to 100"));
                }
                self.own_mps(id)?.percentage = percentage;
                Ok(Reply::Done)
            }
            Mps::List => self.list_mps(id),
            Mps::Join { pipe, partition, percentage } => self.join_mps(id, &pipe, partition, percentage),
        }
    }

    fn own_mps(&mut self, id: SessionId) -> Result<&mut MpsServer, Refusal> {
        let own = self.mps.iter_mut().find(|server| server.session == id);
        own.ok_or_else(|| Refusal::handle("this session serves nothing"))
    }

    fn open_mps(
        &mut self,
        model: &mut Model<Payload>,
        id: SessionId,
        pipe: String,
        devices: &[String],
        partitioned: bool,
    ) -> Answer {
        if self.mps.iter().any(|server| server.pipe == pipe || server.session == id) {
            return Err(Refusal::value("a control program serves there already"));
        }
        let mut turns = BTreeMap::new();
        for (index, book) in self.devices.iter().enumerate() {
            if devices.is_empty() || devices.contains(&book.info.uuid_text()) {
                turns.insert(index, model.open_turn());
            }
        }
        if turns.len() < devices.len().max(1) {
            return Err(Refusal::new(CUresult::ERROR_NO_DEVICE, "no such device"));
        }
        let partitions = BTreeMap::new();
        let server =
            MpsServer { session: id, pipe, partitioned, percentage: WHOLE, turns, partitions, made: 0 };
        self.mps.push(server);
        Ok(Reply::Done)
    }

    fn add_partition(&mut self, id: SessionId, uuid: &str, count: u32) -> Answer {
        let device = self.devices.iter().position(|book| book.info.uuid_text() == uuid);
        let device = device.ok_or_else(|| Refusal::new(CUresult::ERROR_INVALID_DEVICE, "no such device"))?;
        let info = &self.devices[device].info;
        let whole = info.sms / chunk_sms(info);
        let server = self.own_mps(id)?;
        if !server.partitioned || !server.turns.contains_key(&device) {
            return Err(Refusal::new(CUresult::ERROR_NOT_SUPPORTED, "not in static partitioning mode"));
        }
        let taken = |chunk: &u32| {
            server
                .partitions
                .values()
                .any(|partition| partition.device == device && partition.chunks.contains(chunk))
        };
        let chunks: BTreeSet<u32> = (0..whole).filter(|chunk| !taken(chunk)).take(count as usize).collect();
        if count == 0 || chunks.len() < count as usize || PARTITIONS_MAX <= server.partitions.len() {
            return Err(impossible(format!("{count} chunks are not free")));
        }
        server.made += 1;
        // As opaque as NVIDIA's: nothing may read chunks out of a name.
        let name = format!("{uuid}/S{:032x}", server.made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        server.partitions.insert(name.clone(), Partition { number: server.made, device, chunks });
        Ok(Reply::Json(json!(name).to_string()))
    }

    fn is_partition_used(&self, server: SessionId, name: &str) -> bool {
        let clients = self.sessions.values().filter_map(|session| session.mps.as_ref());
        clients.into_iter().any(|client| client.server == server && client.partition.as_deref() == Some(name))
    }

    fn remove_partition(&mut self, id: SessionId, name: &str) -> Answer {
        if self.is_partition_used(id, name) {
            return Err(impossible("clients are at work in the partition"));
        }
        let removed = self.own_mps(id)?.partitions.remove(name);
        removed.map(|_| Reply::Done).ok_or_else(|| impossible("no such partition"))
    }

    fn list_mps(&mut self, id: SessionId) -> Answer {
        let server = self.own_mps(id)?;
        let (percentage, turns, partitions) =
            (server.percentage, server.turns.clone(), server.partitions.clone());
        let clients = self.sessions.values().filter_map(|session| Some((session.pid, session.mps.as_ref()?)));
        let clients: Vec<u32> =
            clients.filter(|(_, client)| client.server == id).map(|(pid, _)| pid).collect();
        let devices = turns.keys().map(|&device| {
            let info = &self.devices[device].info;
            let size = chunk_sms(info);
            let own = partitions.iter().filter(|(_, partition)| partition.device == device);
            let own: Vec<_> = own
                .map(|(name, partition)| {
                    let chunks = partition.chunks.len();
                    json!({"name": name, "chunks": chunks, "sms": chunks * size as usize,
                           "used": self.is_partition_used(id, name)})
                })
                .collect();
            json!({"uuid": info.uuid_text(), "sms": info.sms, "chunk_sms": size, "partitions": own})
        });
        let devices: Vec<_> = devices.collect();
        Ok(Reply::Json(json!({"percentage": percentage, "clients": clients, "devices": devices}).to_string()))
    }

    fn join_mps(
        &mut self,
        id: SessionId,
        pipe: &str,
        partition: Option<String>,
        percentage: Option<u32>,
    ) -> Answer {
        let server = self.mps.iter().find(|server| server.pipe == pipe);
        let server = server.ok_or_else(|| Refusal::new(CUresult(SERVER_GONE), "no server serves there"))?;
        let mut info = self.info.clone();
        let mut parts = BTreeMap::new();
        if server.partitioned {
            let named = partition.as_ref().and_then(|name| server.partitions.get(name));
            let named = named.ok_or_else(|| {
                impossible("with static partitioning a client names its partition: CUDA_MPS_SM_PARTITION")
            })?;
            let own = &self.devices[named.device].info;
            let sms = u32::try_from(named.chunks.len()).unwrap_or(0) * chunk_sms(own);
            let part = Part { id: MPS_PART | named.number, sms };
            let turn = server.turns[&named.device];
            info.devices[named.device].sms = sms;
            parts.insert(named.device, MpsPart { sms, chunks: Some(named.chunks.clone()), part, turn });
        } else {
            let percentage = percentage.unwrap_or(WHOLE).min(server.percentage);
            if percentage == 0 {
                return Err(Refusal::value("a percentage is from 1 to 100"));
            }
            for (&device, &turn) in &server.turns {
                let whole = self.devices[device].info.sms;
                let sms =
                    if percentage == WHOLE { whole } else { (whole * percentage / WHOLE / 2 * 2).max(2) };
                info.devices[device].sms = sms;
                let part = Part { id: MPS_PART | 1 << 62 | id, sms };
                parts.insert(device, MpsPart { sms, chunks: None, part, turn });
            }
        }
        let server = server.session;
        let partition = partition.filter(|_| parts.values().any(|part| part.chunks.is_some()));
        let session = self.session(id)?;
        if session.mps.is_some() || !session.contexts.is_empty() {
            return Err(Refusal::value("joined already, or too late"));
        }
        session.mps = Some(MpsClient { server, partition, parts });
        Ok(Reply::Welcome(info))
    }

    /// What a context on a device joins; `None` for a program that is nobody's client.
    ///
    /// # Errors
    /// When the program's control program does not serve the device.
    pub(crate) fn mps_turn(
        &mut self,
        id: SessionId,
        device: usize,
    ) -> Result<Option<(TurnId, Part)>, Refusal> {
        let Some(client) = &self.session(id)?.mps else { return Ok(None) };
        let part = client.parts.get(&device);
        let part = part.ok_or_else(|| {
            Refusal::new(CUresult::ERROR_INVALID_DEVICE, "the MPS control program does not serve this device")
        })?;
        Ok(Some((part.turn, part.part)))
    }

    /// A session ends: if it served, its clients have nobody any more.
    pub(crate) fn end_mps(&mut self, model: &mut Model<Payload>, id: SessionId) {
        if !self.mps.iter().any(|server| server.session == id) {
            return;
        }
        self.mps.retain(|server| server.session != id);
        let orphans =
            self.sessions.values().filter(|session| session.mps.as_ref().is_some_and(|c| c.server == id));
        let contexts: Vec<_> =
            orphans.flat_map(|session| session.contexts.values().map(|context| context.id)).collect();
        for context in contexts {
            model.fault(context, Fault(SERVER_GONE), self);
        }
    }
}
