//! Programs run by the kernel on input of ours (`BPF_PROG_TEST_RUN`): each decision of the border on a packet made for it, without a
//! network, and the ends of an attestation, without a process that ends.

mod support;

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
    programs::{
        CgroupSkb, RawTracePoint, RawTracePointRunOptions, SchedClassifier, TestRun, TestRunOptions,
        TestRunResult,
    },
};
use headgate_ebpf::{Cgroup, Reason, RuleMode, cgroup::unified_mount};
use headgate_ebpf_records::{
    border::{AddressV4, FIRST_NAMED, GENERATION_BITS, Refusals, Spend, control, district_row, refusal_row},
    gate::Attested,
    maps,
    policy::Policy,
};
use support::skip;

const ROW: u32 = 1;
const HOME: u8 = FIRST_NAMED;
const AWAY: u8 = FIRST_NAMED + 1;
const CHANNEL: u16 = 4_791;

const UDP: u8 = 17;
const V4: u16 = 0x0800;
const ARP: u16 = 0x0806;

/// Addresses of the home district, of another one, and of none.
const AT_HOME: [u8; 4] = [10, 1, 0, 9];
const ABROAD: [u8; 4] = [10, 2, 0, 9];
const NOWHERE: [u8; 4] = [192, 0, 2, 1];

const PASS: u32 = 1;
const REFUSE: u32 = 0;

/// Bytes of a packet.
const PACKET_BYTES: usize = 92;

/// An Ethernet frame with an IPv4 packet from nowhere in particular.
struct Frame {
    ethertype: u16,
    to: [u8; 4],
    port: u16,
    /// 32-bit words of the header.
    words: u8,
    /// Where in its packet a fragment begins, in eights of bytes.
    fragment: u16,
}

impl Frame {
    fn to(address: [u8; 4], port: u16) -> Self {
        Self { ethertype: V4, to: address, port, words: 5, fragment: 0 }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![0; 14 + PACKET_BYTES];
        frame[12..14].copy_from_slice(&self.ethertype.to_be_bytes());
        if self.ethertype != V4 {
            return frame;
        }
        let packet = &mut frame[14..];
        let header = usize::from(self.words) * 4;
        packet[0] = 4 << 4 | self.words;
        packet[2..4].copy_from_slice(&u16::try_from(PACKET_BYTES).expect("a short packet").to_be_bytes());
        packet[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        packet[8] = 64;
        packet[9] = UDP;
        packet[12..16].copy_from_slice(&[10, 1, 0, 2]);
        packet[16..20].copy_from_slice(&self.to);
        packet[header + 2..header + 4].copy_from_slice(&self.port.to_be_bytes());
        frame
    }
}

struct Scene {
    ebpf: Ebpf,
}

/// The border's programs, loaded and linked to nothing, with one tenant: this test's own cgroup.
fn scene() -> Result<Scene, String> {
    let mount = unified_mount().ok_or("cgroup v2 is not mounted")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no cgroup v2")?.to_owned();
    let cgroup = Cgroup::open(&mount.join(Path::new(&own))).map_err(|error| error.to_string())?;
    let mut ebpf = EbpfLoader::new()
        .allow_unsupported_maps()
        .load(aya::include_bytes_aligned!("../object/border.bpf.o"))
        .map_err(|error| format!("residency: {error}"))?;
    let mut cgroups: HashMap<&mut MapData, u64, u32> = map(&mut ebpf, maps::CGROUPS);
    cgroups.insert(cgroup.id(), ROW, 0).expect("an empty table");
    let mut control_words: Array<&mut MapData, u32> = map(&mut ebpf, maps::CONTROL);
    control_words.set(control::EPOCH, 1, 0).expect("a word");
    let mut ranges: LpmTrie<&mut MapData, AddressV4, u32> = map(&mut ebpf, maps::RANGES_V4);
    for (network, district) in [([10, 1, 0, 0], HOME), ([10, 2, 0, 0], AWAY)] {
        let key = Key::new(GENERATION_BITS + 16, AddressV4 { generation: 0, address: network });
        ranges.insert(&key, u32::from(district), 0).expect("an empty table");
    }
    let mut scene = Scene { ebpf };
    scene.rule(RuleMode::Enforce);
    Ok(scene)
}

fn map<'ebpf, M>(ebpf: &'ebpf mut Ebpf, name: &str) -> M
where
    M: TryFrom<&'ebpf mut aya::maps::Map, Error = aya::maps::MapError>,
{
    ebpf.map_mut(name).expect("in the object").try_into().expect("of that kind")
}

