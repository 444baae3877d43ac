//! A tenant's traffic at its district's border: real sockets in real cgroups, network namespaces as districts.

mod support;

use headgate_ebpf::{Enforcement, Part, Peer, Reason, RuleMode, Rules, State};
use support::{
    TestCgroup,
    city::{Agent, City, PLACES, Realm},
    eventually, skip,
};

/// The GPU channel's port in these tests, and one that is not.
const CHANNEL: u16 = 4791;
const ELSEWHERE: u16 = 9000;

/// The payload that makes an IPv4 datagram of 92 bytes.
const PAYLOAD: u64 = 64;
const DATAGRAM: u64 = PAYLOAD + 28;

struct Scene {
    enforcement: Enforcement,
    realm: Realm,
    city: City,
}

/// A city, and enforcement that knows its districts.
fn scene() -> Result<Scene, String> {
    let realm = Realm::make()?;
    let city = City::build()?;
    let mut enforcement = realm.open();
    for status in enforcement.status() {
        if status.part != Part::DeviceGate && status.state == State::Missing {
            return Err(status.to_string());
        }
    }
    enforcement.set_districts(City::districts()).map_err(|error| error.to_string())?;
    Ok(Scene { enforcement, realm, city })
}

fn bound(mode: RuleMode) -> Rules {
    Rules { home: Some("harbour".to_owned()), border: mode, channel_port: CHANNEL, gate: RuleMode::Off }
}

impl Scene {
    /// Sinks on both ports in every district; one agent each.
    fn sinks(&self) -> Vec<(&'static str, Agent)> {
        PLACES
            .map(|(place, _)| {
                let mut agent = self.city.agent(place, None);
                for port in [CHANNEL, ELSEWHERE] {
                    agent.get(&format!("sink tcp {port}"));
                    agent.get(&format!("sink udp {port}"));
                }
                (place, agent)
            })
            .into()
    }

    fn tenant(&mut self, name: &str, rules: &Rules) -> TestCgroup {
        let cgroup = self.realm.root.child(name);
        self.enforcement.set_tenant(name, rules, [&cgroup.cgroup]).expect("a cgroup of ours");
        cgroup
    }

    fn refused(&self, tenant: &str, reason: Reason) -> u64 {
        self.enforcement.refusals(tenant).expect("readable")[&reason].refused
    }

    fn audited(&self, tenant: &str, reason: Reason) -> u64 {
        self.enforcement.refusals(tenant).expect("readable")[&reason].audited
    }

    fn egress(&self, tenant: &str, place: &str) -> u64 {
        let peer = if place == "nowhere" { Peer::Unknown } else { Peer::District(place.to_owned()) };
        self.enforcement.flows(tenant).expect("readable")[&peer].egress
    }
}

