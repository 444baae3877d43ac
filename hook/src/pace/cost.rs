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
        self.sizes[number as usize % SIZES] = launched;
        self.last_size = launched;
        let done = completed.wrapping_sub(self.mark_number);
        if number.wrapping_sub(completed) <= 1 {
            if 0 < done {
                // The device has caught up: it is at least as fast as thought, and idled for some of the time.
                self.launch_ns -= self.launch_ns / 8;
                self.last_size = self.last_size.saturating_mul(2);
            }
        } else if done == 0 {
            return;
        } else if (done as usize) < SIZES && gate == self.mark_gate && gate & GATE_OPEN_BIT != 0 {
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

    /// Launches for the next batch.
    pub(super) fn batch(&self, batch_us: u32, most: u32) -> u32 {
        let launches = match (u64::from(batch_us) * 1_000).checked_div(self.launch_ns) {
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
        const BATCH_US: u32 = 250;
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

    #[test]
    fn short_kernels_are_soon_gathered() {
        let sizes = batches(5, 40);
        assert!(sizes[20..].iter().all(|size| (25..=64).contains(size)), "{sizes:?}");
        assert!(batches(0, 10).ends_with(&[64; 3]), "a device that keeps up gets as many as there may be");
    }
}
