//! How long launches take on the device, learned from when their batches complete.

use headgate_abi::segment::layout::GATE_OPEN_BIT;

/// What launches of a lane cost on the device, learned from how its batches complete. It only shapes batches;
/// nothing is charged by it.
pub(super) struct Cost {
    /// Smoothed device time of one launch in nanoseconds, zero while unknown.
    launch_ns: u64,
    /// Launches of the last batches, by batch number.
    sizes: [u32; SIZES],
    /// When the mark was set, which batch was the last complete one then, and what the gate word was.
    mark_us: u64,
    mark_number: u32,
    mark_gate: u32,
    last_size: u32,
}

/// Batches whose sizes are remembered. A program that runs further ahead than that is measured less often.
const SIZES: usize = 256;

impl Default for Cost {
    fn default() -> Self {
        Self { launch_ns: 0, sizes: [0; SIZES], mark_us: 0, mark_number: 0, mark_gate: 0, last_size: 1 }
    }
}

impl Cost {
    /// Batch `number` of `launched` launches has been closed at `now_us`; `completed` is the last one done, and `gate` the
    /// word of the gate it is behind.
    pub(super) fn learn(&mut self, now_us: u64, gate: u32, number: u32, completed: u32, launched: u32) {
        self.remember(number, launched);
        let done = completed.wrapping_sub(self.mark_number);
        // Behind a gate that was closed in between the device had time to catch up with anything.
        let stayed_open = gate == self.mark_gate && gate & GATE_OPEN_BIT != 0;
        if number.wrapping_sub(completed) <= 1 {
            if 0 < done && stayed_open {
                // The device has caught up: it is at least as fast as thought, and idled for some of the time.
                self.launch_ns -= self.launch_ns / 8;
                self.last_size = self.last_size.saturating_mul(2);
            }
        } else if done == 0 {
            return;
        } else if (done as usize) < SIZES && stayed_open {
            // Busy all the time since the mark, behind a gate that stayed open: the time was these batches'.
            let launches: u32 =
                (1..=done).map(|i| self.sizes[self.mark_number.wrapping_add(i) as usize % SIZES]).sum();
            let elapsed_ns = now_us.saturating_sub(self.mark_us).saturating_mul(1_000);
            let one = (elapsed_ns / u64::from(launches.max(1))).max(1);
            self.launch_ns = if self.launch_ns == 0 { one } else { (self.launch_ns * 3 + one) / 4 };
        }
        self.mark_us = now_us;
        self.mark_number = completed;
        self.mark_gate = gate;
    }

    /// Batch `number` of `launched` launches has been closed.
    pub(super) fn remember(&mut self, number: u32, launched: u32) {
        self.sizes[number as usize % SIZES] = launched;
        self.last_size = launched;
    }

    /// For a gate on the host, where a lane never gets far ahead: the device has nothing of it as the batch after `submitted`
    /// begins.
    pub(super) fn begin(&mut self, now_us: u64, submitted: u32) {
        self.mark_us = now_us;
        self.mark_number = submitted;
    }

    /// For a gate on the host: `completed` is the last batch done, and so many are under way. The device has been at what
    /// completed since the one before did, or since [`Self::begin`].
    pub(super) fn look(&mut self, now_us: u64, completed: u32, under_way: u32) {
        if self.mark_us == 0 {
            // The first look. What its lane in the seat had done before was another's.
            return self.begin(now_us, completed);
        }
        let done = completed.wrapping_sub(self.mark_number);
        if done == 0 {
            return;
        }
        let span = now_us.saturating_sub(self.mark_us);
        if (done as usize) < SIZES {
            let launches: u32 =
                (1..=done).map(|i| self.sizes[self.mark_number.wrapping_add(i) as usize % SIZES]).sum();
            let one = (span.saturating_mul(1_000) / u64::from(launches.max(1))).max(1);
            self.launch_ns = match self.launch_ns {
                0 => one,
                // Done some time ago, who knows when: nothing says that they took so long, but no longer.
                known if under_way == 0 => known.min((known + one) / 2),
                // However late the looks are, what one of them adds the next one lacks.
                known => (known * 3 + one) / 4,
            };
        }
        self.mark_us = now_us;
        self.mark_number = completed;
    }

    /// Device time of a launch in microseconds, zero while unknown.
    pub(super) fn launch_us(&self) -> u64 {
        self.launch_ns / 1_000
    }

    /// Device time of a batch as long as the last one, in microseconds, zero while unknown.
    pub(super) fn batch_us(&self) -> u64 {
        self.launch_ns.saturating_mul(u64::from(self.last_size)) / 1_000
    }

