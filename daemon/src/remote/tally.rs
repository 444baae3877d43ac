//! What is counted of sessions since the daemon began: for metrics, and for the status.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_exporter::remote as page;
use headgate_remote::meter::{Direction, Mark};
use headgate_remote::wire::Malformed;
use headgate_remote::wire::frame::{VERSION, refusal};

use super::carry::{End, Role};
use super::frames::FrameError;

/// Why there is no session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Reason {
    /// Whoever asks says nothing, or nothing that can be understood.
    Silent,
    /// It belongs to no tenant, or to one that borrows nothing.
    Tenant,
    /// No loan came, or the one that is claimed is none, is another's, or is being taken back.
    Loan,
    /// The data stays in its district.
    RawData,
    /// The budget for that district is not there.
    Budget,
    /// As many as may be are there.
    Full,
    /// The session it names is not there any more.
    Forgotten,
    /// The other node cannot be reached.
    Unreachable,
    /// There is no worker.
    Worker,
}

impl Reason {
    const ALL: [Self; 9] = [
        Self::Silent,
        Self::Tenant,
        Self::Loan,
        Self::RawData,
        Self::Budget,
        Self::Full,
        Self::Forgotten,
        Self::Unreachable,
        Self::Worker,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Tenant => "tenant",
            Self::Loan => "loan",
            Self::RawData => "raw_data",
            Self::Budget => "budget",
            Self::Full => "full",
            Self::Forgotten => "forgotten",
            Self::Unreachable => "unreachable",
            Self::Worker => "worker",
        }
    }
}

/// A refusal: its kind, the sentence for whoever asked, and the version of the wire that it is to be said in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) why: String,
    version: u8,
}

impl Refused {
    pub(super) fn new(reason: Reason, why: impl fmt::Display) -> Self {
        Self { reason, why: why.to_string(), version: VERSION }
    }

    /// What whoever asked is sent.
    pub(super) fn frame(&self) -> Vec<u8> {
        refusal(&self.why, self.version)
    }

    /// For errors of one kind.
    pub(super) fn of<E: fmt::Display>(reason: Reason) -> impl Fn(E) -> Self {
        move |error| Self::new(reason, error)
    }
}

/// What was said cannot be understood. Who speaks another version is told in that one.
impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        let version = if let Malformed::Version { theirs, .. } = malformed { theirs } else { VERSION };
        Self { version, ..Self::new(Reason::Silent, malformed) }
    }
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed(malformed) => malformed.into(),
            FrameError::Gone(error) => Self::new(Reason::Silent, error),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Bytes to and from one district in one role, by kind: those of [`Mark`], and of frames without a number.
#[derive(Debug, Default)]
pub(super) struct Flow {
    up: [AtomicU64; KINDS.len()],
    down: [AtomicU64; KINDS.len()],
}

const KINDS: [&str; 6] = ["to_device", "from_device", "arguments", "images", "control", "link"];

fn by_kind(mark: &Mark) -> [u64; KINDS.len()] {
    let counts = &mark.counts;
    [counts.to_device, counts.from_device, counts.arguments, counts.images, counts.control, mark.link]
}

