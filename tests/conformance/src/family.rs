//! Every way to take device memory, in one shape: take so many units, get something that gives them back.

use crate::gpu::{CUdeviceptr, CUgraph, Code, Gpu, NOT_SUPPORTED, Shape, UNIT};

/// What was taken, and how to give it back.
pub type Taken = Box<dyn Fn(&Gpu) -> Result<(), Code>>;

/// A way to take device memory.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// The driver's function that takes it, for injecting failures.
    pub call: &'static str,
    /// The one function that gives it back, where there is only one.
    pub end: Option<&'static str>,
    /// Takes so many units of 2 MiB.
    pub take: fn(&Gpu, u64) -> Result<Taken, Code>,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// `CUDA_ARRAY3D_LAYERED`.
pub const LAYERED: u32 = 1;
/// `CUDA_ARRAY3D_CUBEMAP`.
pub const CUBEMAP: u32 = 4;

/// All of them. What a unit is made of is chosen so that every family takes exactly as much as it says.
pub const FAMILIES: &[Family] = &[
    Family { name: "plain", call: "cuMemAlloc_v2", end: Some("cuMemFree_v2"), take: plain },
    Family { name: "managed", call: "cuMemAllocManaged", end: Some("cuMemFree_v2"), take: managed },
    Family { name: "pitch", call: "cuMemAllocPitch_v2", end: Some("cuMemFree_v2"), take: pitch },
    Family { name: "async", call: "cuMemAllocAsync", end: None, take: stream_ordered },
    Family { name: "pool", call: "cuMemAllocFromPoolAsync", end: None, take: pool },
    Family { name: "physical", call: "cuMemCreate", end: Some("cuMemRelease"), take: physical },
    Family { name: "mapped and released", call: "cuMemCreate", end: None, take: mapped },
    Family { name: "bound and released", call: "cuMemCreate", end: None, take: bound },
    Family { name: "flat array", call: "cuArrayCreate_v2", end: Some("cuArrayDestroy"), take: flat_array },
    Family { name: "3D array", call: "cuArray3DCreate_v2", end: Some("cuArrayDestroy"), take: solid_array },
    Family {
        name: "layered array",
        call: "cuArray3DCreate_v2",
        end: Some("cuArrayDestroy"),
        take: layered_array,
    },
    Family {
        name: "mipmap",
        call: "cuMipmappedArrayCreate",
        end: Some("cuMipmappedArrayDestroy"),
        take: mipmap,
    },
    Family { name: "graph", call: "cuGraphLaunch", end: None, take: graph },
    Family { name: "captured", call: "cuGraphLaunch", end: None, take: captured },
];

/// The families that the driver supports, and those it says it does not (`CUDA_ERROR_NOT_SUPPORTED`).
///
/// # Errors
/// When a family fails in another way, or does not give back what it took.
pub fn supported(gpu: &Gpu) -> Result<(Vec<&'static Family>, Vec<&'static Family>), String> {
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for family in FAMILIES {
        match (family.take)(gpu, 1) {
            Ok(give) => {
                give(gpu).map_err(|code| format!("{}: giving back: {code}", family.name))?;
                can.push(family);
            }
            Err(NOT_SUPPORTED) => cannot.push(family),
            Err(code) => return Err(format!("{}: {code}", family.name)),
        }
    }
    Ok((can, cannot))
}

fn plain(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let address = gpu.allocate(units * UNIT)?;
    Ok(Box::new(move |gpu| gpu.free(address)))
}

fn managed(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let address = gpu.allocate_managed(units * UNIT)?;
    Ok(Box::new(move |gpu| gpu.free(address)))
}

fn pitch(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let (address, _) = gpu.allocate_pitch(UNIT / 256, units * 256)?;
    Ok(Box::new(move |gpu| gpu.free(address)))
}

fn stream_ordered(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let stream = std::ptr::null_mut();
    let address = gpu.allocate_async(units * UNIT, None, stream)?;
    Ok(Box::new(move |gpu| {
        gpu.free_async(address, stream)?;
        gpu.synchronise_stream(stream)
    }))
}

fn pool(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let stream = std::ptr::null_mut();
    let pool = gpu.make_pool(u64::MAX)?;
    let address = match gpu.allocate_async(units * UNIT, Some(pool), stream) {
        Ok(address) => address,
        Err(code) => {
            gpu.end_pool(pool)?;
            return Err(code);
        }
    };
    Ok(Box::new(move |gpu| {
        gpu.free_async(address, stream)?;
        gpu.synchronise_stream(stream)?;
        gpu.trim_pool(pool, 0)?;
        gpu.end_pool(pool)
    }))
}

fn physical(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let handle = gpu.create(units * UNIT, false)?;
    Ok(Box::new(move |gpu| gpu.release(handle)))
}

fn mapped(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let bytes = units * UNIT;
    let handle = gpu.create(bytes, false)?;
    let mapped = gpu.map(handle, bytes);
    gpu.release(handle)?;
    let address = mapped?;
    Ok(Box::new(move |gpu| gpu.unmap(address, bytes)))
}

fn bound(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let bytes = units * UNIT;
    let handle = gpu.create(bytes, false)?;
    let bound = gpu.multicast(bytes).and_then(|object| gpu.bind(object, handle, bytes).map(|()| object));
    gpu.release(handle)?;
    let object = bound?;
    Ok(Box::new(move |gpu| {
        gpu.unbind(object, bytes)?;
        gpu.release(object)
    }))
}

fn flat_array(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let array = gpu.flat_array(Shape::floats(4096, 128 * units, 0))?;
    Ok(Box::new(move |gpu| gpu.end_array(array)))
}

fn solid_array(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let array = gpu.array(Shape::floats(512, 512, 2 * units))?;
    Ok(Box::new(move |gpu| gpu.end_array(array)))
}

fn layered_array(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let array = gpu.array(Shape::floats(1024, 512, units).flags(LAYERED))?;
    Ok(Box::new(move |gpu| gpu.end_array(array)))
}

fn mipmap(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    let mipmap = gpu.mipmap(Shape::floats(4096, 128 * units, 0), 1)?;
    Ok(Box::new(move |gpu| gpu.end_mipmap(mipmap)))
}

fn graph(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    run_graph(gpu, gpu.allocating_graph(units * UNIT, false)?)
}

fn captured(gpu: &Gpu, units: u64) -> Result<Taken, Code> {
    run_graph(gpu, gpu.captured_graph(units * UNIT, false)?)
}

/// What a graph allocates and does not free is the program's: nobody may take it away.
fn run_graph(gpu: &Gpu, (graph, address): (CUgraph, CUdeviceptr)) -> Result<Taken, Code> {
    let exec = match gpu.instantiate(graph) {
        Ok(exec) => exec,
        Err(code) => {
            gpu.end_graph(graph, None)?;
            return Err(code);
        }
    };
    if let Err(code) = gpu.run(exec) {
        gpu.end_graph(graph, Some(exec))?;
        return Err(code);
    }
    Ok(Box::new(move |gpu| {
        gpu.end_graph(graph, Some(exec))?;
        let stream = std::ptr::null_mut();
        gpu.free_async(address, stream)?;
        gpu.synchronise_stream(stream)?;
        gpu.trim_graphs()
    }))
}
