//! What tenants want, from what is seen of them: how much of the last moments they had work for the device.
//!
//! While nobody else works, what a tenant was charged is what it wanted. While others do, or its tokens are
//! spent, it wants every moment in which it shows work, whether it gets it or not.

use std::collections::{HashMap, VecDeque};

use headgate_quota::Class;
use headgate_quota::loan::{Amount, Device, Guest, Tenant};
use headgate_quota::units::{Bytes, Micros, Share};

use crate::limits::DEMAND_SAMPLES_MAX;

/// How far back an express tenant is looked at. It takes back within this.
pub const EXPRESS_SPAN: Micros = Micros(4_000);
/// How far back others are.
pub const SPAN: Micros = Micros(250_000);

/// What a demand must change by to be told.
const STEP: u64 = 10_000;

/// A device as it is seen at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceLook {
    /// Which.
    pub device: Device,
    /// Tenants of this node.
    pub tenants: Vec<TenantLook>,
    /// Guests.
    pub guests: Vec<GuestLook>,
}

/// A tenant as it is seen on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantLook {
    /// Which.
    pub tenant: Tenant,
    /// Its class.
    pub class: Class,
    /// Whether it shows work.
    pub active: bool,
    /// Whether it waits because its tokens are spent.
    pub throttled: bool,
    /// Device time it was charged, ever.
    pub charged: Micros,
    /// Memory it has.
    pub memory: Bytes,
}

/// A guest as it is seen on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestLook {
    /// Which.
    pub guest: Guest,
    /// Whether it shows work.
    pub active: bool,
    /// Memory it has.
    pub memory: Bytes,
}

#[derive(Debug, Default)]
struct Track {
    /// Moments, with what had been wanted and charged until then.
    samples: VecDeque<(Micros, u64, u64)>,
    wanted_us: u64,
    told: Option<Amount>,
    /// Wanted over the span in which its class is looked at.
    wanted: u64,
    /// Wanted and not charged over the long span, whatever its class.
    unmet: u64,
}

impl Track {
    fn sample(&mut self, now: Micros, look: &TenantLook, contended: bool) {
        if let Some((before, _, charged)) = self.samples.back() {
            let span = now.saturating_sub(*before).0;
            let newly = look.charged.0.saturating_sub(*charged);
            let kept_waiting = look.active && (contended || look.throttled);
            self.wanted_us += if kept_waiting { span } else { newly.min(span) };
        }
        self.samples.push_back((now, self.wanted_us, look.charged.0));
        let from = now.saturating_sub(SPAN);
        while DEMAND_SAMPLES_MAX < self.samples.len()
            || (2 < self.samples.len() && self.samples.get(1).is_some_and(|(at, ..)| *at <= from))
        {
            self.samples.pop_front();
        }
        let span = if look.class == Class::Express { EXPRESS_SPAN } else { SPAN };
        self.wanted = self.over(now, span).0;
        let (wanted, charged) = self.over(now, SPAN);
        self.unmet = wanted.saturating_sub(charged);
    }

    /// Wanted and charged over the last `span`, or since the sample before the last if looks are rarer.
    fn over(&self, now: Micros, span: Micros) -> (u64, u64) {
        let from = now.saturating_sub(span);
        let mut earlier = self.samples.iter().rev().skip(1);
        let since = earlier.find(|(at, ..)| *at <= from).or(self.samples.front());
        let (Some((since, wanted, charged)), Some((_, _, last))) = (since, self.samples.back()) else {
            return (0, 0);
        };
        let span = now.saturating_sub(*since).0;
        let share = |part: u64| (part.saturating_mul(1_000_000)).checked_div(span).unwrap_or(0);
        (share(self.wanted_us - wanted), share(last.saturating_sub(*charged)))
    }

    /// Its demand, in whole percents, rounded up.
    fn wants(&self, memory: Bytes) -> Amount {
        let sm = self.wanted.div_ceil(STEP) * STEP;
        Amount { sm: Share(sm.min(Share::WHOLE.0)), memory }
    }
}

/// Everyone's demand on all devices.
#[derive(Debug, Default)]
pub struct Demands(HashMap<(Device, Tenant), Track>);

