//! Discovery through NVIDIA's management library.

use headgate_quota::Bytes;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::{Discover, DiscoveryError};
use crate::config::model::DeviceUuid;
use crate::node::DeviceFacts;

/// The library, loaded once the driver is there.
#[derive(Debug, Default)]
pub struct NvmlDevices {
    nvml: Option<Nvml>,
}

impl Discover for NvmlDevices {
    fn discover(&mut self) -> Result<Vec<DeviceFacts>, DiscoveryError> {
        let nvml = match self.nvml.take() {
            Some(nvml) => nvml,
            None => Nvml::init().map_err(missing)?,
        };
        let devices = list(&nvml).map_err(|error| {
            DiscoveryError(format!("driver: listing devices failed: {error}; look at `nvidia-smi` and dmesg"))
        })?;
        // Kept only while it works: after a driver reload the library has to be initialised again.
        self.nvml = Some(nvml);
        if devices.is_empty() {
            return Err(DiscoveryError(
                "the NVIDIA driver sees no device; look at `nvidia-smi -L`".to_owned(),
            ));
        }
        Ok(devices)
    }
}

fn missing(error: NvmlError) -> DiscoveryError {
    DiscoveryError(match error {
        NvmlError::LibloadingError(error) => format!(
            "no NVIDIA driver: {error}; install it, or put libnvidia-ml.so.1 on the library path. Looking again \
             every {} s",
            crate::limits::DISCOVERY_PERIOD.as_secs()
        ),
        error => format!("driver: NVML does not start: {error}; look at `nvidia-smi` and dmesg"),
    })
}

fn list(nvml: &Nvml) -> Result<Vec<DeviceFacts>, NvmlError> {
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let text = device.uuid()?;
        let Some(uuid) = DeviceUuid::parse(&text) else {
            tracing::warn!(device = text, "a UUID of unknown form; the device is left alone");
            continue;
        };
        devices.push(DeviceFacts { uuid, name: device.name()?, memory: Bytes(device.memory_info()?.total) });
    }
    Ok(devices)
}
