//! Frames that go around the network stack, stopped on the tenant's virtual cable.

mod support;

use std::fs::File;

use headgate_ebpf::{Enforcement, Part, Reason, RuleMode, Rules, Side, State};
use support::{
    TestCgroup,
    city::{Agent, City, Realm, in_namespace},
    eventually, skip,
};

const PORT: u16 = 9000;
const IPV4: &str = "800";
/// An ethertype for experiments.
const ODD: &str = "88b5";

struct Scene {
    enforcement: Enforcement,
    tenant: TestCgroup,
    _realm: Realm,
    city: City,
    /// The router's end of the tenant's cable: its number and its address.
    cable: (u32, String),
    /// The tenant's end: its number.
    out: u32,
}

fn scene(mode: RuleMode) -> Result<Scene, String> {
    let realm = Realm::make()?;
    let city = City::build()?;
    let mut enforcement = realm.open();
    if let Some(status) =
        enforcement.status().into_iter().find(|s| s.part == Part::RawFrameGuard && s.state == State::Missing)
    {
        return Err(status.to_string());
    }
    let failed = |error: headgate_ebpf::Error| error.to_string();
    enforcement.set_districts(City::districts()).map_err(failed)?;
    let tenant = realm.root.child("clinic");
    let rules =
        Rules { home: Some("harbour".to_owned()), border: mode, channel_port: 4791, gate: RuleMode::Off };
    enforcement.set_tenant("clinic", &rules, [&tenant.cgroup]).map_err(failed)?;
    let number = |place: &str, interface: &str| -> Result<u32, String> {
        let text = city.run(place, &format!("cat /sys/class/net/{interface}/ifindex"))?;
        text.parse().map_err(|error| format!("{text}: {error}"))
    };
    let mac = city.run("router", "cat /sys/class/net/tenant/address")?;
    let (cable, out) = ((number("router", "tenant")?, mac), number("tenant", "out")?);
    Ok(Scene { enforcement, tenant, _realm: realm, city, cable, out })
}

impl Scene {
    /// Puts a guard on one end of the cable, from inside the namespace that has it.
    fn guard(&mut self, side: Side) {
        let (place, interface) = match side {
            Side::HostIngress => ("router", self.cable.0),
            Side::Egress => ("tenant", self.out),
        };
        let namespace =
            File::open(format!("/run/netns/{}", self.city.namespace(place))).expect("it is there");
        let enforcement = &mut self.enforcement;
        in_namespace(&namespace, || enforcement.guard_interface("clinic", interface, side))
            .expect("the kernel lets us");
    }

    /// Tries to send frames to the router; answers how many the sender believes to have sent.
    fn frames(&self, agent: &mut Agent, ethertype: &str, host: &str, bypass: bool, count: u64) -> u64 {
        agent.get(&format!("frames out {} {ethertype} {host} {} {count}", self.cable.1, u8::from(bypass)))
    }

    fn refused(&self, reason: Reason) -> u64 {
        self.enforcement.refusals("clinic").expect("readable")[&reason].refused
    }
}

/// A place's bytes or frames received so far, once they have stopped coming.
fn settled(agent: &mut Agent) -> u64 {
    let mut last = agent.get("total");
    let mut same = 0;
    eventually(|| {
        let now = agent.get("total");
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same > 20).then_some(now)
    })
    .unwrap_or(last)
}