impl Scene {
    fn rule(&mut self, border: RuleMode) {
        let mut policies: Array<&mut MapData, u64> = map(&mut self.ebpf, maps::POLICIES);
        policies.set(ROW, Policy::new(border, HOME, CHANNEL, RuleMode::Off).0, 0).expect("a row");
    }

    fn grant(&mut self, bytes: u64) {
        let mut grants: Array<&mut MapData, u64> = map(&mut self.ebpf, maps::GRANTS);
        grants.set(district_row(ROW, AWAY), bytes, 0).expect("a row");
    }

    fn passed(&mut self) -> u64 {
        let spends: Array<&mut MapData, Spend> = map(&mut self.ebpf, maps::SPENDS);
        spends.get(&district_row(ROW, AWAY), 0).expect("a row").passed
    }

    fn refusals(&mut self, reason: Reason) -> (u64, u64) {
        let refusals: PerCpuArray<&mut MapData, Refusals> = map(&mut self.ebpf, maps::REFUSALS);
        let values = refusals.get(&refusal_row(ROW, reason), 0).expect("a row");
        values.iter().fold((0, 0), |sum, cpu| (sum.0 + cpu.refused, sum.1 + cpu.audited))
    }

    /// What the egress program answers to a frame.
    fn send(&mut self, frame: &Frame) -> u32 {
        let program: &mut CgroupSkb =
            self.ebpf.program_mut(maps::BORDER_EGRESS).expect("in the object").try_into().expect("its kind");
        run(program, frame)
    }
}

fn run<P>(program: &P, frame: &Frame) -> u32
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let bytes = frame.bytes();
    let options = TestRunOptions { data_in: Some(&bytes), ..TestRunOptions::new() };
    program.test_run(options).expect("the kernel runs it").return_value
}

#[test]
fn the_border_decides_every_packet_by_its_own_words() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    let egress: &mut CgroupSkb =
        scene.ebpf.program_mut(maps::BORDER_EGRESS).expect("in the object").try_into().expect("its kind");
    if let Err(error) = egress.load() {
        skip!("residency: {error}");
    }

    let no_ip = Frame { ethertype: ARP, ..Frame::to(AT_HOME, CHANNEL) };
    let later = Frame { fragment: 3, ..Frame::to(ABROAD, CHANNEL) };
    for (what, frame, answer, reason) in [
        ("home, on any port", Frame::to(AT_HOME, 80), PASS, None),
        ("abroad, off the channel", Frame::to(ABROAD, 80), REFUSE, Some(Reason::NotChannel)),
        ("abroad, on it, no budget", Frame::to(ABROAD, CHANNEL), REFUSE, Some(Reason::Budget)),
        ("nowhere known", Frame::to(NOWHERE, CHANNEL), REFUSE, Some(Reason::UnknownDistrict)),
        ("a later fragment, which names no port", later, REFUSE, Some(Reason::NotChannel)),
        ("no IP at all", no_ip, REFUSE, Some(Reason::NotIp)),
    ] {
        let before = reason.map(|reason| scene.refusals(reason));
        assert_eq!(scene.send(&frame), answer, "{what}");
        if let (Some(reason), Some((refused, audited))) = (reason, before) {
            assert_eq!(scene.refusals(reason), (refused + 1, audited), "{what}: counted with its reason");
        }
    }

    // A thousand bytes hold ten packets of 92, with a header of any length.
    scene.grant(1_000);
    let long = Frame { words: 8, ..Frame::to(ABROAD, CHANNEL) };
    let usual = Frame::to(ABROAD, CHANNEL);
    let answers: Vec<u32> =
        [&long, &usual].into_iter().cycle().take(12).map(|frame| scene.send(frame)).collect();
    assert_eq!(answers, [&[PASS; 10][..], &[REFUSE; 2]].concat());
    assert_eq!(scene.passed(), 920, "and not a byte more");

    // Audited: everything passes, and is counted where it would have been refused.
    scene.rule(RuleMode::Audit);
    let (refused, audited) = scene.refusals(Reason::NotChannel);
    assert_eq!(scene.send(&Frame::to(ABROAD, 80)), PASS);
    assert_eq!(scene.refusals(Reason::NotChannel), (refused, audited + 1));
    scene.rule(RuleMode::Off);
    assert_eq!(scene.send(&Frame::to(NOWHERE, 80)), PASS);
}

