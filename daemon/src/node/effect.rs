//! What a node decides to have done.

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::layout::{
    FAIL_LAST_KNOWN, FAIL_OPEN, GATE_GPU, GATE_HOST, GATE_UNGOVERNED, UNLIMITED,
};
use headgate_abi::space::place_word;
use headgate_abi::wire::{RefusalReason, Welcome};
use headgate_quota::Ppm;

use super::event::{ConnectionId, Process, RequestId};
use super::state::{SeatRef, State, TenantSlot, TenantState};
use crate::config::model::{CgroupPath, DeviceUuid, FailPolicy, Identity};
use crate::config::space::{GateAt, Sharing};
use crate::space::Grant;

/// Something to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write a tenant's limits into its segment, if it has one.
    Publish(TenantLimits),
    /// Seat a process and answer it.
    Welcome {
        /// Where to answer.
        connection: ConnectionId,
        /// The seat.
        seat: SeatRef,
        /// Who gets it.
        process: Process,
        /// The answer.
        welcome: Welcome,
        /// Where the process says its hook's code begins: a hint where to look, no more.
        hook_text: u64,
        /// What the tenant's segment is to say, should it have to be made.
        limits: TenantLimits,
    },
    /// Answer with a refusal and close.
    Refuse {
        /// Where.
        connection: ConnectionId,
        /// Why, for programs.
        reason: RefusalReason,
        /// Why and what to do, for people.
        text: String,
    },
    /// Close a connection.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Take a ledger of an earlier run over for this slot.
    Adopt {
        /// The tenant it was made for.
        tenant: String,
        /// Whose ledger it is now.
        slot: TenantSlot,
        /// What its new limits segment is to say.
        limits: TenantLimits,
    },
    /// Give back what an adopted ledger's dead seat held.
    Forget {
        /// Whose ledger.
        slot: TenantSlot,
        /// The seat.
        seat: headgate_abi::segment::SeatIndex,
    },
    /// Tell when this seat's process ends.
    Watch {
        /// The seat.
        seat: SeatRef,
        /// The process.
        process: Process,
    },
    /// Tell when this process-tree root ends.
    WatchRoot {
        /// The root.
        root: Process,
    },
    /// Find out whether the process still has its ledger mapped.
    Inspect {
        /// The seat.
        seat: SeatRef,
        /// The process.
        process: Process,
    },
    /// Give back what a seat holds, and free it.
    Reap {
        /// The seat.
        seat: SeatRef,
    },
    /// Let a tenant's segments go.
    Retire {
        /// Which tenant.
        slot: TenantSlot,
    },
    /// Stop a guest's processes: it keeps what its loans no longer give.
    Evict {
        /// Whose.
        slot: TenantSlot,
        /// Its cgroup.
        cgroup: Option<CgroupPath>,
        /// Its seated processes.
        processes: Vec<Process>,
    },
    /// Tell the gate threads who contends now.
    Regate,
    /// Tell the kernel probes which cgroup is whose.
    Attribute,
    /// Write what must outlive a restart.
    Remember,
    /// Move a process into a tenant's cgroup, then answer.
    Place {
        /// Where to answer.
        request: RequestId,
        /// Who asked.
        caller: Process,
        /// The tenant's name.
        tenant: String,
        /// The cgroup.
        cgroup: CgroupPath,
        /// Whether a process tree may serve instead.
        identity: Identity,
    },
    /// Answer a request to be placed.
    Placed {
        /// Where to answer.
        request: RequestId,
        /// The tenant's name, or why not.
        outcome: Result<String, String>,
        /// Why it is by process tree, where a cgroup was wanted.
        note: Option<String>,
    },
}

/// What a tenant's limits segment is to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantLimits {
    /// Which tenant.
    pub slot: TenantSlot,
    /// `FAIL_OPEN` or `FAIL_LAST_KNOWN`.
    pub fail_policy: u32,
    /// Its device rows.
    pub rows: [Option<RowLimits>; DEVICES_MAX],
}

/// One device row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowLimits {
    /// The device.
    pub uuid: DeviceUuid,
    /// Most bytes, or `UNLIMITED`.
    pub memory_bytes_max: u64,
    /// `GATE_UNGOVERNED`, `GATE_HOST` or `GATE_GPU`.
    pub gate_mode: u32,
    /// Nominal share, for display.
    pub sm: Ppm,
    /// Where the device is shared by space: digest of what a program's environment must be. Zero asks nothing.
    pub environment: u64,
    /// Where green contexts share the device: the word for the tenant's place. Zero where they do not.
    pub place: u64,
}

/// The word for a tenant's place. Until it is known how the device stands, there is none.
fn place(state: &State, gpu: DeviceUuid, grant: Option<&Grant>) -> u64 {
    let sharing = state.configured.as_ref().map(|configured| configured.config.gpus.sharing_on(gpu));
    let unlooked =
        || matches!(sharing, Some(Sharing::GreenContexts { .. })) && !state.space.0.contains_key(&gpu);
    match grant.and_then(|grant| grant.groups) {
        Some(groups) => place_word(groups.place),
        None if unlooked() => place_word(None),
        None => 0,
    }
}

/// Where governed work for a device waits for its turn.
fn gate_mode(state: &State, gpu: DeviceUuid) -> u32 {
    match state.configured.as_ref().map(|configured| configured.config.gpus.gate_on(gpu)) {
        Some(GateAt::Host) => GATE_HOST,
        Some(GateAt::Device) | None => GATE_GPU,
    }
}

impl TenantLimits {
    /// What the limits of `tenant` follow from.
    #[must_use]
    pub fn of(state: &State, slot: TenantSlot, tenant: &TenantState) -> Self {
        let policy = &tenant.policy;
        let rows = std::array::from_fn(|index| {
            let row = state.rows[index].as_ref()?;
            let quota = state.quota_on(policy, row.uuid);
            let unlimited = RowLimits {
                uuid: row.uuid,
                memory_bytes_max: UNLIMITED,
                gate_mode: GATE_UNGOVERNED,
                sm: Ppm::WHOLE,
                environment: 0,
                place: 0,
            };
            if !policy.enforcement {
                return Some(unlimited);
            }
            let grant = state.space.grant(row.uuid, policy.name.as_str());
            // A tenant that was removed keeps what it has and gets no more.
            let memory = if tenant.retired { Some(0) } else { quota.memory.map(|memory| memory.nominal.0) };
            Some(RowLimits {
                memory_bytes_max: memory.unwrap_or(UNLIMITED),
                gate_mode: quota.sm.map_or(GATE_UNGOVERNED, |_| gate_mode(state, row.uuid)),
                sm: quota.sm.map_or(Ppm::WHOLE, |sm| sm.nominal),
                environment: grant.map_or(0, Grant::digest),
                place: place(state, row.uuid, grant),
                ..unlimited
            })
        });
        let fail_policy = match policy.fail_policy {
            FailPolicy::Open => FAIL_OPEN,
            FailPolicy::LastKnown => FAIL_LAST_KNOWN,
        };
        Self { slot, fail_policy, rows }
    }
}
