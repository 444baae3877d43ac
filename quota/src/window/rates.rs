//! Who earns how much.

use super::WindowScheduler;
use crate::units::{Micros, Ppm};

impl<K: Copy + PartialEq> WindowScheduler<K> {
    /// Each tenant's rate: nominal, plus for active borrowers their part, by nominal share, of what the idle
    /// ones leave, up to their ceilings. If the active ones' nominal shares add up to more than the device
    /// (the operator overcommitted it), all are scaled down alike.
    pub(super) fn rates(&self, now: Micros) -> Vec<Ppm> {
        let whole = u64::from(Ppm::WHOLE.get());
        let mut rates: Vec<u64> =
            self.contenders.iter().map(|(_, c)| u64::from(c.quota.nominal.get())).collect();
        let active: Vec<usize> =
            (0..rates.len()).filter(|&i| self.contenders[i].1.is_active(now, &self.settings)).collect();
        let owned: u64 = active.iter().map(|&i| rates[i]).sum();
        if whole < owned {
            for &i in &active {
                rates[i] = rates[i] * whole / owned;
            }
        } else {
            self.lend(&mut rates, &active, whole - owned);
        }
        rates
            .into_iter()
            .map(|rate| u32::try_from(rate).ok().and_then(Ppm::new).unwrap_or(Ppm::WHOLE))
            .collect()
    }

    /// Water-filling: what a borrower at its ceiling cannot take goes round again to the others.
    fn lend(&self, rates: &mut [u64], active: &[usize], mut spare: u64) {
        let ceiling = |i: usize| u64::from(self.contenders[i].1.quota.ceiling().get());
        for _ in 0..active.len() {
            let takers: Vec<usize> = active.iter().copied().filter(|&i| rates[i] < ceiling(i)).collect();
            // A tenant that owns nothing still borrows, with the smallest possible weight.
            let weight = |i: usize| u64::from(self.contenders[i].1.quota.nominal.get()).max(1);
            let weights: u64 = takers.iter().map(|&i| weight(i)).sum();
            if spare == 0 || weights == 0 {
                return;
            }
            let mut given = 0;
            for &i in &takers {
                let part = (spare * weight(i) / weights).min(ceiling(i) - rates[i]);
                rates[i] += part;
                given += part;
            }
            if given == 0 {
                return;
            }
            spare -= given;
        }
    }
}