#[test]
fn the_guard_drops_what_does_not_come_out_of_an_ip_socket() {
    let mut scene = match scene() {
        Ok(scene) => scene,
        Err(why) => skip!("{why}"),
    };
    if let Err(error) = guard(&mut scene).load() {
        skip!("raw_frame_guard: {error}");
    }
    const NEXT: u32 = u32::MAX;
    const DROP: u32 = 2;
    let (home, abroad) = (Frame::to(AT_HOME, 80), Frame::to(ABROAD, 80));
    let raw = Frame { ethertype: ARP, ..Frame::to(AT_HOME, 80) };
    for frame in [&home, &abroad, &raw] {
        assert_eq!(run(guard(&mut scene), frame), NEXT, "nobody guards this interface");
    }
    // The kernel hands the frame in at the loopback interface, with a socket of the packet's family, or of none.
    let mut guarded: HashMap<&mut MapData, u32, u32> = map(&mut scene.ebpf, maps::GUARDED);
    guarded.insert(1, ROW, 0).expect("an empty table");
    for _ in 0..2 {
        assert_eq!(run(guard(&mut scene), &home), NEXT);
        assert_eq!(run(guard(&mut scene), &abroad), DROP);
        assert_eq!(run(guard(&mut scene), &raw), DROP);
    }
    assert_eq!(scene.refusals(Reason::NotChannel), (2, 0));
    assert_eq!(scene.refusals(Reason::RawFrame), (2, 0));
}

fn guard(scene: &mut Scene) -> &mut SchedClassifier {
    scene.ebpf.program_mut(maps::BORDER_FRAME).expect("in the object").try_into().expect("its kind")
}

#[test]
fn an_attestation_ends_with_its_process_and_with_its_program() {
    let loaded =
        EbpfLoader::new().allow_unsupported_maps().load(aya::include_bytes_aligned!("../object/gate.bpf.o"));
    let mut ebpf = match loaded {
        Ok(ebpf) => ebpf,
        Err(error) => skip!("device_gate: {error}"),
    };
    let own = std::process::id();
    let mut run = |name: &str, last_thread: u64| {
        let mut attested: HashMap<&mut MapData, u32, Attested> = map(&mut ebpf, maps::ATTESTED);
        attested.insert(own, Attested { start: 1, end: 2 }, 0).expect("there is room");
        let program: &mut RawTracePoint =
            ebpf.program_mut(name).expect("in the object").try_into().expect("its kind");
        if program.fd().is_err() {
            program.load().expect("the verifier passes it");
        }
        let mut options = RawTracePointRunOptions::new();
        options.args[1] = last_thread;
        program.test_run(options).expect("the kernel runs it");
        let attested: HashMap<&mut MapData, u32, Attested> = map(&mut ebpf, maps::ATTESTED);
        attested.get(&own, 0).is_ok()
    };
    assert!(run(maps::GATE_EXIT, 0), "a thread ended, and others go on");
    assert!(!run(maps::GATE_EXIT, 1), "the last one");
    assert!(!run(maps::GATE_EXEC, 0), "another program, whatever it says");
}
