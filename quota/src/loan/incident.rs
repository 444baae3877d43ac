//! Incidents: somebody declares that something happened, and the tenants it names count more for a while. Operators
//! know them as events (`headgate event`).
//!
//! Each node counts the duration on its own clock from when it heard. Nothing has to be called off: what nobody
//! prolongs is over. Two nodes that heard the same, in whatever order and however often, agree on what holds:
//! ```text
//!              declared                        its time is over
//!   unknown -------------> holding ---------------------------------> over: only its number is kept, so that
//!      |                      | ended, or the same issuer               ^   a declaration that comes late or twice
//!      |                      v declared a later one of that name       |   raises nobody again
//!      '-- heard as ended -> ended: told on until its time is over -----'
//! ```

use core::fmt;
use std::collections::VecDeque;

use super::limits::{INCIDENT_MAX, INCIDENT_TENANTS_MAX, INCIDENTS_MAX, INCIDENTS_OVER_MAX};
use super::names::{District, Guest, IncidentName};
use crate::tenant::Class;
use crate::units::Micros;

/// A declaration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incident {
    /// Who declares it, as authenticated.
    pub issuer: District,
    /// With the issuer it is the declaration's identity, never used again; the later one has the greater.
    pub number: u64,
    /// What people call it. A later declaration of the same issuer and name takes this one's place.
    pub name: IncidentName,
    /// Tenants concerned, in any district.
    pub tenants: Vec<Guest>,
    /// The class they are raised to; nobody is lowered.
    pub class: Class,
    /// How long it holds.
    pub duration: Micros,
    /// Whether what these tenants have lent is called back at once, before they need it.
    pub reclaim: bool,
}

/// Why a declaration does not count. Its issuer is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncidentRefused {
    /// It is known, or was.
    Replayed,
    /// Longer than a day.
    TooLong,
    /// Names nobody.
    NoTenants,
    /// Names more tenants than are looked at.
    TooManyTenants,
    /// As many incidents hold as can be kept.
    TooMany,
}

impl fmt::Display for IncidentRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replayed => "this incident is known already; declare it again with a new number",
            Self::TooLong => {
                "an incident holds for a day at most; declare it again when it still holds then, and what holds for \
                 good belongs in the configuration"
            }
            Self::NoTenants => "an incident raises at least one tenant; name some",
            Self::TooManyTenants => "an incident names 256 tenants at most",
            Self::TooMany => "64 incidents hold already; end one first",
        })
    }
}

impl core::error::Error for IncidentRefused {}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    incident: Incident,
    ends: Micros,
    ended: bool,
}

impl Known {
    fn is(&self, issuer: &District, number: u64) -> bool {
        self.incident.issuer == *issuer && self.incident.number == number
    }
}

/// Incidents that hold, as of the last time that was told to [`declare`](Self::declare) or [`expire`](Self::expire).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Incidents {
    known: Vec<Known>,
    over: VecDeque<(District, u64)>,
}

impl Incidents {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a declaration would count.
    pub fn admits(&self, incident: &Incident) -> Result<(), IncidentRefused> {
        let (issuer, number) = (&incident.issuer, incident.number);
        let over = || self.over.iter().any(|(known, at)| known == issuer && *at == number);
        if self.known.iter().any(|known| known.is(issuer, number)) || over() {
            return Err(IncidentRefused::Replayed);
        }
        if INCIDENT_MAX < incident.duration {
            return Err(IncidentRefused::TooLong);
        }
        if incident.tenants.is_empty() {
            return Err(IncidentRefused::NoTenants);
        }
        if INCIDENT_TENANTS_MAX < incident.tenants.len() {
            return Err(IncidentRefused::TooManyTenants);
        }
        let replaced = |known: &&Known| known.incident.same_name(incident);
        let holding = self.known.iter().filter(|known| !known.ended && !replaced(known)).count();
        if INCIDENTS_MAX <= holding { Err(IncidentRefused::TooMany) } else { Ok(()) }
    }

