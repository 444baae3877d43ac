//! Incidents: somebody declares that something happened, and the tenants it names count more for a while.
//!
//! Each node counts the duration on its own clock from when it heard. Nothing has to be called off: what nobody
//! prolongs is over. An issuer numbers its incidents upwards, so that an old declaration that comes late or twice
//! raises nobody again.

use core::fmt;

use super::limits::{INCIDENT_MAX, INCIDENT_TENANTS_MAX, INCIDENTS_MAX, ISSUERS_MAX};
use super::names::{District, Guest};
use crate::tenant::Class;
use crate::units::Micros;

/// A declaration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incident {
    /// Who declares it, as authenticated.
    pub issuer: District,
    /// Greater than that of any earlier declaration of this issuer.
    pub number: u64,
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
    /// Its number is not greater than an earlier one: a repetition, or one that was overtaken.
    Replayed,
    /// Longer than a day.
    TooLong,
    /// Names more tenants than are looked at.
    TooManyTenants,
    /// As many incidents hold, or as many issuers are known, as can be kept.
    TooMany,
}

impl fmt::Display for IncidentRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replayed => "the issuer has declared a later incident; declare it again with a new number",
            Self::TooLong => "an incident holds for a day at most; declare it again when it still holds then",
            Self::TooManyTenants => "an incident names 256 tenants at most",
            Self::TooMany => "64 incidents hold already, or 1,024 issuers are known; end one first",
        })
    }
}

impl core::error::Error for IncidentRefused {}

/// Incidents that hold.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    active: Vec<(Incident, Micros)>,
    /// The highest number heard of each issuer.
    numbers: Vec<(District, u64)>,
}

impl Incidents {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a declaration in.
    pub fn declare(&mut self, now: Micros, incident: Incident) -> Result<(), IncidentRefused> {
        self.expire(now);
        if INCIDENT_MAX < incident.duration {
            return Err(IncidentRefused::TooLong);
        }
        if INCIDENT_TENANTS_MAX < incident.tenants.len() {
            return Err(IncidentRefused::TooManyTenants);
        }
        let known = self.numbers.iter().position(|(issuer, _)| *issuer == incident.issuer);
        if known.is_some_and(|index| incident.number <= self.numbers[index].1) {
            return Err(IncidentRefused::Replayed);
        }
        if INCIDENTS_MAX <= self.active.len() || (known.is_none() && ISSUERS_MAX <= self.numbers.len()) {
            return Err(IncidentRefused::TooMany);
        }
        match known {
            Some(index) => self.numbers[index].1 = incident.number,
            None => self.numbers.push((incident.issuer.clone(), incident.number)),
        }
        let ends = now.saturating_add(incident.duration);
        self.active.push((incident, ends));
        Ok(())
    }

    /// Ends an incident before its time.
    pub fn end(&mut self, issuer: &District, number: u64) {
        self.active.retain(|(incident, _)| incident.issuer != *issuer || incident.number != number);
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Micros) {
        self.active.retain(|(_, ends)| now < *ends);
    }

    /// A tenant's class, raised by what holds at `now`.
    #[must_use]
    pub fn class_of(&self, tenant: &Guest, own: Class, now: Micros) -> Class {
        self.concerning(tenant, now).map(|incident| incident.class).fold(own, Class::max)
    }

    /// The incident that calls back what a tenant has lent, if any.
    #[must_use]
    pub fn reclaiming(&self, tenant: &Guest, now: Micros) -> Option<&Incident> {
        self.concerning(tenant, now).find(|incident| incident.reclaim)
    }

    /// When the next one ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Micros> {
        self.active.iter().map(|(_, ends)| *ends).min()
    }

    fn concerning(&self, tenant: &Guest, now: Micros) -> impl Iterator<Item = &Incident> {
        self.active
            .iter()
            .filter(move |(incident, ends)| now < *ends && incident.tenants.contains(tenant))
            .map(|(incident, _)| incident)
    }
}
