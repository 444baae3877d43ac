//! Who has what to lend, and what incidents hold: load summaries between nodes and leads.
//!
//! A node tells its district's lead what it has; the lead tells other leads what its district has, and its nodes
//! what everyone has. Nobody else's word counts: a node speaks for itself, a lead of another district for that
//! district, the own lead for all. Addresses are hints: whoever answers there must show the right certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headgate_quota::loan::incident::IncidentRefused;
use headgate_quota::loan::{Amount, Device, District, Incident, Incidents, Node, Place, borrower, lender};
use headgate_quota::units::Micros;
use tokio::sync::oneshot;

use super::{Desk, Input, micros};
use crate::identity::Identity;
use crate::limits::{NODES_MAX, SUMMARIES_MISSED_MAX, SUMMARY_WAIT};
use crate::refused::Reason;
use crate::wire::{Said, WireIncident, WireNode, WireOffer, WireSummary};

/// How far a node of the own district is, and one of another, until somebody measures it.
const NEAR: u32 = 1;
const FAR: u32 = 1_000;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    pub(super) address: String,
    pub(super) offers: Vec<(Device, Amount)>,
    /// When what it says was true.
    pub(super) at: Micros,
}

/// See the head of this module.
#[derive(Debug)]
pub(super) struct Directory {
    own: Identity,
    pub(super) nodes: BTreeMap<Node, Entry>,
    /// What the node knows of.
    pub(super) incidents: Incidents,
    /// When each lead last answered, and how long it took.
    pub(super) answered: BTreeMap<Node, (Micros, Duration)>,
}

impl Directory {
    pub(super) fn new(own: Identity) -> Self {
        Self { own, nodes: BTreeMap::new(), incidents: Incidents::new(), answered: BTreeMap::new() }
    }

    /// Where a node listens.
    pub(super) fn address(&self, node: &Node) -> Option<(Identity, String)> {
        self.nodes.get(node).map(|entry| (entry.identity.clone(), entry.address.clone()))
    }

    /// What others have to lend.
    pub(super) fn offers(&self) -> Vec<borrower::Offer> {
        let all = self.nodes.values().flat_map(|entry| {
            entry.offers.iter().map(|(device, amount)| borrower::Offer {
                place: Place {
                    district: entry.identity.district().clone(),
                    node: entry.identity.node().clone(),
                    device: device.clone(),
                },
                amount: *amount,
                distance: if entry.identity.district() == self.own.district() { NEAR } else { FAR },
            })
        });
        all.collect()
    }

    /// Incidents that hold, with what is left of each.
    pub(super) fn holding(&self, now: Micros) -> Vec<Incident> {
        let told = self.incidents.told(now);
        told.filter(|(_, ended)| !ended).map(|(incident, _)| incident).collect()
    }

    fn expire(&mut self, now: Micros, holds: Micros) {
        self.nodes.retain(|_, entry| now.saturating_sub(entry.at) < holds);
        self.incidents.expire(now);
    }
}

impl Desk {
    /// What a peer says of a loan.
    pub(super) async fn said(&mut self, from: &Identity, said: Said) {
        match said {
            Said::ToLender(message) => {
                let place = match &message {
                    headgate_quota::loan::ToLender::Ask(ask) => Some(ask.place.clone()),
                    other => {
                        let loan = other.loan();
                        let holds =
                            |bench: &super::Bench| bench.lender.loans().any(|view| view.loan.id == *loan);
                        self.benches.iter().find(|(_, bench)| holds(bench)).map(|(place, _)| place.clone())
                    }
                };
                let peer = headgate_quota::loan::Peer {
                    node: from.node().clone(),
                    district: from.district().clone(),
                    weight: 1,
                    distance: if from.district() == self.own_district() { NEAR } else { FAR },
                };
                // A loan nobody here knows is answered by any lender: its borrower must hear that it is over.
                let place = place
                    .filter(|place| self.benches.contains_key(place))
                    .or_else(|| self.benches.keys().next().cloned());
                if let Some(place) = place {
                    self.lend(&place, lender::Input::Heard { from: peer, message }).await;
                }
            }
            Said::ToBorrower(message) => {
                self.borrow(borrower::Input::Heard { from: from.node().clone(), message });
            }
        }
    }

