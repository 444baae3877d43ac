//! What the hook adds to a program's calls and to its start, on the host.
//!
//! The program is `headgate-stopwatch`, the driver `headgate-nulldriver`, whose calls return at once: a real
//! driver's microseconds would hide the nanoseconds looked for. Each round runs the program natively and then
//! under the hook (A B A B ..), and a figure is the median of the rounds' differences.
//!
//! The hook's daemon is a stand-in (`headgate-standin`): it answers hellos with real segments, keeps the gate open
//! and the heartbeat fresh, and does nothing else, so that the hook alone is measured. What the real daemon adds to
//! starts is therefore not in these figures (the bench `starts` has it); nor is what waiting at a closed gate costs, which is the quota, not
//! overhead.
//!
//! A run counts only if the functions came from where they should, the program saw the memory quota, and the
//! seats counted every launch: a hook that is fast because it is not there must not pass.

pub(super) mod node;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use self::node::Node;
use super::stopwatch::{self, Stopwatch, Way};
use super::{Figure, Settings, Subject};
use crate::workspace::{self, Profile};

/// Most the hook may add to a launch, in nanoseconds. The best rival measured adds 14.
const LAUNCH_NS_MAX: f64 = 15.0;
/// Most it may add to an allocation and its free. The best rival adds 506, and more the more is allocated.
const PAIR_NS_MAX: f64 = 120.0;
/// Most it may add until the last of [`STARTS_WITH_GOAL`] programs has started. The best rival adds 55.
const STARTS_MS_MAX: f64 = 50.0;
/// Number of starting programs that the goal is about.
const STARTS_WITH_GOAL: usize = 200;

/// Rounds and samples.
struct Effort {
    rounds: usize,
    batches: u32,
    starts: &'static [usize],
}

const FULL: Effort = Effort { rounds: 5, batches: 10_000, starts: &[1, 50, 200] };
const QUICK: Effort = Effort { rounds: 2, batches: 1_000, starts: &[1, 50, 200] };

/// Added nanoseconds by `(call, way, quantile)`, one sample a round; and the native ones.
#[derive(Default)]
struct Samples(BTreeMap<(String, &'static str, &'static str), Vec<f64>>);

impl Samples {
    fn push(&mut self, call: &str, way: Way, quantile: &'static str, sample: f64) {
        self.0.entry((call.to_owned(), way.word(), quantile)).or_default().push(sample);
    }
}

/// Runs the bench.
pub(super) fn measure(settings: &Settings) -> Result<Vec<Figure>> {
    let effort = if settings.quick { QUICK } else { FULL };
    let packages: Vec<&str> = stopwatch::PACKAGES.into_iter().chain(["headgate-standin"]).collect();
    let built = workspace::build(Profile::Release, &packages)?;
    let mut node = Node::start(built.path("headgate-standin")?)?;
    let program = Stopwatch::new(&built, &node.daemon())?;
    let subject =
        Subject { bench: "hook", device: "null driver".to_owned(), commit: settings.commit.clone() };
    let mut figures = calls(&subject, &effort, &program, &mut node)?;
    figures.extend(starts(&subject, &effort, &program, &mut node)?);
    Ok(figures)
}

fn calls(subject: &Subject, effort: &Effort, program: &Stopwatch, node: &mut Node) -> Result<Vec<Figure>> {
    let (mut native, mut added) = (Samples::default(), Samples::default());
    for _ in 0..effort.rounds {
        for way in Way::ALL {
            let without = program.calls(way, effort.batches, false)?;
            let with = program.calls(way, effort.batches, true)?;
            let made = with.launches(effort.batches);
            let counted = node.next_to_leave()?;
            ensure!(
                made <= counted.launches && 0 < counted.batches,
                "the program made {made} launches, its seat counted {counted:?}: were they metered?"
            );
            for (call, with) in &with.calls {
                let without = without.calls.get(call).with_context(|| format!("no native {call}"))?;
                native.push(call, way, "p50", without.p50_ns);
                added.push(call, way, "p50", with.p50_ns - without.p50_ns);
                added.push(call, way, "p99", with.p99_ns - without.p99_ns);
            }
        }
    }
    let mut figures = Vec::new();
    for (figure, samples) in [("native", native), ("added", added)] {
        for ((call, way, quantile), samples) in samples.0 {
            // The middle is what a call costs; the tail is printed beside it, as it was for the rivals.
            let goal = (figure == "added" && quantile == "p50").then(|| goal_of(&call)).flatten();
            figures.push(subject.lower(figure, format!("{call} {way} {quantile}"), "ns", goal, &samples)?);
        }
    }
    Ok(figures)
}

fn goal_of(call: &str) -> Option<f64> {
    if call.starts_with("cuLaunch") {
        Some(LAUNCH_NS_MAX)
    } else if call.starts_with("pair") {
        Some(PAIR_NS_MAX)
    } else {
        None
    }
}

fn starts(subject: &Subject, effort: &Effort, program: &Stopwatch, node: &mut Node) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &count in effort.starts {
        let (mut native, mut added) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let without = program.starts(count, false)?;
            let with = program.starts(count, true)?;
            // Each of them had a seat.
            (0..count).try_for_each(|_| node.next_to_leave().map(drop))?;
            native.push(without);
            added.push(with - without);
        }
        let case = format!("start of {count}");
        let goal = (count == STARTS_WITH_GOAL).then_some(STARTS_MS_MAX);
        figures.push(subject.lower("native", case.clone(), "ms", None, &native)?);
        figures.push(subject.lower("added", case, "ms", goal, &added)?);
    }
    Ok(figures)
}
