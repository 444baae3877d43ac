//! What happens at a quota: exactly what does not fit is refused, with the driver's own code, and every view
//! agrees at every step. The program must be alone in its tenant, whose quota is a multiple of the unit.

use crate::family::{Family, supported};
use crate::gpu::{Code, Gpu, NOT_SUPPORTED, OUT_OF_MEMORY, UNIT};
use crate::nvml::Nvml;

/// A case: what it is about, and what it does.
pub type Case = (&'static str, fn(&Gpu, &Nvml) -> Result<(), String>);

/// The cases in order.
pub const CASES: &[Case] = &[
    ("12/what does not fit is out of memory, exactly", exact),
    ("12/unit by unit to the last byte", piecemeal),
    ("12/a refusal leaves the context usable", usable),
    ("13/15/every view agrees after every step", views),
    ("8/rounds of taking and giving leave nothing", rounds),
    ("8/what a pool keeps makes room for others", pools_yield),
    ("10/mapped memory stays charged after its release", mapped_stays),
    ("10/an import charges nobody again", imports),
    ("10/a graph that does not fit does not run", graphs),
    ("10/what lives in a context stays charged until its last user has gone", users),
    ("23/only the tenant's own processes are listed", processes),
];

fn free(gpu: &Gpu) -> Result<u64, String> {
    let (free, total) = gpu.memory().map_err(|code| format!("cuMemGetInfo: {code}"))?;
    if total < free { Err(format!("{free} bytes free of {total}")) } else { Ok(free) }
}

fn must<T>(what: &str, outcome: Result<T, Code>) -> Result<T, String> {
    outcome.map_err(|code| format!("{what}: {code}"))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, left: T, right: T) -> Result<(), String> {
    if left == right { Ok(()) } else { Err(format!("{what}: {left:?} is not {right:?}")) }
}

fn each(gpu: &Gpu, work: impl Fn(&Family) -> Result<(), String>) -> Result<(), String> {
    let (can, _) = supported(gpu)?;
    can.into_iter().try_for_each(|family| work(family).map_err(|why| format!("{}: {why}", family.name)))
}

fn exact(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    let (can, _) = supported(gpu)?;
    each(gpu, |family| {
        let units = room / UNIT;
        equal("beyond the quota", (family.take)(gpu, units + 1).err(), Some(OUT_OF_MEMORY))?;
        equal("what a refusal leaves", free(gpu)?, room)?;
        let give = must("all of the quota", (family.take)(gpu, units))?;
        equal("what is left", free(gpu)?, 0)?;
        equal("one byte more", gpu.allocate(1).err(), Some(OUT_OF_MEMORY))?;
        for other in &can {
            equal(other.name, (other.take)(gpu, 1).err(), Some(OUT_OF_MEMORY))?;
        }
        must("giving back", give(gpu))?;
        equal("what is free afterwards", free(gpu)?, room)
    })
}

fn usable(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let held = must("a unit", gpu.allocate(UNIT))?;
    for _ in 0..3 {
        equal("far too much", gpu.allocate(1 << 45).err(), Some(OUT_OF_MEMORY))?;
        must("copying to the device and back", gpu.prove(held))?;
        must("waiting", gpu.synchronise())?;
    }
    must("freeing", gpu.free(held))
}

fn piecemeal(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    each(gpu, |family| {
        let mut taken = Vec::new();
        let refusal = loop {
            match (family.take)(gpu, 1) {
                Ok(give) => taken.push(give),
                Err(code) => break code,
            }
        };
        equal("the refusal", refusal, OUT_OF_MEMORY)?;
        equal("units that fit", taken.len() as u64, room / UNIT)?;
        taken.into_iter().try_for_each(|give| must("giving back", give(gpu)))?;
        equal("what is free afterwards", free(gpu)?, room)
    })
}

fn views(gpu: &Gpu, nvml: &Nvml) -> Result<(), String> {
    let agree = |when: &str| {
        let (free, total) = must("cuMemGetInfo", gpu.memory())?;
        equal(when, must("cuDeviceTotalMem", gpu.total())?, total)?;
        for memory in [must("NVML", nvml.memory())?, must("NVML v2", nvml.memory_v2())?] {
            equal(when, (memory.free, memory.total, memory.used), (free, total, total - free))?;
        }
        let mine: u64 = must("NVML processes", nvml.processes())?[2].iter().map(|(_, used)| used).sum();
        equal(when, mine, total - free)
    };
    each(gpu, |family| {
        agree("before")?;
        let give = must("taking", (family.take)(gpu, 3))?;
        agree("after taking")?;
        must("giving", give(gpu))?;
        agree("after giving")
    })
}

fn rounds(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    each(gpu, |family| {
        for round in 0..200u64 {
            let give = must("taking", (family.take)(gpu, 1 + round % 5))?;
            must("giving", give(gpu))?;
        }
        equal("what is free afterwards", free(gpu)?, room)
    })
}

fn pools_yield(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    let stream = must("a stream", gpu.stream())?;
    let pool = must("a pool", gpu.make_pool(u64::MAX))?;
    let address = must("from the pool", gpu.allocate_async(room, Some(pool), stream))?;
    must("freeing", gpu.free_async(address, stream))?;
    must("waiting", gpu.synchronise_stream(stream))?;
    equal("kept by the pool", free(gpu)?, 0)?;
    let plain = must("plain memory in its place", gpu.allocate(room))?;
    must("freeing", gpu.free(plain))?;
    must("ending the pool", gpu.end_pool(pool))?;
    must("ending the stream", gpu.end_stream(stream))?;
    equal("what is free afterwards", free(gpu)?, room)
}

fn mapped_stays(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    let handle = must("creating", gpu.create(room, false))?;
    let address = must("mapping", gpu.map(handle, room))?;
    must("releasing", gpu.release(handle))?;
    equal("the quota after the release", gpu.allocate(1).err(), Some(OUT_OF_MEMORY))?;
    must("unmapping", gpu.unmap(address, room))?;
    equal("what is free afterwards", free(gpu)?, room)
}

fn imports(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    let handle = must("creating", gpu.create(room, false))?;
    let descriptor = must("exporting", gpu.export(handle))?;
    let imported = must("importing with a full quota", gpu.import(descriptor))?;
    must("releasing the original", gpu.release(handle))?;
    gpu.close(descriptor);
    equal("the quota while the import lives", gpu.allocate(1).err(), Some(OUT_OF_MEMORY))?;
    must("releasing the import", gpu.release(imported))?;
    equal("what is free afterwards", free(gpu)?, room)
}

fn graphs(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    let (graph, _) = match gpu.allocating_graph(2 * UNIT, true) {
        Err(NOT_SUPPORTED) => return Ok(()),
        graph => must("a graph", graph)?,
    };
    let held = must("taking all but a unit", gpu.allocate(room - UNIT))?;
    let exec = must("making it ready", gpu.instantiate(graph))?;
    equal("running it", gpu.run(exec).err(), Some(OUT_OF_MEMORY))?;
    must("freeing", gpu.free(held))?;
    for _ in 0..3 {
        must("running it with room", gpu.run(exec))?;
        equal("what it takes", free(gpu)?, room - 2 * UNIT)?;
    }
    must("ending it", gpu.end_graph(graph, Some(exec)))?;
    must("trimming", gpu.trim_graphs())?;
    equal("what is free afterwards", free(gpu)?, room)
}

fn users(gpu: &Gpu, _: &Nvml) -> Result<(), String> {
    let room = free(gpu)?;
    let context = must("a context", gpu.make_context())?;
    // The context itself takes something, too, on devices that are not simulated.
    let charged = || equal("whether the unit is charged", free(gpu)? <= room - UNIT, true);
    let outcome = || {
        must("a unit in it", gpu.allocate(UNIT))?;
        charged()?;
        must("a second user", gpu.attach())?;
        must("the second user goes", gpu.detach(context))?;
        charged()?;
        must("the first user goes", gpu.detach(context))
    };
    let outcome = outcome();
    must("the old context", gpu.enter())?;
    outcome?;
    equal("what is free afterwards", free(gpu)?, room)
}

fn processes(gpu: &Gpu, nvml: &Nvml) -> Result<(), String> {
    let held = must("taking", gpu.allocate(3 * UNIT))?;
    let lists = must("listing", nvml.processes())?;
    let me = std::process::id();
    for list in &lists {
        equal("the list", list.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), vec![me])?;
        equal("what it shows", list.first().map(|(_, used)| *used), Some(3 * UNIT))?;
    }
    must("freeing", gpu.free(held))
}
