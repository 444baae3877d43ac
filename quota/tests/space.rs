//! Laws of sharing by space, over shares and histories that nobody thought of.

use headgate_quota::Ppm;
use headgate_quota::space::{Held, Move, Shape, Unplaceable, moves, place};
use proptest::prelude::*;

fn shapes() -> impl Strategy<Value = Shape> {
    (prop_oneof![Just(2_u32), Just(4), Just(8)], 2_u32..=160).prop_map(|(chunk_sms, sms)| {
        let sms = sms.max(chunk_sms);
        Shape { sms, chunk_sms, chunks: sms / chunk_sms }
    })
}

/// Shares that add up to a device at most.
fn shares() -> impl Strategy<Value = Vec<Ppm>> {
    prop::collection::vec(1_u32..=1_000_000, 1..12).prop_map(|weights| {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>().max(1_000_000);
        let of = |weight: u32| u32::try_from(u64::from(weight) * 1_000_000 / sum).unwrap_or(0);
        weights.into_iter().filter_map(|weight| Ppm::new(of(weight).max(1))).collect()
    })
}

proptest! {
    #[test]
    fn a_division_fits_gives_everybody_something_and_is_fair(shape in shapes(), shares in shares()) {
        let placed = match place(shape, &shares) {
            Ok(placed) => placed,
            Err(Unplaceable::TooMany { .. }) => {
                prop_assert!((shape.chunks as usize) < shares.len());
                return Ok(());
            }
            // Rounding the shares up to a millionth each may have gone beyond the device.
            Err(Unplaceable::TooMuch) => return Ok(()),
        };
        prop_assert!(placed.iter().all(|&chunks| 1 <= chunks));
        prop_assert!(placed.iter().sum::<u32>() <= shape.chunks, "{placed:?}");
        for (share, chunks) in shares.iter().zip(&placed) {
            for (other, fewer) in shares.iter().zip(&placed) {
                prop_assert!(share < other || fewer <= chunks || share == other && *fewer == chunks + 1);
            }
        }
        // Nobody owns less than a chunk: then nobody is a whole chunk off.
        let exact = |share: Ppm| u64::from(share.get()) * u64::from(shape.sms);
        let chunk = 1_000_000 * u64::from(shape.chunk_sms);
        let (sum, room) = (shares.iter().map(|share| exact(*share)).sum::<u64>(), u64::from(shape.chunks) * chunk);
        if shares.iter().all(|share| chunk <= exact(*share)) && sum <= room {
            for (share, chunks) in shares.iter().zip(&placed) {
                prop_assert!(exact(*share).abs_diff(u64::from(*chunks) * chunk) < chunk);
            }
        }
    }

    #[test]
    fn a_history_of_divisions_never_gives_a_chunk_twice_and_arrives(
        shape in shapes(),
        plans in prop::collection::vec((shares(), prop::collection::vec(any::<bool>(), 12)), 1..6),
    ) {
        let mut held: Vec<Option<u32>> = vec![None; 12];
        let mut wanted = vec![0; 12];
        let round = |held: &mut Vec<Option<u32>>, wanted: &[u32], busy: &[bool]| {
            let holders: Vec<(Option<Held>, u32)> = held
                .iter()
                .zip(busy)
                .zip(wanted)
                .map(|((held, &in_use), &wanted)| (held.map(|chunks| Held { chunks, in_use }), wanted))
                .collect();
            let moves = moves(shape.chunks, &holders);
            for ((place, busy), to_do) in held.iter_mut().zip(busy).zip(&moves) {
                match to_do {
                    Move::Remove => *place = None,
                    Move::Replace(chunks) | Move::Add(chunks) => {
                        assert!(place.is_none() || !busy, "what is in use stays");
                        *place = Some(*chunks);
                    }
                    Move::Keep | Move::WaitForItself(_) | Move::WaitForOthers(_) => {}
                }
            }
            assert!(held.iter().flatten().sum::<u32>() <= shape.chunks, "{held:?}");
        };
        for (shares, busy) in plans {
            let Ok(placed) = place(shape, &shares) else { continue };
            wanted = placed;
            wanted.resize(12, 0);
            let before = held.clone();
            round(&mut held, &wanted, &busy);
            for (((before, now), busy), wanted) in before.iter().zip(&held).zip(&busy).zip(&wanted) {
                prop_assert!(!busy || before.is_none() || before == now);
                prop_assert!(before.is_none() || now.is_some() || *wanted == 0, "nobody is left without");
            }
        }
        // Everything ends: a round to make room, and one to fill it for each who waits.
        for _ in 0..=held.len() {
            round(&mut held, &wanted, &[false; 12]);
        }
        let now: Vec<u32> = held.iter().map(|held| held.unwrap_or(0)).collect();
        prop_assert_eq!(now, wanted);
    }
}
