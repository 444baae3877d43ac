//! What enforcement, the second ledger and the audits cost, printed:
//! `cargo test --release -p headgate-ebpf --test costs_enforcement -- --nocapture --test-threads 1`.
//!
//! As in `costs.rs`, no time is asserted; what was timed is asserted to have been counted. Rounds are short and the best of them
//! counts, because on a shared machine that is the one nobody disturbed.

#![allow(clippy::print_stdout, reason = "printing is what these tests are for")]

mod support;

use std::{path::PathBuf, process::Command};

use headgate_ebpf::{
    Cidr, Config, Devices, Enforcement, Part, Peer, Probe, RuleMode, Rules, Side, Slot, State,
    enforce::DeviceClass,
};
use headgate_ebpf_records::maps;
use support::{
    TestCgroup, bench,
    city::{Agent, City, Realm},
    compile_program, figure, now, skip,
};

const CALLS: u64 = 1_000;
const ROUNDS: usize = if cfg!(debug_assertions) { 5 } else { 40 };

/// Nanoseconds a call of each agent for the same command, in alternating rounds. The time is the answer's last number.
fn ns_each<const N: usize>(mut agents: [&mut Agent; N], command: &str, calls: u64) -> [u64; N] {
    let mut best = [u64::MAX; N];
    for _ in 0..ROUNDS {
        for (agent, best) in agents.iter_mut().zip(&mut best) {
            let answer = agent.ask(command).unwrap_or_else(|error| panic!("{command}: errno {error}"));
            *best = (*best).min(answer[answer.len() - 1] / calls);
        }
    }
    best
}

/// Runs of all programs of a name so far and their nanoseconds, by the kernel's own clock.
fn runs(name: &str) -> (u64, u64) {
    let (mut count, mut time) = (0, 0);
    for program in aya::programs::loaded_programs().filter_map(Result::ok) {
        if program.name_as_str() == Some(name) {
            time += u64::try_from(program.run_time().as_nanos()).expect("less than 584 years");
            count += program.run_count();
        }
    }
    (count, time)
}

/// Prints what programs' bodies take, beside one that does nothing: the clock itself is in both.
fn print_bodies(names: &[&str], note: &str, mut work: impl FnMut()) {
    let Ok(_clock) = aya::sys::enable_stats(aya::sys::Stats::RunTime) else {
        println!("no run time statistics");
        return;
    };
    let _nothing = Nothing::attach();
    let names: Vec<&str> = [NOTHING].into_iter().chain(names.iter().copied()).collect();
    let mut best = vec![u64::MAX; names.len()];
    for _ in 0..ROUNDS {
        let before: Vec<_> = names.iter().map(|name| runs(name)).collect();
        work();
        for ((name, before), best) in names.iter().zip(before).zip(&mut best) {
            let after = runs(name);
            // Programs of a test beside this one may have gone meanwhile.
            let (count, time) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
            if let Some(mean) = time.checked_div(count) {
                *best = (*best).min(mean);
            }
        }
    }
    for (name, ns) in names.iter().zip(&best).skip(1) {
        println!("program {name:16} {:5} ns net ({ns} with the clock)", ns.saturating_sub(best[0]));
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a program")]
        figure("body, net", &format!("{name}{}", note), "ns", ns.saturating_sub(best[0]) as f64);
    }
}

/// A program that does nothing, on every system call's entry.
struct Nothing {
    _ebpf: aya::Ebpf,
}

const NOTHING: &str = "nothing";

impl Nothing {
    fn attach() -> Self {
        let mut ebpf =
            aya::Ebpf::load(aya::include_bytes_aligned!("../object/rival.bpf.o")).expect("its object loads");
        let program: &mut aya::programs::RawTracePoint =
            ebpf.program_mut(NOTHING).expect("in the object").try_into().expect("a raw tracepoint");
        program.load().expect("the verifier passes it");
        program.attach("sys_enter").expect("every kernel has it");
        Self { _ebpf: ebpf }
    }
}

/// A thousand ranges beside the city's own.
fn districts() -> Vec<(&'static str, Vec<Cidr>)> {
    let mut districts = City::districts();
    let ranges = (0..1000).map(|n| format!("172.{}.{}.0/28", 16 + n / 250, n % 250));
    districts.push(("market", ranges.map(|text| text.parse().expect("a range")).collect()));
    let ranges = (0..1000).map(|n| format!("fd01:{:x}::/48", n));
    districts.push(("fair", ranges.map(|text| text.parse().expect("a range")).collect()));
    districts
}

fn rules() -> Rules {
    Rules {
        home: Some("harbour".to_owned()),
        border: RuleMode::Enforce,
        channel_port: 4791,
        gate: RuleMode::Enforce,
    }
}