impl Demands {
    /// Takes a look in.
    pub fn look(&mut self, now: Micros, devices: &[DeviceLook]) {
        self.0.retain(|(device, tenant), _| {
            let look = devices.iter().find(|look| look.device == *device);
            look.is_some_and(|look| look.tenants.iter().any(|seen| seen.tenant == *tenant))
        });
        for device in devices {
            let at_work = device.tenants.iter().filter(|tenant| tenant.active).count()
                + device.guests.iter().filter(|guest| guest.active).count();
            for tenant in &device.tenants {
                let key = (device.device.clone(), tenant.tenant.clone());
                self.0.entry(key).or_default().sample(now, tenant, 1 < at_work);
            }
        }
    }

    /// Demands on a device that changed since they were last told.
    pub fn changed(&mut self, look: &DeviceLook) -> Vec<(Tenant, Amount)> {
        let mut changed = Vec::new();
        for tenant in &look.tenants {
            let key = (look.device.clone(), tenant.tenant.clone());
            let Some(track) = self.0.get_mut(&key) else { continue };
            let wants = track.wants(tenant.memory);
            if track.told != Some(wants) {
                track.told = Some(wants);
                changed.push((tenant.tenant.clone(), wants));
            }
        }
        changed
    }

    /// What was last told of a tenant.
    #[must_use]
    pub fn told(&self, device: &Device, tenant: &Tenant) -> Option<Amount> {
        self.0.get(&(device.clone(), tenant.clone()))?.told
    }

    /// What a tenant wants here and does not get, summed over devices, in whole percents.
    #[must_use]
    pub fn unmet(&self, tenant: &Tenant) -> Share {
        let of_tenant = self.0.iter().filter(|((_, name), _)| name == tenant);
        let missing = of_tenant.map(|(_, track)| track.unmet).sum::<u64>();
        Share(missing / STEP * STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, class: Class, active: bool, charged: u64) -> TenantLook {
        TenantLook {
            tenant: Tenant::new(name).unwrap(),
            class,
            active,
            throttled: false,
            charged: Micros(charged),
            memory: Bytes::ZERO,
        }
    }

    fn look(tenants: Vec<TenantLook>, guest_active: bool) -> DeviceLook {
        let guest = Guest {
            district: headgate_quota::loan::District::new("south").unwrap(),
            tenant: Tenant::new("alerts").unwrap(),
        };
        DeviceLook {
            device: Device::new("GPU-1").unwrap(),
            tenants,
            guests: vec![GuestLook { guest, active: guest_active, memory: Bytes::ZERO }],
        }
    }

    #[test]
    fn alone_it_wants_what_it_was_charged() {
        let mut demands = Demands::default();
        for ms in 0..600 {
            let seen = look(vec![tenant("a", Class::Standard, true, ms * 300)], false);
            demands.look(Micros(ms * 1_000), std::slice::from_ref(&seen));
            if ms == 599 {
                let changed = demands.changed(&seen);
                assert_eq!(changed[0].1.sm, Share(300_000));
                assert!(demands.changed(&seen).is_empty(), "told once");
            }
        }
    }

    #[test]
    fn an_express_owner_that_a_guest_keeps_waiting_is_seen_within_its_span() {
        let mut demands = Demands::default();
        let mut ms = 0;
        while ms < 100 {
            demands.look(Micros(ms * 1_000), &[look(vec![tenant("a", Class::Express, false, 0)], true)]);
            ms += 1;
        }
        for _ in 0..EXPRESS_SPAN.0 / 1_000 {
            demands.look(Micros(ms * 1_000), &[look(vec![tenant("a", Class::Express, true, 0)], true)]);
            ms += 1;
        }
        let seen = look(vec![tenant("a", Class::Express, true, 0)], true);
        assert_eq!(demands.changed(&seen)[0].1.sm, Share::WHOLE);
        for _ in 0..SPAN.0 / 1_000 {
            demands.look(Micros(ms * 1_000), std::slice::from_ref(&seen));
            ms += 1;
        }
        assert_eq!(demands.unmet(&Tenant::new("a").unwrap()), Share::WHOLE);
    }

    #[test]
    fn what_is_wanted_and_charged_is_not_missing() {
        let mut demands = Demands::default();
        for ms in 0..600 {
            let both = vec![tenant("a", Class::Batch, true, ms * 1_000), tenant("b", Class::Batch, false, 0)];
            demands.look(Micros(ms * 1_000), &[look(both, false)]);
        }
        assert_eq!(demands.unmet(&Tenant::new("a").unwrap()), Share::ZERO);
    }
}
