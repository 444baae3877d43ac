//! A loaded module: its kernels, its variables, and where the loader put them.

use std::collections::{BTreeSet, HashMap};

use crate::code::{FrameRange, Instruction};
use crate::decode::{self, Global as Name, Outside, Parsed, Signature, narrow, same_signature};
use crate::error::{ParseError, Place};
use crate::limits;
use crate::text::syntax::{Initialiser, Linkage, Routine, Variable};
use crate::types::Space;

/// A PTX module, ready to run. It holds no device memory: the loader places its variables (see [`Module::place`]).
#[derive(Debug)]
pub struct Module {
    version: (u32, u32),
    target: u32,
    globals: Vec<Global>,
    pub(crate) shared: Vec<SharedVariable>,
    pub(crate) functions: Vec<Function>,
    kernels: HashMap<String, KernelLayout>,
    const_bytes: u32,
}

/// The state space of a module variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GlobalSpace {
    /// `.global`
    Global,
    /// `.const`: a kernel cannot write it, the host can.
    Const,
}

/// A variable of the module, which the loader puts into device memory.
#[derive(Debug, Clone)]
pub struct Global {
    /// The name that `cuModuleGetGlobal` finds it by.
    pub name: String,
    /// Where it was declared.
    pub space: GlobalSpace,
    /// Size in bytes. Only its beginning may be initialised; the rest is zero.
    pub bytes: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// `.attribute(.managed)`: host and device share it.
    pub managed: bool,
    /// The first bytes, addresses of other variables not yet filled in.
    initial: Vec<u8>,
    relocations: Vec<Relocation>,
}

#[derive(Debug, Clone, Copy)]
struct Relocation {
    offset: usize,
    target: Name,
    addend: i64,
}

/// A parameter of a kernel within its parameter block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// First byte in the block.
    pub offset: u32,
    /// Size in bytes: how much `cuLaunchKernel` copies from `kernelParams[i]`.
    pub bytes: u32,
    /// Alignment in bytes.
    pub align: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedVariable {
    /// Zero for `extern` arrays, whose size the launch gives.
    pub(crate) bytes: u32,
    pub(crate) align: u32,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: u32,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) code: Vec<Instruction>,
    pub(crate) registers: u32,
    pub(crate) local_bytes: u32,
    pub(crate) local_align: u64,
    pub(crate) param_bytes: u32,
    pub(crate) params: Vec<FrameRange>,
    pub(crate) returns: Vec<FrameRange>,
    pub(crate) shared_used: BTreeSet<u32>,
    pub(crate) calls: BTreeSet<u32>,
    pub(crate) calls_pointers: bool,
    pub(crate) entry: Option<Entry>,
}

/// What a kernel's calls add up to.
#[derive(Debug)]
pub(crate) struct KernelLayout {
    function: usize,
    /// Offsets of the shared variables it can reach, dynamic ones at the end.
    pub(crate) shared: Vec<(u32, u32)>,
    pub(crate) shared_bytes: u32,
    local_bytes: u32,
    uses_dynamic_shared: bool,
}

/// A kernel of a module.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'m> {
    pub(crate) module: &'m Module,
    pub(crate) layout: &'m KernelLayout,
    pub(crate) function: &'m Function,
    pub(crate) entry: &'m Entry,
}

/// Where the loader put a module's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    addresses: Vec<u64>,
}

impl Placement {
    /// Address of the variable at an index of [`Module::globals`].
    #[must_use]
    pub fn address(&self, index: usize) -> Option<u64> {
        self.addresses.get(index).copied()
    }
}

const HANDLE_STEP: u64 = 16;

/// What a function pointer holds: never zero, never a device address.
pub(crate) fn function_handle(index: u32) -> u64 {
    (u64::from(index) + 1) * HANDLE_STEP
}

/// The function of a pointer.
pub(crate) fn function_of_handle(handle: u64) -> Option<usize> {
    let index = (handle / HANDLE_STEP).checked_sub(1)?;
    handle.is_multiple_of(HANDLE_STEP).then(|| usize::try_from(index).ok()).flatten()
}