    /// Takes a declaration in.
    pub fn declare(&mut self, now: Micros, incident: Incident) -> Result<(), IncidentRefused> {
        self.expire(now);
        self.admits(&incident)?;
        let mut ended = false;
        for known in self.known.iter_mut().filter(|known| known.incident.same_name(&incident)) {
            if known.incident.number < incident.number {
                known.ended = true;
            } else {
                ended = true;
            }
        }
        let ends = now.saturating_add(incident.duration);
        self.known.push(Known { incident, ends, ended });
        self.expire(now);
        Ok(())
    }

    /// Ends an incident before its time. `false` if it is not known to hold.
    pub fn end(&mut self, issuer: &District, number: u64) -> bool {
        let held = self.known.iter_mut().find(|known| known.is(issuer, number) && !known.ended);
        let Some(held) = held else { return false };
        held.ended = true;
        self.make_room();
        true
    }

    /// Forgets what is over, but for its number.
    pub fn expire(&mut self, now: Micros) {
        let over = &mut self.over;
        self.known.retain(|known| {
            let holds = now < known.ends;
            if !holds {
                over.push_back((known.incident.issuer.clone(), known.incident.number));
            }
            holds
        });
        self.make_room();
    }

    /// Keeps what is only remembered within its bounds: the oldest goes.
    fn make_room(&mut self) {
        while INCIDENTS_MAX < self.known.iter().filter(|known| known.ended).count() {
            let Some(oldest) = self.known.iter().position(|known| known.ended) else { break };
            let known = self.known.remove(oldest);
            self.over.push_back((known.incident.issuer, known.incident.number));
        }
        while INCIDENTS_OVER_MAX < self.over.len() {
            self.over.pop_front();
        }
    }

    /// Those that hold, oldest first.
    pub fn holding(&self) -> impl Iterator<Item = &Incident> {
        self.known.iter().filter(|known| !known.ended).map(|known| &known.incident)
    }

    /// Everything others should hear of, with what is left of each and whether it was ended before its time.
    pub fn told(&self, now: Micros) -> impl Iterator<Item = (Incident, bool)> {
        self.known.iter().map(move |known| {
            let duration = known.ends.saturating_sub(now);
            (Incident { duration, ..known.incident.clone() }, known.ended)
        })
    }

    /// The greatest number known of an issuer.
    #[must_use]
    pub fn last_number(&self, issuer: &District) -> u64 {
        let known = self.known.iter().map(|known| (&known.incident.issuer, known.incident.number));
        let over = self.over.iter().map(|(issuer, number)| (issuer, *number));
        known.chain(over).filter(|(of, _)| *of == issuer).map(|(_, number)| number).max().unwrap_or(0)
    }

    /// Whether a declaration, or that it was ended, is nothing new.
    #[must_use]
    pub fn knows(&self, issuer: &District, number: u64, ended: bool) -> bool {
        let known = self.known.iter().find(|known| known.is(issuer, number));
        match known {
            Some(known) => known.ended || !ended,
            None => self.over.iter().any(|(known, at)| known == issuer && *at == number),
        }
    }

    /// A tenant's class, and the incident that raises it there, if one does. Of several the highest counts, and of
    /// equal ones the oldest.
    #[must_use]
    pub fn class_of(&self, tenant: &Guest, own: Class) -> (Class, Option<&Incident>) {
        let concerning = self.concerning(tenant).map(|incident| (incident.class, Some(incident)));
        concerning.fold((own, None), |best, next| if best.0 < next.0 { next } else { best })
    }

    /// The incident that calls back what a tenant has lent, if any.
    #[must_use]
    pub fn reclaiming(&self, tenant: &Guest) -> Option<&Incident> {
        self.concerning(tenant).find(|incident| incident.reclaim)
    }

    /// When the next one ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Micros> {
        self.known.iter().map(|known| known.ends).min()
    }

    fn concerning(&self, tenant: &Guest) -> impl Iterator<Item = &Incident> {
        self.holding().filter(move |incident| incident.tenants.contains(tenant))
    }
}

impl Incident {
    fn same_name(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.name == other.name
    }
}
