//! Random operations over all families, against a model that only adds and subtracts.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Barrier, Mutex, PoisonError};

use crate::family::{Family, Taken, supported};
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

/// Families whose memory a naive model of several threads cannot follow: what the default pool keeps depends on who frees
/// when, and a capture in global mode forbids other threads to allocate at all.
const OF_ONE_THREAD: [&str; 2] = ["async", "captured"];

/// Takes and gives at random in several threads at once. At every tenth of the way all of them stop, and what is free must
/// be what they do not hold. The program must be alone in its tenant.
///
/// # Errors
/// What went otherwise than the model says.
pub fn crowd(gpu: &Gpu, threads: u64, operations: u64, seed: u64) -> Result<Found, String> {
    const STOPS: u64 = 10;
    let families: Vec<_> = supported(gpu)?.0;
    let families: Vec<_> =
        families.into_iter().filter(|family| !OF_ONE_THREAD.contains(&family.name)).collect();
    let room = free(gpu)?;
    let used = AtomicU64::new(0);
    let found = Mutex::new(Found::default());
    let all = Barrier::new(usize::try_from(threads).map_err(|error| error.to_string())?);
    let work = |thread: u64| -> Result<(), String> {
        let gpu = Gpu::start().map_err(|code| format!("CUDA does not start: {code}"));
        let gpu = || gpu.as_ref().map_err(Clone::clone);
        let mut random = Random::new(seed.wrapping_mul(threads) + thread);
        let mut held: Vec<(u64, Taken)> = Vec::new();
        // Whoever has failed waits with the others all the same, or they would wait for good.
        let mut outcome = Ok(());
        for _ in 0..STOPS {
            for _ in 0..operations / STOPS {
                outcome =
                    outcome.and_then(|()| step(gpu()?, &families, &mut random, &mut held, &used, &found));
            }
            if all.wait().is_leader() {
                outcome = outcome.and_then(|()| {
                    let drift = free(gpu()?)?.abs_diff(room - used.load(SeqCst));
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.drift_bytes = found.drift_bytes.max(drift);
                    Ok(())
                });
            }
            all.wait();
        }
        outcome?;
        let gpu = gpu()?;
        held.into_iter().try_for_each(|(_, give)| give(gpu)).map_err(|code| format!("giving back: {code}"))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.drift_bytes = found.drift_bytes.max(free(gpu)?.abs_diff(room));
    Ok(found)
}

/// One operation of one thread.
fn step(
    gpu: &Gpu,
    families: &[&Family],
    random: &mut Random,
    held: &mut Vec<(u64, Taken)>,
    used: &AtomicU64,
    found: &Mutex<Found>,
) -> Result<(), String> {
    let family = families[usize::try_from(random.below(families.len() as u64)).unwrap_or(0)];
    let mut refused = 0;
    if held.len() < HELD_MAX && (held.is_empty() || random.below(2) == 0) {
        let units = 1 + random.below(UNITS_MAX);
        match (family.take)(gpu, units) {
            Ok(give) => {
                used.fetch_add(units * UNIT, SeqCst);
                held.push((units, give));
            }
            Err(OUT_OF_MEMORY) => refused = 1,
            Err(code) => return Err(format!("{}: {code}", family.name)),
        }
    } else {
        let index = usize::try_from(random.below(held.len() as u64)).unwrap_or(0);
        let (units, give) = held.swap_remove(index);
        give(gpu).map_err(|code| format!("giving back: {code}"))?;
        used.fetch_sub(units * UNIT, SeqCst);
    }
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    found.operations += 1;
    found.refused += refused;
    Ok(())
}

fn free(gpu: &Gpu) -> Result<u64, String> {
    gpu.memory().map(|(free, _)| free).map_err(|code| format!("cuMemGetInfo: {code}"))
}
