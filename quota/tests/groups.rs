//! Laws of places on a device and the groups in them, over shares and histories that nobody thought of.

use headgate_quota::Ppm;
use headgate_quota::groups::{Claim, Place, places, settle};
use proptest::prelude::*;

/// Shares that add up to a device at most, some of them nothing.
fn shares() -> impl Strategy<Value = Vec<Ppm>> {
    prop::collection::vec(0_u32..=1_000_000, 1..10).prop_map(|weights| {
        let sum = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>().max(1_000_000);
        let share = |weight: &u32| Ppm::new(u32::try_from(u64::from(*weight) * 1_000_000 / sum).unwrap_or(0));
        weights.iter().filter_map(share).collect()
    })
}

fn disjoint(places: &[Option<Place>]) -> bool {
    let places: Vec<Place> = places.iter().flatten().copied().collect();
    let alone = |at: usize| !places[at + 1..].iter().any(|other| places[at].overlaps(*other));
    (0..places.len()).all(alone)
}

proptest! {
    #[test]
    fn no_group_is_given_twice_and_nobody_is_a_whole_group_off(shares in shares(), of in 0_u32..200) {
        let places = places(&shares);
        prop_assert!(disjoint(&places));
        let mut end = 0;
        for (share, place) in shares.iter().zip(&places) {
            let Some(place) = place else {
                prop_assert_eq!(*share, Ppm::ZERO);
                continue;
            };
            let groups = place.groups(of);
            prop_assert_eq!(groups.start, end, "places that touch leave nothing between them");
            prop_assert!(groups.start <= groups.end && groups.end <= of);
            let exact = u64::from(share.get()) * u64::from(of);
            let given = u64::from(groups.end - groups.start) * 1_000_000;
            prop_assert!(exact.abs_diff(given) <= 1_000_000, "{:?} of {} for {:?}", groups, of, share);
            end = groups.end;
        }
    }

    #[test]
    fn a_history_of_shares_never_overlaps_moves_nobody_at_work_and_arrives(
        plans in prop::collection::vec((shares(), prop::collection::vec(any::<bool>(), 10)), 1..6),
    ) {
        let mut have: Vec<Option<Place>> = vec![None; 10];
        // Where programs were left at work, as a program keeps its groups whatever its tenant has now.
        let mut at_work: Vec<Option<Place>> = vec![None; 10];
        for (shares, busy) in plans {
            let mut wants = places(&shares);
            wants.resize(10, None);
            for at in 0..10 {
                at_work[at] = if busy[at] { at_work[at].or(have[at]) } else { None };
            }
            let claim = |at: usize| Claim { has: have[at], wants: wants[at], in_use: busy[at] };
            let claims: Vec<Claim> = (0..10).map(claim).collect();
            let now = settle(&claims);
            prop_assert!(disjoint(&now), "{now:?}");
            for at in 0..10 {
                prop_assert!(!busy[at] || have[at].is_none() || now[at] == have[at], "moved while at work");
                prop_assert!(now[at] == have[at] || now[at] == wants[at]);
                for other in (0..10).filter(|other| *other != at) {
                    let (Some(theirs), Some(own)) = (at_work[other], now[at]) else { continue };
                    prop_assert!(!own.overlaps(theirs), "{at} was moved onto the programs of {other}");
                }
            }
            have = now;
            // Once nobody is at work, everybody gets what it wants in one round.
            let idle: Vec<Claim> = (0..10).map(|at| Claim { has: have[at], wants: wants[at], in_use: false }).collect();
            prop_assert_eq!(settle(&idle), wants);
        }
    }
}
