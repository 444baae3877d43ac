//! Sharing by space: how many of a device's SMs each tenant gets, and how one division becomes another.
//!
//! A device is divided in chunks, the smallest number of SMs that the driver hands out. What is left over when the SMs are
//! not a multiple of a chunk belongs to nobody.
//!
//! ```text
//! shares (of the SMs) --place--> chunks each --moves--> keep, replace, add, wait     (against what is held now)
//! ```
//!
//! **Rounding.** A share is rounded to chunks by largest remainders: everybody gets its whole chunks, one at least, and the
//! chunks that remain of the rounded sum go to those with the greatest parts of a chunk left. So nobody is a whole chunk
//! away from its share, unless someone who owns less than a chunk takes one from it, and equal shares never differ by more
//! than one chunk.
//!
//! **Change.** A program keeps the SMs it started with. So a division changes one tenant at a time, whenever nobody is at
//! work in what has to go; until then the old one stands. Nothing is taken away before what replaces it is sure to fit.

use core::fmt;

use crate::units::Ppm;

/// What a device can be divided into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// SMs of the device.
    pub sms: u32,
    /// SMs of a chunk.
    pub chunk_sms: u32,
    /// Chunks there are to hand out.
    pub chunks: u32,
}

impl Shape {
    /// The part of the device that so many chunks are.
    #[must_use]
    pub fn fraction(self, chunks: u32) -> Ppm {
        let sms = u64::from(chunks) * u64::from(self.chunk_sms);
        let ppm = (sms * WHOLE).checked_div(u64::from(self.sms)).unwrap_or(0);
        u32::try_from(ppm).ok().and_then(Ppm::new).unwrap_or(Ppm::WHOLE)
    }

    /// A share in parts of a chunk, of which [`Self::part`] make a chunk.
    fn parts(self, share: Ppm) -> u64 {
        u64::from(share.get()) * u64::from(self.sms)
    }

    fn part(self) -> u64 {
        WHOLE * u64::from(self.chunk_sms)
    }
}

const WHOLE: u64 = 1_000_000;

/// Why shares cannot be placed. The operator is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unplaceable {
    /// Not one chunk for each.
    TooMany {
        /// Who wants one.
        tenants: usize,
        /// Chunks there are.
        chunks: u32,
    },
    /// The shares add up to more than a device.
    TooMuch,
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { tenants, chunks } => write!(
                f,
                "{tenants} tenants want a part of a device of {chunks} chunks; let some share by time, or have fewer"
            ),
            Self::TooMuch => f.write_str(
                "the shares add up to more than the device, and SMs cannot be promised twice; lower one",
            ),
        }
    }
}

impl core::error::Error for Unplaceable {}

/// Chunks for each share, in their order.
///
/// # Errors
/// When they do not fit.
pub fn place(shape: Shape, shares: &[Ppm]) -> Result<Vec<u32>, Unplaceable> {
    let chunks = shape.chunks;
    let promised: u64 = shares.iter().map(|share| u64::from(share.get())).sum();
    if WHOLE < promised {
        return Err(Unplaceable::TooMuch);
    }
    if usize::try_from(chunks).is_ok_and(|chunks| chunks < shares.len()) {
        return Err(Unplaceable::TooMany { tenants: shares.len(), chunks });
    }
    let part = shape.part().max(1);
    let exact: Vec<u64> = shares.iter().map(|share| shape.parts(*share)).collect();
    let whole = |exact: u64| u32::try_from(exact / part).unwrap_or(u32::MAX);
    let mut placed: Vec<u32> = exact.iter().map(|&exact| whole(exact).max(1)).collect();
    let sum = |placed: &[u32]| placed.iter().sum::<u32>();
    while chunks < sum(&placed) {
        // Who owns most gives way to who owns less than a chunk.
        let greatest = (0..placed.len()).max_by_key(|&i| (placed[i], core::cmp::Reverse(exact[i])));
        match greatest {
            Some(greatest) => placed[greatest] -= 1,
            None => break,
        }
    }
    let rounded = (exact.iter().sum::<u64>() + part / 2) / part;
    let target = u32::try_from(rounded).unwrap_or(u32::MAX).min(chunks);
    let mut order: Vec<usize> = (0..placed.len()).collect();
    let left = |i: usize| exact[i].saturating_sub(u64::from(placed[i]) * part);
    order.sort_by_key(|&i| core::cmp::Reverse(left(i)));
    let missing = usize::try_from(target.saturating_sub(sum(&placed))).unwrap_or(usize::MAX);
    let fortunate: Vec<usize> = order.into_iter().filter(|&i| 0 < left(i)).take(missing).collect();
    for index in fortunate {
        placed[index] += 1;
    }
    Ok(placed)
}

