//! Damaged texts: whatever a text says, it is refused with a place in it, or it runs to an end or a fault. Nothing
//! panics, nothing runs without a bound. `SEED=n` replays or changes the damage.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use headgate_simgpu_ptx::{Heap, LaunchConfig, Module};
use support::{Random, SETS, source};

const NAMES: [&str; 12] = [
    "constant",
    "device_call",
    "double_math",
    "faults",
    "histogram",
    "integer_mix",
    "matmul",
    "reduction",
    "saxpy",
    "shared_reverse",
    "spin",
    "vector_copy",
];

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_1234_abcd)
}

fn pick(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.next() >> 16).unwrap() % below.max(1)
}

/// Swaps, doubles, drops and replaces tokens, which keeps most of a text close to valid.
fn damage_tokens(text: &str, random: &mut Random) -> String {
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        let wordy = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '%' | '.');
        match pieces.last_mut() {
            Some(last) if wordy(c) && last.chars().all(wordy) => last.push(c),
            _ => pieces.push(c.to_string()),
        }
    }
    let interesting = [
        "0",
        "1",
        "-1",
        "4294967295",
        "18446744073709551615",
        "0f7FC00000",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ";",
        ":",
        "!",
        "|",
        "_",
        "%p1",
        "%r1",
        "%rd1",
        "%f1",
        ".b128",
        ".v4",
        "st.global.v4.u32",
        "bar.sync",
        "ret",
        "exit",
        "bra",
        ".align",
        ".param",
        ".shared",
        ".reg",
        "%clock64",
        "call",
        "atom.global.add.u32",
        "\u{0}",
        "mad.hi.sat.s32",
        "shfl.sync.idx.b32",
        "mov.b64",
        ".u8",
        ".f64",
        ".pred",
        "brx.idx",
        "@",
        "/*",
        "\"",
    ];
    for _ in 0..1 + pick(random, 3) {
        let at = pick(random, pieces.len());
        let other = pick(random, pieces.len());
        match pick(random, 6) {
            0 => pieces.swap(at, other),
            1 => pieces[at] = pieces[other].clone(),
            2 => {
                pieces.remove(at);
            }
            3 => pieces.insert(at, interesting[pick(random, interesting.len())].to_owned()),
            4 => pieces[at] = interesting[pick(random, interesting.len())].to_owned(),
            _ => {
                let end = (at + pick(random, 40)).min(pieces.len());
                let copied: Vec<_> = pieces[at..end].to_vec();
                pieces.splice(other..other, copied);
            }
        }
    }
    pieces.concat()
}

