//! Enforcement without its loader: `kill -9`, restarts, upgrades, the end.

mod support;

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use headgate_ebpf::{Cgroup, Enforcement, Part, Peer, Reason, RuleMode, Rules, State};
use support::{
    TestCgroup,
    city::{Agent, City, Realm},
    skip,
};

const CHANNEL: u16 = 4791;

/// Where the process of [`hold`] finds its task: pin directory, governed cgroup, tenant's cgroup.
const TASK: &str = "HEADGATE_TEST_HOLD";

fn rules() -> Rules {
    Rules {
        home: Some("harbour".to_owned()),
        border: RuleMode::Enforce,
        channel_port: CHANNEL,
        gate: RuleMode::Enforce,
    }
}

/// Not a test: what the process to be killed does. Without a task it is over at once.
#[test]
fn hold() {
    let Ok(task) = std::env::var(TASK) else { return };
    let paths: Vec<PathBuf> = task.split(':').map(PathBuf::from).collect();
    let [pins, governed, tenant] = &paths[..] else { panic!("three paths: {task}") };
    let governed = Cgroup::open(governed).expect("the parent made it");
    let tenant = Cgroup::open(tenant).expect("the parent made it");
    let mut enforcement = Realm::open_at(&governed, pins.clone());
    enforcement.set_districts(City::districts()).expect("within limits");
    enforcement.set_tenant("clinic", &rules(), [&tenant]).expect("a cgroup");
    enforcement.refill("clinic", "airport", 1000).expect("known");
    println!("\nSTANDING");
    std::thread::park();
}

