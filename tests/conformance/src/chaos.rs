//! Random operations on a driver that fails: any call on the way to an allocation, and the call that gives it back.
//!
//! Whoever runs this orders the failures: before each operation a line says which call may fail, and nothing happens
//! until a line comes back. A failed operation must return the driver's own code and leave nothing behind.

use std::io::BufRead;

use crate::churn::Random;
use crate::family::{Family, Taken, supported};
use crate::gpu::{Code, Gpu, OUT_OF_MEMORY, UNIT};

/// The status of every ordered failure: one that no call here has of its own.
pub const ORDERED: Code = 719;
/// Most allocations held at once.
const HELD_MAX: usize = 32;
/// Most units one operation takes.
const UNITS_MAX: u64 = 5;

/// Calls on the way to an allocation of a family, the last one included.
fn calls(family: &Family) -> &'static [&'static str] {
    match family.name {
        "pool" => &["cuMemPoolCreate", "cuMemAllocFromPoolAsync"],
        "mapped and released" => &["cuMemCreate", "cuMemAddressReserve", "cuMemMap"],
        "bound and released" => &["cuMemCreate", "cuMulticastCreate", "cuMulticastBindMem"],
        "graph" => {
            &["cuGraphCreate", "cuGraphAddMemAllocNode", "cuGraphInstantiateWithFlags", "cuGraphLaunch"]
        }
        "captured" => &["cuStreamCreate", "cuMemAllocAsync", "cuGraphInstantiateWithFlags", "cuGraphLaunch"],
        _ => &[],
    }
}

/// Takes and gives at random, with failures. The program must be alone in its tenant.
///
/// # Errors
/// What went otherwise than the model says.
#[expect(clippy::print_stdout, reason = "says which call may fail")]
pub fn chaos(gpu: &Gpu, operations: u64, seed: u64, orders: &mut impl BufRead) -> Result<(), String> {
    let mut random = Random::new(seed);
    let (families, _) = supported(gpu)?;
    let room = free(gpu)?;
    let mut held: Vec<(usize, u64, Taken)> = Vec::new();
    let mut used = 0;
    let pick = |random: &mut Random, count: usize| usize::try_from(random.below(count as u64)).unwrap_or(0);
    for operation in 0..operations {
        let takes = held.len() < HELD_MAX && (held.is_empty() || random.below(2) == 0);
        let (family, given) = if takes {
            (pick(&mut random, families.len()), None)
        } else {
            let index = pick(&mut random, held.len());
            (held[index].0, Some(index))
        };
        let known = families[family];
        let units = 1 + random.below(UNITS_MAX);
        let fits = used + units * UNIT <= room;
        let on_the_way = calls(known);
        let call = match given {
            // Refused before it comes to the call that was to fail.
            None if !fits => None,
            None if on_the_way.is_empty() => Some(known.call),
            None => Some(on_the_way[pick(&mut random, on_the_way.len())]),
            Some(_) => known.end,
        };
        println!("{}", call.unwrap_or("-"));
        let mut order = String::new();
        orders.read_line(&mut order).map_err(|error| error.to_string())?;
        let fails = order.trim() == "fails";
        let say = |what: &str| format!("seed {seed}, operation {operation}, {}: {what}", known.name);
        match given {
            None => match (known.take)(gpu, units) {
                Ok(_) if fails => return Err(say("succeeded although a call failed")),
                Ok(_) if !fits => return Err(say("was given what does not fit")),
                Ok(give) => {
                    used += units * UNIT;
                    held.push((family, units, give));
                }
                Err(ORDERED) if fails => {}
                Err(OUT_OF_MEMORY) if !fits => {}
                Err(code) => return Err(say(&format!("error {code}"))),
            },
            Some(index) => {
                let outcome = (held[index].2)(gpu);
                match outcome {
                    Err(ORDERED) if fails => {}
                    Ok(()) if !fails => used -= held.swap_remove(index).1 * UNIT,
                    other => return Err(say(&format!("giving back: {other:?}"))),
                }
            }
        }
        let now = free(gpu)?;
        if now != room - used {
            return Err(say(&format!("{now} bytes free instead of {}", room - used)));
        }
    }
    for (.., give) in held {
        give(gpu).map_err(|code| format!("giving back at the end: {code}"))?;
    }
    if free(gpu)? == room { Ok(()) } else { Err("something is left behind".into()) }
}

fn free(gpu: &Gpu) -> Result<u64, String> {
    gpu.memory().map(|(free, _)| free).map_err(|code| format!("cuMemGetInfo: {code}"))
}
