//! Modules as the server loads them: the PTX crate behind the few calls the node makes of it.

use headgate_simgpu_ptx::{DeviceMemory, LaunchConfig, Module, Placement};

use crate::config::DeviceInfo;
use crate::memory::GRANULE;
use crate::model::Nanos;
use crate::protocol::{KernelInfo, Launch};

/// A parsed module that has not been placed.
#[derive(Debug)]
pub(crate) struct Image {
    module: Module,
    /// In the order of their names.
    pub(crate) kernels: Vec<KernelInfo>,
}

/// A module whose variables have addresses.
#[derive(Debug)]
pub(crate) struct Placed {
    image: Image,
    placement: Placement,
}

/// A variable and its first bytes; the rest of it is zero.
#[derive(Debug)]
pub(crate) struct PlacedVariable {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) initial: Vec<u8>,
}

/// Why a module was refused or a kernel failed: the status a driver gives, and the place.
#[derive(Debug)]
pub(crate) struct CodeError {
    pub(crate) status: u32,
    pub(crate) message: String,
}

impl Image {
    /// Parses a text for a device of compute capability `capability` (ten times major plus minor).
    pub(crate) fn parse(text: &str, capability: u32) -> Result<Self, CodeError> {
        let module = Module::parse(text)
            .map_err(|error| CodeError { status: error.kind.cuda_code(), message: error.to_string() })?;
        if module.target() > capability {
            let message = format!("the text is for sm_{}, the device is sm_{capability}", module.target());
            return Err(CodeError { status: 209, message });
        }
        let mut names: Vec<&str> = module.kernel_names().collect();
        names.sort_unstable();
        let kernels = names.into_iter().filter_map(|name| module.kernel(name)).map(|kernel| KernelInfo {
            name: kernel.name().to_owned(),
            params: kernel.params().iter().map(|param| (param.offset, param.bytes)).collect(),
            param_bytes: kernel.param_bytes(),
            shared_bytes: kernel.static_shared_bytes(),
            local_bytes: kernel.local_bytes(),
            const_bytes: module.const_bytes(),
            registers: kernel.registers(),
            threads_max: kernel.max_threads_per_block(),
            required_block: kernel.required_block(),
        });
        Ok(Self { kernels: kernels.collect(), module })
    }

    /// `.version`, ten times major plus minor.
    pub(crate) fn ptx_version(&self) -> u32 {
        let (major, minor) = self.module.version();
        major * 10 + minor
    }

    /// `.target`, ten times major plus minor.
    pub(crate) fn target(&self) -> u32 {
        self.module.target()
    }

    /// Bytes that all variables need together.
    pub(crate) fn storage_bytes(&self) -> u64 {
        self.module.globals().iter().fold(0, |end: u64, global| {
            end.next_multiple_of(global.align.min(GRANULE)).saturating_add(global.bytes)
        })
    }

    /// Lays the variables out from `base` on, which is as aligned as any of them may ask for.
    pub(crate) fn place(self, base: u64) -> Placed {
        let mut end = base;
        let placed = self.module.place(|global| {
            let address = end.next_multiple_of(global.align.min(GRANULE));
            end = address.saturating_add(global.bytes);
            Ok::<u64, std::convert::Infallible>(address)
        });
        let Ok(placement) = placed;
        Placed { image: self, placement }
    }
}

impl Placed {
    /// The kernels, in the order of their names.
    pub(crate) fn kernels(&self) -> &[KernelInfo] {
        &self.image.kernels
    }

    /// The variables.
    pub(crate) fn variables(&self) -> Vec<PlacedVariable> {
        let globals = self.image.module.globals().iter().enumerate();
        globals
            .filter_map(|(index, global)| {
                Some(PlacedVariable {
                    name: global.name.clone(),
                    address: self.placement.address(index)?,
                    bytes: global.bytes,
                    initial: self.image.module.image(index, &self.placement),
                })
            })
            .collect()
    }

    /// Runs a launch on `device` to its end, or for at most `instructions` instructions. `at` is when it ended: what a
    /// kernel reads from its clocks goes on from there.
    pub(crate) fn run(
        &self,
        launch: &Launch,
        device: &DeviceInfo,
        at: Nanos,
        instructions: u64,
        memory: &mut dyn DeviceMemory,
    ) -> Result<(), CodeError> {
        let name = self.image.kernels.get(launch.kernel as usize).map(|kernel| kernel.name.as_str());
        let Some(kernel) = name.and_then(|name| self.image.module.kernel(name)) else {
            return Err(CodeError { status: 400, message: "no such kernel".to_owned() });
        };
        let config = LaunchConfig {
            dynamic_shared_bytes: launch.shared_bytes,
            cooperative: launch.cooperative,
            instruction_budget: instructions,
            sm_count: device.sms,
            clock: at,
            globaltimer_ns: at,
            ..LaunchConfig::new(launch.grid, launch.block, &launch.params)
        };
        match kernel.launch(&config, &self.placement, memory) {
            Ok(_) => Ok(()),
            Err(error) => Err(CodeError { status: error.cuda_code(), message: error.to_string() }),
        }
    }
}
