//! What the simulated node is, as a JSON file says it. Everything has a default; unknown keys are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{CONNECTIONS_MAX, DEVICES_MAX};
use crate::model::{CopySpeed, DeviceSpec, KernelRule, Nanos};

/// A node: its devices and how long things take on them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// CUDA version the driver reports, as 1000 x major + 10 x minor.
    pub driver_version: u32,
    /// Number of equal devices; not used when `devices` lists them.
    pub device_count: usize,
    /// The devices one by one.
    pub devices: Vec<DeviceConfig>,
    /// Longest turn of a context while others want the device.
    pub slice_ns: Nanos,
    /// Time to bring another context in. Uncalibrated.
    pub switch_ns: Nanos,
    /// Device memory a context takes for itself. Real ones take some 300 to 500 MiB; none by default, so that many
    /// processes fit and an allocation test sees round numbers.
    pub context_bytes: u64,
    /// Device memory a loaded module takes beside its variables. None by default, as above.
    pub module_bytes: u64,
    /// What pools and graphs take of the device at once; also the granularity of `cuMemCreate`.
    pub pool_granule_bytes: u64,
    /// Whether the driver has limits for control groups (`nvmlDeviceSetMemoryLimits_v1`), as those from r615 on have.
    pub group_limits: bool,
    /// Channels of a context, among which its streams are dealt out; 0 gives every stream one of its own. A program's
    /// `CUDA_DEVICE_MAX_CONNECTIONS` comes before it.
    pub connections: u32,
    /// How fast bytes move.
    pub copies: CopySpeed,
    /// Time of kernels that `kernels` does not name.
    pub kernel_default: KernelRule,
    /// Time of kernels, by name.
    pub kernels: BTreeMap<String, KernelRule>,
    /// How often a word that a stream waits for is read.
    pub poll_ns: Nanos,
    /// Instructions one launch may execute before it counts as hung (`CUDA_ERROR_LAUNCH_TIMEOUT`).
    pub instructions_max: u64,
    /// What the driver lacks: beginnings of names of entry points, all of which answer `CUDA_ERROR_NOT_SUPPORTED`, such as
    /// `cuStreamBatchMemOp`.
    pub lacks: Vec<String>,
    /// Whether the journal notes every call, not only those that reach the server.
    pub journal_all: bool,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Name; `None` names it after its SMs.
    pub name: Option<String>,
    /// 16 bytes in the form `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`; `None` derives it from the index.
    pub uuid: Option<String>,
    /// Installed memory.
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            driver_version: 13_000,
            device_count: 1,
            devices: Vec::new(),
            slice_ns: 1_000_000,
            switch_ns: 50_000,
            context_bytes: 0,
            module_bytes: 0,
            pool_granule_bytes: 2 << 20,
            group_limits: false,
            connections: 0,
            copies: CopySpeed::default(),
            kernel_default: KernelRule::ORDINARY,
            kernels: BTreeMap::new(),
            poll_ns: 20_000,
            instructions_max: 1_000_000_000,
            lacks: Vec::new(),
            journal_all: false,
        }
    }
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self { name: None, uuid: None, memory_bytes: 80 << 30, sms: 132, compute_capability: (9, 0) }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON that is expected.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A value that no node can have.
    #[error("{field}: {problem}")]
    Value {
        /// Which one.
        field: String,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
}

fn wrong<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value { field: field.into(), problem: problem.into() })
}

/// A device as the stand-ins report it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Name, which says that the device is simulated.
    pub name: String,
    /// The bytes of the UUID.
    pub uuid: [u8; 16],
    /// Installed memory.
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// PCI bus number; domain, device and function are 0.
    pub pci_bus: u32,
}

impl DeviceInfo {
    /// The UUID in NVIDIA's text form.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        let hex: String = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The PCI address as CUDA writes it.
    #[must_use]
    pub fn pci_text(&self) -> String {
        format!("0000:{:02X}:00.0", self.pci_bus)
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The first thing wrong with it, with its place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_str(text)?;
        config.device_infos()?;
        if config.slice_ns < 1_000 {
            return wrong("slice_ns", "at least 1000 (1 us)");
        }
        if !config.pool_granule_bytes.is_power_of_two() || config.pool_granule_bytes < 4_096 {
            return wrong("pool_granule_bytes", "a power of two, at least 4096");
        }
        if config.connections > CONNECTIONS_MAX {
            return wrong("connections", "between 1 and 32, or 0 for one a stream");
        }
        if config.poll_ns < 1_000 {
            return wrong("poll_ns", "at least 1000 (1 us)");
        }
        if lacks_wrongly(&config.lacks) {
            return wrong(
                "lacks",
                "beginnings of names of CUDA entry points: cu and at least four letters more",
            );
        }
        if !(11_080..=13_099).contains(&config.driver_version) {
            return wrong("driver_version", "between 11080 (CUDA 11.8) and 13099");
        }
        Ok(config)
    }

