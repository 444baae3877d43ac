//! The table: every metric family Headgate exposes, once.
//!
//! A row is the whole truth about a family: name, type, unit, labels, help, and how its samples follow from a
//! snapshot. Adding a metric is adding a row.

use headgate_quota::{Micros, Status};

use crate::kernel;
use crate::loans;
use crate::remote;
use crate::snapshot::{Account, Histogram, Snapshot, Tenant, seconds};

/// What all names start with.
pub const PREFIX: &str = "headgate";

/// A metric family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name without prefix, unit and the `_total`, `_info` that the type adds.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Base unit, part of the exposed name.
    pub unit: Option<&'static str>,
    /// Label names, in the order of the values of each sample.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    /// The samples.
    pub samples: fn(&Snapshot, &mut Sink<'_>),
}

impl Family {
    /// The name as it stands on the page.
    #[must_use]
    pub fn exposed_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{PREFIX}_{}{unit}{suffix}", self.name)
    }
}

/// Type of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Distribution.
    Histogram,
    /// Always 1; the labels are what it says.
    Info,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A value of one sample.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A whole number.
    Whole(u64),
    /// A measured number.
    Real(f64),
    /// A distribution.
    Histogram(&'a Histogram),
    /// Labels only.
    Info,
}

/// Takes label values, in the order of the family's names, and the value.
pub type Sink<'s> = dyn FnMut(&[&str], Value<'_>) + 's;

const PER_GPU: &[&str] = &["tenant", "district", "gpu"];
const PER_TENANT: &[&str] = &["tenant", "district"];
const PER_PEER: &[&str] = &["tenant", "district", "peer_district"];
const PER_LEDGER: &[&str] = &["tenant", "district", "ledger"];

fn accounts(snapshot: &Snapshot, sink: &mut Sink<'_>, value: impl Fn(&Account) -> Value<'static>) {
    for tenant in &snapshot.tenants {
        for account in &tenant.gpus {
            sink(&[&tenant.tenant, &tenant.district, &account.gpu], value(account));
        }
    }
}

fn tenants(snapshot: &Snapshot, sink: &mut Sink<'_>, value: impl Fn(&Tenant) -> Value<'_>) {
    for tenant in &snapshot.tenants {
        sink(&[&tenant.tenant, &tenant.district], value(tenant));
    }
}

fn flag(up: bool) -> Value<'static> {
    Value::Whole(u64::from(up))
}

#[expect(clippy::cast_precision_loss, reason = "token levels are bounded by an hour of microseconds")]
fn tokens(us: i64) -> f64 {
    us as f64 / 1e6
}