/// A process that sets enforcement up and holds it.
fn holder(realm: &Realm, tenant: &TestCgroup) -> Child {
    let task = [&realm.pins, &realm.root.path(), &tenant.path()].map(|path| path.display().to_string());
    let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
        .args(["--exact", "hold", "--nocapture"])
        .env(TASK, task.join(":"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("our own program");
    let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
    let standing = lines.map_while(Result::ok).any(|line| line == "STANDING");
    assert!(standing, "the holder could not set enforcement up");
    child
}

/// Whether this machine can do it at all, found out by doing it.
fn possible(realm: &Realm) -> Result<(), String> {
    let enforcement = realm.open();
    let missing = enforcement
        .status()
        .into_iter()
        .find(|status| status.part == Part::Residency && status.state == State::Missing);
    enforcement.retire().map_err(|error| error.to_string())?;
    missing.map_or(Ok(()), |status| Err(status.to_string()))
}

fn realm_and_city() -> Result<(Realm, City), String> {
    let realm = Realm::make()?;
    possible(&realm)?;
    Ok((realm, City::build()?))
}

fn sink(city: &City, place: &str) -> Agent {
    let mut agent = city.agent(place, None);
    agent.get(&format!("sink udp {CHANNEL}"));
    agent
}

#[test]
fn it_stands_when_its_loader_is_killed_and_is_adopted_without_a_gap() {
    let (realm, city) = match realm_and_city() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    let mut nowhere = sink(&city, "nowhere");
    let _airport = sink(&city, "airport");
    let tenant = realm.root.child("clinic");
    let mut loader = holder(&realm, &tenant);
    let mut agent = city.agent("tenant", Some(&tenant));
    let forbidden = format!("send udp 10.3.0.2 {CHANNEL} 64 1");
    let paid = format!("send udpc 10.2.0.2 {CHANNEL} 64 3");
    assert_eq!(agent.ask(&forbidden), Err(libc::EPERM));
    assert_eq!(agent.get(&paid), 3);

    loader.kill().expect("our child");
    loader.wait().expect("our child");
    // Nobody holds anything now.
    assert_eq!(agent.ask(&forbidden), Err(libc::EPERM), "refused without a loader");
    assert_eq!(agent.get(&paid), 3, "and the budget goes on");
    assert_eq!(
        agent.get(&format!("send udpc 10.2.0.2 {CHANNEL} 64 100")),
        4,
        "to its end: ten datagrams of 92"
    );
    assert_eq!(agent.ask(&paid), Err(libc::EPERM), "which nobody extends");
    let mut newcomer = city.agent("tenant", Some(&tenant));
    assert_eq!(newcomer.ask(&forbidden), Err(libc::EPERM), "processes that came later are governed, too");

    // One loader after the other takes over, while a tenant tries every instant.
    let busy = agent.get(&format!("flood 10.3.0.2 {CHANNEL}"));
    for round in 0..10 {
        let mut enforcement = realm.open();
        assert_eq!(enforcement.tenants().collect::<Vec<_>>(), ["clinic"]);
        let budget = enforcement.budget("clinic", "airport").expect("kept");
        assert_eq!((budget.passed, budget.remaining), (920, 80), "kept over every restart");
        assert_eq!(
            enforcement.flows("clinic").expect("kept")[&Peer::District("airport".to_owned())].egress,
            920
        );
        if round % 2 == 0 {
            // What a daemon does with its configuration after a start.
            enforcement.set_districts(City::districts()).expect("within limits");
            enforcement.set_tenant("clinic", &rules(), [&tenant.cgroup]).expect("known");
        }
    }
    let mut enforcement = realm.open();
    agent.get(&format!("stop {busy}"));
    assert_eq!(nowhere.get("total"), 0, "not one datagram passed in any gap");
    let refused = enforcement.refusals("clinic").expect("kept")[&Reason::UnknownDistrict].refused;
    assert!(refused > 1000, "it was tried all the time: {refused} refusals");
    enforcement.refill("clinic", "airport", 92).expect("known");
    assert_eq!(agent.get(&paid), 1, "a new loader refills");

    // The end of enforcement is an act, not an accident.
    enforcement.retire().expect("our own pins");
    assert!(!realm.pins.join("v1").exists());
    assert_eq!(agent.get(&forbidden), 1);
}

#[test]
fn another_governed_cgroup_and_another_layout_take_over() {
    let (realm, city) = match realm_and_city() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    let forbidden = format!("send udp 10.3.0.2 {CHANNEL} 64 1");
    let (left, right) = (realm.root.child("left"), realm.root.child("right"));
    let set = |enforcement: &mut Enforcement| {
        enforcement.set_districts(City::districts()).expect("within limits");
        enforcement.set_tenant("clinic", &rules(), [&left.cgroup, &right.cgroup]).expect("cgroups of ours");
    };
    let (mut in_left, mut in_right) = (city.agent("tenant", Some(&left)), city.agent("tenant", Some(&right)));
    let mut first = Realm::open_at(&left.cgroup, realm.pins.clone());
    set(&mut first);
    assert_eq!(in_left.ask(&forbidden), Err(libc::EPERM));
    assert_eq!(in_right.get(&forbidden), 1, "not below the governed cgroup");
    // What a loader of an older layout would have left.
    std::fs::create_dir(realm.pins.join("v0")).expect("on the same file system");
    drop(first);
    let second = Realm::open_at(&realm.root.cgroup, realm.pins.clone());
    assert!(!realm.pins.join("v0").exists(), "older pins are removed once the new ones are up");
    assert_eq!(in_left.ask(&forbidden), Err(libc::EPERM));
    assert_eq!(in_right.ask(&forbidden), Err(libc::EPERM), "now it is");
    second.retire().expect("our own pins");
    assert_eq!((in_left.get(&forbidden), in_right.get(&forbidden)), (1, 1));
    drop((in_left, in_right));
}

#[test]
fn a_directory_of_ones_own_becomes_a_file_system_for_pins() {
    let (mut realm, _city) = match realm_and_city() {
        Ok(found) => found,
        Err(why) => skip!("{why}"),
    };
    let directory = tempfile::tempdir().expect("a directory");
    realm.pins = directory.path().join("pins");
    let enforcement = realm.open();
    for status in enforcement.status() {
        assert_ne!(status.state, State::Missing, "{status}");
    }
    assert!(realm.pins.join("v1/border_egress").exists());
    drop(enforcement);
    headgate_ebpf::enforce::retire(&realm.pins).expect("whoever set it up");
    assert!(!realm.pins.join("v1").exists());
    let unmounted = Command::new("umount").arg(&realm.pins).status().expect("umount(8) is everywhere");
    assert!(unmounted.success());
}

#[test]
fn what_cannot_be_kept_is_missing_with_a_reason() {
    let Ok(realm) = Realm::make() else { skip!("no cgroup v2") };
    // A file where a directory would have to be.
    let file = tempfile::NamedTempFile::new().expect("a file");
    let enforcement = Realm::open_at(&realm.root.cgroup, file.path().join("pins"));
    for status in enforcement.status() {
        assert_eq!(status.state, State::Missing);
        assert!(!status.reason.is_empty());
    }
    assert!(enforcement.budget("clinic", "airport").is_err());
    enforcement.retire().expect("nothing was made");
}
