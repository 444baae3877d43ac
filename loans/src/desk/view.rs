//! How things stand, for people and for metrics.

use std::time::{Duration, SystemTime};

use headgate_quota::loan::{Place, Record, What};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Desk;
use crate::limits::SUMMARIES_MISSED_MAX;

/// Everything, as `headgate loans --json` and `headgate peers --json` print it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DeskView {
    /// This node as loans name it.
    pub node: String,
    /// `embedded` or `nats`.
    pub store: String,
    /// Whether the store has counted this start, so that the node can borrow.
    pub borrowing: bool,
    /// Devices that may be lent of.
    pub places: Vec<PlaceView>,
    /// Loans that are out.
    pub lent: Vec<LentLine>,
    /// Loans that this node has, or asks for.
    pub borrowed: Vec<BorrowedLine>,
    /// Nodes known.
    pub peers: Vec<PeerView>,
    /// Incidents that hold.
    pub incidents: Vec<IncidentView>,
    /// The last decisions, oldest first.
    pub decisions: Vec<DecisionView>,
    /// What was counted since the daemon started.
    pub counts: CountsView,
    /// Peers refused, by reason.
    pub refused: Vec<(String, u64)>,
    /// Where the audit log ends: sequence and digest.
    pub audit: (u64, String),
    /// The slower of the last store operations: median and 99th percentile, in microseconds.
    pub store_us: Option<(u64, u64)>,
}

/// A device that may be lent of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PlaceView {
    /// `DISTRICT/NODE/DEVICE`.
    pub place: String,
    /// `serving`, `starting` while its ledger has not been read, or `fenced`.
    pub state: String,
    /// The ledger's revision.
    pub token: u64,
    /// The most it would lend in one loan now.
    pub offer_sm_ppm: u64,
    /// The same for memory.
    pub offer_memory_bytes: u64,
    /// What owners may use now: name, time, memory.
    pub owners: Vec<(String, u64, u64)>,
    /// The sum of all limits on the device.
    pub total_sm_ppm: u64,
    /// Orders refused because they were stale.
    pub stale: u64,
}

/// A loan that is out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LentLine {
    /// Its identity.
    pub loan: String,
    /// Where.
    pub place: String,
    /// Whose quota.
    pub owner: String,
    /// For whom: `DISTRICT/TENANT`.
    pub guest: String,
    /// What it may send here.
    pub data: String,
    /// The guest's class.
    pub class: String,
    /// Parts per million of the device's time.
    pub sm_ppm: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// `granting`, `active`, `noticed` or `cut`.
    pub phase: String,
    /// How old it is.
    pub age_seconds: u64,
    /// When it ends by itself.
    pub left_seconds: u64,
}

/// A loan that this node has, or asks for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BorrowedLine {
    /// Its identity.
    pub loan: String,
    /// Where.
    pub place: String,
    /// For which tenant.
    pub tenant: String,
    /// Parts per million of the device's time.
    pub sm_ppm: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// `asking`, `resuming`, `active`, `draining` or `closing`.
    pub phase: String,
    /// When it ends by itself; `null` while it is not active.
    pub left_seconds: Option<u64>,
    /// The promise it rests on.
    pub token: Option<u64>,
}

/// A node as this one knows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerView {
    /// `DISTRICT.NODE`.
    pub node: String,
    /// Its district.
    pub district: String,
    /// Where it listens.
    pub address: String,
    /// `lead`, `node`, or `configured` for one that was never heard of.
    pub role: String,
    /// How old its last summary is.
    pub heard_seconds: Option<u64>,
    /// How long its last answer to a summary took.
    pub round_trip_us: Option<u64>,
    /// `dialled` and `accepted` streams for loans that stand.
    pub streams: Vec<String>,
    /// The most it lends in one loan.
    pub offer_sm_ppm: u64,
}

/// An incident that holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IncidentView {
    /// Who declared it.
    pub issuer: String,
    /// What it is called.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// `DISTRICT/TENANT` of each it names.
    pub tenants: Vec<String>,
    /// The class they are raised to.
    pub class: String,
    /// What is left of it.
    pub left_seconds: u64,
    /// Whether what they have lent is called back.
    pub reclaim: bool,
}

/// A decision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DecisionView {
    /// When, RFC 3339.
    pub at: String,
    /// What: `granted`, `refused` and so on.
    pub what: String,
    /// Which loan.
    pub loan: String,
    /// Where.
    pub place: String,
    /// Whose quota, where known.
    pub owner: Option<String>,
    /// For whom.
    pub guest: String,
    /// Parts per million of the device's time.
    pub sm_ppm: u64,
    /// Why, in a sentence.
    pub why: String,
}