#[test]
fn the_border() {
    let (realm, city) = match Realm::make().and_then(|realm| Ok((realm, City::build()?))) {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let start = now();
    let mut enforcement = realm.open();
    let fresh = start.elapsed();
    if let Some(status) = enforcement.status().into_iter().find(|status| status.state == State::Missing) {
        skip!("{status}");
    }
    drop(enforcement);
    let start = now();
    enforcement = realm.open();
    let adopted = start.elapsed();
    let start = now();
    enforcement.set_districts(districts()).expect("within limits");
    let table = start.elapsed();
    println!(
        "enforcement opened in {fresh:?}, adopted in {adopted:?}; 2,000 address ranges set in {table:?}"
    );

    // Three cgroups deeper than what was named, as a container in a pod is.
    let clinic = realm.root.child("clinic");
    enforcement.set_tenant("clinic", &rules(), [&clinic.cgroup]).expect("a cgroup of ours");
    enforcement.refill("clinic", "airport", 1 << 40).expect("known");
    let (one, two) = (clinic.child("one"), realm.root.child("nobody"));
    let deep = one.child("deep");
    let _sinks: Vec<Agent> = ["tenant", "airport", "harbour"]
        .map(|place| {
            let mut agent = city.agent(place, None);
            agent.get("sink udp 4791");
            agent
        })
        .into();
    let mut tenant = city.agent("tenant", Some(&deep));
    let mut nobody = city.agent("tenant", Some(&two));
    let mut outside = city.agent("tenant", None);
    for (what, host) in [("loopback", "127.0.0.1"), ("home", "10.1.0.2"), ("channel", "10.2.0.2")] {
        let send = format!("send udpc {host} 4791 64 {CALLS}");
        let [bound, free, bare] = ns_each([&mut tenant, &mut nobody, &mut outside], &send, CALLS);
        println!(
            "udp send, {what:8}  outside {bare} ns, governed but nobody's {free} ns, bound tenant {bound} ns"
        );
    }
    let connect = format!("connect-often 10.1.0.2 4791 {CALLS}");
    let [bound, free, bare] = ns_each([&mut tenant, &mut nobody, &mut outside], &connect, CALLS);
    println!(
        "udp connect         outside {bare} ns, governed but nobody's {free} ns, bound tenant {bound} ns"
    );
    let paid = enforcement.budget("clinic", "airport").expect("known").passed;
    let flows = enforcement.flows("clinic").expect("readable");
    assert_eq!(paid, CALLS * ROUNDS as u64 * 92, "every datagram that was timed was paid for");
    assert_eq!(flows[&Peer::District("airport".to_owned())].egress, paid);

    // A thousand bytes hold ten datagrams of 92; two senders try for more at once.
    let before = enforcement.budget("clinic", "airport").expect("known").passed;
    enforcement.refill("clinic", "airport", 1_000).expect("known");
    let mut second = city.agent("tenant", Some(&deep));
    let overdraw = format!("send udpc 10.2.0.2 4791 64 {CALLS}");
    std::thread::scope(|scope| {
        // Whether a sender stops at the first refusal is its own affair.
        scope.spawn(|| tenant.ask(&overdraw).is_ok());
        let _stopped = second.ask(&overdraw);
    });
    let passed = enforcement.budget("clinic", "airport").expect("known").passed - before;
    #[expect(clippy::cast_precision_loss, reason = "some hundred bytes")]
    figure("budget overshoot", "1,000 bytes, two senders", "bytes", passed.saturating_sub(1_000) as f64);
    assert!((828..=1_000).contains(&passed), "{passed} bytes passed on a budget of 1,000");
    drop(second);
    enforcement.refill("clinic", "airport", 1 << 40).expect("known");

    bodies_of_the_border(&mut enforcement, &city, &mut tenant);
    drop((tenant, nobody));
    drop((deep, one));
}

fn bodies_of_the_border(enforcement: &mut Enforcement, city: &City, tenant: &mut Agent) {
    let connect = format!("connect-often 10.1.0.2 4791 {CALLS}");
    print_bodies(
        &[
            maps::BORDER_EGRESS,
            maps::BORDER_CONNECT4,
            maps::BORDER_CONNECT6,
            maps::BORDER_SENDMSG4,
            maps::BORDER_SENDMSG6,
        ],
        "",
        || {
            tenant.get(&format!("send udpc 10.2.0.2 4791 64 {CALLS}"));
            tenant.get(&format!("send udp 10.1.0.2 4791 64 {CALLS}"));
            tenant.get(&format!("send udp fd00:0:0:1::2 4791 64 {CALLS}"));
            tenant.get(&connect);
            tenant.get(&format!("connect-often fd00:0:0:1::2 4791 {CALLS}"));
        },
    );
    tenant.get("sink udp 4792");
    print_bodies(&[maps::BORDER_INGRESS], "", || {
        tenant.get(&format!("send udpc 127.0.0.1 4792 64 {CALLS}"));
    });
    // The guard, on the router's end of the tenant's cable.
    let interface = city.run("router", "cat /sys/class/net/tenant/ifindex").expect("it is there");
    let namespace =
        std::fs::File::open(format!("/run/netns/{}", city.namespace("router"))).expect("it is there");
    support::city::in_namespace(&namespace, || {
        enforcement.guard_interface("clinic", interface.parse().expect("a number"), Side::HostIngress)
    })
    .expect("the kernel lets us");
    print_bodies(&[maps::BORDER_FRAME], "", || {
        tenant.get(&format!("send udpc 10.2.0.2 4791 64 {CALLS}"));
    });
}

#[test]
fn the_gate() {
    let Ok(realm) = Realm::make() else { skip!("no cgroup v2") };
    let mut enforcement = realm.open();
    if let Some(status) =
        enforcement.status().into_iter().find(|s| s.part == Part::DeviceGate && s.state == State::Missing)
    {
        skip!("{status}");
    }
    enforcement
        .set_devices(&Devices::default().with_major(1, DeviceClass::Gpu))
        .expect("as NVIDIA's devices are: all of one number");
    let clinic = realm.root.child("clinic");
    let free = Rules { home: None, ..rules() };
    enforcement.set_tenant("clinic", &free, [&clinic.cgroup]).expect("a cgroup of ours");
    let (mut tenant, mut outside) = (Agent::here(Some(&clinic)), Agent::here(None));
    enforcement.attest(tenant.pid(), &(0..1)).expect("there is room");
    let open = format!("open-often /dev/null {CALLS}");
    let [gated, bare] = ns_each([&mut tenant, &mut outside], &open, CALLS);
    println!("open and close, guarded  outside {bare} ns, tenant {gated} ns");
    println!("of a guarded device:");
    print_bodies(&[maps::DEVICE_GATE, maps::GATE_EXIT], ", guarded device", || {
        tenant.get(&format!("open-often /dev/null {CALLS}"));
        clinic.run_forks(50);
        enforcement.drain_opens(|_| ());
    });
    enforcement
        .set_devices(&Devices::default().with_device(1, 3, DeviceClass::Gpu))
        .expect("as devices are whose number is shared");
    print_bodies(&[maps::DEVICE_GATE], ", guarded by its minor number", || {
        tenant.get(&format!("open-often /dev/null {CALLS}"));
    });
    enforcement.set_devices(&Devices::default().with_major(195, DeviceClass::Gpu)).expect("a few");
    println!("of any other:");
    print_bodies(&[maps::DEVICE_GATE], ", other device", || {
        tenant.get(&format!("open-often /dev/null {CALLS}"));
    });
    assert!(enforcement.refusals("clinic").expect("readable").values().all(|count| count.refused == 0));
}

// Processes before the cgroups they are in.
struct Churn {
    tenant: Agent,
    cgroup: TestCgroup,
    driver: PathBuf,
    bench: support::Bench,
}

impl Drop for Churn {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.driver);
    }
}