/// A share as MPS takes it: whole percents, rounded down, one at least.
#[must_use]
pub fn percentage(share: Ppm) -> u32 {
    (share.get() / 10_000).max(1)
}

/// What someone has of a device now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Chunks.
    pub chunks: u32,
    /// Whether programs are at work there.
    pub in_use: bool,
}

/// What is to be done about one holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// Nothing.
    Keep,
    /// Take its part away, and give it none.
    Remove,
    /// Take its part away and give it one of so many chunks.
    Replace(u32),
    /// Give it a part of so many chunks.
    Add(u32),
    /// It is to have another part, or none, once its programs have ended.
    WaitForItself(u32),
    /// It is to have so many chunks, once others have given some back.
    WaitForOthers(u32),
}

/// How to come nearer to a division, in one round. `holders` says of each what it holds and how many chunks it is to have;
/// the answer is in their order. Moves may be made in any order in which those that take away come first.
#[must_use]
pub fn moves(chunks: u32, holders: &[(Option<Held>, u32)]) -> Vec<Move> {
    let held: u32 = holders.iter().filter_map(|(held, _)| held.map(|held| held.chunks)).sum();
    let mut free = chunks.saturating_sub(held);
    let mut moves = vec![Move::Keep; holders.len()];
    // Those who get less first: what they leave is what others get.
    for (place, &(held, wanted)) in moves.iter_mut().zip(holders) {
        match held {
            Some(held) if wanted < held.chunks && held.in_use => *place = Move::WaitForItself(wanted),
            Some(held) if wanted < held.chunks => {
                free += held.chunks - wanted;
                *place = if wanted == 0 { Move::Remove } else { Move::Replace(wanted) };
            }
            _ => {}
        }
    }
    for (place, &(held, wanted)) in moves.iter_mut().zip(holders) {
        let (had, in_use) = held.map_or((0, false), |held| (held.chunks, held.in_use));
        if wanted <= had {
            continue;
        }
        *place = if in_use {
            Move::WaitForItself(wanted)
        } else if free < wanted - had {
            Move::WaitForOthers(wanted)
        } else {
            free -= wanted - had;
            if had == 0 { Move::Add(wanted) } else { Move::Replace(wanted) }
        };
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Shape = Shape { sms: 132, chunk_sms: 8, chunks: 16 };

    fn shares(percents: &[u32]) -> Vec<Ppm> {
        percents.iter().filter_map(|&percent| Ppm::from_percent(percent)).collect()
    }

    #[test]
    fn sixteen_chunks_of_eight_are_divided_to_the_nearest() {
        for (percents, expected) in [
            (&[30, 70][..], &[5, 11][..]),
            (&[50, 50], &[8, 8]),
            (&[30], &[5]),
            (&[10, 90], &[1, 15]),
            (&[50, 30, 20], &[8, 5, 3]),
            (&[1, 99], &[1, 15]),
            (&[100], &[16]),
        ] {
            assert_eq!(place(HOPPER, &shares(percents)).as_deref(), Ok(expected), "{percents:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(place(HOPPER, &shares(&[70, 40])), Err(Unplaceable::TooMuch));
        let many = place(HOPPER, &shares(&[1; 17]));
        assert_eq!(many, Err(Unplaceable::TooMany { tenants: 17, chunks: 16 }));
        let unknown = Shape { sms: 0, chunk_sms: 0, chunks: 0 };
        assert_eq!(place(unknown, &shares(&[10])), Err(Unplaceable::TooMany { tenants: 1, chunks: 0 }));
    }

    #[test]
    fn a_part_in_use_stays_and_nothing_goes_before_its_successor_fits() {
        let held = |chunks, in_use| Some(Held { chunks, in_use });
        // 5 and 11 become 11 and 5.
        let busy = [(held(5, true), 11), (held(11, true), 5)];
        assert_eq!(moves(16, &busy), [Move::WaitForItself(11), Move::WaitForItself(5)]);
        let first_idle = [(held(5, false), 11), (held(11, true), 5)];
        assert_eq!(moves(16, &first_idle), [Move::WaitForOthers(11), Move::WaitForItself(5)]);
        let second_idle = [(held(5, true), 11), (held(11, false), 5)];
        assert_eq!(moves(16, &second_idle), [Move::WaitForItself(11), Move::Replace(5)]);
        let idle = [(held(5, false), 11), (held(11, false), 5)];
        assert_eq!(moves(16, &idle), [Move::Replace(11), Move::Replace(5)]);
        assert_eq!(moves(16, &[(None, 5), (held(11, false), 0)]), [Move::Add(5), Move::Remove]);
    }

    #[test]
    fn percents_are_whole_and_never_none() {
        assert_eq!(percentage(Ppm::ZERO), 1);
        assert_eq!(Ppm::new(309_999).map(percentage), Some(30));
        assert_eq!(percentage(Ppm::WHOLE), 100);
    }
}