#[test]
fn without_a_guard_frames_get_around_the_border() {
    let scene = match scene(RuleMode::Enforce) {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut airport = scene.city.agent("airport", None);
    airport.get(&format!("sink udp {PORT}"));
    let mut agent = scene.city.agent("tenant", Some(&scene.tenant));
    assert_eq!(agent.ask(&format!("send udp 10.2.0.2 {PORT} 64 1")), Err(libc::EPERM));
    scene.frames(&mut agent, IPV4, "10.2.0.2", false, 5);
    // The very hole that the guard closes: if this fails one day, the tests below prove nothing.
    assert_eq!(settled(&mut airport), 5 * 20, "five datagrams of twenty bytes arrived");
}

#[test]
fn the_hosts_end_stops_every_way_of_sending() {
    let mut scene = match scene(RuleMode::Enforce) {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut airport = scene.city.agent("airport", None);
    airport.get(&format!("sink udp {PORT}"));
    let mut harbour = scene.city.agent("harbour", None);
    harbour.get(&format!("sink udp {PORT}"));
    harbour.get(&format!("sink tcp {PORT}"));
    let mut sniffer = scene.city.agent("router", None);
    sniffer.get(&format!("sniff tenant {ODD}"));
    scene.guard(Side::HostIngress);
    let mut agent = scene.city.agent("tenant", Some(&scene.tenant));
    for bypass in [false, true] {
        assert_eq!(scene.frames(&mut agent, IPV4, "10.2.0.2", bypass, 10), 10, "the sender is not told");
        scene.frames(&mut agent, IPV4, "10.1.0.2", bypass, 10);
        scene.frames(&mut agent, ODD, "10.1.0.2", bypass, 10);
    }
    assert_eq!((settled(&mut airport), settled(&mut sniffer)), (0, 0), "nothing came through");
    assert_eq!(scene.refused(Reason::RawFrame), 60, "each was counted");
    // What goes the proper way goes on: neighbour discovery of both families, datagrams, streams.
    agent.get(&format!("send udp 10.1.0.2 {PORT} 64 3"));
    agent.get(&format!("send udp fd00:0:0:1::2 {PORT} 64 3"));
    agent.ask(&format!("tcp 10.1.0.2 {PORT} 100000")).expect("home is open");
    agent.ask(&format!("tcp fd00:0:0:1::2 {PORT} 100000")).expect("home is open");
    assert_eq!(settled(&mut harbour), 6 * 64 + 200_000);

    // A program in the tenant's network that is not in the tenant's cgroup.
    let mut stranger = scene.city.agent("tenant", None);
    assert_eq!(stranger.get(&format!("send udp 10.1.0.2 {PORT} 64 4")), 4, "it is not told");
    assert_eq!(settled(&mut harbour), 6 * 64 + 200_000, "but it is stopped");
    assert!(scene.refused(Reason::NoTenant) >= 4);

    // Guards stand like the border does, and can be taken off.
    scene.enforcement.unguard_interface(scene.cable.0, Side::HostIngress).expect("it is there");
    scene.frames(&mut agent, IPV4, "10.2.0.2", false, 5);
    assert_eq!(settled(&mut airport), 5 * 20);
}

#[test]
fn the_tenants_end_stops_what_takes_the_queue() {
    let mut scene = match scene(RuleMode::Enforce) {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut airport = scene.city.agent("airport", None);
    airport.get(&format!("sink udp {PORT}"));
    scene.guard(Side::Egress);
    let mut agent = scene.city.agent("tenant", Some(&scene.tenant));
    assert_eq!(scene.frames(&mut agent, IPV4, "10.2.0.2", false, 10), 0, "here the sender is told");
    assert_eq!(scene.frames(&mut agent, ODD, "10.2.0.2", false, 10), 0);
    assert_eq!(settled(&mut airport), 0);
    assert_eq!(scene.refused(Reason::RawFrame), 20);
    agent.ask(&format!("send udp 10.1.0.2 {PORT} 64 1")).expect("home is open");
    // Stated in the documentation: this is why the host's end is preferred.
    scene.frames(&mut agent, IPV4, "10.2.0.2", true, 5);
    assert_eq!(settled(&mut airport), 5 * 20, "a sender may leave the queue, and this end's guard, out");
}

#[test]
fn an_audited_tenants_frames_are_counted_and_pass() {
    let mut scene = match scene(RuleMode::Audit) {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let mut airport = scene.city.agent("airport", None);
    airport.get(&format!("sink udp {PORT}"));
    scene.guard(Side::HostIngress);
    let mut agent = scene.city.agent("tenant", Some(&scene.tenant));
    scene.frames(&mut agent, IPV4, "10.2.0.2", false, 7);
    assert_eq!(settled(&mut airport), 7 * 20);
    let counts = scene.enforcement.refusals("clinic").expect("readable")[&Reason::RawFrame];
    assert_eq!((counts.refused, counts.audited), (0, 7));
}
