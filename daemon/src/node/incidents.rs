//! Incidents in the node's state: for the length of an occasion, tenants go before others whom they ordinarily wait for.
//!
//! An alarm in the city makes case review urgent for half an hour. Nobody edits the configuration for that, and nobody
//! has to remember to edit it back. The node keeps the one book of incidents, those declared here (`headgate event`)
//! and those that peers told of alike; the desk, if there is one, works from a copy of it.

use headgate_quota::Class;
use headgate_quota::loan::names::NotAName;
use headgate_quota::loan::{District, Guest, Incident, IncidentName, Tenant as LoanTenant};
use headgate_quota::units::Micros;

use super::effect::Effect;
use super::state::State;
use crate::admin::StartEvent;
use crate::config::model::Tenant;
use crate::limits::INCIDENT_MIN;

/// Takes an incident in, or that it was ended. One that is known already, or that is over, changes nothing.
pub(super) fn heard(
    state: &mut State,
    now: Micros,
    incident: Incident,
    ended: bool,
    effects: &mut Vec<Effect>,
) {
    let before = state.incidents.clone();
    let (issuer, number) = (incident.issuer.clone(), incident.number);
    // Whoever declared it has been told why it does not count; the desk counts those of others.
    let _refused = state.incidents.declare(now, incident);
    if ended {
        state.incidents.end(&issuer, number);
    }
    settle(state, before, effects);
}

/// Ends incidents whose time is over.
pub(super) fn expire(state: &mut State, now: Micros, effects: &mut Vec<Effect>) {
    let before = state.incidents.clone();
    state.incidents.expire(now);
    settle(state, before, effects);
}

fn settle(state: &State, before: headgate_quota::loan::Incidents, effects: &mut Vec<Effect>) {
    if state.incidents != before {
        effects.extend([Effect::Regate, Effect::Remember]);
    }
}

/// The district of this node.
fn own_district(state: &State) -> Option<District> {
    District::new(state.configured.as_ref()?.config.district.as_str())
}

/// A tenant as incidents name it: a guest by its own district, everyone else by the node's.
fn named(state: &State, tenant: &Tenant) -> Option<Guest> {
    match tenant.name.as_guest() {
        Some((district, tenant)) => Some(Guest {
            district: District::new(district.as_str())?,
            tenant: LoanTenant::new(tenant.as_str())?,
        }),
        None => {
            Some(Guest { district: own_district(state)?, tenant: LoanTenant::new(tenant.name.as_str())? })
        }
    }
}

impl State {
    /// A tenant's class now, and the incident that raises it there, if one does.
    #[must_use]
    pub fn class_of(&self, tenant: &Tenant) -> (Class, Option<&Incident>) {
        let own = tenant.class;
        let raised = named(self, tenant).map(|named| self.incidents.class_of(&named, own));
        let (class, by) = raised.unwrap_or((own, None));
        // A guest never goes before the owners of the device.
        let most = if tenant.name.as_guest().is_some() { Class::Standard } else { Class::Express };
        (class.min(most), by)
    }

    /// An incident's name; with its district, if that is another one.
    #[must_use]
    pub fn told_name(&self, incident: &Incident) -> String {
        if own_district(self).as_ref() == Some(&incident.issuer) {
            incident.name.to_string()
        } else {
            format!("{}/{}", incident.issuer, incident.name)
        }
    }

    /// An incident of this district as asked for, or why there can be none. `wall_us` is the time since 1970: later
    /// incidents have greater numbers, also those of the district's other nodes.
    pub fn incident_of(&self, asked: &StartEvent, wall_us: u64) -> Result<Incident, String> {
        let issuer = own_district(self).ok_or("no configuration has been read yet")?;
        let name = IncidentName::new(&asked.name).ok_or_else(|| {
            format!("`{}` is no name: letters, digits, `-`, `_` and `.`, at most 63", asked.name)
        })?;
        let class: Class =
            asked.class.parse().map_err(|error| format!("class `{}`: {error}", asked.class))?;
        let tenants = asked.tenants.iter().map(|text| self.tenant_named(&issuer, text));
        let tenants = tenants.collect::<Result<Vec<_>, _>>()?;
        let duration = Micros::from_millis(asked.span_ms);
        if duration < INCIDENT_MIN {
            return Err(format!("an event lasts {} s at least", INCIDENT_MIN.0 / 1_000_000));
        }
        let last = self.incidents.last_number(&issuer);
        let number = wall_us.max(last.saturating_add(1));
        let incident = Incident { issuer, number, name, tenants, class, duration, reclaim: asked.reclaim };
        match self.incidents.admits(&incident) {
            Ok(()) => Ok(incident),
            Err(refused) => Err(refused.to_string()),
        }
    }

    /// This district's incident of a name, if it holds.
    #[must_use]
    pub fn own_incident(&self, name: &str) -> Option<Incident> {
        let own = own_district(self)?;
        let named = |incident: &&Incident| incident.issuer == own && incident.name.as_str() == name;
        self.incidents.holding().find(named).cloned()
    }

    /// `NAME` of a tenant of this node, or `DISTRICT/NAME` of any.
    fn tenant_named(&self, own: &District, text: &str) -> Result<Guest, String> {
        if text.contains('/') {
            let guest: Guest = text.parse().map_err(|wrong: NotAName| format!("`{text}`: {wrong}"))?;
            let travels = self.configured.as_ref().is_some_and(|configured| {
                configured.config.loans.as_ref().is_some_and(|loans| loans.peers.is_some())
            });
            return match travels || guest.district == *own {
                true => Ok(guest),
                false => Err(format!(
                    "nobody in {} would hear of it: this node has no spec.loans.peers",
                    guest.district
                )),
            };
        }
        let known: Vec<&str> =
            self.tenants().filter(|(_, t)| !t.retired).map(|(_, t)| t.policy.name.as_str()).collect();
        if let Some(tenant) = LoanTenant::new(text).filter(|_| known.contains(&text)) {
            return Ok(Guest { district: own.clone(), tenant });
        }
        Err(match crate::config::fields::nearest(text, &known) {
            Some(near) => format!("there is no tenant `{text}`; did you mean `{near}`?"),
            None => format!("there is no tenant `{text}`; there are: {}", known.join(", ")),
        })
    }
}
