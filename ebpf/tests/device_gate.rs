//! No attested hook, no GPU: real opens of a device node of our own.

mod support;

use std::path::{Path, PathBuf};

use headgate_ebpf::{
    Devices, Enforcement, Error, LibraryId, Part, Reason, RuleMode, Rules, State, enforce::DeviceClass,
};
use support::{
    TestCgroup,
    city::{Agent, Realm},
    eventually, skip,
};

/// `/dev/null` under the name of a GPU: opening it always works, unless the gate says no.
const NULL: (u32, u32) = (1, 3);
/// `/dev/zero`, for RDMA.
const ZERO: (u32, u32) = (1, 5);

struct Scene {
    enforcement: Enforcement,
    realm: Realm,
    nodes: tempfile::TempDir,
}

fn node(directory: &Path, name: &str, (major, minor): (u32, u32)) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let path = directory.join(name);
    let c_path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no zero");
    #[expect(unsafe_code, reason = "mknod(2)")]
    // SAFETY: a terminated string and two numbers.
    let answer = unsafe { libc::mknod(c_path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)) };
    assert_eq!(answer, 0, "root may make nodes here");
    path
}

fn scene() -> Result<Scene, String> {
    let realm = Realm::make()?;
    let mut enforcement = realm.open();
    if let Some(status) =
        enforcement.status().into_iter().find(|s| s.part == Part::DeviceGate && s.state == State::Missing)
    {
        return Err(status.to_string());
    }
    let devices = Devices::of_this_node()
        .map_err(|error| error.to_string())?
        .with_device(NULL.0, NULL.1, DeviceClass::Gpu)
        .with_device(ZERO.0, ZERO.1, DeviceClass::Rdma);
    enforcement.set_devices(&devices).map_err(|error| error.to_string())?;
    // Not /tmp: device nodes do not open on a file system mounted without them.
    let nodes = tempfile::tempdir_in("/dev").map_err(|error| error.to_string())?;
    node(nodes.path(), "gpu", NULL);
    node(nodes.path(), "rdma", ZERO);
    Ok(Scene { enforcement, realm, nodes })
}

fn rules(gate: RuleMode) -> Rules {
    Rules { gate, ..Rules::default() }
}

impl Scene {
    fn tenant(&mut self, name: &str, rules: &Rules) -> TestCgroup {
        let cgroup = self.realm.root.child(name);
        self.enforcement.set_tenant(name, rules, [&cgroup.cgroup]).expect("a cgroup of ours");
        cgroup
    }

    fn open(&self, name: &str) -> String {
        format!("open {}", self.nodes.path().join(name).display())
    }

    fn counts(&self, tenant: &str, reason: Reason) -> (u64, u64) {
        let counts = self.enforcement.refusals(tenant).expect("readable")[&reason];
        (counts.refused, counts.audited)
    }
}

#[test]
fn only_an_attested_process_opens_a_gpu_until_it_becomes_another() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let cgroup = scene.tenant("clinic", &rules(RuleMode::Enforce));
    let container = cgroup.child("container");
    let gpu = scene.open("gpu");
    let mut agent = Agent::here(Some(&container));
    assert_eq!(agent.ask(&gpu), Err(libc::EPERM), "not attested");
    assert_eq!(agent.ask("open /dev/null"), Err(libc::EPERM), "the device counts, not its name");
    agent.ask("open /dev/full").expect("another minor of the same major");

    // Attested: the file that stands for the hook is mapped as code.
    let hook = tempfile::Builder::new().suffix(".so").tempfile().expect("a file");
    std::fs::write(hook.path(), vec![0x90; 8192]).expect("a fresh file");
    let id = LibraryId::of(hook.path()).expect("it exists");
    let error = scene.enforcement.attest_process(agent.pid(), id).expect_err("it has not mapped it");
    assert!(matches!(error, Error::NoHook { .. }), "{error}");
    assert_eq!(agent.ask(&gpu), Err(libc::EPERM));
    agent.get(&format!("map {}", hook.path().display()));
    let text = scene.enforcement.attest_process(agent.pid(), id).expect("now it has");
    assert_eq!(scene.enforcement.attested().expect("readable")[&agent.pid()], text);
    agent.ask(&gpu).expect("attested");

    // A child is another process, and no hook vouched for it.
    let fork = gpu.replace("open", "fork-open");
    assert_eq!(agent.ask(&fork), Err(libc::EPERM), "fork without exec");
    agent.ask(&gpu).expect("the child's end is not the parent's");

    agent.get("exec");
    assert_eq!(agent.ask(&gpu), Err(libc::EPERM), "another program is another process");
    assert!(scene.enforcement.attested().expect("readable").is_empty(), "the kernel took it back itself");

    scene.enforcement.attest(agent.pid(), &(0x1000..0x2000)).expect("on our word");
    agent.ask(&gpu).expect("attested again");
    scene.enforcement.revoke(agent.pid()).expect("it is there");
    assert_eq!(agent.ask(&gpu), Err(libc::EPERM));

    scene.enforcement.attest(agent.pid(), &(0x1000..0x2000)).expect("on our word");
    let pid = agent.pid();
    agent.kill();
    let gone =
        eventually(|| (!scene.enforcement.attested().expect("readable").contains_key(&pid)).then_some(()));
    assert!(gone.is_some(), "an ended process is attested no more");
    assert_eq!(scene.counts("clinic", Reason::Unattested), (6, 0), "each refusal once");

    // Every attempt without a hook was told, in order, with the process that made it.
    let mut opens = Vec::new();
    scene.enforcement.drain_opens(|open| opens.push(open));
    assert!(opens.iter().all(|open| open.tenant.as_deref() == Some("clinic") && open.device == NULL));
    assert!(opens.iter().all(|open| !open.passed), "{opens:?}");
    assert_eq!(opens.len(), 6);
    assert_eq!(opens.iter().filter(|open| open.tgid != pid).count(), 1, "the child's");
    assert_eq!(scene.enforcement.counters().expect("readable")[&headgate_ebpf::Counter::GateUntold], 0);
    drop(container);
}