fn churn() -> Result<Churn, String> {
    let mut bench = bench(&[Probe::GpuWait], Config { tenants: 200, ..Config::default() })?;
    if let Some(status) = bench.probes.parts().into_iter().find(|status| status.state == State::Missing) {
        return Err(status.to_string());
    }
    let shared =
        ["-shared", "-fPIC", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-fno-shrink-wrap"];
    let (driver, hook) = (compile_program("memory.c", &shared)?, compile_program("hook.c", &shared)?);
    let own = driver.with_file_name(format!("memory-costs-{}", std::process::id()));
    std::fs::copy(driver, &own).map_err(|error| error.to_string())?;
    let cgroup = bench.root.child("tenant");
    bench
        .probes
        .set_cgroup(&cgroup.cgroup, Slot::of_tenant(0).expect("a small index"))
        .map_err(|error| error.to_string())?;
    let mut command = Command::new(compile_program("tenant.c", &[])?);
    command.arg(&own).arg(hook);
    let tenant = Agent::start(command, Some(&cgroup));
    Ok(Churn { tenant, cgroup, driver: own, bench })
}

#[test]
fn the_ledger_and_the_audits() {
    let mut churn = match churn() {
        Ok(churn) => churn,
        Err(why) => skip!("{why}"),
    };
    let command = format!("churn {CALLS}");
    let launch = format!("launch {CALLS}");
    let [bare] = ns_each([&mut churn.tenant], &command, 2 * CALLS);
    let [bare_launch] = ns_each([&mut churn.tenant], &launch, CALLS);
    let start = now();
    churn.bench.probes.attach_library(&churn.driver).expect("a driver");
    println!("driver attached for waits and ledger in {:?}", start.elapsed());
    let [followed] = ns_each([&mut churn.tenant], &command, 2 * CALLS);
    println!("allocation or free  bare {bare} ns, followed and witnessed {followed} ns each");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call")]
    figure("allocation or free, followed and witnessed", "all-in", "ns", followed as f64 - bare as f64);
    let [unaudited] = ns_each([&mut churn.tenant], &launch, CALLS);
    churn.bench.probes.audit_launches().expect("the kernel lets us");
    let [audited] = ns_each([&mut churn.tenant], &launch, CALLS);
    println!("launch              bare {bare_launch} ns, no audit {unaudited} ns, audited {audited} ns");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a launch")]
    let amortised = (audited as f64 - bare_launch as f64) / 60.0;
    figure("launch, audited one second of sixty", "amortised", "ns", amortised);
    let seen =
        churn.bench.probes.witnessed(Slot::of_tenant(0).expect("small")).expect("the row").expect("loaded");
    assert_eq!(seen.launches, CALLS * ROUNDS as u64);
    assert_eq!(seen.bypasses[&headgate_ebpf::Bypass::Allocate].unattested, CALLS * ROUNDS as u64);
    print_bodies(&[maps::LEDGER_SESSION, maps::LEDGER_LAUNCH, maps::LEDGER_EXIT], "", || {
        churn.tenant.get(&command);
        churn.tenant.get(&launch);
        churn.bench.root.run_forks(50);
    });
    churn.bench.probes.end_launch_audit();

    // System calls while ioctls are audited: the cheapest there is, and one of the audited kind.
    let mut agent = Agent::here(Some(&churn.cgroup));
    let devices = format!("open-often /dev/zero {CALLS}");
    let [without] = ns_each([&mut agent], &devices, 2 * CALLS);
    if let Err(why) = churn.bench.probes.audit_ioctls() {
        skip!("{why}");
    }
    let [with] = ns_each([&mut agent], &devices, 2 * CALLS);
    println!("system call         bare {without} ns, during an ioctl audit {with} ns (open and close, mean)");
    print_bodies(&[maps::IOCTL_ENTER, maps::IOCTL_LEAVE], "", || {
        agent.get(&format!("ioctl c008462a {CALLS}"));
    });
    let report = churn.bench.probes.end_ioctl_audit().expect("readable").expect("under way");
    assert!(report.numbers[&0x2a].calls >= CALLS);

    // Everything off the node at once, with launches still watched.
    churn.bench.probes.audit_launches().expect("the kernel lets us");
    let start = now();
    churn.bench.probes.detach_all();
    let detach = start.elapsed();
    println!("waits, ledger, launches and tracepoints detached in {detach:?}");
    figure("detach everything", "one library", "ms", detach.as_secs_f64() * 1e3);
}

#[test]
fn reading_everything_of_two_hundred_tenants() {
    let Ok(realm) = Realm::make() else { skip!("no cgroup v2") };
    let mut enforcement = Enforcement::open(&headgate_ebpf::EnforcementConfig {
        tenants: 200,
        pins: realm.pins.clone(),
        governed: &realm.root.cgroup,
    });
    if let Some(status) = enforcement.status().into_iter().find(|status| status.state == State::Missing) {
        skip!("{status}");
    }
    let names: Vec<String> = (0..10).map(|n| format!("district-{n}")).collect();
    enforcement
        .set_districts(
            (0..10u8)
                .zip(&names)
                .map(|(n, name)| (name.as_str(), vec![format!("10.{n}.0.0/16").parse().expect("a range")])),
        )
        .expect("within limits");
    let tenants: Vec<String> = (0..200).map(|n| format!("tenant-{n}")).collect();
    let start = now();
    for tenant in &tenants {
        enforcement.set_tenant(tenant, &Rules::default(), []).expect("there is room");
    }
    println!("200 tenants set in {:?}", start.elapsed());
    let start = now();
    for tenant in &tenants {
        enforcement.flows(tenant).expect("readable");
        enforcement.refusals(tenant).expect("readable");
        for district in &names {
            enforcement.budget(tenant, district).expect("known");
        }
    }
    println!("flows, refusals and budgets of 200 tenants and 10 districts read in {:?}", start.elapsed());
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    figure("reading enforcement", "200 tenants, 10 districts", "ms", milliseconds);
    let start = now();
    for tenant in &tenants {
        for district in &names {
            enforcement.refill(tenant, district, 1).expect("known");
        }
    }
    println!("2,000 budgets refilled in {:?}", start.elapsed());
}