impl Module {
    /// Parses a module from PTX text; a terminating NUL and what follows it are ignored.
    ///
    /// # Errors
    /// [`ParseError`] names line and column of the first thing that is wrong or that this interpreter does not have.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let source = crate::text::parse(text)?;
        let mut outside = Outside { names: HashMap::new(), signatures: Vec::new(), shared: Vec::new() };
        let routines = name_functions(&source.functions, &mut outside)?;
        let variables = name_variables(&source.variables, &mut outside)?;
        let mut globals = Vec::new();
        let mut const_bytes = 0u64;
        for variable in variables {
            if variable.space == Space::Const {
                const_bytes += variable.bytes;
                if const_bytes > limits::CONST_BYTES_MAX {
                    let most = limits::CONST_BYTES_MAX;
                    return Err(variable.place.limit(format!("more than {most} bytes of constants")));
                }
            }
            globals.push(global(variable, &outside)?);
        }
        let mut functions = Vec::new();
        for routine in routines {
            // A function that is only declared keeps its index; nothing can reach it.
            let body = routine.body.as_deref().unwrap_or(&[]);
            functions.push(decode::function(routine, body, &mut outside)?);
        }
        let mut kernels = HashMap::new();
        for (index, function) in functions.iter().enumerate() {
            if function.entry.is_some() {
                let layout = kernel_layout(index, &functions, &outside.shared)?;
                kernels.insert(function.name.clone(), layout);
            }
        }
        Ok(Self {
            version: source.version,
            target: source.target,
            globals,
            shared: outside.shared,
            functions,
            kernels,
            const_bytes: narrow(const_bytes),
        })
    }

    /// The PTX ISA version, major and minor.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The compute capability of `.target`, ten times major plus minor: 80 for `sm_80`. A device with a lower one must
    /// refuse the module (`CUDA_ERROR_NO_BINARY_FOR_GPU`).
    #[must_use]
    pub fn target(&self) -> u32 {
        self.target
    }

    /// The variables in device memory, in the order of their declaration.
    #[must_use]
    pub fn globals(&self) -> &[Global] {
        &self.globals
    }

    /// Index of a variable by name.
    #[must_use]
    pub fn global_index(&self, name: &str) -> Option<usize> {
        self.globals.iter().position(|global| global.name == name)
    }

    /// Bytes of constants, user-declared.
    #[must_use]
    pub fn const_bytes(&self) -> u32 {
        self.const_bytes
    }

    /// The names of the kernels, in no particular order.
    pub fn kernel_names(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// The kernel of a name.
    #[must_use]
    pub fn kernel(&self, name: &str) -> Option<Kernel<'_>> {
        let layout = self.kernels.get(name)?;
        let function = self.functions.get(layout.function)?;
        Some(Kernel { module: self, layout, function, entry: function.entry.as_ref()? })
    }

    /// Asks the loader for an address of every variable. The loader then writes [`Self::image`] of each to it and zeros the
    /// rest of its bytes.
    ///
    /// # Errors
    /// Those of `allocate`, which stop the placing.
    pub fn place<E>(&self, allocate: impl FnMut(&Global) -> Result<u64, E>) -> Result<Placement, E> {
        let addresses = self.globals.iter().map(allocate).collect::<Result<_, E>>()?;
        Ok(Placement { addresses })
    }

    /// The first bytes of a variable with the addresses in it filled in. What follows them is zero.
    #[must_use]
    pub fn image(&self, index: usize, placement: &Placement) -> Vec<u8> {
        let Some(global) = self.globals.get(index) else { return Vec::new() };
        let mut bytes = global.initial.clone();
        for relocation in &global.relocations {
            let base = match relocation.target {
                Name::Variable(index, _) => placement.address(index as usize).unwrap_or(0),
                Name::Function(index) => function_handle(index),
                Name::Shared(_) => 0,
            };
            let address = base.wrapping_add_signed(relocation.addend).to_le_bytes();
            let end = relocation.offset + address.len();
            if let Some(place) = bytes.get_mut(relocation.offset..end) {
                place.copy_from_slice(&address);
            }
        }
        bytes
    }
}

