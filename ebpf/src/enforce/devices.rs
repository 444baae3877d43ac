//! Which device nodes the gate guards.

use std::{collections::BTreeMap, fs, io};

use headgate_ebpf_records::gate::class;

/// NVIDIA's registered major: `/dev/nvidia0` and on, `/dev/nvidiactl`, `/dev/nvidia-modeset`.
const NVIDIA_MAJOR: u32 = 195;

/// Major of "miscellaneous" devices, which share it by minors.
const MISC_MAJOR: u32 = 10;

/// How a device is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceClass {
    /// A GPU: only processes with an attested hook.
    Gpu,
    /// Moves data past the network stack (RDMA): no tenant that is bound to its district.
    Rdma,
}

impl DeviceClass {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Gpu => class::GPU,
            Self::Rdma => class::RDMA,
        }
    }
}

/// The character devices to guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    pub(crate) majors: BTreeMap<u32, DeviceClass>,
    pub(crate) single: BTreeMap<(u32, u32), DeviceClass>,
}

impl Devices {
    /// The GPUs and RDMA devices of this node: NVIDIA's fixed major, and what drivers have registered in `/proc/devices` and
    /// `/proc/misc`. Drivers get their numbers when they are loaded, so ask again when one may have come.
    ///
    /// # Errors
    /// If `/proc/devices` cannot be read.
    pub fn of_this_node() -> io::Result<Self> {
        let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
        Ok(Self::parse(&fs::read_to_string("/proc/devices")?, &misc))
    }

    /// Guards every device of a major number.
    #[must_use]
    pub fn with_major(mut self, major: u32, class: DeviceClass) -> Self {
        self.majors.insert(major, class);
        self
    }

    /// Guards one device. A guard on its whole major goes before it.
    #[must_use]
    pub fn with_device(mut self, major: u32, minor: u32, class: DeviceClass) -> Self {
        self.single.insert((major, minor), class);
        self
    }

    fn parse(devices: &str, misc: &str) -> Self {
        let mut guarded = Self::default().with_major(NVIDIA_MAJOR, DeviceClass::Gpu);
        let characters = devices.split("Block devices:").next().unwrap_or_default();
        for (major, name) in numbered(characters) {
            if name.starts_with("nvidia") {
                guarded = guarded.with_major(major, DeviceClass::Gpu);
            } else if name.starts_with("infiniband") {
                guarded = guarded.with_major(major, DeviceClass::Rdma);
            }
        }
        for (minor, name) in numbered(misc) {
            if name == "rdma_cm" {
                guarded = guarded.with_device(MISC_MAJOR, minor, DeviceClass::Rdma);
            }
        }
        guarded
    }
}

/// Lines of a number and a name.
fn numbered(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.lines().filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        Some((number.parse().ok()?, name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::{DeviceClass, Devices};

    #[test]
    fn drivers_are_found_by_name() {
        let devices = "Character devices:\n  1 mem\n195 nvidia-frontend\n231 infiniband_verbs\n507 nvidia-uvm\n510 nvidia-caps\n\nBlock devices:\n259 nvidia-no\n";
        let found = Devices::parse(devices, "123 rdma_cm\n235 autofs\n");
        let majors: Vec<u32> = found.majors.keys().copied().collect();
        assert_eq!(majors, [195, 231, 507, 510]);
        assert_eq!(found.majors[&231], DeviceClass::Rdma);
        assert_eq!(found.single.into_iter().collect::<Vec<_>>(), [((10, 123), DeviceClass::Rdma)]);
        assert!(Devices::parse("", "").majors.contains_key(&195), "the fixed major needs no driver");
    }
}
