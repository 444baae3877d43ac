//! What the tests of kernels share: loading a module into a heap, and packing parameters.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use headgate_simgpu_ptx::{ExecStats, Heap, Kernel, LaunchConfig, LaunchError, Module, Param, Placement};

/// The two sets of committed PTX.
pub(crate) const SETS: [&str; 2] = ["ptx", "ptx-nvcc"];

/// A module in device memory.
pub(crate) struct Loaded {
    pub(crate) module: Module,
    pub(crate) placement: Placement,
    pub(crate) heap: Heap,
}

/// A kernel argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    U32(u32),
    U64(u64),
    I32(i32),
    I64(i64),
    F32(f32),
}

impl Arg {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::U32(value) => value.to_le_bytes().to_vec(),
            Self::U64(value) => value.to_le_bytes().to_vec(),
            Self::I32(value) => value.to_le_bytes().to_vec(),
            Self::I64(value) => value.to_le_bytes().to_vec(),
            Self::F32(value) => value.to_le_bytes().to_vec(),
        }
    }
}

impl Loaded {
    /// Loads PTX text.
    pub(crate) fn text(text: &str) -> Self {
        let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let mut heap = Heap::new();
        let placement = module
            .place(|global| Ok::<_, ()>(heap.insert(&vec![0; usize::try_from(global.bytes).unwrap()])))
            .unwrap();
        let mut loaded = Self { module, placement, heap };
        for index in 0..loaded.module.globals().len() {
            let image = loaded.module.image(index, &loaded.placement);
            let address = loaded.placement.address(index).unwrap();
            for (offset, byte) in (0..).zip(image) {
                headgate_simgpu_ptx::DeviceMemory::store(&mut loaded.heap, address + offset, &[byte])
                    .unwrap();
            }
        }
        loaded
    }

    /// Loads one of the committed kernels.
    pub(crate) fn file(set: &str, name: &str) -> Self {
        Self::text(&source(set, name))
    }

    pub(crate) fn kernel(&self, name: &str) -> Kernel<'_> {
        self.module.kernel(name).unwrap_or_else(|| panic!("no kernel {name}"))
    }

    pub(crate) fn launch(
        &mut self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        args: &[Arg],
    ) -> Result<ExecStats, LaunchError> {
        self.launch_with(name, args, |params| LaunchConfig::new(grid, block, params))
    }

    pub(crate) fn launch_with(
        &mut self,
        name: &str,
        args: &[Arg],
        config: impl for<'p> Fn(&'p [u8]) -> LaunchConfig<'p>,
    ) -> Result<ExecStats, LaunchError> {
        let kernel = self.module.kernel(name).unwrap_or_else(|| panic!("no kernel {name}"));
        let params = pack(kernel.params(), args);
        kernel.launch(&config(&params), &self.placement, &mut self.heap)
    }

    pub(crate) fn insert<T: Plain>(&mut self, values: &[T]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.bytes()).collect();
        self.heap.insert(&bytes)
    }

    pub(crate) fn read<T: Plain>(&self, address: u64) -> Vec<T> {
        let bytes = self.heap.bytes(address).unwrap();
        bytes.chunks_exact(size_of::<T>()).map(T::of).collect()
    }
}

/// The text of one of the committed kernels.
pub(crate) fn source(set: &str, name: &str) -> String {
    let path = format!("{}/../../apps/kernels/{set}/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A parameter block as `cuLaunchKernel` builds it from `kernelParams`.
pub(crate) fn pack(params: &[Param], args: &[Arg]) -> Vec<u8> {
    assert_eq!(params.len(), args.len());
    let mut block = Vec::new();
    for (param, arg) in params.iter().zip(args) {
        let bytes = arg.bytes();
        assert_eq!(bytes.len(), param.bytes as usize);
        block.resize(param.offset as usize, 0);
        block.extend(bytes);
    }
    block
}

/// Numbers that can lie in device memory.
pub(crate) trait Plain: Copy {
    fn bytes(self) -> Vec<u8>;
    fn of(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($ty:ty)*) => {
        $(impl Plain for $ty {
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn of(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().unwrap())
            }
        })*
    };
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// A cheap generator, so that inputs are the same every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "any float will do")]
        let unit = (self.next() >> 11) as f64 / (1u64 << 52) as f64;
        unit - 1.0
    }
}