impl<'m> Kernel<'m> {
    /// Its name in the PTX text.
    #[must_use]
    pub fn name(&self) -> &'m str {
        &self.function.name
    }

    /// Line of its `.entry` in the PTX text.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.function.line
    }

    /// Its parameters.
    #[must_use]
    pub fn params(&self) -> &'m [Param] {
        &self.entry.params
    }

    /// Size of its parameter block: the end of the last parameter.
    #[must_use]
    pub fn param_bytes(&self) -> u32 {
        self.entry.param_bytes
    }

    /// Statically declared shared memory (`CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`).
    #[must_use]
    pub fn static_shared_bytes(&self) -> u32 {
        self.layout.shared_bytes
    }

    /// Whether it declares an `extern` shared array.
    #[must_use]
    pub fn uses_dynamic_shared(&self) -> bool {
        self.layout.uses_dynamic_shared
    }

    /// Local memory of a thread (`CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES`): the kernel's own and that of the largest function
    /// it can call.
    #[must_use]
    pub fn local_bytes(&self) -> u32 {
        self.layout.local_bytes
    }

    /// Registers of a thread (`CU_FUNC_ATTRIBUTE_NUM_REGS`). PTX registers are virtual, so this is an estimate: about a
    /// third of them live at once, and hardware hands them out in eights.
    #[must_use]
    pub fn registers(&self) -> u32 {
        (10 + self.function.registers / 3).next_multiple_of(8).clamp(16, 255)
    }

    /// Most threads of a block (`CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`): by `.maxntid` or `.reqntid`, else what the
    /// device allows.
    #[must_use]
    pub fn max_threads_per_block(&self) -> u32 {
        self.entry
            .required_threads
            .or(self.entry.max_threads)
            .map_or(limits::BLOCK_THREADS_MAX, |[x, y, z]| x.saturating_mul(y).saturating_mul(z))
            .min(limits::BLOCK_THREADS_MAX)
    }

    /// The only block it may be launched with (`.reqntid`), if it says so.
    #[must_use]
    pub fn required_block(&self) -> Option<[u32; 3]> {
        self.entry.required_threads
    }
}

/// One routine a name, definitions before declarations, in the order of first mention.
fn name_functions<'s, 'a>(
    functions: &'s [Routine<'a>],
    outside: &mut Outside<'a>,
) -> Parsed<Vec<&'s Routine<'a>>> {
    let mut routines: Vec<&Routine<'a>> = Vec::new();
    for routine in functions {
        if routine.is_entry && routine.body.is_none() {
            continue;
        }
        let index = match outside.names.get(routine.name) {
            Some(&Name::Function(index)) => index as usize,
            _ => {
                let next = u32::try_from(routines.len()).map_err(|_| too_many(routine.place))?;
                outside.names.insert(routine.name, Name::Function(next));
                routines.push(routine);
                continue;
            }
        };
        let Some(known) = routines.get_mut(index) else { continue };
        if !same_signature(known, routine) {
            return Err(routine.place.invalid(format!("`{}` was declared otherwise before", routine.name)));
        }
        match (&known.body, &routine.body) {
            (Some(_), Some(_)) => {
                return Err(routine.place.invalid(format!("`{}` is defined twice", routine.name)));
            }
            (None, Some(_)) => *known = routine,
            _ => {}
        }
    }
    let sizes = |list: &[Variable<'_>]| list.iter().map(|variable| narrow(variable.bytes)).collect();
    for routine in &routines {
        outside.signatures.push((!routine.is_entry).then(|| Signature {
            name: routine.name.to_owned(),
            params: sizes(&routine.params),
            returns: sizes(&routine.returns),
            has_body: routine.body.is_some(),
        }));
    }
    Ok(routines)
}

fn too_many(place: Place) -> ParseError {
    place.limit("more symbols than can be counted")
}

/// The variables that need device memory; shared ones are noted on the way.
fn name_variables<'s, 'a>(
    variables: &'s [Variable<'a>],
    outside: &mut Outside<'a>,
) -> Parsed<Vec<&'s Variable<'a>>> {
    let mut globals: Vec<&Variable<'a>> = Vec::new();
    let defined =
        |variable: &&Variable<'a>| variable.linkage != Linkage::Extern || variable.space == Space::Shared;
    for variable in variables.iter().filter(defined) {
        let name = if variable.space == Space::Shared {
            Name::Shared(outside.add_shared(variable)?)
        } else {
            if variable.bytes == 0 && variable.initialiser.is_empty() {
                return Err(variable.place.invalid(format!("`{}` has no size", variable.name)));
            }
            let index = u32::try_from(globals.len()).map_err(|_| too_many(variable.place))?;
            globals.push(variable);
            Name::Variable(index, variable.space)
        };
        if outside.names.insert(variable.name, name).is_some() {
            return Err(variable.place.invalid(format!("`{}` is declared twice", variable.name)));
        }
    }
    for variable in variables.iter().filter(|variable| !defined(variable)) {
        if !outside.names.contains_key(variable.name) {
            let message =
                format!("`{}` is declared extern, and no module is linked to this one", variable.name);
            return Err(variable.place.unsupported(message));
        }
    }
    Ok(globals)
}