#[test]
fn only_the_home_district_and_the_paid_channel_are_open() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut sinks = scene.sinks();
    let cgroup = scene.tenant("clinic", &bound(RuleMode::Enforce));
    let mut agent = scene.city.agent("tenant", Some(&cgroup));
    scene.enforcement.refill("clinic", "airport", 1 << 20).expect("a known district");

    for v6 in [false, true] {
        let [home, away, nowhere] = PLACES.map(|(place, _)| City::address(place, v6));
        for port in [CHANNEL, ELSEWHERE] {
            agent.ask(&format!("tcp {home} {port} 1000")).expect("home is open on every port");
            agent.ask(&format!("send udp {home} {port} 64 1")).expect("home is open");
            agent.ask(&format!("send udpc {home} {port} 64 1")).expect("home is open");
        }
        agent.ask(&format!("send raw {home} 0 64 1")).expect("home is open");

        agent.ask(&format!("tcp {away} {CHANNEL} 1000")).expect("the channel is paid for");
        agent.ask(&format!("send udp {away} {CHANNEL} 64 1")).expect("the channel is paid for");
        agent.ask(&format!("send udpc {away} {CHANNEL} 64 1")).expect("the channel is paid for");
        let before = scene.refused("clinic", Reason::NotChannel);
        for command in [
            format!("tcp {away} {ELSEWHERE} 1000"),
            format!("send udp {away} {ELSEWHERE} 64 1"),
            format!("send udpc {away} {ELSEWHERE} 64 1"),
            format!("send raw {away} 0 64 1"),
        ] {
            assert_eq!(agent.ask(&command), Err(libc::EPERM), "{command}");
        }
        assert_eq!(scene.refused("clinic", Reason::NotChannel) - before, 4, "each refusal once");

        let before = scene.refused("clinic", Reason::UnknownDistrict);
        for command in [
            format!("tcp {nowhere} {CHANNEL} 1000"),
            format!("send udp {nowhere} {CHANNEL} 64 1"),
            format!("send udpc {nowhere} {CHANNEL} 64 1"),
            format!("send raw {nowhere} 0 64 1"),
        ] {
            assert_eq!(agent.ask(&command), Err(libc::EPERM), "{command}");
        }
        assert_eq!(scene.refused("clinic", Reason::UnknownDistrict) - before, 4);
    }
    // An IPv4 address by way of an IPv6 socket is the IPv4 address.
    assert_eq!(agent.ask(&format!("tcp ::ffff:10.2.0.2 {ELSEWHERE} 10")), Err(libc::EPERM));
    assert_eq!(agent.ask(&format!("send udp ::ffff:10.3.0.2 {CHANNEL} 64 1")), Err(libc::EPERM));
    agent.ask(&format!("send udp ::ffff:10.1.0.2 {CHANNEL} 64 1")).expect("home is open");

    // The machine itself is nobody's border.
    agent.get(&format!("sink tcp {ELSEWHERE}"));
    agent.ask(&format!("tcp 127.0.0.1 {ELSEWHERE} 100")).expect("loopback is open");
    agent.ask(&format!("tcp ::1 {ELSEWHERE} 100")).expect("loopback is open");
    let flows = scene.enforcement.flows("clinic").expect("readable");
    assert!(flows[&Peer::Local].egress >= 200 && flows[&Peer::Local].ingress >= 200, "{flows:?}");

    let nowhere = sinks.iter_mut().find(|(place, _)| *place == "nowhere").expect("listed");
    assert_eq!(nowhere.1.get("total"), 0, "nothing came where nothing may");
    assert_eq!(scene.egress("clinic", "nowhere"), 0, "what is refused is not metered");
    let budget = scene.enforcement.budget("clinic", "airport").expect("known");
    assert_eq!(budget.passed, scene.egress("clinic", "airport"), "two books, one number");
    assert_eq!(budget.remaining + budget.passed, 1 << 20);
}

#[test]
fn audit_lets_through_and_counts_and_the_unbound_are_only_metered() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut sinks = scene.sinks();
    let watched = scene.tenant("watched", &bound(RuleMode::Audit));
    let free = scene.tenant("free", &Rules::default());
    let (mut audited, mut unbound) =
        (scene.city.agent("tenant", Some(&watched)), scene.city.agent("tenant", Some(&free)));
    let mut nobodys = scene.city.agent("tenant", None);
    for agent in [&mut audited, &mut unbound, &mut nobodys] {
        for (place, _) in PLACES {
            let address = City::address(place, false);
            assert_eq!(agent.get(&format!("send udp {address} {ELSEWHERE} 64 10")), 10);
        }
        assert_eq!(agent.get(&format!("send udpc 10.2.0.2 {CHANNEL} 64 5")), 5);
    }
    // A datagram is judged by its packet alone, so it counts once.
    assert_eq!(scene.audited("watched", Reason::NotChannel), 10);
    assert_eq!(scene.audited("watched", Reason::UnknownDistrict), 10);
    assert_eq!(scene.audited("watched", Reason::Budget), 5, "nothing was granted");
    for tenant in ["watched", "free"] {
        let all = scene.enforcement.refusals(tenant).expect("readable");
        assert!(all.values().all(|counts| counts.refused == 0), "{all:?}");
        assert_eq!(scene.egress(tenant, "harbour"), 10 * DATAGRAM);
        assert_eq!(scene.egress(tenant, "airport"), 15 * DATAGRAM);
        assert_eq!(scene.egress(tenant, "nowhere"), 10 * DATAGRAM);
    }
    for (place, sink) in &mut sinks {
        let expected = 3 * PAYLOAD * if *place == "airport" { 15 } else { 10 };
        let arrived = eventually(|| (sink.get("total") == expected).then_some(()));
        assert!(arrived.is_some(), "{place}: {} of {expected} bytes", sink.get("total"));
    }
}