/// All of them, in the order of the page.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "build",
        kind: Kind::Info,
        unit: None,
        labels: &["version", "node", "district"],
        help: "Version of the daemon, and the node and district it serves.",
        samples: |s, sink| sink(&[&s.version, &s.node, &s.district], Value::Info),
    },
    Family {
        name: "config",
        kind: Kind::Info,
        unit: None,
        labels: &["hash"],
        help: "Identifies the content of the configuration in force.",
        samples: |s, sink| sink(&[&s.config.hash], Value::Info),
    },
    Family {
        name: "config_last_reload_successful",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Whether the last attempt to read the configuration succeeded; 0 means the last good one is kept.",
        samples: |s, sink| sink(&[], flag(s.config.last_reload_successful)),
    },
    Family {
        name: "config_last_reload_success_timestamp",
        kind: Kind::Gauge,
        unit: Some("seconds"),
        labels: &[],
        help: "Time of the last successful read of the configuration, since 1970.",
        samples: |s, sink| sink(&[], Value::Whole(s.config.last_success_unix_seconds)),
    },
    Family {
        name: "gate_backend",
        kind: Kind::Gauge,
        unit: None,
        labels: &["backend"],
        help: "Seated processes by how their work is gated and its completion measured; none means that nothing was gated yet.",
        samples: |s, sink| {
            s.gate_backends.iter().for_each(|(backend, seats)| sink(&[backend], Value::Whole(*seats)));
        },
    },
    Family {
        name: "probe_up",
        kind: Kind::Gauge,
        unit: None,
        labels: &["probe"],
        help: "Whether a kernel probe is attached; `headgate status` gives the reason for a 0.",
        samples: |s, sink| s.probes.iter().for_each(|probe| sink(&[&probe.probe], flag(probe.up))),
    },
    Family {
        name: "unhooked_symbols",
        kind: Kind::Gauge,
        unit: None,
        labels: &["library"],
        help: "Entry points of the driver libraries on this node that take memory, start work or tell of memory and that the hook does not stand in front of and that are not known to be harmless; `headgate status` names them. Absent before a driver was seen.",
        samples: |s, sink| {
            s.unhooked_symbols.iter().for_each(|(library, count)| sink(&[library], Value::Whole(*count)));
        },
    },
    Family {
        name: "sessions_refused",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Processes that asked for a seat and got none, by reason.",
        samples: |s, sink| s.refused.iter().for_each(|(reason, count)| sink(&[reason], Value::Whole(*count))),
    },
    Family {
        name: "gpu_device",
        kind: Kind::Info,
        unit: None,
        labels: &["gpu", "name"],
        help: "Devices on this node.",
        samples: |s, sink| {
            s.devices.iter().for_each(|device| sink(&[&device.gpu, &device.name], Value::Info))
        },
    },
    Family {
        name: "xid_errors",
        kind: Kind::Counter,
        unit: None,
        labels: &["gpu", "xid"],
        help: "Critical Xid errors that the driver reported through NVML, by number; NVIDIA's catalogue of Xid errors says what each means, and `other` is one without a number or a row. A device without any has no row.",
        samples: |s, sink| {
            s.xids.iter().for_each(|(gpu, xid, count)| sink(&[gpu, xid], Value::Whole(*count)));
        },
    },
    Family {
        name: "gpu_memory_total",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: &["gpu"],
        help: "Memory of a device.",
        samples: |s, sink| {
            s.devices.iter().for_each(|device| sink(&[&device.gpu], Value::Whole(device.memory.0)));
        },
    },
    Family {
        name: "tenant_status",
        kind: Kind::Gauge,
        unit: None,
        labels: &["tenant", "district", "status"],
        help: "1 for the word that says how a tenant stands, 0 for the others.",
        samples: |s, sink| {
            for tenant in &s.tenants {
                for status in Status::ALL {
                    let held = tenant.status == status;
                    sink(&[&tenant.tenant, &tenant.district, status.word()], flag(held));
                }
            }
        },
    },
    Family {
        name: "seats",
        kind: Kind::Gauge,
        unit: None,
        labels: PER_TENANT,
        help: "Processes that hold a seat now.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Whole(tenant.seats)),
    },
    Family {
        name: "gpu_sharing",
        kind: Kind::Info,
        unit: None,
        labels: &["gpu", "sharing"],
        help: "How tenants are to share a device: temporal, mpsPartition, mpsPercentage or greenContexts.",
        samples: |s, sink| {
            s.devices.iter().for_each(|device| sink(&[&device.gpu, device.sharing], Value::Info));
        },
    },
    Family {
        name: "gpu_shared_as_wanted",
        kind: Kind::Gauge,
        unit: None,
        labels: &["gpu"],
        help: "Whether a device is shared as it is to be; 0 where MPS is not to be had and it is shared by time.",
        samples: |s, sink| {
            s.devices.iter().for_each(|device| sink(&[&device.gpu], flag(device.shared_as_wanted)));
        },
    },
    Family {
        name: "gpu_memory_quota",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_GPU,
        help: "Most device memory a tenant may use; the whole device's when it has no quota.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.memory_quota.0)),
    },
    Family {
        name: "gpu_memory_used",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_GPU,
        help: "Device memory charged to a tenant now, by the hook's ledger.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.memory_used.0)),
    },
    Family {
        name: "gpu_memory_overhead",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_GPU,
        help: "The part of the device memory charged to a tenant that contexts and loaded code take.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.memory_overhead.0)),
    },
    Family {
        name: "gpu_memory_peak",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_GPU,
        help: "Most device memory ever charged to a tenant at once, since its ledger was made.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.memory_peak.0)),
    },
    Family {
        name: "gpu_allocations_denied",
        kind: Kind::Counter,
        unit: None,
        labels: PER_GPU,
        help: "Allocations refused because they did not fit the quota.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.denied)),
    },
    Family {
        name: "gpu_sm_quota",
        kind: Kind::Gauge,
        unit: Some("ratio"),
        labels: PER_GPU,
        help: "Share of a device's SM time a tenant owns; 1 when it has no quota.",
        samples: |s, sink| {
            accounts(s, sink, |account| Value::Real(f64::from(account.sm_quota.get()) / 1e6));
        },
    },
    Family {
        name: "gpu_space",
        kind: Kind::Gauge,
        unit: Some("ratio"),
        labels: PER_GPU,
        help: "Part of a device's SMs a tenant's programs hold; absent where the device is shared by time.",
        samples: |s, sink| {
            for tenant in &s.tenants {
                for account in &tenant.gpus {
                    if let Some(space) = account.space {
                        let labels = [tenant.tenant.as_str(), &tenant.district, &account.gpu];
                        sink(&labels, Value::Real(f64::from(space.get()) / 1e6));
                    }
                }
            }
        },
    },
    Family {
        name: "gpu_time",
        kind: Kind::Counter,
        unit: Some("seconds"),
        labels: PER_GPU,
        help: "Device time charged to a tenant; its rate is the tenant's share of the device.",
        samples: |s, sink| accounts(s, sink, |account| Value::Real(seconds(account.charged))),
    },
    Family {
        name: "gpu_tokens",
        kind: Kind::Gauge,
        unit: Some("seconds"),
        labels: PER_GPU,
        help: "Device time a tenant may still use at once; below 0 it is in debt and waits.",
        samples: |s, sink| accounts(s, sink, |account| Value::Real(tokens(account.tokens_us))),
    },
    Family {
        name: "launches",
        kind: Kind::Counter,
        unit: None,
        labels: PER_GPU,
        help: "Kernel launches that reached the driver.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.launches)),
    },
    Family {
        name: "batches",
        kind: Kind::Counter,
        unit: None,
        labels: PER_GPU,
        help: "Batches of launches closed.",
        samples: |s, sink| accounts(s, sink, |account| Value::Whole(account.batches)),
    },
    Family {
        name: "gate_wait",
        kind: Kind::Histogram,
        unit: Some("seconds"),
        labels: PER_TENANT,
        help: "How long launches waited for the gate.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Histogram(&tenant.gate_wait)),
    },
    Family {
        name: "gate_held",
        kind: Kind::Counter,
        unit: Some("seconds"),
        labels: &["tenant", "district", "gpu", "side"],
        help: "How long a tenant's threads waited for the gate: side host at launches, side device in synchronising calls whose work stood at it; the latter is part of gpu_wait, and the rest of that is the GPU's.",
        samples: |s, sink| {
            for tenant in &s.tenants {
                for account in &tenant.gpus {
                    for (side, waited) in &account.gate_waits {
                        let waited = Value::Real(seconds(*waited));
                        sink(&[&tenant.tenant, &tenant.district, &account.gpu, side], waited);
                    }
                }
            }
        },
    },
    Family {
        name: "untracked_frees",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Frees of memory that no process of the tenant had charged; they are always forwarded.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Whole(tenant.untracked_frees)),
    },
    Family {
        name: "hook_faults",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Times the hook failed inside a call; anything but 0 is a bug of Headgate.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Whole(tenant.hook_faults)),
    },
    Family {
        name: "unenforced_processes",
        kind: Kind::Gauge,
        unit: None,
        labels: PER_TENANT,
        help: "Processes of a tenant that are on a device without the hook; absent while the driver cannot tell.",
        samples: |s, sink| {
            for tenant in &s.tenants {
                if let Some(count) = tenant.unenforced {
                    sink(&[&tenant.tenant, &tenant.district], Value::Whole(count));
                }
            }
        },
    },
    Family {
        name: "lanes_refused",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Times work was gated but could not be followed, because a process used more streams than there are lanes.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Whole(tenant.lanes_refused)),
    },
    Family {
        name: "gates_failed_open",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Times a process opened its gates by itself because the daemon was silent; shares did not hold meanwhile.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Whole(tenant.failed_open)),
    },
    Family {
        name: "gpu_wait",
        kind: Kind::Histogram,
        unit: Some("seconds"),
        labels: PER_GPU,
        help: "How long the driver's synchronising calls took, as the kernel saw them; absent while the probe is. Tenant _unknown is nobody's processes, gpu _unknown those that use several.",
        samples: |s, sink| kernel::waits(s, sink, |latency| latency.wait.as_ref()),
    },
    Family {
        name: "driver_call",
        kind: Kind::Histogram,
        unit: Some("seconds"),
        labels: &["tenant", "district", "gpu", "call"],
        help: "How long other calls of the driver took, as the kernel saw them: memory always, launch while launches are audited.",
        samples: kernel::calls,
    },
    Family {
        name: "launch_span",
        kind: Kind::Histogram,
        unit: Some("seconds"),
        labels: PER_GPU,
        help: "From the first launch to the end of the synchronising call behind it, while launches are audited: queueing, gate and work together.",
        samples: |s, sink| kernel::waits(s, sink, |latency| latency.span.as_ref()),
    },
    Family {
        name: "network_rtt",
        kind: Kind::Histogram,
        unit: Some("seconds"),
        labels: PER_PEER,
        help: "TCP round trips of a tenant's connections, by the district of their other end, as the kernel saw them; _local is this machine, _unknown no known district.",
        samples: |s, sink| kernel::networks(s, sink, |network| Value::Histogram(&network.rtt)),
    },
    Family {
        name: "network_connections",
        kind: Kind::Counter,
        unit: None,
        labels: PER_PEER,
        help: "TCP connections a tenant established, both ways, by the district of their other end.",
        samples: |s, sink| kernel::networks(s, sink, |network| Value::Whole(network.connections)),
    },
    Family {
        name: "network_retransmits",
        kind: Kind::Counter,
        unit: None,
        labels: PER_PEER,
        help: "TCP segments a tenant's connections sent again, by the district of their other end.",
        samples: |s, sink| kernel::networks(s, sink, |network| Value::Whole(network.retransmits)),
    },
    Family {
        name: "process_exits",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Processes of a tenant that exited, as the kernel saw them.",
        samples: |s, sink| tenants(s, sink, |tenant| Value::Whole(tenant.process_exits)),
    },
    Family {
        name: "kernel_part_up",
        kind: Kind::Gauge,
        unit: None,
        labels: &["part"],
        help: "Whether a part of the kernel's enforcement or witness is at work; `headgate status` gives the reason for a 0.",
        samples: |s, sink| s.parts.iter().for_each(|part| sink(&[&part.probe], flag(part.up))),
    },
    Family {
        name: "network",
        kind: Kind::Counter,
        unit: Some("bytes"),
        labels: &["tenant", "district", "peer_district", "direction"],
        help: "Bytes of IP packets between a tenant and a district, headers and repeated segments included; _local is this machine, _unknown no known district.",
        samples: kernel::flows,
    },
    Family {
        name: "refusals",
        kind: Kind::Counter,
        unit: None,
        labels: &["tenant", "district", "reason", "outcome"],
        help: "What the kernel refused a tenant, or let through because it is only audited: traffic at the district's border, opening of GPUs.",
        samples: kernel::refusals,
    },
    Family {
        name: "egress_budget",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_PEER,
        help: "Bytes a tenant may send to a district on the GPU channel in each period.",
        samples: |s, sink| kernel::budgets(s, sink, |(_, granted, _)| *granted),
    },
    Family {
        name: "egress_budget_left",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_PEER,
        help: "What is left of that budget in this period.",
        samples: |s, sink| kernel::budgets(s, sink, |(_, _, left)| *left),
    },
    Family {
        name: "bypass_calls",
        kind: Kind::Counter,
        unit: None,
        labels: &["tenant", "district", "call", "origin"],
        help: "Calls of the driver that did not come through the hook: from outside its code, or by a process that has none attested.",
        samples: kernel::bypasses,
    },
    Family {
        name: "audited_launches",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Launches seen by the kernel while launches were audited, whoever made them.",
        samples: |s, sink| kernel::of_witness(s, sink, |kernel| kernel.audited_launches),
    },
    Family {
        name: "bypass_refusals",
        kind: Kind::Counter,
        unit: None,
        labels: PER_TENANT,
        help: "Processes of a tenant that the kernel ended because they called the driver around the hook.",
        samples: |s, sink| kernel::of_witness(s, sink, |kernel| kernel.bypass_refusals),
    },
    Family {
        name: "ledger",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_LEDGER,
        help: "Device memory a tenant holds by independent ledgers: what the hook charged for calls, what the kernel saw the driver hand out, what the driver says.",
        samples: |s, sink| kernel::ledgers(s, sink, |kernel| &kernel.ledgers),
    },
    Family {
        name: "ledger_drift",
        kind: Kind::Gauge,
        unit: Some("bytes"),
        labels: PER_LEDGER,
        help: "How far a ledger is from the hook's; anything but 0 that lasts is memory that one of them does not know of.",
        samples: |s, sink| kernel::ledgers(s, sink, |kernel| &kernel.drifts),
    },
    Family {
        name: "probe_events",
        kind: Kind::Counter,
        unit: None,
        labels: &["event"],
        help: "What the kernel probes lost, or saw and did not keep, by kind.",
        samples: |s, sink| {
            s.probe_events.iter().for_each(|(event, count)| sink(&[event], Value::Whole(*count)))
        },
    },
    Family {
        name: "loans_lent",
        kind: Kind::Gauge,
        unit: Some("ratio"),
        labels: &["tenant", "district", "gpu", "peer_district"],
        help: "Part of the device that a tenant has lent to another district now.",
        samples: loans::lent,
    },
    Family {
        name: "loans_borrowed",
        kind: Kind::Gauge,
        unit: Some("ratio"),
        labels: &["tenant", "district", "peer_district"],
        help: "Part of a device that a tenant has borrowed from another district now, summed over devices.",
        samples: loans::borrowed,
    },
    Family {
        name: "loans_decisions",
        kind: Kind::Counter,
        unit: None,
        labels: &["outcome"],
        help: "Decisions about loans that were written into the audit log, by what was decided.",
        samples: loans::decisions,
    },
    Family {
        name: "loans_stale",
        kind: Kind::Counter,
        unit: None,
        labels: &["part"],
        help: "Messages and orders about loans that were put aside because newer ones had been applied.",
        samples: loans::stale,
    },
    Family {
        name: "loans_peers_refused",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Peers, or what they said, that were refused at the door.",
        samples: loans::refused,
    },
    Family {
        name: "loans_peers",
        kind: Kind::Gauge,
        unit: None,
        labels: &["peer_district"],
        help: "Other nodes whose load summary is fresh.",
        samples: loans::peers,
    },
    Family {
        name: "loans_ledger_swaps",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Changes of this node's ledgers that the store confirmed.",
        samples: |s, sink| loans::whole(s, sink, |loans| loans.swaps),
    },
    Family {
        name: "loans_ledger_conflicts",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Changes that met a ledger somebody else had changed; more than a few mean two daemons on one device.",
        samples: |s, sink| loans::whole(s, sink, |loans| loans.conflicts),
    },
    Family {
        name: "loans_store_unanswered",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Store operations of which nobody knows whether they were carried out.",
        samples: |s, sink| loans::whole(s, sink, |loans| loans.unanswered),
    },
    Family {
        name: "loans_serving",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Whether the ledgers of all devices are read and no other daemon has taken one over.",
        samples: |s, sink| loans::whole(s, sink, |loans| u64::from(loans.serving)),
    },
    Family {
        name: "loans_audit_lines",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Lines of the audit log.",
        samples: |s, sink| loans::whole(s, sink, |loans| loans.audited),
    },
    Family {
        name: "loans_audit_failures",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Decisions that could not be written into the audit log, and so were not told.",
        samples: |s, sink| loans::whole(s, sink, |loans| loans.audit_failures),
    },
    Family {
        name: "remote_sessions",
        kind: Kind::Gauge,
        unit: None,
        labels: &["role", "tenant", "peer_district"],
        help: "Remote sessions that both daemons carry now, seen as borrower or as lender.",
        samples: remote::sessions,
    },
    Family {
        name: "remote",
        kind: Kind::Counter,
        unit: Some("bytes"),
        labels: &["role", "peer_district", "direction", "kind"],
        help: "Bytes of remote sessions' frames, as this daemon counted them: up is to the device.",
        samples: remote::bytes,
    },
    Family {
        name: "remote_begun",
        kind: Kind::Counter,
        unit: None,
        labels: &["role"],
        help: "Remote sessions that have begun.",
        samples: |s, sink| remote::by_role(s, sink, |remote| &remote.begun),
    },
    Family {
        name: "remote_ended",
        kind: Kind::Counter,
        unit: None,
        labels: &["role", "reason"],
        help: "Remote sessions that have ended, by how; `differs` means that the two daemons counted different bytes.",
        samples: |s, sink| remote::by_word(s, sink, |remote| &remote.ended),
    },
    Family {
        name: "remote_refused",
        kind: Kind::Counter,
        unit: None,
        labels: &["role", "reason"],
        help: "Remote sessions that were refused, by reason.",
        samples: |s, sink| remote::by_word(s, sink, |remote| &remote.refused),
    },
    Family {
        name: "remote_link_losses",
        kind: Kind::Counter,
        unit: None,
        labels: &["role"],
        help: "Connections of remote sessions that broke without an end of the session.",
        samples: |s, sink| remote::by_role(s, sink, |remote| &remote.lost),
    },
    Family {
        name: "remote_resumes",
        kind: Kind::Counter,
        unit: None,
        labels: &["role"],
        help: "Remote sessions that went on over another connection.",
        samples: |s, sink| remote::by_role(s, sink, |remote| &remote.resumed),
    },
    Family {
        name: "remote_asides",
        kind: Kind::Counter,
        unit: None,
        labels: &["role"],
        help: "Remote sessions whose device was taken back and whose memory was kept for another loan.",
        samples: |s, sink| remote::by_role(s, sink, |remote| &remote.aside),
    },
    Family {
        name: "remote_returns",
        kind: Kind::Counter,
        unit: None,
        labels: &["role"],
        help: "Of these, those that went on under another loan.",
        samples: |s, sink| remote::by_role(s, sink, |remote| &remote.returned),
    },
];

/// Time the last page took to make, which is known only to the endpoint itself.
pub const SCRAPE_DURATION: Family = Family {
    name: "scrape_duration",
    kind: Kind::Gauge,
    unit: Some("seconds"),
    labels: &[],
    help: "How long the previous page took to make.",
    samples: |_, _| {},
};

/// The previous page's duration as a value.
#[must_use]
pub fn scrape_duration(span: Micros) -> Value<'static> {
    Value::Real(seconds(span))
}
