//! What a program sees, line by line: the same natively and under the hook without limits.
//!
//! Lines hold error numbers and differences of sizes, never addresses, so that two runs can be compared. Each
//! case names the group of complaints about GPU sharing it answers.

use cudarc::driver::sys::CUarray_format as Format;

use crate::family::{CUBEMAP, FAMILIES, LAYERED};
use crate::gpu::{Code, Gpu, MIB, NOT_SUPPORTED, Shape, UNIT};
use crate::{aside, contexts, copies, work};

/// A case: what it is about, and what it does.
pub type Case = (&'static str, fn(&Gpu, &mut Lines) -> Result<(), Code>);

/// The cases in order.
pub const CASES: &[Case] = &[
    ("families/every family takes what it says and gives it back", every_family),
    ("8/a pool keeps what its threshold lets it, and trim lowers it", pools),
    ("10/physical memory lives until its last handle and its last mapping are gone", physical_life),
    ("10/host memory is not device memory", host_locations),
    ("10/an exported handle imported again is one allocation", sharing),
    ("10/graph memory is kept until it is trimmed", graph_memory),
    ("11/unknown and null arguments are the driver's business", odd_arguments),
    ("15/every view shows the same total", totals),
    ("16/pointer attributes pass unchanged", attributes),
    ("pointers/what is of no allocation is of no device", strangers),
    ("arrays/formats and dimensions", arrays),
    ("host/pinned memory", pinned),
];

/// The cases of every module, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [CASES, work::CASES, copies::CASES, aside::CASES, contexts::CASES].into_iter().flatten()
}

/// What a case saw.
#[derive(Debug, Default)]
pub struct Lines(pub Vec<String>);

impl Lines {
    pub(crate) fn note(&mut self, what: &str, seen: impl std::fmt::Debug) {
        self.0.push(format!("{what}: {seen:?}"));
    }
}

/// Bytes in use, as the program sees them.
fn used(gpu: &Gpu) -> Result<u64, Code> {
    gpu.memory().map(|(free, total)| total - free)
}

/// How much more is in use after some work than at `start`.
fn more(gpu: &Gpu, start: u64) -> Result<i128, Code> {
    Ok(i128::from(used(gpu)?) - i128::from(start))
}

fn every_family(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    for family in FAMILIES {
        for units in [1, 3] {
            let start = used(gpu)?;
            let taken = (family.take)(gpu, units);
            lines.note(family.name, taken.as_ref().err());
            lines.note("takes", more(gpu, start)?);
            if let Ok(give) = taken {
                lines.note("gives", give(gpu));
            }
            lines.note("leaves", more(gpu, start)?);
        }
    }
    Ok(())
}

fn pools(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let (start, stream) = (used(gpu)?, gpu.stream()?);
    let pool = gpu.make_pool(4 * UNIT)?;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(gpu.allocate_async(UNIT, Some(pool), stream)?);
    }
    lines.note("reserved", gpu.pool_reserved(pool)?);
    lines.note("in use", more(gpu, start)?);
    for address in held.drain(..) {
        gpu.free_async(address, stream)?;
    }
    gpu.synchronise_stream(stream)?;
    lines.note("kept", (gpu.pool_reserved(pool)?, more(gpu, start)?));
    let again = gpu.allocate_async(UNIT, Some(pool), stream)?;
    gpu.synchronise_stream(stream)?;
    lines.note("taken again", (gpu.pool_reserved(pool)?, more(gpu, start)?));
    gpu.free_async(again, stream)?;
    gpu.synchronise_stream(stream)?;
    gpu.trim_pool(pool, 0)?;
    lines.note("trimmed", (gpu.pool_reserved(pool)?, more(gpu, start)?));
    gpu.end_pool(pool)?;
    gpu.end_stream(stream)?;
    lines.note("left", more(gpu, start)?);
    Ok(())
}

fn physical_life(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let start = used(gpu)?;
    let handle = gpu.create(2 * UNIT, false)?;
    let (first, second) = (gpu.map(handle, 2 * UNIT)?, gpu.map(handle, 2 * UNIT)?);
    gpu.release(handle)?;
    lines.note("released", more(gpu, start)?);
    gpu.unmap(first, 2 * UNIT)?;
    lines.note("unmapped once", more(gpu, start)?);
    let kept = gpu.retain(second)?;
    gpu.unmap(second, 2 * UNIT)?;
    lines.note("retained", more(gpu, start)?);
    gpu.release(kept)?;
    lines.note("released at last", more(gpu, start)?);
    lines.note("released twice", gpu.release(kept));
    Ok(())
}

fn host_locations(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let start = used(gpu)?;
    let handle = gpu.create(UNIT, true);
    lines.note("host memory", handle.as_ref().err());
    lines.note("takes", more(gpu, start)?);
    if let Ok(handle) = handle {
        gpu.release(handle)?;
    }
    Ok(())
}

