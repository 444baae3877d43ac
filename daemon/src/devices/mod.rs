//! Which devices there are.

pub mod nvml;
pub mod xids;

use std::path::PathBuf;

use headgate_quota::Bytes;
use xids::XidCounts;

use crate::config::model::DeviceUuid;
use crate::node::DeviceFacts;

/// Why devices cannot be discovered. The text says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(pub String);

/// A way to discover devices.
pub trait Discover: Send {
    /// The devices present now. May be asked again at any time.
    fn discover(&mut self) -> Result<Vec<DeviceFacts>, DiscoveryError>;

    /// Which processes have memory on which device now, and how much; `None` when the driver cannot tell.
    fn residents(&mut self) -> Option<Vec<(DeviceUuid, u32, Bytes)>> {
        None
    }

    /// Critical errors of the devices since the daemon started.
    fn xids(&mut self) -> XidCounts {
        XidCounts::new()
    }

    /// Has the driver itself hold cgroups to these limits and to no others of ours; tells which it holds. Drivers before
    /// r615 hold none.
    fn hold(&mut self, _wanted: &[DriverLimit]) -> Vec<DriverLimit> {
        Vec::new()
    }
}

/// Most memory that the driver lets the processes of a cgroup have on a device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DriverLimit {
    /// The device.
    pub gpu: DeviceUuid,
    /// Directory of the cgroup.
    pub cgroup: PathBuf,
    /// Most bytes.
    pub bytes: Bytes,
}

/// Devices that are simply said to be there.
#[derive(Clone, Debug, Default)]
pub struct Fixed(pub Vec<DeviceFacts>);

impl Discover for Fixed {
    fn discover(&mut self) -> Result<Vec<DeviceFacts>, DiscoveryError> {
        if self.0.is_empty() {
            return Err(DiscoveryError("there are no devices".to_owned()));
        }
        Ok(self.0.clone())
    }
}
