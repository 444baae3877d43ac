//! How tenants share each device, by time or by space, and NVIDIA's MPS, by which they do the latter.

use std::collections::BTreeMap;
use std::path::PathBuf;

use headgate_abi::limits::DEVICES_MAX;

use super::fields::Fields;
use super::model::{DeviceKey, DeviceUuid, Sockets, Tenant};
use super::problem::{Place, Problem};
use super::read::{Report, bad_uuid, boolean, one_of, path};
use super::tree::{Node, Value};
use crate::limits::MPS_PATH_BYTES_MAX;

/// How tenants share a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    /// One at a time, in exclusive windows.
    #[default]
    Temporal,
    /// Side by side, each on SMs of its own: static partitions of MPS.
    MpsPartition,
    /// Side by side, each on at most so many SMs, which others may use as well: active-thread percentages of MPS.
    MpsPercentage,
    /// Side by side under MPS, each on SMs of its own: green contexts in their processes. Without MPS, if the shares may
    /// `multiply`: then processes take turns on the device, each on its SMs.
    GreenContexts {
        /// Whether it does without MPS.
        multiply: bool,
    },
}

impl Sharing {
    /// All that can be chosen.
    pub const ALL: [Self; 4] =
        [Self::Temporal, Self::MpsPartition, Self::MpsPercentage, Self::GreenContexts { multiply: false }];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Temporal => "temporal",
            Self::MpsPartition => "mpsPartition",
            Self::MpsPercentage => "mpsPercentage",
            Self::GreenContexts { .. } => "greenContexts",
        }
    }

    /// Whether SMs are a tenant's own.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        matches!(self, Self::MpsPartition | Self::GreenContexts { .. })
    }

    /// Whether tenants have parts of the device.
    #[must_use]
    pub const fn is_spatial(self) -> bool {
        !matches!(self, Self::Temporal)
    }
}

/// Where NVIDIA's MPS is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mps {
    /// Its control program; `None` looks for `nvidia-cuda-mps-control` in PATH.
    pub control: Option<PathBuf>,
    /// Directory of its pipes, a folder for each device; `None` is beside the control socket.
    pub directory: Option<PathBuf>,
}

impl Mps {
    /// Directory of its pipes.
    #[must_use]
    pub fn directory(&self, sockets: &Sockets) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| sockets.control.with_file_name("mps"))
    }
}

/// Where the work of a device's tenants waits for its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GateAt {
    /// In the device's streams, so that programs run ahead of it as without a gate.
    #[default]
    Device,
    /// In the programs, which stay little ahead of the device: for devices whose streams keep it while they wait.
    Host,
}

impl GateAt {
    const ALL: [(&str, Self); 2] = [("device", Self::Device), ("host", Self::Host)];
}

/// What is said about one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Gpu {
    sharing: Sharing,
    gate: GateAt,
}

/// What is said about devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gpus {
    choices: BTreeMap<DeviceKey, (Gpu, Place)>,
}

impl Gpus {
    /// How a device is shared: by its own entry, else by the one for all.
    #[must_use]
    pub fn sharing_on(&self, device: DeviceUuid) -> Sharing {
        self.on(device).sharing
    }

    /// Where work for a device waits for its turn.
    #[must_use]
    pub fn gate_on(&self, device: DeviceUuid) -> GateAt {
        self.on(device).gate
    }

    fn on(&self, device: DeviceUuid) -> Gpu {
        let own = self.choices.get(&DeviceKey::One(device));
        own.or_else(|| self.choices.get(&DeviceKey::All)).map_or_else(Gpu::default, |(gpu, _)| *gpu)
    }

    /// Whether tenants of any device run side by side.
    #[must_use]
    pub fn is_spatial(&self) -> bool {
        self.choices.values().any(|(gpu, _)| gpu.sharing.is_spatial())
    }
}

/// Reads `spec.gpus`.
pub(super) fn gpus(node: &Node, report: &mut Report) -> Option<Gpus> {
    let Value::Map(entries) = &node.value else {
        let text = format!("gpus must map a device UUID or \"*\" to how it is shared, found {}", node.kind());
        report.push(Problem { place: node.place, text });
        return None;
    };
    if DEVICES_MAX < entries.len() {
        let text = format!("gpus has {} entries, above the bound of {DEVICES_MAX}", entries.len());
        report.push(Problem { place: node.place, text });
    }
    let mut choices = BTreeMap::new();
    for (key, node) in entries {
        let device = match key.text.as_str() {
            "*" => Some(DeviceKey::All),
            text => DeviceUuid::parse(text).map(DeviceKey::One),
        };
        let Some(device) = device else {
            let text = format!("{}, or \"*\" for every device", bad_uuid(&key.text));
            report.push(Problem { place: key.place, text });
            continue;
        };
        let Some(gpu) = gpu(node, report) else { continue };
        if choices.insert(device, (gpu, node.place)).is_some() {
            let text = format!("a second entry for device {device}; keep one");
            report.push(Problem { place: key.place, text });
        }
    }
    Some(Gpus { choices })
}