    /// Launches for the next batch.
    pub(super) fn batch(&self, batch_us: u64, most: u32) -> u32 {
        let launches = match (batch_us * 1_000).checked_div(self.launch_ns) {
            // Nothing is known yet: start with one, and double while the device keeps up.
            None => self.last_size,
            Some(launches) => u32::try_from(launches).unwrap_or(most),
        };
        launches.clamp(1, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Launches in each of so many batches of a program that runs ahead, on a device that takes `launch_us` for each.
    fn batches(launch_us: u64, count: u32) -> Vec<u32> {
        const BATCH_US: u64 = 250;
        const HOST_US: u64 = 1;
        let (mut cost, mut now_us, mut ends) = (Cost::default(), 0, Vec::<u64>::new());
        let sizes = (1..=count).map(|number| {
            let size = cost.batch(BATCH_US, 64);
            now_us += u64::from(size) * HOST_US;
            let free = ends.last().copied().unwrap_or(0).max(now_us);
            ends.push(free + u64::from(size) * launch_us);
            let completed = ends.iter().filter(|end| **end <= now_us).count();
            cost.learn(now_us, GATE_OPEN_BIT, number, u32::try_from(completed).unwrap_or(number), size);
            size
        });
        sizes.collect()
    }

    #[test]
    fn nothing_known_of_a_kernel_means_one_in_a_batch() {
        // Nothing has completed when the first batch is closed, which says nothing of how long it takes.
        assert_eq!(batches(50_000, 100), [1; 100]);
    }

    /// The same with the gate on the host: a program that stays two batches ahead and waits so long between two looks. Its gate
    /// closes behind the last batch of each `window` until all is done, and it is held up for two milliseconds behind every fortieth.
    fn batches_behind_the_host(launch_us: u64, looks_us: [u64; 4], window: u32, count: u32) -> Vec<u32> {
        let (mut cost, mut now_us, mut ends) = (Cost::default(), 0, Vec::<u64>::new());
        let sizes = (1..=count).map(|number| {
            let drained = ends.last().map_or(0, |end| now_us.max(end + 30));
            now_us = if number % window == 0 { drained } else { now_us };
            now_us += if number % 40 == 0 { 2_000 } else { 0 };
            loop {
                let under_way = u32::try_from(ends.iter().filter(|end| now_us < **end).count()).unwrap_or(0);
                cost.look(now_us, number - 1 - under_way, under_way);
                match under_way {
                    0 => break cost.begin(now_us, number - 1),
                    1 => break,
                    _ => now_us += looks_us[(number % 4) as usize],
                }
            }
            let size = cost.batch(250, 64);
            now_us += u64::from(size);
            let free = ends.last().copied().unwrap_or(0).max(now_us);
            ends.push(free + u64::from(size) * launch_us);
            cost.remember(number, size);
            size
        });
        sizes.collect()
    }

    #[test]
    fn what_a_lane_did_for_another_before_says_nothing() {
        let mut cost = Cost::default();
        cost.look(5_000_000_000, 100, 0);
        assert_eq!((cost.launch_us(), cost.batch(250, 64)), (0, 1));
        cost.begin(5_000_000_000, 100);
        cost.remember(101, 1);
        cost.look(5_000_000_050, 101, 0);
        assert_eq!((cost.launch_us(), cost.batch(250, 64)), (50, 5));
    }

    #[test]
    fn behind_a_gate_on_the_host_batches_keep_their_length_whoever_is_held_up() {
        let (steady, unsteady) = ([150; 4], [150, 100, 450, 900]);
        let cases = [
            (500, steady, 5, 1..=2),
            (100, steady, 5, 2..=4),
            (20, steady, 50, 8..=16),
            (5, steady, 50, 30..=64),
            (500, steady, 1, 1..=2),
            (500, unsteady, 5, 1..=2),
            (100, unsteady, 5, 1..=5),
        ];
        for (launch_us, looks_us, window, sizes) in cases {
            let found = batches_behind_the_host(launch_us, looks_us, window, 400);
            assert!(found[100..].iter().all(|size| sizes.contains(size)), "{launch_us} us: {found:?}");
        }
    }

    #[test]
    fn short_kernels_are_soon_gathered() {
        let sizes = batches(5, 40);
        assert!(sizes[20..].iter().all(|size| (25..=64).contains(size)), "{sizes:?}");
        assert!(batches(0, 10).ends_with(&[64; 3]), "a device that keeps up gets as many as there may be");
    }
}
