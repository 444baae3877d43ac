//! Random operations over all families, against a model that only adds and subtracts.

use crate::family::{Taken, supported};
use crate::gpu::{Gpu, OUT_OF_MEMORY, UNIT};

/// Most units one operation takes.
const UNITS_MAX: u64 = 9;
/// Most allocations held at once.
const HELD_MAX: usize = 64;

/// What a churn found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Operations made.
    pub operations: u64,
    /// Of these, refused at the quota.
    pub refused: u64,
    /// Most bytes by which the driver's view and the model ever differed.
    pub drift_bytes: u64,
}

/// A generator of numbers, the same for the same seed everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound.max(1)
    }
}

/// Takes and gives at random. The program must be alone in its tenant.
///
/// # Errors
/// What went otherwise than the model says.
pub fn churn(gpu: &Gpu, operations: u64, seed: u64) -> Result<Found, String> {
    let mut random = Random::new(seed);
    let mut found = Found::default();
    let mut held: Vec<(usize, u64, Taken)> = Vec::new();
    let (families, _) = supported(gpu)?;
    let room = free(gpu)?;
    let mut used = 0u64;
    for operation in 0..operations {
        let family = usize::try_from(random.below(families.len() as u64)).unwrap_or(0);
        let say =
            |what: &str| format!("seed {seed}, operation {operation}, {}: {what}", families[family].name);
        if held.len() < HELD_MAX && (held.is_empty() || random.below(2) == 0) {
            let units = 1 + random.below(UNITS_MAX);
            let fits = used + units * UNIT <= room;
            match (families[family].take)(gpu, units) {
                Ok(_) if !fits => return Err(say("was given what does not fit")),
                Ok(give) => {
                    used += units * UNIT;
                    held.push((family, units, give));
                }
                Err(OUT_OF_MEMORY) if !fits => found.refused += 1,
                Err(code) => {
                    return Err(say(&format!("refused {units} units with {code} of {}", room - used)));
                }
            }
        } else if !held.is_empty() {
            let index = usize::try_from(random.below(held.len() as u64)).unwrap_or(0);
            let (_, units, give) = held.swap_remove(index);
            give(gpu).map_err(|code| say(&format!("giving back: {code}")))?;
            used -= units * UNIT;
        }
        found.operations += 1;
        found.drift_bytes = found.drift_bytes.max(free(gpu)?.abs_diff(room - used));
        if found.drift_bytes != 0 {
            return Err(say(&format!("{} bytes free instead of {}", free(gpu)?, room - used)));
        }
    }
    for (.., give) in held {
        give(gpu).map_err(|code| format!("giving back at the end: {code}"))?;
    }
    found.drift_bytes = found.drift_bytes.max(free(gpu)?.abs_diff(room));
    Ok(found)
}

fn free(gpu: &Gpu) -> Result<u64, String> {
    gpu.memory().map(|(free, _)| free).map_err(|code| format!("cuMemGetInfo: {code}"))
}
