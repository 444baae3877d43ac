//! Discovery through NVIDIA's management library.

use std::collections::BTreeSet;

use headgate_abi::nvml::{NVML_DEVICE_MEMORY_LIMIT_MAX, NvmlReturn};
use headgate_quota::Bytes;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use super::xids::{XidCounts, Xids};
use super::{Discover, DiscoveryError, DriverLimit};
use crate::config::model::DeviceUuid;
use crate::limits::RESIDENTS_MAX;
use crate::node::DeviceFacts;
use crate::sys::MemoryLimits;

/// The library, loaded once the driver is there.
#[derive(Debug, Default)]
pub struct NvmlDevices {
    nvml: Option<Nvml>,
    xids: Option<Xids>,
    /// Limits the driver holds for us.
    held: BTreeSet<DriverLimit>,
    /// Those it refused, so that it is asked, and the log told, once.
    refused: BTreeSet<DriverLimit>,
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

    fn residents(&mut self) -> Option<Vec<(DeviceUuid, u32, Bytes)>> {
        match residents(self.nvml.as_ref()?) {
            Ok(residents) => Some(residents),
            Err(error) => {
                tracing::debug!(%error, "the driver does not tell who is on the devices");
                None
            }
        }
    }

    fn xids(&mut self) -> XidCounts {
        if self.xids.is_none() && self.nvml.is_some() {
            // Tried again at the next look.
            self.xids = Xids::listen()
                .inspect_err(|error| tracing::warn!(%error, "nobody listens for Xid errors: no thread"))
                .ok();
        }
        self.xids.as_ref().map(Xids::counts).unwrap_or_default()
    }

    fn hold(&mut self, wanted: &[DriverLimit]) -> Vec<DriverLimit> {
        let Some(calls) = self.nvml.as_ref().and_then(|_| MemoryLimits::find()) else { return Vec::new() };
        let wanted: BTreeSet<DriverLimit> = wanted.iter().cloned().collect();
        self.refused.retain(|limit| wanted.contains(limit));
        // A cgroup that is gone took its limits along.
        self.held.retain(|limit| limit.cgroup.is_dir());
        for limit in &wanted {
            if self.held.contains(limit) || self.refused.contains(limit) || !limit.cgroup.is_dir() {
                continue;
            }
            match calls.set(&limit.gpu.to_string(), &limit.cgroup, limit.bytes.0) {
                NvmlReturn::SUCCESS => {
                    self.held.retain(|old| (old.gpu, &old.cgroup) != (limit.gpu, &limit.cgroup));
                    self.held.insert(limit.clone());
                }
                status => {
                    let (cgroup, gpu) = (limit.cgroup.display(), limit.gpu);
                    tracing::info!(%gpu, %cgroup, ?status, "the driver does not hold a memory limit; the hook does");
                    self.refused.insert(limit.clone());
                }
            }
        }
        // Whoever has no quota any more is let go by the driver, too.
        let named =
            |limit: &DriverLimit| wanted.iter().any(|w| (w.gpu, &w.cgroup) == (limit.gpu, &limit.cgroup));
        for limit in self.held.extract_if(.., |limit| !named(limit)) {
            let status = calls.set(&limit.gpu.to_string(), &limit.cgroup, NVML_DEVICE_MEMORY_LIMIT_MAX);
            tracing::debug!(gpu = %limit.gpu, cgroup = %limit.cgroup.display(), ?status, "a driver's limit is lifted");
        }
        self.held.iter().cloned().collect()
    }
}

fn residents(nvml: &Nvml) -> Result<Vec<(DeviceUuid, u32, Bytes)>, NvmlError> {
    let mut found = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let Some(uuid) = DeviceUuid::parse(&device.uuid()?) else { continue };
        for process in device.running_compute_processes()? {
            let bytes = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => bytes,
                UsedGpuMemory::Unavailable => 0,
            };
            found.push((uuid, process.pid, Bytes(bytes)));
        }
    }
    found.truncate(RESIDENTS_MAX);
    Ok(found)
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