#[test]
fn audit_counts_strangers_are_free_and_rules_change_live() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let gpu = scene.open("gpu");
    let cgroup = scene.tenant("watched", &rules(RuleMode::Audit));
    let mut agent = Agent::here(Some(&cgroup));
    let mut nobodys = Agent::here(Some(&scene.realm.root));
    for _ in 0..3 {
        agent.ask(&gpu).expect("audited only");
        nobodys.ask(&gpu).expect("no tenant's");
    }
    assert_eq!(scene.counts("watched", Reason::Unattested), (0, 3));
    scene.enforcement.set_tenant("watched", &rules(RuleMode::Enforce), [&cgroup.cgroup]).expect("known");
    assert_eq!(agent.ask(&gpu), Err(libc::EPERM));
    scene.enforcement.set_tenant("watched", &rules(RuleMode::Off), [&cgroup.cgroup]).expect("known");
    agent.ask(&gpu).expect("off");
    assert_eq!(scene.counts("watched", Reason::Unattested), (1, 3));

    // Devices follow, too.
    scene.enforcement.set_tenant("watched", &rules(RuleMode::Enforce), [&cgroup.cgroup]).expect("known");
    scene.enforcement.set_devices(&Devices::default()).expect("none");
    agent.ask(&gpu).expect("no device is guarded");
    scene
        .enforcement
        .set_devices(&Devices::default().with_major(NULL.0, DeviceClass::Gpu))
        .expect("a whole major");
    assert_eq!(agent.ask("open /dev/full"), Err(libc::EPERM));
}

#[test]
fn a_bound_tenant_has_no_way_around_the_network_stack() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    scene
        .enforcement
        .set_districts([("harbour", vec!["10.1.0.0/16".parse().expect("a range")])])
        .expect("within limits");
    let bound = Rules { home: Some("harbour".to_owned()), border: RuleMode::Enforce, ..rules(RuleMode::Off) };
    let (clinic, cafe) = (scene.tenant("clinic", &bound), scene.tenant("cafe", &Rules::default()));
    let rdma = scene.open("rdma");
    let (mut in_clinic, mut in_cafe) = (Agent::here(Some(&clinic)), Agent::here(Some(&cafe)));
    in_clinic.ask(&scene.open("gpu")).expect("its gate is off");
    assert_eq!(in_clinic.ask(&rdma), Err(libc::EPERM));
    in_cafe.ask(&rdma).expect("bound to nothing");
    assert_eq!(scene.counts("clinic", Reason::Rdma), (1, 0));
}

#[test]
fn nvidias_major_is_guarded_without_a_driver() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let cgroup = scene.tenant("clinic", &rules(RuleMode::Enforce));
    node(scene.nodes.path(), "nvidia0", (195, 0));
    let mut agent = Agent::here(Some(&cgroup));
    let open = scene.open("nvidia0");
    assert_eq!(agent.ask(&open), Err(libc::EPERM), "the gate comes before the driver");
    scene.enforcement.attest(agent.pid(), &(0..1)).expect("on our word");
    let beyond = agent.ask(&open);
    assert_ne!(beyond, Err(libc::EPERM), "behind the gate there is a driver, or none");
}
