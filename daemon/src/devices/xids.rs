//! Xid errors: what the driver says went wrong with a device, told by NVML as events.
//!
//! NVML's call waits, so it has a thread of its own, and a session of its own, which a wait may keep busy without keeping
//! anybody from asking who is on the devices. What it found is counted here and taken from here; nothing queues.
//!
//! Known drift, by NVML's documentation: of several errors before the thread comes to look, the driver tells each by the
//! number of the last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

use crate::config::model::DeviceUuid;
use crate::limits::{DISCOVERY_PERIOD, XID_KINDS_MAX, XID_WAIT};

/// Xid errors since the daemon started, by device and number.
pub type XidCounts = BTreeMap<(DeviceUuid, u64), u64>;

/// The number by which what has no row of its own is counted. NVIDIA's catalogue begins with 1.
pub const OTHER: u64 = 0;

type Shared = Mutex<XidCounts>;

/// The thread that listens. It ends after its owner.
#[derive(Debug)]
pub struct Xids(Arc<Shared>);

impl Xids {
    /// Starts to listen, as soon as there is a driver and whenever it comes back.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn listen() -> std::io::Result<Self> {
        let counts = Arc::new(Shared::default());
        let found = Arc::downgrade(&counts);
        thread::Builder::new().name("headgate-xid".to_owned()).spawn(move || {
            while found.strong_count() > 0 {
                if let Err(error) = listen(&found) {
                    tracing::debug!(%error, "the driver does not tell of Xid errors");
                }
                thread::park_timeout(DISCOVERY_PERIOD);
            }
        })?;
        Ok(Self(counts))
    }

    /// All so far.
    pub fn counts(&self) -> XidCounts {
        lock(&self.0).clone()
    }
}

/// The rows of the metrics page.
#[must_use]
pub fn rows(counts: &XidCounts) -> Vec<(String, String, u64)> {
    let word = |xid: u64| if xid == OTHER { "other".to_owned() } else { xid.to_string() };
    counts.iter().map(|((gpu, xid), count)| (gpu.to_string(), word(*xid), *count)).collect()
}

fn lock(counts: &Shared) -> MutexGuard<'_, XidCounts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counts: &mut XidCounts, gpu: DeviceUuid, xid: u64) {
    let room = counts.len() < XID_KINDS_MAX || counts.contains_key(&(gpu, xid));
    *counts.entry((gpu, if room { xid } else { OTHER })).or_default() += 1;
}

/// Listens to all devices until there are more or fewer of them, or nobody wants to know.
fn listen(found: &Weak<Shared>) -> Result<(), NvmlError> {
    let nvml = Nvml::init()?;
    let mut set = nvml.create_event_set()?;
    let (devices, mut heard) = (nvml.device_count()?, 0);
    for index in 0..devices {
        let device = nvml.device_by_index(index)?;
        // A device that cannot tell is no reason not to listen to the others.
        let can = device.supported_event_types().unwrap_or_else(|_| EventTypes::empty());
        if can.contains(EventTypes::CRITICAL_XID_ERROR) {
            let registered = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
            set = registered.map_err(|refused| refused.error)?;
            heard += 1;
        }
    }
    let wait = u32::try_from(XID_WAIT.as_millis()).unwrap_or(u32::MAX);
    while heard > 0
        && let Some(counts) = found.upgrade()
    {
        let event = match set.wait(wait) {
            Ok(event) => event,
            Err(NvmlError::Timeout) if nvml.device_count()? == devices => continue,
            Err(NvmlError::Timeout) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(error) = event.event_data else { continue };
        let xid = match error {
            XidError::Value(xid) => xid,
            XidError::Unknown => OTHER,
        };
        let Some(gpu) = DeviceUuid::parse(&event.device.uuid()?) else { continue };
        tracing::error!(%gpu, xid, "the driver reports an Xid error; look it up in NVIDIA's catalogue, and at dmesg");
        count(&mut lock(&counts), gpu, xid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded_and_no_error_goes_uncounted() {
        let gpu = DeviceUuid([7; 16]);
        let mut counts = XidCounts::new();
        let many = XID_KINDS_MAX as u64 + 9;
        for xid in (1..=many).chain([1, 1]) {
            count(&mut counts, gpu, xid);
        }
        assert_eq!(counts.len(), XID_KINDS_MAX + 1);
        assert_eq!((counts[&(gpu, 1)], counts[&(gpu, OTHER)]), (3, 9));
        assert_eq!(counts.values().sum::<u64>(), many + 2);
    }
}
