//! The second ledger against a model, and the witness against ways around the hook.

mod support;

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use headgate_ebpf::{
    AttachPreference, Attached, Bypass, Config, Counter, LibraryId, Part, Probe, Probes, ProcessMemory, Slot,
    State, attest::code_of,
};
use support::{Bench, TestCgroup, bench, city::Agent, compile_program, eventually, skip};

fn slot(tenant: u32) -> Slot {
    Slot::of_tenant(tenant).expect("a small index")
}

struct Scene {
    bench: Bench,
    /// A driver that hands out memory, an inode of its own.
    driver: PathBuf,
    hook: PathBuf,
    tenant: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.driver);
    }
}

fn copy_of(driver: &std::path::Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("memory-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let copy = driver.with_file_name(name);
    std::fs::copy(driver, &copy).expect("the directory is ours");
    copy
}

fn scene(config: Config) -> Result<(Scene, Attached), String> {
    let mut bench = bench(&[Probe::GpuWait], config)?;
    for status in bench.probes.parts() {
        if status.state == State::Missing {
            return Err(status.to_string());
        }
    }
    let shared =
        ["-shared", "-fPIC", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-fno-shrink-wrap"];
    let driver = copy_of(&compile_program("memory.c", &shared)?);
    let scene_programs = (compile_program("hook.c", &shared)?, compile_program("tenant.c", &[])?);
    let attached = bench.probes.attach_library(&driver).map_err(|error| error.to_string())?;
    Ok((Scene { bench, driver, hook: scene_programs.0, tenant: scene_programs.1 }, attached))
}

impl Scene {
    fn probes(&mut self) -> &mut Probes {
        &mut self.bench.probes
    }

    fn agent(&self, cgroup: &TestCgroup) -> Agent {
        let mut command = Command::new(&self.tenant);
        command.arg(&self.driver).arg(&self.hook);
        let mut agent = Agent::start(command, Some(cgroup));
        // It answers once it has loaded both.
        agent.ask("nothing").expect_err("no such command");
        agent
    }

    fn attest(&mut self, agent: &Agent) {
        let hook = LibraryId::of(&self.hook).expect("it was compiled");
        let code = code_of(agent.pid(), hook).expect("it runs").expect("it has loaded the hook");
        self.probes().attest(agent.pid(), &code).expect("there is room");
    }

    fn of(&self, agent: &Agent) -> Option<ProcessMemory> {
        let all = self.bench.probes.memory().expect("readable").expect("loaded");
        all.into_iter().find(|process| process.tgid == agent.pid())
    }

    fn bytes_of(&self, slot: Slot) -> u64 {
        let all = self.bench.probes.memory().expect("readable").expect("loaded");
        all.iter().filter(|process| process.slot == slot).map(ProcessMemory::bytes).sum()
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.bench.probes.counters().expect("readable")[&counter]
    }

    fn bypasses(&self, slot: Slot, bypass: Bypass) -> (u64, u64) {
        let witnessed = self.bench.probes.witnessed(slot).expect("the row exists").expect("loaded");
        let count = witnessed.bypasses[&bypass];
        (count.outside, count.unattested)
    }
}

/// The ledger's figures in the order in which the tenant's model reports its own.
fn figures(memory: ProcessMemory) -> [u64; 5] {
    [memory.plain + memory.pooled, memory.managed, memory.physical, memory.arrays, memory.held]
}

#[test]
fn a_hundred_thousand_random_operations_leave_no_drift() {
    let (mut scene, _) = match scene(Config::default()) {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let cgroup = scene.bench.root.child("tenant");
    scene.probes().set_cgroup(&cgroup.cgroup, slot(0)).expect("a cgroup of ours");
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_925_u64);
    println!("SEED={seed}");
    let mut agents: Vec<Agent> = (0..3).map(|_| scene.agent(&cgroup)).collect();
    for round in 0..5 {
        let mut sum = 0;
        for (number, agent) in (0_u64..).zip(&mut agents) {
            let seed = seed + 100 * round + number;
            let threads = 1 + (seed % 4);
            let model = agent.ask(&format!("random {seed} 6000 {threads}")).expect("it runs");
            let seen = scene.of(agent).expect("it has allocated");
            assert_eq!(figures(seen)[..], model[..], "round {round}, process {number}");
            assert_eq!(seen.slot, slot(0));
            sum += seen.bytes();
            // A child that is killed with all it holds leaves nothing in the sums.
            agent.get(&format!("fork-random {seed} 800 2"));
        }
        assert_eq!(scene.bytes_of(slot(0)), sum, "the tenant's bytes are its processes'");
    }
    // Killed in the middle of it.
    let mut victim = scene.agent(&cgroup);
    victim.get("random 5 500 2");
    let before = scene.of(&victim).expect("it has allocated").held;
    assert!(before > 0);
    let pid = victim.pid();
    victim.kill();
    let gone = eventually(|| {
        let all = scene.bench.probes.memory().expect("readable").expect("loaded");
        all.iter().all(|process| process.tgid != pid).then_some(())
    });
    assert!(gone.is_some(), "a killed process' bytes go at once");

    let mut executed = scene.agent(&cgroup);
    executed.get("random 9 300 1");
    executed.get("exec");
    assert!(scene.of(&executed).is_none(), "another program holds nothing");

    for agent in &mut agents {
        assert_eq!(agent.ask("free-all").expect("it runs")[..], [0; 5]);
        assert_eq!(figures(scene.of(agent).expect("still there"))[..], [0; 5], "to the byte");
    }
    assert_eq!(scene.bytes_of(slot(0)), 0);
    for counter in [
        Counter::LedgerLost,
        Counter::LedgerFull,
        Counter::LedgerAbandoned,
        Counter::LedgerUnknownFree,
        Counter::LedgerUnsized,
    ] {
        assert_eq!(scene.counter(counter), 0, "{counter:?}");
    }
    assert!(scene.counter(Counter::LedgerNested) > 0, "the pitched allocations asked within");

    // What the dead left in the table is swept up, and nothing else.
    let orphans = scene.counter(Counter::LedgerOrphans);
    assert!(orphans > before, "{orphans} left behind");
    let mut swept = 0;
    for _ in 0..100 {
        swept += scene.probes().sweep_ledger().expect("the kernel lets us") as u64;
        if swept >= orphans {
            break;
        }
    }
    assert_eq!(swept, orphans);
    assert_eq!(scene.probes().sweep_ledger().expect("nothing to do"), 0);
}

#[test]
fn memory_goes_with_its_process_from_cgroup_to_cgroup() {
    let (mut scene, _) = match scene(Config::default()) {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let (red, blue) = (scene.bench.root.child("red"), scene.bench.root.child("blue"));
    let container = red.child("container");
    let mut agent = scene.agent(&container);
    agent.get("hooked cuMemAlloc_v2 0 10");
    assert_eq!((scene.bytes_of(Slot::UNKNOWN), scene.bytes_of(slot(1))), (640, 0), "nobody's yet, but seen");
    scene.probes().set_cgroup(&red.cgroup, slot(1)).expect("a cgroup of ours");
    scene.probes().set_cgroup(&blue.cgroup, slot(2)).expect("a cgroup of ours");
    agent.get("hooked cuMemAlloc_v2 0 1");
    assert_eq!(
        (scene.bytes_of(Slot::UNKNOWN), scene.bytes_of(slot(1))),
        (0, 704),
        "a tenant that came later"
    );
    blue.adopt(agent.pid());
    agent.get("hooked cuMemAlloc_v2 0 1");
    assert_eq!((scene.bytes_of(slot(1)), scene.bytes_of(slot(2))), (0, 768), "it took everything along");
    scene.probes().remove_cgroup(blue.cgroup.id()).expect("named");
    agent.get("hooked cuMemAlloc_v2 0 1");
    assert_eq!((scene.bytes_of(slot(2)), scene.bytes_of(Slot::UNKNOWN)), (0, 832), "its tenant was removed");
    drop(agent);
    drop(container);
}

#[test]
fn what_cannot_be_summed_is_counted() {
    let small = Config { allocations: 100, ..Config::default() };
    let (mut scene, _) = match scene(small) {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let cgroup = scene.bench.root.child("tenant");
    scene.probes().set_cgroup(&cgroup.cgroup, slot(0)).expect("a cgroup of ours");
    let mut agent = scene.agent(&cgroup);
    let address = agent.ask("hooked cuMemAlloc_v2 0 1").expect("it runs")[1];
    agent.get("hooked cuMemAlloc_v2 0 149");
    let full = scene.counter(Counter::LedgerFull);
    let held = scene.of(&agent).expect("it has allocated").held;
    assert_eq!(held + full, 150, "followed or counted");
    assert_eq!(scene.bytes_of(slot(0)), held * 64);
    agent.get(&format!("hooked cuMemFree_v2 {address} 1"));
    assert_eq!(scene.of(&agent).expect("still there").held, held - 1);
    agent.get("hooked cuMipmappedArrayCreate 0 2");
    assert_eq!(scene.counter(Counter::LedgerUnsized), 2);
    agent.get("hooked cuMemImportFromShareableHandle 0 3");
    assert_eq!(scene.counter(Counter::LedgerImported), 3);
    let imported = agent.ask("hooked cuMemImportFromShareableHandle 0 1").expect("it runs")[1];
    agent.get(&format!("hooked cuMemRelease {imported} 1"));
    assert_eq!(scene.counter(Counter::LedgerUnknownFree), 1);
    agent.get("hooked cuCtxDestroy_v2 8 2");
    assert_eq!(scene.of(&agent).expect("still there").context_ends, 2);
}

#[test]
fn calls_around_the_hook_are_witnessed_by_kind() {
    for attach in [AttachPreference::Best, AttachPreference::Apart, AttachPreference::PerfOnly] {
        let (mut scene, _) = match scene(Config { attach, ..Config::default() }) {
            Ok(made) => made,
            Err(why) => skip!("{why}"),
        };
        let cgroup = scene.bench.root.child("tenant");
        scene.probes().set_cgroup(&cgroup.cgroup, slot(0)).expect("a cgroup of ours");
        let mut agent = scene.agent(&cgroup);
        agent.get("hooked cuMemAlloc_v2 0 3");
        assert_eq!(scene.bypasses(slot(0), Bypass::Allocate), (0, 3), "nobody has vouched for the hook");
        scene.attest(&agent);
        agent.get("hooked cuMemAlloc_v2 0 5");
        assert_eq!(scene.bypasses(slot(0), Bypass::Allocate), (0, 3), "out of the hook is as it should be");
        // A function pointer kept from elsewhere, a library bound deeply: the call comes from the program itself.
        let address = agent.ask("direct cuMemAlloc_v2 0 4").expect("it runs")[1];
        agent.get(&format!("direct cuMemFree_v2 {address} 1"));
        agent.get("direct cuGetExportTable 0 2");
        assert_eq!(scene.bypasses(slot(0), Bypass::Allocate), (4, 3));
        assert_eq!(scene.bypasses(slot(0), Bypass::Release), (1, 0));
        assert_eq!(scene.bypasses(slot(0), Bypass::ExportTable), (2, 0));
        assert_eq!(scene.bytes_of(slot(0)), 11 * 64, "and the ledger has it all the same");
        // A child of fork has the hook's code and nobody's word.
        agent.get("fork-random 3 64 1");
        assert!(scene.bypasses(slot(0), Bypass::Allocate).1 > 3, "fork without exec");
        agent.get("exec");
        let before = scene.bypasses(slot(0), Bypass::Allocate).1;
        agent.get("hooked cuMemAlloc_v2 0 1");
        assert_eq!(
            scene.bypasses(slot(0), Bypass::Allocate).1,
            before + 1,
            "another program, to be attested anew"
        );

        // Launches: only while asked for.
        scene.attest(&agent);
        agent.get("direct cuLaunchKernel 8 10");
        assert_eq!(scene.bypasses(slot(0), Bypass::Launch), (0, 0));
        scene.probes().audit_launches().expect("the kernel lets us");
        let audit = |scene: &Scene| {
            scene
                .bench
                .probes
                .parts()
                .into_iter()
                .find(|status| status.part == Part::LaunchAudit)
                .expect("listed")
        };
        assert!(audit(&scene).up(), "{}", audit(&scene));
        agent.get("direct cuLaunchKernel 8 10");
        agent.get("hooked cuLaunchKernel 8 20");
        assert_eq!(scene.bypasses(slot(0), Bypass::Launch), (10, 0));
        let launches = |scene: &Scene| {
            scene.bench.probes.witnessed(slot(0)).expect("the row exists").expect("loaded").launches
        };
        assert_eq!(launches(&scene), 30);
        scene.probes().end_launch_audit();
        agent.get("direct cuLaunchKernel 8 10");
        assert_eq!((scene.bypasses(slot(0), Bypass::Launch), launches(&scene)), ((10, 0), 30));
        assert_eq!(audit(&scene).state, State::Idle);
    }
}

#[test]
fn a_copied_driver_is_found_in_the_process_that_has_it() {
    let (mut scene, _) = match scene(Config::default()) {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let cgroup = scene.bench.root.child("tenant");
    scene.probes().set_cgroup(&cgroup.cgroup, slot(0)).expect("a cgroup of ours");
    let mut agent = scene.agent(&cgroup);
    scene.attest(&agent);
    let copy = copy_of(&scene.driver);
    let anonymous = copy.with_extension("innocent-name");
    std::fs::rename(&copy, &anonymous).expect("the directory is ours");
    agent.get(&format!("load {}", anonymous.display()));
    // Gone from every directory, as in a mount namespace of its own.
    std::fs::remove_file(&anonymous).expect("it is there");
    agent.get("direct cuMemAlloc_v2 0 2");
    assert_eq!(scene.bypasses(slot(0), Bypass::Allocate), (0, 0), "unknown, so unseen");
    let pid = agent.pid();
    assert_eq!(
        scene.probes().attach_process(pid).expect("it runs"),
        1,
        "the copy; the other was attached before"
    );
    assert_eq!(scene.probes().attach_process(pid).expect("it runs"), 0, "once");
    agent.get("direct cuMemAlloc_v2 0 2");
    assert_eq!(scene.bypasses(slot(0), Bypass::Allocate), (2, 0), "seen");
    assert_eq!(scene.bytes_of(slot(0)), 128);
    assert!(scene.probes().attach_process(u32::MAX).is_err(), "no such process");
}