    /// Sends this node's summary to its lead, or, from the lead, its district's to the others.
    pub(super) async fn summarise(&mut self) {
        let now = self.ground.now();
        let Some(options) = self.settings.peers.clone() else {
            self.summary_at = Micros(u64::MAX);
            return;
        };
        let period = micros(options.summary_every);
        self.summary_at = now.saturating_add(period);
        let holds = Micros(period.0.saturating_mul(u64::from(SUMMARIES_MISSED_MAX)));
        self.directory.expire(now, holds);
        // A lender knows what is idle as of when it was last spoken to.
        for place in self.benches.keys().cloned().collect::<Vec<_>>() {
            self.lend(&place, lender::Input::Tick).await;
        }
        let Some(peers) = self.peers.clone() else { return };
        let (summary, targets) = match &options.lead {
            Some(lead) => (self.own_summary(now), vec![lead.clone()]),
            None => (self.district_summary(now), options.leads.clone()),
        };
        for target in targets {
            let (peers, inputs, ground) = (peers.clone(), self.inputs.clone(), Arc::clone(&self.ground));
            let summary = summary.clone();
            tokio::spawn(async move {
                let asked = ground.now();
                let answer = peers.exchange(&target.identity, &target.address, summary, SUMMARY_WAIT).await;
                let took = Duration::from_micros(ground.now().saturating_sub(asked).0);
                // The desk may be closed already.
                let _closed = inputs.send(Input::Answered(target.identity, answer, took)).await;
            });
        }
    }

    /// Makes the next summary go out at once: something happened that others should hear of.
    fn hurry(&mut self) {
        self.summary_at = self.ground.now();
    }

    fn own_entry(&self) -> WireNode {
        let own = &self.settings.own;
        let address = self.settings.peers.as_ref().map(|peers| peers.advertise.clone());
        let offers = self.benches.iter().filter(|(_, bench)| !bench.fenced).map(|(place, bench)| WireOffer {
            device: place.device.to_string(),
            amount: bench.lender.offer().into(),
        });
        WireNode {
            district: own.district().to_string(),
            node: own.name().to_owned(),
            address: address.unwrap_or_default(),
            offers: offers.collect(),
            age_ms: 0,
        }
    }

    fn entries(&self, now: Micros, of: impl Fn(&Identity) -> bool) -> Vec<WireNode> {
        let known = self.directory.nodes.values().filter(|entry| of(&entry.identity));
        let told = known.map(|entry| WireNode {
            district: entry.identity.district().to_string(),
            node: entry.identity.name().to_owned(),
            address: entry.address.clone(),
            offers: entry
                .offers
                .iter()
                .map(|(device, amount)| WireOffer { device: device.to_string(), amount: (*amount).into() })
                .collect(),
            age_ms: now.saturating_sub(entry.at).0 / 1_000,
        });
        let own = of(&self.settings.own).then(|| self.own_entry());
        told.chain(own).collect()
    }

    fn told_incidents(&self, now: Micros, of: impl Fn(&District) -> bool) -> Vec<WireIncident> {
        let told = self.directory.incidents.told(now).filter(|(incident, _)| of(&incident.issuer));
        told.map(|(incident, ended)| WireIncident::of(&incident, ended)).collect()
    }

    fn summary(nodes: Vec<WireNode>, incidents: Vec<WireIncident>) -> WireSummary {
        WireSummary { start: 0, sequence: 0, nodes, incidents }
    }

    fn own_summary(&self, now: Micros) -> WireSummary {
        let own = self.own_district();
        Self::summary(vec![self.own_entry()], self.told_incidents(now, |issuer| issuer == own))
    }

    fn district_summary(&self, now: Micros) -> WireSummary {
        let own = self.own_district();
        let nodes = self.entries(now, |identity| identity.district() == own);
        Self::summary(nodes, self.told_incidents(now, |issuer| issuer == own))
    }

    /// A peer sent a summary: one of the own district's nodes, or another district's lead.
    pub(super) async fn summarised(
        &mut self,
        from: &Identity,
        summary: WireSummary,
        reply: oneshot::Sender<WireSummary>,
    ) {
        let now = self.ground.now();
        let mine = from.district() == self.own_district();
        let speaks_for = |node: &Identity| {
            if mine { node == from } else { node.district() == from.district() }
        };
        self.learn(now, from, &summary, speaks_for, |issuer| issuer == from.district());
        let answer = if mine {
            let nodes = self.entries(now, |identity| identity != from);
            Self::summary(nodes, self.told_incidents(now, |_| true))
        } else {
            self.district_summary(now)
        };
        if let Some(peers) = &self.peers {
            // The peer may have given up.
            let _unheard = reply.send(peers.numbered(answer));
        }
    }