/// Replaces bytes; what is no longer UTF-8 is replaced.
fn damage_bytes(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + pick(random, 4) {
        let at = pick(random, bytes.len());
        // Any byte, or one that is likely to stand there.
        bytes[at] = match pick(random, 4) {
            0 => u8::try_from(random.next() & 0xff).unwrap(),
            1 => b"[]{}();:,.%@!|_-+<>\" \n\0"[pick(random, 23)],
            _ => b"0123456789abfrdsux"[pick(random, 18)],
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Parses a text and, when that works, launches every kernel with a small budget. Returns whether it parsed.
fn survive(text: &str, random: &mut Random) -> bool {
    let lines = u32::try_from(text.lines().count()).unwrap() + 1;
    let module = match Module::parse(text) {
        Ok(module) => module,
        Err(error) => {
            assert!((1..=lines).contains(&error.line) && error.column > 0, "{error}");
            assert!(!error.message.is_empty());
            return false;
        }
    };
    let mut heap = Heap::new();
    let placement = module
        .place(|global| {
            let bytes = usize::try_from(global.bytes.min(1 << 16)).unwrap();
            Ok::<_, ()>(heap.insert(&vec![0; bytes]))
        })
        .unwrap();
    for index in 0..module.globals().len() {
        assert!(module.image(index, &placement).len() as u64 <= module.globals()[index].bytes);
    }
    let buffer = heap.insert(&[0; 4096]);
    for name in module.kernel_names() {
        let kernel = module.kernel(name).unwrap();
        let mut params: Vec<u8> =
            (0..kernel.param_bytes().div_ceil(8)).flat_map(|_| buffer.to_le_bytes()).collect();
        params.truncate(kernel.param_bytes() as usize);
        // Some parameters are addresses, others are not.
        if let Some(byte) = params.get_mut(pick(random, 64)) {
            *byte = u8::try_from(random.next() & 0xff).unwrap();
        }
        let config = LaunchConfig {
            dynamic_shared_bytes: 256,
            instruction_budget: 20_000,
            cooperative: random.next() & 1 == 0,
            ..LaunchConfig::new([2, 1, 1], [40, 1, 1], &params)
        };
        match kernel.launch(&config, &placement, &mut heap) {
            Ok(stats) => assert!(stats.instructions <= 20_000),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    true
}

#[test]
fn damaged_tokens() {
    let mut random = Random(seed());
    let (mut parsed, mut refused) = (0, 0);
    for round in 0..40 {
        for name in NAMES {
            let text = source(SETS[round % 2], name);
            let damaged = damage_tokens(&text, &mut random);
            if survive(&damaged, &mut random) { parsed += 1 } else { refused += 1 }
        }
    }
    // Both must happen, or the damage is too little or too much to tell anything.
    assert!(parsed > 20 && refused > 20, "{parsed} parsed, {refused} refused");
}

#[test]
fn damaged_bytes() {
    let mut random = Random(seed() ^ 0xb17e);
    let (mut parsed, mut refused) = (0, 0);
    for round in 0..40 {
        for name in NAMES {
            let text = source(SETS[round % 2], name);
            let damaged = damage_bytes(&text, &mut random);
            if survive(&damaged, &mut random) { parsed += 1 } else { refused += 1 }
        }
    }
    assert!(parsed > 20 && refused > 20, "{parsed} parsed, {refused} refused");
}

#[test]
fn truncated_texts() {
    let mut random = Random(seed() ^ 0x7ac);
    for name in NAMES {
        let text = source(SETS[0], name);
        for _ in 0..20 {
            let mut end = pick(&mut random, text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            survive(&text[..end], &mut random);
        }
    }
}

/// Instructions to put random operands to.
const OPCODES: &str = "
    add.s32 shl.b32 shr.s64 bfe.s64 bfe.u32 bfi.b64 div.s32 rem.s64 div.s16 mul.hi.s64 mad.wide.u16
    mad.hi.u16 mul24.hi.s32 mad24.lo.s32 prmt.b32 prmt.b32.b4e shf.l.clamp.b32 lop3.b32 cvt.rzi.s32.f64
    cvt.rni.u64.f32 cvt.sat.s8.s64 cvt.rn.f16.f64 cvt.rp.bf16.f32 cvt.rm.f32.u64 fma.rm.f64
    fma.rp.ftz.sat.f32 div.rm.f64 sqrt.rp.f64 add.rz.f64 fma.rn.f16x2 ex2.approx.f16 rcp.approx.ftz.f64
    min.f64 max.NaN.f32 dp4a.s32.u32 dp2a.hi.s32.s32 sad.s16 bmsk.clamp.b32 szext.wrap.s32
    bfind.shiftamt.s64 setp.ltu.f32 set.eq.f32.f64 slct.f32.s32 testp.normal.f64 ld.global.v2.u16
    st.shared.u8 atom.shared.inc.u32 atom.cas.b64 red.add.f64 ld.param.u32 ld.local.f64 shfl.sync.up.b32
    vote.sync.ballot.b32 match.any.sync.b64 redux.sync.min.s32 bar.sync bar.arrive bar.red.popc.u32
    isspacep.shared cvta.to.local.u64 mov.b64 nanosleep.u32 subc.cc.u64 madc.hi.cc.s32 copysign.f64
    tanh.approx.bf16 elect.sync activemask.b32 call brx.idx
";

/// Operands of all kinds, apart by semicolons.
const OPERANDS: &str = "
    %r0; %r1; %r2; %d0; %d1; %f0; %f1; %g0; %g1; %h0; %h1; %p0; %p1; !%p0; 0; -1; 1; 31; 32; 63; 64; 255;
    4294967295; 0f7F800000; 0d7FF0000000000000; [%d0]; [%d1+4]; [tile]; [x]; [0]; {%h0, %h1}; {%r0, %r1};
    %r0|%p0; %p0|%p1; %tid.x; %laneid; %clock64; tile; x; _; L
";

/// Instructions with random operands: most are refused, and none may get the interpreter to panic.
#[test]
fn random_instructions() {
    let opcodes: Vec<_> = OPCODES.split_whitespace().collect();
    let operands: Vec<_> = OPERANDS.split(';').map(str::trim).collect();
    let mut random = Random(seed() ^ 0x0b5);
    let mut parsed = 0;
    for _ in 0..6000 {
        let opcode = opcodes[pick(&mut random, opcodes.len())];
        let list: Vec<_> =
            (0..1 + pick(&mut random, 5)).map(|_| operands[pick(&mut random, operands.len())]).collect();
        let (a, b) = (random.next(), random.next());
        let text = format!(
            ".version 8.2\n.target sm_80\n.entry run(.param .u64 x)\n{{\n.reg .b32 %r<3>; .reg .b64 %d<2>; .reg .f32 %f<2>;\n\
             .reg .f64 %g<2>; .reg .b16 %h<2>; .reg .pred %p<2>; .shared .b8 tile[64];\n\
             mov.b64 %d0, {a}; mov.b64 %d1, {b}; mov.b64 {{%r0, %r1}}, %d0; mov.b32 %f0, %r0; mov.b32 %f1, %r1;\n\
             mov.b64 %g0, %d0; mov.b64 %g1, %d1; mov.b32 {{%h0, %h1}}, %r1; setp.lt.s32 %p0, %r0, 0;\n\
             {opcode} {};\nL: ret;\n}}\n",
            list.join(", ")
        );
        parsed += u32::from(survive(&text, &mut random));
    }
    assert!(parsed > 0, "only {parsed} made sense");
}
