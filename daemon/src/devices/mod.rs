//! Which devices there are.

pub mod nvml;

use crate::node::DeviceFacts;

/// Why devices cannot be discovered. The text says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(pub String);

/// A way to discover devices.
pub trait Discover: Send {
    /// The devices present now. May be asked again at any time.
    fn discover(&mut self) -> Result<Vec<DeviceFacts>, DiscoveryError>;
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