impl DecisionView {
    pub(super) fn of(wall: SystemTime, record: &Record) -> Self {
        Self {
            at: OffsetDateTime::from(wall).format(&Rfc3339).unwrap_or_default(),
            what: record.what.word().to_owned(),
            loan: record.loan.to_string(),
            place: record.place.to_string(),
            owner: record.owner.as_ref().map(ToString::to_string),
            guest: record.guest.to_string(),
            sm_ppm: record.amount.sm.0,
            why: record.why.to_string(),
        }
    }

    /// Whether it is about a tenant, given as `DISTRICT/TENANT`.
    #[must_use]
    pub fn concerns(&self, guest: &str) -> bool {
        let (district, tenant) = guest.split_once('/').unwrap_or(("", guest));
        let owns = self.owner.as_deref() == Some(tenant) && self.place.split('/').next() == Some(district);
        self.guest == guest || owns
    }
}

/// What was counted since the daemon started.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CountsView {
    /// Decisions, by word.
    pub decisions: std::collections::BTreeMap<String, u64>,
    /// Times the device was taken back at once.
    pub cuts: u64,
    /// Swaps confirmed.
    pub swaps: u64,
    /// Swaps that met a changed ledger.
    pub conflicts: u64,
    /// Store operations whose outcome was not heard.
    pub store_unanswered: u64,
    /// Messages of an earlier start, or overtaken ones, that the protocol itself put aside.
    pub stale_messages: u64,
    /// Messages about others' loans.
    pub foreign_messages: u64,
    /// Orders that the enforcement points refused as stale.
    pub stale_orders: u64,
    /// Loans that ended because they could not be renewed.
    pub not_renewed: u64,
    /// Declarations that did not count.
    pub incidents_refused: u64,
    /// Load summaries without an answer.
    pub summaries_unanswered: u64,
    /// Times another daemon took a ledger over.
    pub fenced: u64,
    /// Decisions that could not be written down.
    pub audit_failures: u64,
}

impl CountsView {
    pub(super) fn count(&mut self, what: What) {
        *self.decisions.entry(what.word().to_owned()).or_default() += 1;
    }
}

fn seconds(span: headgate_quota::Micros) -> u64 {
    span.0 / 1_000_000
}