    /// The devices this configuration describes.
    ///
    /// # Errors
    /// A device that cannot be.
    pub fn device_infos(&self) -> Result<Vec<DeviceInfo>, ConfigError> {
        let listed = if self.devices.is_empty() {
            vec![DeviceConfig::default(); self.device_count]
        } else {
            self.devices.clone()
        };
        if listed.len() > DEVICES_MAX {
            return wrong("devices", format!("a node has at most {DEVICES_MAX}"));
        }
        listed.iter().enumerate().map(|(index, device)| device.info(index)).collect()
    }

    /// What the model needs to know of each device.
    #[must_use]
    pub fn specs(&self, devices: &[DeviceInfo]) -> Vec<DeviceSpec> {
        devices
            .iter()
            .map(|device| DeviceSpec { sms: device.sms, slice_ns: self.slice_ns, switch_ns: self.switch_ns })
            .collect()
    }
}

impl DeviceConfig {
    fn info(&self, index: usize) -> Result<DeviceInfo, ConfigError> {
        let field = |name: &str| format!("devices[{index}].{name}");
        if !(1..=1024).contains(&self.sms) {
            return wrong(field("sms"), "between 1 and 1024");
        }
        if self.memory_bytes < 1 << 20 || self.memory_bytes > 1 << 40 {
            return wrong(field("memory_bytes"), "between 1 MiB and 1 TiB");
        }
        let uuid = match &self.uuid {
            Some(text) => match parse_uuid(text) {
                Some(uuid) => uuid,
                None => return wrong(field("uuid"), "expected GPU- and 32 hexadecimal digits"),
            },
            None => {
                let mut uuid = *b"\x5e\xed\x6a\x7e\x00\x00\x40\x00\x80\x00\x00\x00\x00\x00\x00\x00";
                uuid[15] = u8::try_from(index).unwrap_or(u8::MAX);
                uuid
            }
        };
        Ok(DeviceInfo {
            name: self.name.clone().unwrap_or_else(|| format!("Headgate Simulated GPU ({} SM)", self.sms)),
            uuid,
            memory_bytes: self.memory_bytes,
            sms: self.sms,
            compute_capability: self.compute_capability,
            pci_bus: u32::try_from(index).unwrap_or(0) + 1,
        })
    }
}

/// A beginning that is too short would take the whole driver away.
fn lacks_wrongly(lacks: &[String]) -> bool {
    lacks.iter().any(|start| !start.starts_with("cu") || start.len() < 6)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.strip_prefix("GPU-")?.chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(digits.get(2 * pair..2 * pair + 2)?, 16).ok()?;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_describe_one_large_device() {
        let config = Config::parse("{}").expect("an empty object is the default");
        let devices = config.device_infos().expect("the default is valid");
        assert_eq!(devices.len(), 1);
        assert_eq!((devices[0].sms, devices[0].memory_bytes), (132, 80 << 30));
        assert_eq!(devices[0].uuid_text(), "GPU-5eed6a7e-0000-4000-8000-000000000000");
        assert!(devices[0].name.contains("Simulated"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            (r#"{"slice": 5}"#, "unknown field `slice`"),
            (r#"{"slice_ns": 5}"#, "slice_ns"),
            (r#"{"devices": [{"sms": 0}]}"#, "devices[0].sms"),
            (r#"{"devices": [{"uuid": "GPU-12"}]}"#, "devices[0].uuid"),
            (r#"{"kernels": {"spin": {"fixed": 1}}}"#, "unknown field `fixed`"),
            (r#"{"device_count": 17}"#, "at most 16"),
            (r#"{"driver_version": 9000}"#, "driver_version"),
            (r#"{"lacks": ["cu"]}"#, "lacks"),
        ] {
            let error = Config::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn devices_are_listed() {
        let text = r#"{"devices": [{"sms": 16, "memory_bytes": 1073741824,
                       "uuid": "GPU-00112233-4455-6677-8899-aabbccddeeff"}],
                       "kernels": {"spin": {"base_ns": 100000, "execute": false}}}"#;
        let config = Config::parse(text).expect("valid");
        assert_eq!(
            config.device_infos().expect("valid")[0].uuid_text(),
            "GPU-00112233-4455-6677-8899-aabbccddeeff"
        );
        assert!(!config.kernels["spin"].execute);
    }
}
