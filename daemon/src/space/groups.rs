//! Places for tenants on a device that green contexts share.

use std::collections::BTreeMap;

use headgate_quota::Room;
use headgate_quota::groups::{Claim, Place, places, settle};

use super::{Grant, Groups, Standing, Wanted, WantedGpu};

/// The places that are to be in force, by tenant. `known` are those of a daemon before this one.
#[must_use]
pub fn settled(wanted: &WantedGpu, known: &BTreeMap<String, Place>) -> BTreeMap<String, Place> {
    let shares: Vec<_> = wanted.tenants.values().map(|part| part.share).collect();
    let claims: Vec<Claim> = wanted
        .tenants
        .iter()
        .zip(places(&shares))
        .map(|((name, part), wants)| {
            let has = part.place.or_else(|| known.get(name).copied());
            Claim { has, wants, in_use: part.seated }
        })
        .collect();
    let settled = settle(&claims);
    wanted.tenants.keys().zip(settled).filter_map(|(name, place)| Some((name.clone(), place?))).collect()
}

/// What each tenant has then.
#[must_use]
pub fn grants(
    wanted: &WantedGpu,
    in_force: &BTreeMap<String, Place>,
    environment: &[(&'static str, String)],
) -> BTreeMap<String, Grant> {
    let shares: Vec<_> = wanted.tenants.values().map(|part| part.share).collect();
    let grant = |((name, part), wants): ((&String, &super::WantedPart), Option<Place>)| {
        let place = in_force.get(name).copied();
        let pending = match (place, part.seated) {
            _ if place == wants => None,
            (Some(_), true) => {
                Some("has other SMs than it is to have; that changes when its running programs have ended")
            }
            (None, _) if wants.is_none() => Some("it has no sm share there"),
            _ => Some("is to have other SMs; they come free when other tenants' running programs have ended"),
        };
        let grant = Grant {
            environment: place.is_some().then(|| environment.to_vec()),
            room: Room { given: part.share, held: part.share },
            per_process: false,
            sms: None,
            groups: Some(Groups { place, settled: place == wants }),
            pending: pending.map(str::to_owned),
        };
        (name.clone(), grant)
    };
    wanted.tenants.iter().zip(places(&shares)).map(grant).collect()
}

/// Whether the places that the node has in force are those that it was told.
#[must_use]
pub fn agrees(wanted: &Wanted, standings: &[Standing]) -> bool {
    standings.iter().filter(|standing| standing.down.is_none()).all(|standing| {
        let wanted = wanted.gpus.iter().find(|wanted| wanted.gpu == standing.gpu);
        standing.grants.iter().all(|(name, grant)| {
            let Some(told) = grant.groups else { return true };
            wanted.and_then(|wanted| wanted.tenants.get(name)).is_none_or(|part| part.place == told.place)
        })
    })
}

#[cfg(test)]
mod tests {
    use headgate_quota::Ppm;

    use super::super::{Space, WantedPart};
    use super::*;
    use crate::config::model::DeviceUuid;
    use crate::config::space::Sharing;

    const GPU: DeviceUuid = DeviceUuid([7; 16]);
    const GREEN: Sharing = Sharing::GreenContexts { multiply: false };

    fn ppm(percent: u32) -> Ppm {
        Ppm::from_percent(percent).unwrap()
    }

    fn wanted(space: &Space, parts: &[(&str, u32, bool)]) -> WantedGpu {
        let part = |&(name, percent, seated): &(&str, u32, bool)| {
            let place = space.grant(GPU, name).and_then(|grant| grant.groups?.place);
            (name.to_owned(), WantedPart { share: ppm(percent), place, seated })
        };
        WantedGpu { gpu: GPU, sharing: GREEN, tenants: parts.iter().map(part).collect() }
    }

    fn standing(wanted: &WantedGpu) -> Standing {
        let in_force = settled(wanted, &BTreeMap::new());
        Standing { gpu: GPU, sharing: GREEN, down: None, grants: grants(wanted, &in_force, &[]) }
    }

    fn ends(space: &Space, name: &str) -> Option<(u32, u32)> {
        let place = space.grant(GPU, name)?.groups?.place?;
        Some((place.from().get() / 10_000, place.to().get() / 10_000))
    }

    #[test]
    fn nobody_is_moved_who_came_while_the_keeper_thought() {
        let mut space = Space::default();
        let first = wanted(&space, &[("a", 70, false), ("b", 30, false)]);
        space.take(vec![standing(&first)], &[].into());
        assert_eq!((ends(&space, "a"), ends(&space, "b")), (Some((0, 70)), Some((70, 100))));
        // Nobody is seated when the keeper looks, and `a` is when its word arrives: both stay.
        let idle = standing(&wanted(&space, &[("a", 30, false), ("b", 70, false)]));
        space.take(vec![idle.clone()], &["a"].into());
        assert_eq!((ends(&space, "a"), ends(&space, "b")), (Some((0, 70)), Some((70, 100))));
        let all = |parts: &[(&str, u32, bool)], space: &Space| Wanted {
            gpus: vec![wanted(space, parts)],
            ..Wanted::default()
        };
        assert!(!agrees(&all(&[("a", 30, false), ("b", 70, false)], &space), std::slice::from_ref(&idle)));
        let busy = standing(&wanted(&space, &[("a", 30, true), ("b", 70, false)]));
        space.take(vec![busy.clone()], &["a"].into());
        assert!(agrees(&all(&[("a", 30, true), ("b", 70, false)], &space), std::slice::from_ref(&busy)));
        assert!(busy.grants["a"].pending.as_ref().is_some_and(|why| why.contains("its running programs")));
        assert!(busy.grants["b"].pending.as_ref().is_some_and(|why| why.contains("other tenants")));
        // It ends, and both move.
        space.take(vec![standing(&wanted(&space, &[("a", 30, false), ("b", 70, false)]))], &[].into());
        assert_eq!((ends(&space, "a"), ends(&space, "b")), (Some((0, 30)), Some((30, 100))));
    }

    #[test]
    fn a_tenant_without_a_place_cannot_start() {
        let mut space = Space::default();
        space.take(vec![standing(&wanted(&space, &[("a", 100, true)]))], &["a"].into());
        let both = standing(&wanted(&space, &[("a", 50, true), ("b", 50, false)]));
        assert_eq!(both.grants["b"].environment, None);
        assert_eq!(both.grants["b"].groups, Some(Groups { place: None, settled: false }));
        assert_ne!(both.grants["a"].digest(), 0, "even without MPS a program must not bring its own");
    }

    #[test]
    fn places_of_an_earlier_daemon_stay_while_its_programs_run() {
        let known =
            settled(&wanted(&Space::default(), &[("a", 70, false), ("b", 30, false)]), &BTreeMap::new());
        let changed = wanted(&Space::default(), &[("a", 30, true), ("b", 70, false)]);
        assert_eq!(settled(&changed, &known), known);
    }
}
