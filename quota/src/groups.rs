//! Sharing by space without anybody who could be asked how a device divides: places on it, and the groups in a place.
//!
//! A device's SMs come in groups, of which only who drives it learns the number. So each tenant is given a place on the
//! device, in parts per million, and the groups that lie there are its own:
//!
//! ```text
//! shares --places--> places --settle--> places that are in force      (in the daemon)
//! place, number of groups --groups--> first group, one past the last  (in each process, the same for all)
//! ```
//!
//! **Rounding.** Every edge of a place goes to the nearest edge of a group. Places that do not overlap so have no group in
//! common, places that touch leave none between them, and nobody is a whole group away from its share. Who owns less than
//! half a group may get none.
//!
//! **Change.** A program keeps the groups it started with. So a tenant with programs keeps its place, and another tenant is
//! moved only to where nobody is.

use core::ops::Range;

use crate::units::Ppm;

const WHOLE: u32 = 1_000_000;

/// A part of a device, from one point of it to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    from: Ppm,
    to: Ppm,
}

impl Place {
    /// The place between two points. `None` unless the first lies before the second, and the second on the device.
    #[must_use]
    pub fn new(from: Ppm, to: Ppm) -> Option<Self> {
        (from < to && to <= Ppm::WHOLE).then_some(Self { from, to })
    }

    /// Where it begins.
    #[must_use]
    pub const fn from(self) -> Ppm {
        self.from
    }

    /// Where it ends.
    #[must_use]
    pub const fn to(self) -> Ppm {
        self.to
    }

    /// Whether some point is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// The groups that lie in it, of so many equal ones on the device: empty when it is too small for one.
    #[must_use]
    pub fn groups(self, of: u32) -> Range<u32> {
        let edge = |at: Ppm| {
            let scaled = u64::from(at.get()) * u64::from(of) + u64::from(WHOLE / 2);
            u32::try_from(scaled / u64::from(WHOLE)).unwrap_or(u32::MAX)
        };
        edge(self.from)..edge(self.to)
    }
}

/// A place for each share, side by side in their order. `None` for no share, and for what would lie beyond the device.
#[must_use]
pub fn places(shares: &[Ppm]) -> Vec<Option<Place>> {
    let mut at = Ppm::ZERO;
    let place = |share: &Ppm| {
        let to = Ppm::new(at.get().checked_add(share.get())?)?;
        let place = Place::new(at, to)?;
        at = to;
        Some(place)
    };
    shares.iter().map(place).collect()
}

/// Someone who is to have a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The place it has.
    pub has: Option<Place>,
    /// The one it is to have.
    pub wants: Option<Place>,
    /// Whether programs of it may be at work.
    pub in_use: bool,
}

/// The places that are in force after this round, in the order of the claims: what nobody overlaps. Neither those that
/// claimants have nor those that they want may overlap among themselves.
///
/// Who is in use stays. Everybody else gets its place, unless it overlaps one that stays: then it stays, too, and has none
/// if it had none.
#[must_use]
pub fn settle(claims: &[Claim]) -> Vec<Option<Place>> {
    let mut stays: Vec<bool> = claims.iter().map(|claim| claim.in_use && claim.has.is_some()).collect();
    loop {
        let kept = |at: usize| if stays[at] { claims[at].has } else { None };
        let blocked = claims.iter().enumerate().position(|(at, claim)| {
            let wants = claim.wants.filter(|_| !stays[at]);
            wants.is_some_and(|wants| {
                (0..claims.len()).filter(|&other| other != at).filter_map(kept).any(|has| has.overlaps(wants))
            })
        });
        let Some(blocked) = blocked else { break };
        stays[blocked] = true;
    }
    claims.iter().zip(stays).map(|(claim, stays)| if stays { claim.has } else { claim.wants }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ppm(percent: u32) -> Ppm {
        Ppm::from_percent(percent).unwrap_or(Ppm::WHOLE)
    }

    fn place(from: u32, to: u32) -> Option<Place> {
        Place::new(ppm(from), ppm(to))
    }

    #[test]
    fn shares_lie_side_by_side_and_edges_go_to_the_nearest_group() {
        let places = places(&[ppm(70), ppm(30)]);
        assert_eq!(places, [place(0, 70), place(70, 100)]);
        let groups = |of| places.iter().flatten().map(|place| place.groups(of)).collect::<Vec<_>>();
        assert_eq!(groups(16), [0..11, 11..16]);
        // An H100 has been seen to give fifteen.
        assert_eq!(groups(15), [0..11, 11..15]);
        assert_eq!(groups(1), [0..1, 1..1], "too small for a group");
        assert_eq!(groups(0), [0..0, 0..0]);
    }

    #[test]
    fn what_is_no_place_is_none() {
        assert_eq!(place(50, 50), None);
        assert_eq!(place(60, 50), None);
        assert_eq!(
            places(&[ppm(70), Ppm::ZERO, ppm(40), ppm(30)]),
            [place(0, 70), None, None, place(70, 100)]
        );
    }

    #[test]
    fn who_is_at_work_stays_and_nobody_is_moved_onto_it() {
        let claim = |has: Option<Place>, wants, in_use| Claim { has, wants, in_use };
        let swapped = |first, second| {
            [claim(place(0, 70), place(0, 30), first), claim(place(70, 100), place(30, 100), second)]
        };
        assert_eq!(settle(&swapped(false, false)), [place(0, 30), place(30, 100)]);
        assert_eq!(settle(&swapped(true, false)), [place(0, 70), place(70, 100)], "the second cannot grow");
        assert_eq!(settle(&swapped(false, true)), [place(0, 30), place(70, 100)], "the first can shrink");
        // Who stays because of one can be in the way of a third.
        let chain = [
            claim(place(0, 50), place(0, 20), true),
            claim(place(50, 80), place(20, 60), false),
            claim(place(80, 100), place(60, 100), false),
        ];
        assert_eq!(settle(&chain), [place(0, 50), place(50, 80), place(80, 100)]);
        let newcomer = [claim(place(0, 100), place(0, 50), true), claim(None, place(50, 100), true)];
        assert_eq!(settle(&newcomer), [place(0, 100), None], "there is nothing for it yet");
    }
}