    /// The own lead answered with what everyone has, or another lead with what its district has.
    pub(super) async fn answered(&mut self, from: &Identity, summary: Option<WireSummary>, took: Duration) {
        let Some(summary) = summary else {
            self.counts.summaries_unanswered += 1;
            return;
        };
        let now = self.ground.now();
        self.directory.answered.insert(from.node().clone(), (now, took));
        let all = from.district() == self.own_district();
        let district = from.district().clone();
        let own = self.settings.own.clone();
        let speaks_for = |node: &Identity| *node != own && (all || *node.district() == district);
        self.learn(now, from, &summary, speaks_for, |issuer| all || *issuer == district);
    }

    /// Takes a summary in.
    fn learn(
        &mut self,
        now: Micros,
        from: &Identity,
        summary: &WireSummary,
        speaks_for: impl Fn(&Identity) -> bool,
        declares_for: impl Fn(&District) -> bool,
    ) {
        for wire in &summary.nodes {
            let Some(entry) = entry(now, wire) else {
                self.refusals.count(Reason::Malformed, &from.to_string());
                continue;
            };
            if entry.identity == self.settings.own {
                continue;
            }
            if !speaks_for(&entry.identity) {
                self.refusals.count(Reason::NotYours, &from.to_string());
                continue;
            }
            let node = entry.identity.node().clone();
            let known = self.directory.nodes.get(&node);
            if known.is_none() && NODES_MAX <= self.directory.nodes.len() {
                self.refusals.count(Reason::Crowded, &from.to_string());
                continue;
            }
            if known.is_none_or(|known| known.at <= entry.at) {
                self.directory.nodes.insert(node, entry);
            }
        }
        for wire in &summary.incidents {
            match wire.incident() {
                Ok(incident) if declares_for(&incident.issuer) => self.heard_of(incident, wire.ended),
                Ok(_) => self.refusals.count(Reason::NotYours, &from.to_string()),
                Err(_) => self.refusals.count(Reason::Malformed, &from.to_string()),
            }
        }
        if self.borrower.is_some() {
            self.borrow(borrower::Input::Offers(self.directory.offers()));
        }
    }

    /// A peer told of an incident: if it is news, the node hears of it, and tells when it has taken it in.
    fn heard_of(&mut self, incident: Incident, ended: bool) {
        let known = &self.directory.incidents;
        if known.knows(&incident.issuer, incident.number, ended) {
            return;
        }
        match known.admits(&incident) {
            Ok(()) | Err(IncidentRefused::Replayed) => self.ground.heard(incident, ended),
            Err(_) => self.counts.incidents_refused += 1,
        }
    }

    /// The node's incidents changed: lenders and borrower hear what did, and others soon.
    pub(super) async fn incidents(&mut self, incidents: Incidents) {
        let now = self.ground.now();
        let mut news = false;
        for (incident, ended) in incidents.told(now) {
            let (issuer, number) = (incident.issuer.clone(), incident.number);
            if self.directory.incidents.knows(&issuer, number, ended) {
                continue;
            }
            news = true;
            for place in self.benches.keys().cloned().collect::<Vec<_>>() {
                let input = if ended {
                    lender::Input::Ended { issuer: issuer.clone(), number }
                } else {
                    lender::Input::Declared(incident.clone())
                };
                self.lend(&place, input).await;
            }
            self.borrow(if ended {
                borrower::Input::Ended { issuer, number }
            } else {
                borrower::Input::Declared(incident)
            });
        }
        self.directory.incidents = incidents;
        if news {
            self.hurry();
        }
    }
}

fn entry(now: Micros, wire: &WireNode) -> Option<Entry> {
    let identity = Identity::new(&wire.district, &wire.node).ok()?;
    let offers: Option<Vec<_>> =
        wire.offers.iter().map(|offer| Some((Device::new(&offer.device)?, offer.amount.into()))).collect();
    let bounded = wire.address.len() <= 256 && wire.offers.len() <= 64;
    let at = now.saturating_sub(Micros::from_millis(wire.age_ms));
    bounded.then_some(Entry { identity, address: wire.address.clone(), offers: offers?, at })
}
