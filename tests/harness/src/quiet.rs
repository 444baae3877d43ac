//! Judging figures of real time on a machine that also serves others.
//!
//! A simulated device keeps real time on the processors that its programs run on, so whatever takes these
//! processors away shifts shares and latencies: other processes, or the host of a virtual machine. The kernel counts
//! both. [`holds`] looks at several windows: one that is right settles it, one that is wrong counts only if nobody
//! else had the processors meanwhile.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;

use crate::skipped;

/// Wrong windows after which a figure is wrong, and disturbed ones after which it cannot be judged here.
const WINDOWS: usize = 4;
/// Part of all processors' time that others may have in a window that counts. Of a hundredth, a scheduler whose
/// turns last milliseconds can lose several whole turns in every second.
const DISTURBED: f64 = 0.01;

/// Looks at windows of real time until `look` finds one right. What it gives back of a wrong one is shown.
///
/// Says by name that `what` could not be judged, and returns, if this machine was busy with others in too many.
///
/// # Panics
/// When a few windows were wrong in which this machine was left alone.
#[track_caller]
pub fn holds<T: Debug>(what: &str, mut look: impl FnMut() -> Result<(), T>) {
    let (mut wrong, mut disturbed) = (Vec::new(), Vec::new());
    while wrong.len() < WINDOWS && disturbed.len() < WINDOWS {
        let before = Processors::now();
        let Err(found) = look() else { return };
        match before.taken_by_others() {
            part if part <= DISTURBED => wrong.push(found),
            part => disturbed.push((found, format!("{:.1} %", part * 100.0))),
        }
    }
    if wrong.len() == WINDOWS {
        panic!("{what}: {wrong:.1?} in {WINDOWS} windows that nobody disturbed; disturbed: {disturbed:.1?}");
    }
    skipped(
        what,
        &format!("others had the processors for a part of every window: {disturbed:.1?}; alone: {wrong:.1?}"),
    );
}

/// Processor time since this machine started, in the kernel's ticks.
#[derive(Debug, Clone, Copy)]
struct Processors {
    /// All there was.
    whole: u64,
    /// What the host of a virtual machine took.
    stolen: u64,
    /// What processes had.
    busy: u64,
    /// What this process and its descendants had of that.
    own: u64,
}

impl Processors {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (whole, stolen, busy) = ticks(&stat);
        Self { whole, stolen, busy, own: own_ticks() }
    }

    /// The part of all processors' time since then that neither this process nor its descendants had, nor nobody.
    fn taken_by_others(&self) -> f64 {
        self.until(&Self::now())
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks of one window")]
    fn until(&self, later: &Self) -> f64 {
        let whole = later.whole.saturating_sub(self.whole).max(1);
        let busy = later.busy.saturating_sub(self.busy);
        let foreign = busy.saturating_sub(later.own.saturating_sub(self.own));
        (later.stolen.saturating_sub(self.stolen) + foreign) as f64 / whole as f64
    }
}

/// All, stolen and busy ticks of `/proc/stat`, whose first line sums up the processors (`proc_stat(5)`).
fn ticks(stat: &str) -> (u64, u64, u64) {
    let sums: Vec<u64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).flat_map(str::parse).collect();
    let of = |columns: &[usize]| columns.iter().filter_map(|column| sums.get(*column)).sum();
    // user, nice, system, idle, iowait, irq, softirq, steal. Guests' time is in the first two already.
    (of(&[0, 1, 2, 3, 4, 5, 6, 7]), of(&[7]), of(&[0, 1, 2, 5, 6]))
}

/// Ticks of this process, of its descendants that live, and of those that ended.
fn own_ticks() -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: BTreeMap<u32, (u32, u64)> = processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, process(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect();
    let own = std::process::id();
    let descends = |mut pid: u32| {
        // A process whose parent ends meanwhile may seem to descend from itself.
        for _ in 0..all.len() {
            match all.get(&pid) {
                _ if pid == own => return true,
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(pid, _)| descends(**pid)).map(|(_, (_, ticks))| ticks).sum()
}

/// The parent and the ticks of a process, with those of its children that it has waited for (`proc_pid_stat(5)`).
fn process(stat: &str) -> Option<(u32, u64)> {
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().flat_map(|field| field.parse::<u64>()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_in_the_right_columns() {
        assert_eq!(ticks("cpu  1 2 4 8 16 32 64 128 256 512\ncpu0 9\n"), (255, 128, 103));
        assert_eq!(ticks(""), (0, 0, 0));
        let stat = "17 (a (b) c) S 5 17 17 0 -1 4194560 0 0 0 0 100 20 3 4 20 0 1 0";
        assert_eq!(process(stat), Some((5, 127)));
        assert_eq!(process("17 (cut"), None);
    }

    #[test]
    fn others_have_what_was_stolen_and_what_is_not_ours() {
        let before = Processors { whole: 1000, stolen: 10, busy: 500, own: 100 };
        let until = |stolen, busy, own| before.until(&Processors { whole: 1200, stolen, busy, own });
        assert!(until(10, 600, 200) == 0.0);
        assert!((until(20, 600, 200) - 0.05).abs() < 1e-9);
        assert!((until(10, 600, 180) - 0.1).abs() < 1e-9);
        // Descendants whose parent ended are lost from sight; that is no reason for less than nothing.
        assert!(until(10, 510, 90) <= 0.05 + 1e-9);
    }

    #[test]
    fn work_of_ones_own_disturbs_nobody() {
        let before = own_ticks();
        crate::eventually(
            "a tenth of a second's work is counted",
            std::time::Duration::from_secs(20),
            || {
                for _ in 0..1_000 {
                    std::hint::black_box(std::process::id());
                }
                (before + 10 <= own_ticks()).then_some(())
            },
        );
    }

    #[test]
    #[should_panic(expected = "the sum")]
    fn what_is_always_wrong_is_found_or_not_judged() {
        let mut looks = 0;
        holds("the sum", || {
            looks += 1;
            Err::<(), _>(looks)
        });
        panic!("the sum was not judged on a machine this busy, after {looks} windows");
    }

    #[test]
    fn one_right_window_settles_it() {
        let mut looks = 0;
        holds("the sum", || {
            looks += 1;
            if looks < 3 { Err(looks) } else { Ok(()) }
        });
        assert_eq!(looks, 3);
    }
}