#[test]
fn a_budget_is_kept_to_the_byte() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut sinks = scene.sinks();
    let cgroup = scene.tenant("clinic", &bound(RuleMode::Enforce));
    let mut agent = scene.city.agent("tenant", Some(&cgroup));
    let send = format!("send udpc 10.2.0.2 {CHANNEL} {PAYLOAD} 100");
    assert_eq!(agent.ask(&send), Err(libc::EPERM), "nothing is granted to begin with");
    let budget = |scene: &Scene| {
        let budget = scene.enforcement.budget("clinic", "airport").expect("known");
        (budget.passed, budget.remaining)
    };
    assert_eq!(budget(&scene), (0, 0));
    scene.enforcement.refill("clinic", "airport", 1000).expect("known");
    assert_eq!(agent.get(&send), 10, "ten datagrams of 92 bytes go into 1,000");
    assert_eq!(budget(&scene), (920, 80));
    assert_eq!(scene.refused("clinic", Reason::Budget), 190);
    // A refill is a fresh window: what was left is void.
    scene.enforcement.refill("clinic", "airport", 92).expect("known");
    assert_eq!(agent.get(&send), 1);
    assert_eq!(budget(&scene), (1012, 0));
    let at_airport = &mut sinks.iter_mut().find(|(place, _)| *place == "airport").expect("listed").1;
    assert!(eventually(|| (at_airport.get("total") == 11 * PAYLOAD).then_some(())).is_some());

    // Many at once: never a byte too much, whatever is tried and refused at the same time.
    let granted = 50_000;
    scene.enforcement.refill("clinic", "airport", granted).expect("known");
    let agents: Vec<Agent> = (0..4).map(|_| scene.city.agent("tenant", Some(&cgroup))).collect();
    let taken: u64 = std::thread::scope(|scope| {
        let runs: Vec<_> = agents
            .into_iter()
            .map(|mut agent| {
                scope.spawn(move || {
                    agent.ask(&format!("send udpc 10.2.0.2 {CHANNEL} {PAYLOAD} 20000")).map_or(0, |n| n[0])
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("an agent answers")).sum()
    });
    let (passed, remaining) = budget(&scene);
    assert_eq!(passed - 1012, taken * DATAGRAM, "every datagram the kernel took was paid for");
    assert_eq!(passed - 1012 + remaining, granted, "and nothing else was");
    assert!(remaining < DATAGRAM, "all of it could be used: {remaining} left");
}

#[test]
fn streams_are_metered_as_they_are_on_the_wire() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let _sinks = scene.sinks();
    let cgroup = scene.tenant("clinic", &bound(RuleMode::Enforce));
    let mut agent = scene.city.agent("tenant", Some(&cgroup));
    scene.enforcement.refill("clinic", "airport", 1 << 30).expect("known");
    // Large enough for the stack to hand down segments by the dozen.
    let answer = agent.ask(&format!("tcp 10.2.0.2 {CHANNEL} 8000000")).expect("the channel is paid for");
    let [bytes, segments, _again] = answer[..] else { panic!("{answer:?}") };
    let headers = 20 + 32; // IPv4, TCP with timestamps
    let expected = bytes + segments * headers + 8; // the first segment has eight bytes more of options
    let passed = scene.enforcement.budget("clinic", "airport").expect("known").passed;
    assert_eq!(passed, expected, "{bytes} bytes in {segments} segments");
    assert_eq!(scene.egress("clinic", "airport"), expected);

    // A budget that ends in the middle ends the stream there.
    scene.enforcement.refill("clinic", "airport", 100_000).expect("known");
    let before = passed;
    let mut late = scene.city.agent("tenant", Some(&cgroup));
    let _cut_short = late.ask(&format!("tcp 10.2.0.2 {CHANNEL} 8000000"));
    let budget = scene.enforcement.budget("clinic", "airport").expect("known");
    assert!(budget.passed - before <= 100_000, "{} bytes passed", budget.passed - before);
    assert!(scene.refused("clinic", Reason::Budget) > 0);
}

#[test]
fn the_innermost_tenant_decides_and_changes_are_live() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let _sinks = scene.sinks();
    let send = format!("send udp 10.2.0.2 {ELSEWHERE} 64 1");
    let outer = scene.tenant("outer", &bound(RuleMode::Enforce));
    let container = outer.child("container");
    let inner = container.child("inner");
    let mut in_container = scene.city.agent("tenant", Some(&container));
    let mut in_inner = scene.city.agent("tenant", Some(&inner));
    assert_eq!(in_container.ask(&send), Err(libc::EPERM), "a container of the tenant's");
    assert_eq!(in_inner.ask(&send), Err(libc::EPERM), "at any depth");
    scene.enforcement.set_tenant("inner", &Rules::default(), [&inner.cgroup]).expect("a cgroup of ours");
    in_inner.ask(&send).expect("a tenant inside a tenant goes by its own rules");
    assert_eq!(scene.egress("inner", "airport"), DATAGRAM);
    assert_eq!(in_container.ask(&send), Err(libc::EPERM));

    // A process that moves is judged where it is; the sockets it makes there, too.
    inner.adopt(in_container.pid());
    in_container.ask(&send).expect("moved");
    container.adopt(in_container.pid());
    assert_eq!(in_container.ask(&send), Err(libc::EPERM), "moved back");

    scene.enforcement.remove_tenant("inner").expect("it is there");
    assert_eq!(in_inner.ask(&send), Err(libc::EPERM), "the tenant around it is left");
    let open = Rules { border: RuleMode::Off, ..bound(RuleMode::Off) };
    scene.enforcement.set_tenant("outer", &open, [&outer.cgroup]).expect("known");
    in_container.ask(&send).expect("the rules were lifted");
    scene.enforcement.set_tenant("outer", &bound(RuleMode::Enforce), [&outer.cgroup]).expect("known");
    assert_eq!(in_container.ask(&send), Err(libc::EPERM), "and are back");
    scene.enforcement.set_tenant("outer", &bound(RuleMode::Enforce), []).expect("known");
    in_container.ask(&send).expect("a tenant without cgroups has no processes");
    scene.enforcement.remove_tenant("outer").expect("known");
    assert!(scene.enforcement.remove_tenant("outer").is_err(), "only once");
    assert_eq!(scene.enforcement.tenants().count(), 0);
    drop((in_inner, in_container));
    drop((inner, container));
}