impl Desk {
    /// How things stand.
    pub(super) fn view(&self) -> DeskView {
        let mut latencies: Vec<u64> =
            self.latencies.iter().map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)).collect();
        latencies.sort_unstable();
        let quantile = |permille: usize| latencies.get(latencies.len() * permille / 1_000).copied();
        let head = self.audit.head();
        DeskView {
            node: self.own_node().to_string(),
            store: self.store.word().to_owned(),
            borrowing: self.borrower.is_some(),
            places: self.benches.iter().map(|(place, bench)| place_view(place, bench, self)).collect(),
            lent: self.lent(),
            borrowed: self.borrowed(),
            peers: self.peer_views(),
            incidents: self.incident_views(),
            decisions: self.decisions.iter().cloned().collect(),
            counts: self.counted(),
            refused: self.refusals.counts().map(|(r, count)| (r.word().to_owned(), count)).collect(),
            audit: (head.sequence, head.digest.to_string()),
            store_us: quantile(500).zip(quantile(990)),
        }
    }

    fn lent(&self) -> Vec<LentLine> {
        let all = self.benches.iter().flat_map(|(place, bench)| {
            bench.lender.loans().map(|view| LentLine {
                loan: view.loan.id.to_string(),
                place: place.to_string(),
                owner: view.loan.owner.to_string(),
                guest: view.loan.guest.to_string(),
                data: view.loan.data.to_string(),
                class: view.loan.class.word().to_owned(),
                sm_ppm: view.loan.amount.sm.0,
                memory_bytes: view.loan.amount.memory.0,
                phase: view.phase.to_owned(),
                age_seconds: seconds(view.loan.age),
                left_seconds: seconds(view.left),
            })
        });
        all.collect()
    }

    fn borrowed(&self) -> Vec<BorrowedLine> {
        let now = self.ground.now();
        let all = self.borrower.iter().flat_map(|borrower| borrower.loans());
        all.map(|view| {
            let held = self.allowed.iter().find(|allowance| allowance.loan == view.loan);
            BorrowedLine {
                loan: view.loan.to_string(),
                place: view.place.to_string(),
                tenant: view.tenant.to_string(),
                sm_ppm: view.amount.sm.0,
                memory_bytes: view.amount.memory.0,
                phase: view.phase.to_owned(),
                left_seconds: held.map(|held| seconds(held.until.saturating_sub(now))),
                token: held.map(|held| held.token.0),
            }
        })
        .collect()
    }

    fn peer_views(&self) -> Vec<PeerView> {
        let now = self.ground.now();
        let Some(options) = &self.settings.peers else { return Vec::new() };
        let streams = self.peers.as_ref().map(crate::peer::Peers::links).unwrap_or_default();
        let leads: Vec<_> = options.lead.iter().chain(&options.leads).collect();
        let is_lead = |node: &str| leads.iter().any(|lead| lead.identity.node().as_str() == node);
        let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let of = |node: &headgate_quota::loan::Node| {
            let up = streams.iter().filter(|link| link.node == *node && link.up);
            up.map(|link| link.direction.to_owned()).collect::<Vec<_>>()
        };
        let mut all: Vec<PeerView> = self
            .directory
            .nodes
            .iter()
            .map(|(node, entry)| PeerView {
                node: node.to_string(),
                district: entry.identity.district().to_string(),
                address: entry.address.clone(),
                role: if is_lead(node.as_str()) { "lead" } else { "node" }.to_owned(),
                heard_seconds: Some(seconds(now.saturating_sub(entry.at))),
                round_trip_us: self.directory.answered.get(node).map(|(_, took)| micros(*took)),
                streams: of(node),
                offer_sm_ppm: entry.offers.iter().map(|(_, amount)| amount.sm.0).max().unwrap_or(0),
            })
            .collect();
        let period = options.summary_every * SUMMARIES_MISSED_MAX;
        for lead in leads {
            let node = lead.identity.node();
            if self.directory.nodes.contains_key(node) {
                continue;
            }
            let answered = self.directory.answered.get(node);
            let fresh = answered.filter(|(at, _)| now.saturating_sub(*at) < super::micros(period));
            all.push(PeerView {
                node: node.to_string(),
                district: lead.identity.district().to_string(),
                address: lead.address.clone(),
                role: "configured".to_owned(),
                heard_seconds: fresh.map(|(at, _)| seconds(now.saturating_sub(*at))),
                round_trip_us: fresh.map(|(_, took)| micros(*took)),
                streams: of(node),
                offer_sm_ppm: 0,
            });
        }
        all
    }

    fn incident_views(&self) -> Vec<IncidentView> {
        let holding = self.directory.holding(self.ground.now());
        holding
            .into_iter()
            .map(|incident| IncidentView {
                issuer: incident.issuer.to_string(),
                name: incident.name.to_string(),
                number: incident.number,
                tenants: incident.tenants.iter().map(ToString::to_string).collect(),
                class: incident.class.word().to_owned(),
                left_seconds: seconds(incident.duration),
                reclaim: incident.reclaim,
            })
            .collect()
    }

    fn counted(&self) -> CountsView {
        let mut counts = self.counts.clone();
        for bench in self.benches.values() {
            let lender = bench.lender.counters();
            counts.swaps += lender.swaps;
            counts.conflicts += lender.conflicts;
            counts.store_unanswered += lender.store_unanswered;
            counts.stale_messages += lender.stale_messages;
            counts.foreign_messages += lender.foreign_messages;
            counts.incidents_refused += lender.incidents_refused;
            counts.stale_orders += bench.point.stale();
        }
        if let Some(borrower) = &self.borrower {
            let borrower = borrower.counters();
            counts.stale_messages += borrower.stale_messages;
            counts.foreign_messages += borrower.foreign_messages;
            counts.not_renewed += borrower.not_renewed;
            counts.incidents_refused += borrower.incidents_refused;
        }
        counts.stale_orders += self.allowances.stale();
        counts
    }
}

fn place_view(place: &Place, bench: &super::Bench, desk: &Desk) -> PlaceView {
    let limits = desk.limits_of(place).unwrap_or_default();
    let offer = bench.lender.offer();
    let state = if bench.fenced {
        "fenced"
    } else if bench.lender.is_serving() {
        "serving"
    } else {
        "starting"
    };
    let owners = limits.owners.iter();
    PlaceView {
        place: place.to_string(),
        state: state.to_owned(),
        token: bench.lender.revision().0,
        offer_sm_ppm: offer.sm.0,
        offer_memory_bytes: offer.memory.0,
        owners: owners.map(|o| (o.tenant.to_string(), o.limit.sm.0, o.limit.memory.0)).collect(),
        total_sm_ppm: limits.total().sm.0,
        stale: bench.point.stale(),
    }
}