fn sharing(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let start = used(gpu)?;
    let handle = gpu.create(UNIT, false)?;
    let descriptor = gpu.export(handle)?;
    lines.note("exported", more(gpu, start)?);
    let imported = gpu.import(descriptor)?;
    lines.note("imported", more(gpu, start)?);
    gpu.close(descriptor);
    gpu.release(handle)?;
    lines.note("original released", more(gpu, start)?);
    gpu.release(imported)?;
    lines.note("import released", more(gpu, start)?);
    Ok(())
}

fn graph_memory(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let start = used(gpu)?;
    let graph = match gpu.allocating_graph(3 * UNIT, true).map(|(graph, _)| graph) {
        Err(NOT_SUPPORTED) => {
            lines.note("not supported", NOT_SUPPORTED);
            return Ok(());
        }
        graph => graph?,
    };
    let exec = gpu.instantiate(graph)?;
    lines.note("instantiated", more(gpu, start)?);
    for _ in 0..3 {
        gpu.run(exec)?;
        lines.note("run", (gpu.graph_reserved()?, more(gpu, start)?));
    }
    gpu.end_graph(graph, Some(exec))?;
    lines.note("destroyed", (gpu.graph_reserved()?, more(gpu, start)?));
    gpu.trim_graphs()?;
    lines.note("trimmed", (gpu.graph_reserved()?, more(gpu, start)?));
    Ok(())
}

fn odd_arguments(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    lines.note("zero bytes", gpu.allocate(0).err());
    lines.note("all bytes", gpu.allocate(1 << 60).err());
    lines.note("free nothing", gpu.free(0));
    lines.note("free what is not", gpu.free(12_345));
    lines.note("odd physical size", gpu.create(UNIT + 1, false).err());
    lines.note("release what is not", gpu.release(0xdead_beef));
    lines.note("no array", gpu.array(Shape::floats(0, 0, 0)).err());
    lines.note("no outputs, unknown flags", gpu.without_outputs());
    Ok(())
}

fn totals(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let (free, total) = gpu.memory()?;
    lines.note("total", (total == gpu.total()?, free <= total));
    Ok(())
}

fn attributes(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let plain = gpu.allocate(MIB)?;
    lines.note("plain", gpu.pointer(plain)?);
    lines.note("bytes come back", gpu.prove(plain));
    gpu.free(plain)?;
    lines.note("freed", gpu.pointer(plain));
    let managed = gpu.allocate_managed(MIB)?;
    lines.note("managed", gpu.pointer(managed)?);
    gpu.free(managed)
}

fn strangers(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let unknown = [0u8; 64];
    lines.note("never seen", gpu.place(unknown.as_ptr().addr() as u64)?);
    let freed = gpu.allocate(MIB)?;
    let known = gpu.place(freed)?;
    lines.note("known", (known.0, known.1, known.2 == freed));
    gpu.free(freed)?;
    lines.note("freed", gpu.place(freed)?);
    Ok(())
}

fn arrays(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let formats = [
        (Format::CU_AD_FORMAT_UNSIGNED_INT8, 1),
        (Format::CU_AD_FORMAT_UNSIGNED_INT8, 4),
        (Format::CU_AD_FORMAT_SIGNED_INT16, 2),
        (Format::CU_AD_FORMAT_HALF, 4),
        (Format::CU_AD_FORMAT_FLOAT, 4),
        (Format::CU_AD_FORMAT_BC1_UNORM, 4),
        (Format::CU_AD_FORMAT_BC7_UNORM, 4),
    ];
    let shapes = [
        (65_536, 0, 0, 0),
        (1024, 1024, 0, 0),
        (256, 256, 16, 0),
        (512, 512, 8, LAYERED),
        (512, 512, 6, CUBEMAP),
    ];
    for (format, channels) in formats {
        for (width, height, depth, flags) in shapes {
            let start = used(gpu)?;
            let shape = Shape::floats(width, height, depth).elements(format, channels).flags(flags);
            let array = gpu.array(shape);
            lines.note("array", (format as u32, channels, width, height, depth, flags, array.as_ref().err()));
            lines.note("takes", more(gpu, start)?);
            if let Ok(array) = array {
                gpu.end_array(array)?;
            }
            let mipmap = gpu.mipmap(shape, 4);
            lines.note("mipmap", (mipmap.as_ref().err(), more(gpu, start)?));
            if let Ok(mipmap) = mipmap {
                gpu.end_mipmap(mipmap)?;
            }
            lines.note("leaves", more(gpu, start)?);
        }
    }
    Ok(())
}

fn pinned(gpu: &Gpu, lines: &mut Lines) -> Result<(), Code> {
    let start = used(gpu)?;
    let memory = gpu.allocate_host(8 * MIB)?;
    lines.note("takes", more(gpu, start)?);
    gpu.free_host(memory)
}