fn gpu(node: &Node, report: &mut Report) -> Option<Gpu> {
    let mut fields = Fields::of(node, "a gpu", report)?;
    let gate_node = fields.optional("gate");
    let sharing_node = match gate_node {
        Some(_) => fields.optional("sharing"),
        None => fields.required("sharing", report),
    };
    let gate = gate_node.map_or(Some(GateAt::default()), |node| one_of(node, "gate", &GateAt::ALL, report));
    let words = Sharing::ALL.map(|sharing| (sharing.word(), sharing));
    let sharing = match (sharing_node, gate_node) {
        (None, Some(_)) => Some(Sharing::default()),
        (node, _) => node.and_then(|node| one_of(node, "sharing", &words, report)),
    };
    let multiply_node = fields.optional("allowMultiplied");
    let multiply = multiply_node.and_then(|node| boolean(node, "allowMultiplied", report)).unwrap_or(false);
    fields.finish(report);
    let (sharing, gate) = (sharing?, gate?);
    match (sharing, multiply_node) {
        (Sharing::GreenContexts { .. }, _) => {
            Some(Gpu { sharing: Sharing::GreenContexts { multiply }, gate })
        }
        (sharing, None) => Some(Gpu { sharing, gate }),
        (sharing, Some(node)) => {
            let text = format!(
                "`allowMultiplied` is about greenContexts without MPS, but the device is shared by {}; remove it",
                sharing.word()
            );
            report.push(Problem { place: node.place, text });
            None
        }
    }
}

/// Reads `spec.mps`.
pub(super) fn mps(node: &Node, report: &mut Report) -> Option<Mps> {
    let mut fields = Fields::of(node, "spec.mps", report)?;
    let control = fields.optional("control").and_then(|node| path(node, "control", report));
    let directory_node = fields.optional("directory");
    let directory = directory_node.and_then(|node| path(node, "directory", report));
    fields.finish(report);
    if let (Some(node), Some(directory)) = (directory_node, &directory)
        && MPS_PATH_BYTES_MAX < directory.as_os_str().len()
    {
        let text = format!(
            "`directory` is {} bytes long, but with the device and the pipe in it the kernel takes {MPS_PATH_BYTES_MAX}; \
             shorten it",
            directory.as_os_str().len()
        );
        report.push(Problem { place: node.place, text });
    }
    Some(Mps { control, directory })
}

/// The parts that relate to how devices are shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relations<'a> {
    pub(super) gpus: &'a Gpus,
    /// Devices governed; `None` is all.
    pub(super) devices: Option<&'a [DeviceUuid]>,
    pub(super) overcommit_sm: bool,
    pub(super) lends: bool,
}

/// Reports what cannot be together with sharing by space.
pub(super) fn check<'t>(
    parts: &Relations<'_>,
    tenants: impl Iterator<Item = &'t Tenant>,
    report: &mut Report,
) {
    let tenants: Vec<&Tenant> = tenants.collect();
    for (key, (Gpu { sharing, .. }, place)) in &parts.gpus.choices {
        let mut wrong = |place: Place, text: String| report.push(Problem { place, text });
        if let (DeviceKey::One(uuid), Some(devices)) = (key, parts.devices)
            && !devices.contains(uuid)
        {
            wrong(*place, format!("spec.devices leaves {uuid} out; add it there or remove this entry"));
        }
        if !sharing.is_spatial() {
            continue;
        }
        let word = sharing.word();
        if parts.lends {
            wrong(
                *place,
                format!(
                    "{word} on device {key}, but spec.loans is set: a guest has no SMs of its own there; share by time \
                     (temporal), or remove spec.loans"
                ),
            );
        }
        if sharing.is_exclusive() && parts.overcommit_sm {
            wrong(
                *place,
                format!(
                    "{word} on device {key}, but spec.overcommit.sm is true: SMs of a tenant's own cannot be promised twice; \
                     use mpsPercentage, whose ceilings may add up to more than the device, or set it to false"
                ),
            );
        }
        for tenant in &tenants {
            let own = tenant.quota.get(key).or_else(|| tenant.quota.get(&DeviceKey::All));
            if own.and_then(|quota| quota.sm).is_none() {
                wrong(
                    tenant.place,
                    format!(
                        "tenant `{}` has no sm share on device {key}, which is shared by {word}: its programs could not \
                         start there; add `sm` to its quota",
                        tenant.name
                    ),
                );
            }
            if !tenant.enforcement {
                wrong(
                    tenant.place,
                    format!(
                        "tenant `{}` has `enforcement: off` on device {key}, which is shared by {word}: off means the \
                         driver's own functions, which know nothing of its SMs; remove it",
                        tenant.name
                    ),
                );
            }
        }
    }
}