#[test]
fn a_new_table_is_in_force_as_a_whole() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let _sinks = scene.sinks();
    let cgroup = scene.tenant("clinic", &bound(RuleMode::Enforce));
    let mut agent = scene.city.agent("tenant", Some(&cgroup));
    let busy = agent.get(&format!("flood 10.1.0.2 {ELSEWHERE}"));
    let filler = || {
        let ranges = (0..1000).map(|n| format!("172.{}.{}.0/28", 16 + n / 250, n % 250));
        ranges.map(|text| text.parse().expect("a range")).collect::<Vec<_>>()
    };
    for _ in 0..20 {
        let mut districts = City::districts();
        districts.push(("market", filler()));
        scene.enforcement.set_districts(districts).expect("within limits");
    }
    let sent = scene.egress("clinic", "harbour");
    assert!(sent > 1000 * DATAGRAM, "{sent} bytes went home meanwhile");
    for reason in [Reason::UnknownDistrict, Reason::NotChannel] {
        assert_eq!(scene.refused("clinic", reason), 0, "none was lost between two tables");
    }
    agent.get(&format!("stop {busy}"));

    // A district that moves takes its traffic along.
    let home = City::address("harbour", false);
    let moved = vec![("harbour", vec!["10.0.0.0/24".parse().expect("a range")])];
    scene.enforcement.set_districts(moved).expect("within limits");
    assert_eq!(agent.ask(&format!("send udp {home} {ELSEWHERE} 64 1")), Err(libc::EPERM));
    assert_eq!(agent.ask(&format!("send udp fd00:0:0:1::2 {ELSEWHERE} 64 1")), Err(libc::EPERM));
    // The narrower range counts.
    let narrow = vec![
        ("airport", vec!["10.0.0.0/8".parse().expect("a range")]),
        ("harbour", vec!["10.1.0.2".parse().expect("a range")]),
    ];
    scene.enforcement.set_districts(narrow).expect("within limits");
    agent.ask(&format!("send udp {home} {ELSEWHERE} 64 1")).expect("one address of home's");
    let twice = vec![("airport", filler()), ("harbour", filler())];
    let error = scene.enforcement.set_districts(twice).expect_err("whose are they?");
    assert!(error.to_string().contains("two districts"), "{error}");
    agent.ask(&format!("send udp {home} {ELSEWHERE} 64 1")).expect("the table before stays");
}