impl Flow {
    /// Adds what a meter went on by. Neither mark is from before the other's connection.
    pub(super) fn add(&self, direction: Direction, before: &Mark, after: &Mark) {
        let all = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        for ((counter, before), after) in all.iter().zip(by_kind(before)).zip(by_kind(after)) {
            counter.fetch_add(after - before, Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    flows: BTreeMap<(&'static str, String), Arc<Flow>>,
    refused: BTreeMap<(&'static str, Reason), u64>,
    begun: BTreeMap<&'static str, u64>,
    ended: BTreeMap<(&'static str, &'static str), u64>,
    lost: BTreeMap<&'static str, u64>,
    resumed: BTreeMap<&'static str, u64>,
    aside: BTreeMap<&'static str, u64>,
    returned: BTreeMap<&'static str, u64>,
}

/// See the head of this module.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Each count is changed in one step, whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where bytes to and from a district are counted. Districts are as many as the configuration may name.
    pub(super) fn flow(&self, role: Role, district: &str) -> Arc<Flow> {
        Arc::clone(self.lock().flows.entry((role.word(), district.to_owned())).or_default())
    }

    pub(super) fn refused(&self, role: Role, reason: Reason) {
        *self.lock().refused.entry((role.word(), reason)).or_default() += 1;
    }

    pub(super) fn begun(&self, role: Role) {
        *self.lock().begun.entry(role.word()).or_default() += 1;
    }

    pub(super) fn ended(&self, role: Role, end: &End) {
        *self.lock().ended.entry((role.word(), end.word())).or_default() += 1;
    }

    pub(super) fn lost(&self, role: Role) {
        *self.lock().lost.entry(role.word()).or_default() += 1;
    }

    pub(super) fn resumed(&self, role: Role) {
        *self.lock().resumed.entry(role.word()).or_default() += 1;
    }

    pub(super) fn aside(&self, role: Role) {
        *self.lock().aside.entry(role.word()).or_default() += 1;
    }

    pub(super) fn returned(&self, role: Role) {
        *self.lock().returned.entry(role.word()).or_default() += 1;
    }

    /// The page's part; `sessions` are those that are there, by role, tenant and the other district.
    pub(super) fn page(&self, sessions: BTreeMap<(&'static str, String, String), u64>) -> page::Remote {
        let counts = self.lock();
        let roles = [Role::Borrower.word(), Role::Lender.word()];
        let each = |of: &BTreeMap<&'static str, u64>| {
            roles.map(|role| (role, of.get(role).copied().unwrap_or(0))).to_vec()
        };
        let mut bytes = Vec::new();
        for ((role, district), flow) in &counts.flows {
            for (direction, all) in [(Direction::Up, &flow.up), (Direction::Down, &flow.down)] {
                for (kind, counter) in KINDS.iter().zip(all) {
                    bytes.push((*role, district.clone(), direction.word(), *kind, counter.load(Relaxed)));
                }
            }
        }
        let pairs = |words: Vec<&'static str>| {
            roles.into_iter().flat_map(move |role| words.clone().into_iter().map(move |word| (role, word)))
        };
        let refused = roles.into_iter().flat_map(|role| Reason::ALL.map(|reason| (role, reason)));
        page::Remote {
            sessions: sessions.into_iter().map(|((role, tenant, peer), n)| (role, tenant, peer, n)).collect(),
            bytes,
            begun: each(&counts.begun),
            lost: each(&counts.lost),
            resumed: each(&counts.resumed),
            aside: each(&counts.aside),
            returned: each(&counts.returned),
            refused: refused
                .map(|(role, reason)| {
                    (role, reason.word(), counts.refused.get(&(role, reason)).copied().unwrap_or(0))
                })
                .collect(),
            ended: pairs(End::WORDS.to_vec())
                .map(|(role, word)| (role, word, counts.ended.get(&(role, word)).copied().unwrap_or(0)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use headgate_remote::meter::Counts as Bytes;

    use super::*;

    #[test]
    fn who_speaks_another_version_is_refused_in_that_one() {
        let version_of = |refused: &Refused| refused.frame()[4];
        let theirs = VERSION - 1;
        let refused = Refused::from(Malformed::Version { theirs, ours: VERSION });
        assert_eq!(version_of(&refused), theirs);
        assert!(refused.why.contains(&format!("version {theirs} ")), "{refused}");
        assert!(refused.why.contains(&format!("version {VERSION} ")), "{refused}");
        assert_eq!(version_of(&Malformed::Short.into()), VERSION);
    }

    #[test]
    fn what_passes_is_added_up_by_role_district_direction_and_kind() {
        let tally = Tally::default();
        let flow = tally.flow(Role::Lender, "south");
        let zero = Mark::default();
        let counts = Bytes { to_device: 7, control: 3, ..Bytes::default() };
        let first = Mark { frames: 1, counts, link: 40 };
        flow.add(Direction::Up, &zero, &first);
        let counts = Bytes { to_device: 9, ..counts };
        tally.flow(Role::Lender, "south").add(Direction::Up, &first, &Mark { frames: 2, counts, link: 40 });
        let page = tally.page(BTreeMap::new());
        let found = |direction, kind| {
            let row = page.bytes.iter().find(|row| (row.2, row.3) == (direction, kind));
            row.map(|row| (row.0, row.1.as_str(), row.4))
        };
        assert_eq!(found("up", "to_device"), Some(("lender", "south", 9)));
        assert_eq!(found("up", "control"), Some(("lender", "south", 3)));
        assert_eq!(found("up", "link"), Some(("lender", "south", 40)));
        assert_eq!(found("down", "to_device"), Some(("lender", "south", 0)));
    }

    #[test]
    fn every_reason_is_on_the_page_from_the_beginning() {
        let tally = Tally::default();
        let before = tally.page(BTreeMap::new());
        assert_eq!(before.refused.len(), 2 * Reason::ALL.len());
        assert!(before.refused.iter().all(|(.., count)| *count == 0));
        tally.refused(Role::Borrower, Reason::RawData);
        let after = tally.page(BTreeMap::new());
        assert!(after.refused.contains(&("borrower", "raw_data", 1)));
        assert_eq!(after.refused.len(), before.refused.len());
    }
}
