//! What a tenant's processes say, in their seats, that they hold of a device which green contexts share.
//!
//! They can say what they like; whoever says less than it holds cheats about its charge, as it could about its completions. What
//! cannot be is taken for the whole device.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use headgate_abi::segment::SeatIndex;
use headgate_abi::space::Part;
use headgate_quota::{Ppm, Room};

use super::Groups;
use crate::segments::TenantSegments;

/// What is to change about processes that keep to no groups of SMs.
pub const OUTSIDE: &str =
    "programs that were there before the device was shared so hold all of it; start them again";

/// Why green contexts share nothing.
pub const LACKING: &str =
    "this driver has no green contexts, which need CUDA 12.4 (driver 550); use mpsPercentage, or temporal";

/// What a tenant's processes hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// SMs of their groups, where they keep to any.
    pub sms: Option<u32>,
    /// The part of the device that is; `None` while none of them has a context.
    pub fraction: Option<Ppm>,
    /// Whether one of them keeps to none.
    pub outside: bool,
    /// Whether the driver has no green contexts.
    pub lacking: bool,
}

impl Holding {
    /// Reads the seats of a tenant. Processes with the same groups hold them together.
    #[must_use]
    pub fn of(segments: &TenantSegments, seats: impl Iterator<Item = SeatIndex>, row: usize) -> Self {
        let mut holding = Self::default();
        let mut known: Vec<Part> = Vec::new();
        for seat in seats {
            let words = segments.ledger.seat(seat);
            match Part::of_word(words.parts[row].load(Acquire)) {
                Some(Part::Unavailable) => holding.lacking = true,
                Some(Part::Outside) => holding.outside = true,
                Some(Part::Nothing) => {}
                Some(part) if !known.contains(&part) => known.push(part),
                Some(_) => {}
                // It has been at work without a word about where.
                None => holding.outside |= words.counters[row].launches.load(Relaxed) != 0,
            }
        }
        for part in known {
            let Part::Groups { sms, .. } = part else { continue };
            holding.sms = Some(holding.sms.unwrap_or(0) + u32::from(sms));
            let sum = holding.fraction.unwrap_or(Ppm::ZERO).get().saturating_add(part.fraction().get());
            holding.fraction = Some(Ppm::new(sum).unwrap_or(Ppm::WHOLE));
        }
        if holding.outside || holding.lacking {
            (holding.sms, holding.fraction) = (None, Some(Ppm::WHOLE));
        }
        holding
    }

    /// The tenant's room on the device, where its share is `given`. What rounding gave is never taken back in time.
    #[must_use]
    pub fn room(self, given: Ppm, groups: Groups) -> Room {
        let held = self.fraction.unwrap_or(given);
        if groups.settled && !self.outside { Room { given: held, held } } else { Room { given, held } }
    }
}

#[cfg(test)]
mod tests {
    use headgate_abi::segment::layout::{GATE_GPU, UNLIMITED};
    use headgate_quota::Micros;
    use headgate_quota::groups::Place;

    use super::*;
    use crate::config::model::DeviceUuid;
    use crate::node::{RowLimits, TenantLimits};

    const OWN: Part = Part::Groups { first: 11, count: 5, sms: 40, of: 132 };
    const OTHER: Part = Part::Groups { first: 0, count: 2, sms: 16, of: 132 };

    /// What it comes to that processes say this, the last of which has launched something.
    fn of(parts: &[u64]) -> Holding {
        let mut rows = [None; headgate_abi::limits::DEVICES_MAX];
        rows[0] = Some(RowLimits {
            uuid: DeviceUuid([9; 16]),
            memory_bytes_max: UNLIMITED,
            gate_mode: GATE_GPU,
            sm: Ppm::WHOLE,
            environment: 0,
            place: 1,
        });
        let slot = crate::node::state::TenantSlot::for_test(0);
        let segments =
            TenantSegments::create(1, Micros(1), &TenantLimits { slot, fail_policy: 0, rows }).unwrap();
        let take = |(pid, part): (u32, &u64)| {
            let seat = segments.ledger.take_seat(pid, 1).unwrap();
            segments.ledger.seat(seat).parts[0].store(*part, Relaxed);
            seat
        };
        let seats: Vec<SeatIndex> = (1..).zip(parts).map(take).collect();
        if let Some(seat) = seats.last() {
            segments.ledger.seat(*seat).counters[0].launches.store(1, Relaxed);
        }
        Holding::of(&segments, seats.into_iter(), 0)
    }

    #[test]
    fn processes_hold_the_same_groups_together_and_others_beside() {
        assert_eq!(of(&[]), Holding::default());
        let own = of(&[0, OWN.word(), Part::Nothing.word(), OWN.word()]);
        assert_eq!((own.sms, own.fraction), (Some(40), Some(OWN.fraction())));
        assert_eq!(of(&[OTHER.word(), OWN.word()]).sms, Some(56));
        let many: Vec<u64> =
            (0..20).map(|first| Part::Groups { first, count: 5, sms: 40, of: 132 }.word()).collect();
        assert_eq!(of(&many).fraction, Some(Ppm::WHOLE), "no more than there is");
    }

    #[test]
    fn who_keeps_to_none_holds_all_and_says_so() {
        for nowhere in [0, Part::Outside.word(), 7] {
            let holding = of(&[OWN.word(), nowhere]);
            assert!(holding.outside && holding.sms.is_none(), "{nowhere}: {holding:?}");
            assert_eq!(holding.fraction, Some(Ppm::WHOLE));
        }
        let lacking = of(&[Part::Unavailable.word()]);
        assert!(lacking.lacking && !lacking.outside);
        assert_eq!(of(&[Part::Nothing.word()]), Holding::default(), "it has ended its context");
    }

    #[test]
    fn what_rounding_gave_is_not_taken_back_and_what_is_too_much_is() {
        let given = Ppm::from_percent(30).unwrap();
        let place = Place::new(Ppm::from_percent(70).unwrap(), Ppm::WHOLE);
        let own = of(&[OWN.word()]);
        let settled = own.room(given, Groups { place, settled: true });
        assert_eq!((settled.given, settled.held), (OWN.fraction(), OWN.fraction()));
        let changing = own.room(Ppm::from_percent(10).unwrap(), Groups { place, settled: false });
        assert_eq!((changing.given.get(), changing.held), (100_000, OWN.fraction()));
        let outside = of(&[0]).room(given, Groups { place, settled: true });
        assert_eq!((outside.given, outside.held), (given, Ppm::WHOLE));
        assert_eq!(of(&[]).room(given, Groups { place, settled: true }).held, given, "nobody is there yet");
    }
}