fn global(variable: &Variable<'_>, outside: &Outside<'_>) -> Parsed<Global> {
    let element = u64::from(variable.element.bytes());
    let length = (variable.initialiser.len() as u64).saturating_mul(element);
    // `x[] = {1, 2}` takes its size from the values.
    let bytes = if variable.bytes == 0 { length } else { variable.bytes };
    if length > bytes {
        return Err(variable
            .place
            .invalid(format!("`{}` has {bytes} bytes but values for {length}", variable.name)));
    }
    if length > limits::INITIALISER_BYTES_MAX {
        return Err(variable.place.limit(format!(
            "`{}` has more than {} bytes",
            variable.name,
            limits::INITIALISER_BYTES_MAX
        )));
    }
    let mut initial = Vec::new();
    let mut relocations = Vec::new();
    for value in &variable.initialiser {
        let bits = match *value {
            Initialiser::Number(number, negative) => {
                decode::literal(number, negative, variable.element, variable.place)?
            }
            Initialiser::Address { name, addend, place } => {
                let target = match outside.names.get(name) {
                    Some(&target @ (Name::Variable(..) | Name::Function(_))) => target,
                    _ => return Err(place.invalid(format!("`{name}` has no address at load time"))),
                };
                if element != 8 {
                    return Err(place.unsupported("an address in a variable of less than 64 bits"));
                }
                relocations.push(Relocation { offset: initial.len(), target, addend });
                0
            }
        };
        initial.extend_from_slice(&bits.to_le_bytes()[..variable.element.bytes() as usize]);
    }
    Ok(Global {
        name: variable.name.to_owned(),
        space: if variable.space == Space::Const { GlobalSpace::Const } else { GlobalSpace::Global },
        bytes,
        align: variable.align.max(1),
        managed: variable.managed,
        initial,
        relocations,
    })
}

/// Lays out the shared memory of a kernel: the variables of the functions it can reach, the dynamic arrays last.
fn kernel_layout(index: usize, functions: &[Function], shared: &[SharedVariable]) -> Parsed<KernelLayout> {
    let place = Place { line: functions[index].line, column: 1 };
    let start = u32::try_from(index).map_err(|_| too_many(place))?;
    let calls = |function: u32| -> Vec<u32> {
        match functions.get(function as usize) {
            // A pointer may lead to any function.
            Some(function) if function.calls_pointers => (0..narrow(functions.len() as u64))
                .filter(|&other| functions[other as usize].entry.is_none())
                .collect(),
            Some(function) => function.calls.iter().copied().collect(),
            None => Vec::new(),
        }
    };
    let reached = decode::reachable(start, calls);
    let reached = || reached.iter().filter_map(|&function| functions.get(function as usize));
    let used: BTreeSet<u32> = reached().flat_map(|function| function.shared_used.iter().copied()).collect();
    let sized = |wanted: bool| {
        used.iter().filter_map(move |&variable| {
            let shape = shared.get(variable as usize)?;
            ((shape.bytes != 0) == wanted).then_some((variable, shape))
        })
    };
    let mut offsets = Vec::new();
    let mut end = 0u64;
    for (variable, shape) in sized(true) {
        let offset = end.next_multiple_of(u64::from(shape.align.max(1)));
        end = offset + u64::from(shape.bytes);
        offsets.push((variable, narrow(offset)));
    }
    if end > limits::SHARED_BYTES_MAX {
        let message = format!(
            "kernel `{}` has {end} bytes of shared memory; a block has at most {}",
            functions[index].name,
            limits::SHARED_BYTES_MAX
        );
        return Err(place.limit(message));
    }
    // All dynamic arrays begin at the same address, as aligned as the strictest of them.
    let align = sized(false).map(|(_, shape)| u64::from(shape.align)).max();
    if let Some(align) = align {
        end = end.next_multiple_of(align.max(1));
    }
    offsets.extend(sized(false).map(|(variable, _)| (variable, narrow(end))));
    let callees = reached().filter(|function| function.entry.is_none());
    let callees = callees.map(|function| function.local_bytes).max().unwrap_or(0);
    Ok(KernelLayout {
        function: index,
        shared: offsets,
        shared_bytes: narrow(end),
        local_bytes: functions[index].local_bytes.saturating_add(callees),
        uses_dynamic_shared: align.is_some(),
    })
}
