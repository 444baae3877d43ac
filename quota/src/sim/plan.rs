//! What a seed decides before the first microsecond: nodes, tenants, clocks, and which kinds of fault there are.
//!
//! Faults are switched off by kind, not only made rare (swarm testing): a run without partitions reaches states
//! that partitions would prevent.

use super::rng::Rng;
use crate::loan::borrower::Client;
use crate::loan::{Amount, Borrowing, DataClass, Device, District, Lending, Node, Owner, Place, Tenant};
use crate::tenant::{Class, Mode};
use crate::units::{Bytes, Micros, Share};

/// Bytes of every simulated device.
pub const DEVICE_MEMORY: Bytes = Bytes(16 << 30);

/// What every simulated device has.
pub const CAPACITY: Amount = Amount { sm: Share::WHOLE, memory: DEVICE_MEMORY };

/// Which kinds of fault a run has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Faults {
    /// Messages lost, in a thousand.
    pub loss: u64,
    /// Messages doubled, in a thousand.
    pub double: u64,
    /// Messages that take seconds, in a thousand.
    pub slow: u64,
    /// Links that are cut for a while.
    pub partitions: bool,
    /// Daemons that die, between any two of their steps.
    pub crashes: bool,
    /// Machines that restart, and lose what gates and clocks knew.
    pub reboots: bool,
    /// Daemons that are started while the one before still runs.
    pub overlaps: bool,
    /// Daemons that stand still, between any two of their steps.
    pub pauses: bool,
    /// Times without store.
    pub outages: bool,
    /// Reads that lag behind.
    pub lag: bool,
    /// Clocks that run at different rates, up to a ratio of 1.5.
    pub skew: bool,
    /// Guests that do not stop when told.
    pub stubborn: bool,
    /// Operators who change quotas.
    pub reconfigure: bool,
    /// Incidents.
    pub incidents: bool,
    /// Messages that come again, long after.
    pub replays: bool,
    /// Peers that ask for what is not theirs, or must not leave its district.
    pub rude: bool,
}

/// A node before it starts.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Its device, and whose it is.
    pub place: Place,
    /// Its clock's rate in millionths of the true one.
    pub rate_ppm: u64,
    /// What its clock shows when the run begins.
    pub clock_offset: u64,
    /// Its tenants.
    pub owners: Vec<Owner>,
    /// The same tenants as borrowers.
    pub clients: Vec<Client>,
    /// How restless its tenants are: the length of their phases in thousandths of the usual.
    pub pace_permille: u64,
}

/// A run before it starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All nodes.
    pub nodes: Vec<NodePlan>,
    /// Kinds of fault.
    pub faults: Faults,
    /// How everyone lends.
    pub lending: Lending,
    /// How everyone borrows.
    pub borrowing: Borrowing,
    /// How long the run is, in true time.
    pub horizon: Micros,
}

impl Plan {
    /// What a seed decides.
    #[must_use]
    pub fn new(rng: &mut Rng) -> Self {
        let faults = faults(rng);
        let count = rng.between(3, 8);
        let shared = rng.permille(400);
        let with_memory = rng.permille(500);
        let nodes = (0..count)
            .map(|index| {
                // Two nodes a district in some runs, so that raw data has somewhere to go.
                let district = if shared { index / 2 } else { index };
                node(rng, index, district, faults.skew, with_memory)
            })
            .collect();
        let horizon = Micros::from_secs(rng.between(60, 180));
        Self { nodes, faults, lending: Lending::default(), borrowing: Borrowing::default(), horizon }
    }
}

fn faults(rng: &mut Rng) -> Faults {
    let mut some = |most: u64| if rng.permille(500) { rng.between(1, most) } else { 0 };
    let (loss, double, slow) = (some(300), some(300), some(200));
    let mut on = || rng.permille(500);
    Faults {
        loss,
        double,
        slow,
        partitions: on(),
        crashes: on(),
        reboots: on(),
        overlaps: on(),
        pauses: on(),
        outages: on(),
        lag: on(),
        skew: on(),
        stubborn: on(),
        reconfigure: on(),
        incidents: on(),
        replays: on(),
        rude: on(),
    }
}

/// Rates whose greatest ratio is 1.5.
const SLOWEST_PPM: u64 = 816_500;
const FASTEST_PPM: u64 = 1_224_700;
const _: () = assert!(FASTEST_PPM * 1_000 <= SLOWEST_PPM * 1_500);

fn node(rng: &mut Rng, index: u64, district: u64, skew: bool, with_memory: bool) -> NodePlan {
    let rate_ppm = match rng.below(4) {
        _ if !skew => rng.between(999_900, 1_000_100),
        0 => SLOWEST_PPM,
        1 => FASTEST_PPM,
        _ => rng.between(SLOWEST_PPM, FASTEST_PPM),
    };
    let place = Place {
        district: name(District::new, format!("d{district}")),
        node: name(Node::new, format!("n{index}")),
        device: name(Device::new, format!("GPU-{index}")),
    };
    let tenants = rng.between(1, 3);
    let mut left = CAPACITY;
    let (mut owners, mut clients) = (Vec::new(), Vec::new());
    for number in 0..tenants {
        let part = Share(rng.between(20, 100 / tenants) * 10_000).min(left.sm);
        let memory = Bytes((16 << 30) / 100 * (part.0 / 10_000)).min(left.memory);
        let nominal = Amount { sm: part, memory };
        left = left.saturating_sub(nominal);
        let lent_sm = Share(part.0 / 4 * rng.between(1, 4));
        let lent_memory = if with_memory { Bytes(memory.0 / 4 * rng.below(4)) } else { Bytes::ZERO };
        let tenant = name(Tenant::new, format!("t{index}{number}"));
        let class = [Class::Batch, Class::Standard, Class::Express][rng.index(3)];
        owners.push(Owner {
            tenant: tenant.clone(),
            class,
            nominal,
            lending_limit: Amount { sm: lent_sm, memory: lent_memory },
        });
        clients.push(Client {
            tenant,
            class,
            mode: if rng.permille(900) { Mode::Borrow } else { Mode::Hard },
            borrowing_limit: None,
            data: if rng.permille(150) { DataClass::Raw } else { DataClass::Derived },
        });
    }
    let clock_offset = rng.below(1 << 40);
    NodePlan { place, rate_ppm, clock_offset, owners, clients, pace_permille: rng.between(300, 2_000) }
}

/// The names made here are names.
fn name<T>(new: impl Fn(&str) -> Option<T>, text: String) -> T {
    match new(&text) {
        Some(name) => name,
        None => unreachable!("{text} is a name"),
    }
}
