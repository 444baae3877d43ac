//! Single instructions against values taken from the PTX ISA, by table.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use support::{Arg, Loaded};

/// Runs one instruction on registers and returns its result. A type is the register's: `b32`, `f64`, `pred`.
fn run(instruction: &str, to: &str, operands: &[(&str, u64)]) -> u64 {
    let text = kernel(instruction, to, operands);
    let mut gpu = Loaded::text(&text);
    let out = gpu.insert(&[0xdead_beef_dead_beef_u64]);
    let inputs = gpu.insert(&operands.iter().map(|&(_, value)| value).collect::<Vec<_>>());
    gpu.launch("run", [1, 1, 1], [1, 1, 1], &[Arg::U64(inputs), Arg::U64(out)])
        .unwrap_or_else(|error| panic!("{instruction}: {error}"));
    gpu.read::<u64>(out)[0]
}

/// `$` in an instruction stands for the operand list, which otherwise follows it; `//$` at its end means that the text
/// names its operands itself.
///
/// A kernel that loads its operands into `%a0`, `%a1`, ..., runs the instruction and
/// stores `%d` zero-extended.
fn kernel(instruction: &str, to: &str, operands: &[(&str, u64)]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from(
        ".version 8.2\n.target sm_80\n.address_size 64\n.visible .entry run(.param .u64 in, .param .u64 out)\n{\n\
         .reg .b64 %in, %out, %wide;\n.reg .pred %flag;\n",
    );
    let mut body = String::from("ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\n");
    let mut list = vec!["%d".to_owned()];
    writeln!(text, ".reg .{to} %d;").unwrap();
    for (index, (ty, _)) in operands.iter().enumerate() {
        writeln!(text, ".reg .{ty} %a{index};").unwrap();
        let offset = 8 * index;
        if *ty == "pred" {
            writeln!(body, "ld.global.u64 %wide, [%in+{offset}];\nsetp.ne.u64 %a{index}, %wide, 0;").unwrap();
        } else {
            writeln!(body, "ld.global.b{} %a{index}, [%in+{offset}];", bits(ty)).unwrap();
        }
        list.push(format!("%a{index}"));
    }
    let list = list.join(", ");
    let instruction = match instruction.strip_suffix("//$") {
        Some(whole) => whole.to_owned(),
        None if instruction.contains('$') => instruction.replace('$', &list),
        None => format!("{instruction} {list}"),
    };
    writeln!(body, "{instruction};").unwrap();
    if to == "pred" {
        writeln!(body, "selp.u64 %wide, 1, 0, %d;\nst.global.u64 [%out], %wide;").unwrap();
    } else {
        writeln!(
            body,
            "mov.u64 %wide, 0;\nst.global.u64 [%out], %wide;\nst.global.b{} [%out], %d;",
            bits(to)
        )
        .unwrap();
    }
    format!("{text}{body}ret;\n}}\n")
}

fn bits(ty: &str) -> u32 {
    match ty {
        "b16" | "f16" | "bf16" | "u16" | "s16" => 16,
        "b64" | "f64" | "u64" | "s64" => 64,
        _ => 32,
    }
}

/// Rows of instruction, type of the result, operands, expected bits.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, u64)], u64);

fn table(rows: &[Row<'_>]) {
    for (instruction, to, operands, want) in rows {
        let got = run(instruction, to, operands);
        assert_eq!(got, *want, "{instruction} {operands:x?}: got {got:#x}, want {want:#x}");
    }
}

const fn w(value: u64) -> (&'static str, u64) {
    ("b32", value)
}

const fn d(value: u64) -> (&'static str, u64) {
    ("b64", value)
}

const fn h(value: u64) -> (&'static str, u64) {
    ("b16", value)
}

const MINUS_ONE: u64 = 0xffff_ffff;
const LOWEST: u64 = 0x8000_0000;

#[test]
fn integer_arithmetic_wraps() {
    table(&[
        ("add.s32", "b32", &[w(0x7fff_ffff), w(1)], LOWEST),
        ("add.u32", "b32", &[w(MINUS_ONE), w(2)], 1),
        ("add.sat.s32", "b32", &[w(0x7fff_ffff), w(1)], 0x7fff_ffff),
        ("add.sat.s32", "b32", &[w(LOWEST), w(MINUS_ONE)], LOWEST),
        ("add.u16", "b16", &[h(0xffff), h(2)], 1),
        ("add.s64", "b64", &[d(u64::MAX), d(1)], 0),
        ("sub.u32", "b32", &[w(1), w(2)], MINUS_ONE),
        ("sub.sat.s32", "b32", &[w(LOWEST), w(1)], LOWEST),
        ("mul.lo.s32", "b32", &[w(0x1_0001), w(0x1_0001)], 0x2_0001),
        ("mul.hi.s32", "b32", &[w(MINUS_ONE), w(MINUS_ONE)], 0),
        ("mul.hi.u32", "b32", &[w(MINUS_ONE), w(MINUS_ONE)], 0xffff_fffe),
        ("mul.hi.s16", "b16", &[h(0x8000), h(0x8000)], 0x4000),
        ("mul.hi.u16", "b16", &[h(0x8000), h(0x8000)], 0x4000),
        ("mul.hi.u64", "b64", &[d(u64::MAX), d(u64::MAX)], u64::MAX - 1),
        ("mul.hi.s64", "b64", &[d(u64::MAX), d(5)], u64::MAX),
        ("mul.wide.s32", "b64", &[w(MINUS_ONE), w(2)], (-2i64).cast_unsigned()),
        ("mul.wide.u32", "b64", &[w(MINUS_ONE), w(2)], 0x1_ffff_fffe),
        ("mul.wide.s16", "b32", &[h(0xffff), h(3)], 0xffff_fffd),
        ("mul.wide.u16", "b32", &[h(0xffff), h(0xffff)], 0xfffe_0001),
        ("mul24.lo.u32", "b32", &[w(0xff00_0003), w(0x0100_0005)], 15),
        ("mul24.lo.s32", "b32", &[w(0x00ff_ffff), w(5)], 0xffff_fffb),
        ("mul24.hi.u32", "b32", &[w(0x00ff_ffff), w(0x00ff_ffff)], 0xffff_fe00),
        ("mad.lo.s32", "b32", &[w(3), w(MINUS_ONE), w(10)], 7),
        ("mad.hi.u32", "b32", &[w(LOWEST), w(4), w(5)], 7),
        ("mad.wide.s32", "b64", &[w(MINUS_ONE), w(3), d(2)], u64::MAX),
        ("mad.wide.u32", "b64", &[w(MINUS_ONE), w(MINUS_ONE), d(1)], 0xffff_fffe_0000_0002),
        ("mad.hi.sat.s32", "b32", &[w(0x7fff_ffff), w(0x7fff_ffff), w(0x7fff_ffff)], 0x7fff_ffff),
        ("sad.s32", "b32", &[w(MINUS_ONE), w(2), w(10)], 13),
        ("sad.u32", "b32", &[w(MINUS_ONE), w(2), w(10)], 7),
        ("abs.s32", "b32", &[w(LOWEST)], LOWEST),
        ("abs.s64", "b64", &[d(u64::MAX)], 1),
        ("neg.s32", "b32", &[w(1)], MINUS_ONE),
        ("min.s32", "b32", &[w(MINUS_ONE), w(1)], MINUS_ONE),
        ("min.u32", "b32", &[w(MINUS_ONE), w(1)], 1),
        ("max.s64", "b64", &[d(u64::MAX), d(1)], 1),
        ("max.u16", "b16", &[h(0xffff), h(1)], 0xffff),
    ]);
}

#[test]
fn division_has_no_trap() {
    table(&[
        ("div.s32", "b32", &[w((-7i32).cast_unsigned().into()), w(2)], 0xffff_fffd),
        ("rem.s32", "b32", &[w((-7i32).cast_unsigned().into()), w(2)], MINUS_ONE),
        ("div.u32", "b32", &[w(7), w(0)], MINUS_ONE),
        ("div.s32", "b32", &[w(7), w(0)], MINUS_ONE),
        ("rem.u32", "b32", &[w(7), w(0)], 7),
        ("div.s32", "b32", &[w(LOWEST), w(MINUS_ONE)], LOWEST),
        ("rem.s32", "b32", &[w(LOWEST), w(MINUS_ONE)], 0),
        ("div.s64", "b64", &[d(1 << 63), d(u64::MAX)], 1 << 63),
        ("div.u64", "b64", &[d(u64::MAX), d(10)], u64::MAX / 10),
        ("div.s16", "b16", &[h(0xfff9), h(2)], 0xfffd),
    ]);
}

#[test]
fn shifts_clamp() {
    table(&[
        ("shl.b32", "b32", &[w(1), w(31)], LOWEST),
        ("shl.b32", "b32", &[w(1), w(32)], 0),
        ("shl.b32", "b32", &[w(1), w(MINUS_ONE)], 0),
        ("shr.u32", "b32", &[w(LOWEST), w(31)], 1),
        ("shr.u32", "b32", &[w(LOWEST), w(32)], 0),
        ("shr.s32", "b32", &[w(LOWEST), w(40)], MINUS_ONE),
        ("shr.s32", "b32", &[w(0x4000_0000), w(40)], 0),
        ("shr.b64", "b64", &[d(1 << 63), w(64)], 0),
        ("shr.s64", "b64", &[d(1 << 63), w(200)], u64::MAX),
        ("shl.b16", "b16", &[h(0x8001), w(1)], 2),
        ("shl.b16", "b16", &[h(1), w(16)], 0),
        ("shr.s16", "b16", &[h(0x8000), w(20)], 0xffff),
        ("shf.l.wrap.b32", "b32", &[w(0x1234_5678), w(0x9abc_def0), w(36)], 0xabcd_ef01),
        ("shf.l.clamp.b32", "b32", &[w(0x1234_5678), w(0x9abc_def0), w(36)], 0x1234_5678),
        ("shf.r.wrap.b32", "b32", &[w(0x1234_5678), w(0x9abc_def0), w(36)], 0x0123_4567),
        ("shf.r.clamp.b32", "b32", &[w(0x1234_5678), w(0x9abc_def0), w(36)], 0x9abc_def0),
        ("shf.r.wrap.b32", "b32", &[w(0x1234_5678), w(0x9abc_def0), w(4)], 0x0123_4567),
    ]);
}

#[test]
fn bits_and_fields() {
    table(&[
        ("not.b32", "b32", &[w(0)], MINUS_ONE),
        ("not.b16", "b16", &[h(0x00ff)], 0xff00),
        ("cnot.b32", "b32", &[w(0)], 1),
        ("cnot.b32", "b32", &[w(7)], 0),
        ("popc.b32", "b32", &[w(0xf0f0)], 8),
        ("popc.b64", "b32", &[d(u64::MAX)], 64),
        ("clz.b32", "b32", &[w(0)], 32),
        ("clz.b64", "b32", &[d(1)], 63),
        ("brev.b32", "b32", &[w(1)], LOWEST),
        ("brev.b64", "b64", &[d(1)], 1 << 63),
        ("bfind.u32", "b32", &[w(0)], MINUS_ONE),
        ("bfind.u32", "b32", &[w(0x100)], 8),
        ("bfind.s32", "b32", &[w(MINUS_ONE)], MINUS_ONE),
        ("bfind.s32", "b32", &[w(0xffff_ff00)], 7),
        ("bfind.shiftamt.u32", "b32", &[w(0x100)], 23),
        ("bfind.s64", "b32", &[d(!0x100)], 8),
        ("bfe.u32", "b32", &[w(0xabcd_1234), w(8), w(8)], 0x12),
        ("bfe.s32", "b32", &[w(0x0000_8000), w(8), w(8)], 0xffff_ff80),
        ("bfe.s32", "b32", &[w(LOWEST), w(28), w(8)], 0xffff_fff8),
        ("bfe.s32", "b32", &[w(LOWEST), w(40), w(4)], MINUS_ONE),
        ("bfe.u32", "b32", &[w(MINUS_ONE), w(40), w(4)], 0),
        ("bfe.u32", "b32", &[w(MINUS_ONE), w(4), w(0)], 0),
        ("bfe.u64", "b64", &[d(u64::MAX), w(60), w(64)], 15),
        ("bfe.s64", "b64", &[d(0x10), w(4), w(1)], u64::MAX),
        ("bfi.b32", "b32", &[w(0xf), w(0), w(8), w(4)], 0xf00),
        ("bfi.b32", "b32", &[w(MINUS_ONE), w(0), w(28), w(8)], 0xf000_0000),
        ("bfi.b32", "b32", &[w(1), w(7), w(32), w(4)], 7),
        ("bfi.b64", "b64", &[d(u64::MAX), d(0), w(0), w(64)], u64::MAX),
        ("lop3.b32 $, 0x96", "b32", &[w(0xff00), w(0xf0f0), w(0xcccc)], 0xff00 ^ 0xf0f0 ^ 0xcccc),
        ("lop3.b32 $, 0xE8", "b32", &[w(0xff00), w(0xf0f0), w(0xcccc)], 0xfcc0),
        ("lop3.b32 $, 0x01", "b32", &[w(0), w(0), w(0)], MINUS_ONE),
        ("prmt.b32", "b32", &[w(0x3322_1100), w(0x7766_5544), w(0x3175)], 0x3311_7755),
        ("prmt.b32", "b32", &[w(0x0000_8001), w(0), w(0x9898)], 0xff00_ff00),
        ("prmt.b32.f4e", "b32", &[w(0x3322_1100), w(0x7766_5544), w(1)], 0x4433_2211),
        ("prmt.b32.b4e", "b32", &[w(0x3322_1100), w(0x7766_5544), w(0)], 0x5566_7700),
        ("prmt.b32.rc8", "b32", &[w(0x3322_1100), w(0), w(2)], 0x2222_2222),
        ("prmt.b32.ecl", "b32", &[w(0x3322_1100), w(0), w(1)], 0x3322_1111),
        ("prmt.b32.ecr", "b32", &[w(0x3322_1100), w(0), w(1)], 0x1111_1100),
        ("prmt.b32.rc16", "b32", &[w(0x3322_1100), w(0), w(1)], 0x3322_3322),
        ("dp4a.u32.u32", "b32", &[w(0x0403_0201), w(0x0101_0101), w(100)], 110),
        ("dp4a.s32.u32", "b32", &[w(0xffff_ffff), w(0x0101_0101), w(0)], 0xffff_fffc),
        ("dp2a.lo.u32.u32", "b32", &[w(0x0002_0001), w(0x0000_0403), w(0)], 11),
        ("dp2a.hi.s32.s32", "b32", &[w(0xffff_0001), w(0x0203_0000), w(0)], 1),
        ("szext.clamp.s32", "b32", &[w(0x80), w(8)], 0xffff_ff80),
        ("szext.wrap.u32", "b32", &[w(0x1ff), w(40)], 0xff),
        ("bmsk.clamp.b32", "b32", &[w(4), w(8)], 0xff0),
        ("bmsk.clamp.b32", "b32", &[w(28), w(8)], 0xf000_0000),
        ("copysign.f32", "f32", &[("f32", 0x8000_0000), ("f32", 0x3f80_0000)], 0xbf80_0000),
    ]);
}

#[test]
fn carries() {
    let add = "add.cc.u32 %a2, %a0, %a1; addc.u32 %d, %a3, %a3";
    let sub = "sub.cc.u32 %a2, %a0, %a1; subc.u32 %d, %a3, %a3";
    let mad = "mad.lo.cc.u32 %a2, %a0, %a1, %a1; madc.hi.u32 %d, %a0, %a1, %a3";
    table(&[
        (&format!("{add}//$"), "b32", &[w(MINUS_ONE), w(1), w(0), w(5)], 11),
        (&format!("{add}//$"), "b32", &[w(MINUS_ONE), w(0), w(0), w(5)], 10),
        (&format!("{sub}//$"), "b32", &[w(0), w(1), w(0), w(5)], MINUS_ONE),
        (&format!("{sub}//$"), "b32", &[w(1), w(1), w(0), w(5)], 0),
        // 0xffffffff * 2 + 2 carries out of the low word.
        (&format!("{mad}//$"), "b32", &[w(MINUS_ONE), w(2), w(0), w(5)], 7),
        (
            "add.cc.u64 %a2, %a0, %a1; addc.u64 %d, %a2, %a2//$",
            "b64",
            &[d(u64::MAX), d(u64::MAX), d(0)],
            0xffff_ffff_ffff_fffd,
        ),
    ]);
}

fn f(value: f32) -> (&'static str, u64) {
    ("f32", value.to_bits().into())
}

fn g(value: f64) -> (&'static str, u64) {
    ("f64", value.to_bits())
}

const NAN: u64 = 0x7fff_ffff;
/// The smallest subnormal and the smallest normal.
const TINY: (&str, u64) = ("f32", 1);
const NORMAL: (&str, u64) = ("f32", 0x0080_0000);

#[test]
fn single_precision() {
    let third = (1.0f32 / 3.0).to_bits().into();
    table(&[
        ("add.f32", "f32", &[f(1.5), f(2.25)], f(3.75).1),
        ("add.f32", "f32", &[f(f32::INFINITY), f(f32::NEG_INFINITY)], NAN),
        ("add.f32", "f32", &[TINY, TINY], 2),
        ("add.ftz.f32", "f32", &[TINY, TINY], 0),
        ("add.ftz.f32", "f32", &[("f32", 0x8000_0001), f(-0.0)], LOWEST),
        ("add.sat.f32", "f32", &[f(0.75), f(0.75)], f(1.0).1),
        ("add.sat.f32", "f32", &[f(f32::NAN), f(0.75)], 0),
        ("add.rz.f32", "f32", &[f(1.0), f(f32::EPSILON * 0.75)], f(1.0).1),
        ("add.rp.f32", "f32", &[f(1.0), f(1e-30)], f(1.0 + f32::EPSILON).1),
        ("add.rm.f32", "f32", &[f(1.0), f(-1e-30)], f(1.0 - f32::EPSILON / 2.0).1),
        ("add.rm.f32", "f32", &[f(1.0), f(-1.0)], f(-0.0).1),
        ("sub.f32", "f32", &[f(1.0), f(1.0)], 0),
        ("mul.f32", "f32", &[f(f32::MAX), f(2.0)], f(f32::INFINITY).1),
        ("mul.rz.f32", "f32", &[f(f32::MAX), f(2.0)], f(f32::MAX).1),
        ("mul.f32", "f32", &[NORMAL, f(0.5)], 0x0040_0000),
        ("mul.ftz.f32", "f32", &[NORMAL, f(0.5)], 0),
        (
            "fma.rn.f32",
            "f32",
            &[f(1.0 + f32::EPSILON), f(1.0 - f32::EPSILON), f(-1.0)],
            f(-(f32::EPSILON * f32::EPSILON)).1,
        ),
        ("fma.rn.sat.f32", "f32", &[f(2.0), f(-3.0), f(1.0)], 0),
        ("div.rn.f32", "f32", &[f(1.0), f(3.0)], third),
        ("div.approx.f32", "f32", &[f(1.0), f(3.0)], third),
        ("div.full.f32", "f32", &[f(1.0), f(3.0)], third),
        ("div.rz.f32", "f32", &[f(2.0), f(3.0)], (2.0f32 / 3.0).to_bits() as u64 - 1),
        ("div.rn.f32", "f32", &[f(0.0), f(0.0)], NAN),
        ("div.rn.f32", "f32", &[f(-1.0), f(0.0)], f(f32::NEG_INFINITY).1),
        ("rcp.rn.f32", "f32", &[f(4.0)], f(0.25).1),
        ("rcp.approx.ftz.f32", "f32", &[TINY], f(f32::INFINITY).1),
        ("sqrt.rn.f32", "f32", &[f(2.0)], f(2.0f32.sqrt()).1),
        ("sqrt.rn.f32", "f32", &[f(-1.0)], NAN),
        ("sqrt.rp.f32", "f32", &[f(2.0)], f(2.0f32.sqrt()).1 + 1),
        ("sqrt.rm.f32", "f32", &[f(2.0)], f(2.0f32.sqrt()).1),
        ("rsqrt.approx.f32", "f32", &[f(16.0)], f(0.25).1),
        ("ex2.approx.f32", "f32", &[f(-3.0)], f(0.125).1),
        ("ex2.approx.ftz.f32", "f32", &[f(-130.0)], 0),
        ("lg2.approx.f32", "f32", &[f(1024.0)], f(10.0).1),
        ("lg2.approx.f32", "f32", &[f(-1.0)], NAN),
        ("sin.approx.f32", "f32", &[f(0.0)], 0),
        ("cos.approx.f32", "f32", &[f(0.0)], f(1.0).1),
        ("tanh.approx.f32", "f32", &[f(0.0)], 0),
        ("abs.f32", "f32", &[f(-2.0)], f(2.0).1),
        ("neg.f32", "f32", &[f(0.0)], LOWEST),
        ("min.f32", "f32", &[f(f32::NAN), f(1.0)], f(1.0).1),
        ("min.f32", "f32", &[f(0.0), f(-0.0)], LOWEST),
        ("max.f32", "f32", &[f(-0.0), f(0.0)], 0),
        ("max.f32", "f32", &[f(-3.0), f(-2.0)], f(-2.0).1),
        ("min.NaN.f32", "f32", &[f(f32::NAN), f(1.0)], NAN),
        ("max.f32", "f32", &[f(f32::NAN), f(f32::NAN)], NAN),
    ]);
}

#[test]
fn double_precision() {
    table(&[
        ("add.f64", "f64", &[g(0.1), g(0.2)], g(0.1 + 0.2).1),
        ("add.rp.f64", "f64", &[g(1.0), g(1e-300)], g(1.0 + f64::EPSILON).1),
        ("sub.f64", "f64", &[g(0.3), g(0.1)], g(0.3 - 0.1).1),
        ("mul.rn.f64", "f64", &[g(0.1), g(0.3)], g(0.1 * 0.3).1),
        ("fma.rn.f64", "f64", &[g(0.1), g(10.0), g(-1.0)], g(0.1f64.mul_add(10.0, -1.0)).1),
        ("div.rn.f64", "f64", &[g(1.0), g(3.0)], g(1.0 / 3.0).1),
        ("div.rp.f64", "f64", &[g(1.0), g(3.0)], g(1.0 / 3.0).1 + 1),
        ("sqrt.rn.f64", "f64", &[g(2.0)], g(2.0f64.sqrt()).1),
        ("rcp.rn.f64", "f64", &[g(3.0)], g(1.0 / 3.0).1),
        ("rcp.approx.ftz.f64", "f64", &[g(4.0)], g(0.25).1),
        ("rcp.approx.ftz.f64", "f64", &[g(0.0)], g(f64::INFINITY).1),
        ("rsqrt.approx.f64", "f64", &[g(4.0)], g(0.5).1),
        ("min.f64", "f64", &[g(f64::NAN), g(2.0)], g(2.0).1),
        ("neg.f64", "f64", &[g(2.0)], g(-2.0).1),
        ("copysign.f64", "f64", &[g(-1.0), g(3.0)], g(-3.0).1),
    ]);
}

#[test]
fn half_precision() {
    let one = 0x3c00;
    table(&[
        ("add.f16", "b16", &[h(one), h(one)], 0x4000),
        ("add.rn.f16x2", "b32", &[w(0x3c00_4000), w(0x3c00_3c00)], 0x4000_4200),
        ("mul.bf16", "b16", &[h(0x4000), h(0x4040)], 0x40c0),
        ("fma.rn.f16", "b16", &[h(one), h(one), h(0x1400)], 0x3c01),
        ("fma.rn.bf16x2", "b32", &[w(0x3f80_4000), w(0x3f80_3f80), w(0x3f80_3f80)], 0x4000_4040),
        ("add.f16", "b16", &[h(0x7bff), h(0x7bff)], 0x7c00),
        ("add.ftz.f16", "b16", &[h(1), h(1)], 0),
        ("neg.f16", "b16", &[h(one)], 0xbc00),
        ("cvt.f32.f16", "f32", &[h(0x3555)], f(0.333_251_95).1),
        ("cvt.rn.f16.f32", "b16", &[f(1.0 / 3.0)], 0x3555),
        ("cvt.rn.f16.f32", "b16", &[f(65_520.0)], 0x7c00),
        ("cvt.rz.f16.f32", "b16", &[f(65_535.0)], 0x7bff),
        ("cvt.rn.bf16.f32", "b16", &[f(1.0 + 1.0 / 256.0)], 0x3f80),
        ("cvt.rn.f16x2.f32", "b32", &[f(1.0), f(2.0)], 0x3c00_4000),
        ("setp.lt.f16", "pred", &[h(0xbc00), h(0)], 1),
    ]);
}

#[test]
fn conversions() {
    table(&[
        ("cvt.u32.u16", "b32", &[h(0xffff)], 0xffff),
        ("cvt.s32.s16", "b32", &[h(0xffff)], MINUS_ONE),
        ("cvt.s64.s32", "b64", &[w(LOWEST)], 0xffff_ffff_8000_0000),
        ("cvt.u64.u32", "b64", &[w(LOWEST)], LOWEST),
        ("cvt.u32.u64", "b32", &[d(0x1_2345_6789)], 0x2345_6789),
        ("cvt.s8.s32", "b32", &[w(0x180)], 0xffff_ff80),
        ("cvt.u8.u32", "b32", &[w(0x1ff)], 0xff),
        ("cvt.s8.s32", "b16", &[w(0x80)], 0xff80),
        ("cvt.s32.s8", "b32", &[w(0x1280)], 0xffff_ff80),
        ("cvt.sat.s8.s32", "b32", &[w(1000)], 127),
        ("cvt.sat.u8.s32", "b32", &[w(MINUS_ONE)], 0),
        ("cvt.sat.u32.s64", "b32", &[d(1 << 40)], MINUS_ONE),
        ("cvt.rn.f32.s32", "f32", &[w(MINUS_ONE)], f(-1.0).1),
        ("cvt.rn.f32.u32", "f32", &[w(MINUS_ONE)], f(4_294_967_296.0).1),
        ("cvt.rz.f32.u32", "f32", &[w(MINUS_ONE)], f(4_294_967_040.0).1),
        ("cvt.rn.f64.u64", "f64", &[d(u64::MAX)], g(18_446_744_073_709_551_616.0).1),
        ("cvt.rzi.s32.f32", "b32", &[f(-2.9)], 0xffff_fffe),
        ("cvt.rni.s32.f32", "b32", &[f(2.5)], 2),
        ("cvt.rni.s32.f32", "b32", &[f(3.5)], 4),
        ("cvt.rmi.s32.f32", "b32", &[f(-2.1)], 0xffff_fffd),
        ("cvt.rpi.s32.f32", "b32", &[f(2.1)], 3),
        ("cvt.rzi.s32.f32", "b32", &[f(1e20)], 0x7fff_ffff),
        ("cvt.rzi.u32.f32", "b32", &[f(-1.0)], 0),
        ("cvt.rzi.s32.f32", "b32", &[f(f32::NAN)], 0),
        ("cvt.rzi.s64.f32", "b64", &[f(f32::NAN)], 1 << 63),
        ("cvt.rzi.u64.f64", "b64", &[g(1e30)], u64::MAX),
        ("cvt.rzi.s64.f64", "b64", &[g(f64::NEG_INFINITY)], 1 << 63),
        ("cvt.rzi.s32.f64", "b32", &[g(f64::NAN)], LOWEST),
        ("cvt.rzi.s16.f32", "b16", &[f(40_000.0)], 0x7fff),
        ("cvt.rni.f32.f32", "f32", &[f(2.5)], f(2.0).1),
        ("cvt.rmi.f32.f32", "f32", &[f(-0.5)], f(-1.0).1),
        ("cvt.rpi.f64.f64", "f64", &[g(-0.5)], g(-0.0).1),
        ("cvt.sat.f32.f32", "f32", &[f(1.5)], f(1.0).1),
        ("cvt.f64.f32", "f64", &[f(0.1)], g(f64::from(0.1f32)).1),
        ("cvt.rn.f32.f64", "f32", &[g(0.1)], f(0.1).1),
        ("cvt.rp.f32.f64", "f32", &[g(1e-300)], 1),
        ("cvt.rn.ftz.f32.f64", "f32", &[g(1e-40)], 0),
        ("mov.b32 %d, {%a0, %a1}//$", "b32", &[h(0x1234), h(0x5678)], 0x5678_1234),
        ("mov.b64 %d, {%a0, %a1}//$", "b64", &[w(1), w(2)], 0x2_0000_0001),
        ("mov.b64 {_, %d}, %a0//$", "b32", &[d(0x2_0000_0001)], 2),
        ("mov.b32 %d, %a0//$", "b32", &[f(1.0)], 0x3f80_0000),
        ("mov.f32 %d, 0.5//$", "f32", &[w(0)], f(0.5).1),
        ("mov.f32 %d, 0fBF000000//$", "f32", &[w(0)], f(-0.5).1),
        ("mov.f64 %d, -2.5e-1//$", "f64", &[w(0)], g(-0.25).1),
        ("mov.u32 %d, -1//$", "b32", &[w(0)], MINUS_ONE),
    ]);
}

#[test]
fn comparisons_and_selections() {
    let nan = f(f32::NAN);
    table(&[
        ("setp.lt.s32", "pred", &[w(MINUS_ONE), w(1)], 1),
        ("setp.lt.u32", "pred", &[w(MINUS_ONE), w(1)], 0),
        ("setp.hi.u32", "pred", &[w(MINUS_ONE), w(1)], 1),
        ("setp.ls.u32", "pred", &[w(1), w(1)], 1),
        ("setp.eq.b64", "pred", &[d(1), d(1)], 1),
        ("setp.ne.s16", "pred", &[h(1), h(1)], 0),
        ("setp.eq.f32", "pred", &[nan, nan], 0),
        ("setp.ne.f32", "pred", &[nan, f(1.0)], 0),
        ("setp.neu.f32", "pred", &[nan, f(1.0)], 1),
        ("setp.equ.f32", "pred", &[nan, f(1.0)], 1),
        ("setp.ltu.f32", "pred", &[nan, f(1.0)], 1),
        ("setp.ltu.f32", "pred", &[f(2.0), f(1.0)], 0),
        ("setp.geu.f64", "pred", &[g(1.0), g(1.0)], 1),
        ("setp.num.f32", "pred", &[f(1.0), nan], 0),
        ("setp.nan.f32", "pred", &[f(1.0), nan], 1),
        ("setp.gt.ftz.f32", "pred", &[TINY, f(0.0)], 0),
        ("setp.gt.f32", "pred", &[TINY, f(0.0)], 1),
        ("setp.lt.and.s32", "pred", &[w(1), w(2), ("pred", 0)], 0),
        ("setp.gt.or.s32", "pred", &[w(1), w(2), ("pred", 1)], 1),
        ("setp.lt.xor.s32", "pred", &[w(1), w(2), ("pred", 1)], 0),
        ("setp.lt.and.s32 %d, %a0, %a1, !%a2//$", "pred", &[w(1), w(2), ("pred", 0)], 1),
        // The second destination holds the negated comparison, combined likewise.
        ("setp.lt.and.s32 %flag|%d, %a0, %a1, %a2//$", "pred", &[w(2), w(1), ("pred", 1)], 1),
        ("setp.lt.and.s32 %flag|%d, %a0, %a1, %a2//$", "pred", &[w(2), w(1), ("pred", 0)], 0),
        ("set.lt.u32.s32", "b32", &[w(1), w(2)], MINUS_ONE),
        ("set.lt.f32.s32", "f32", &[w(1), w(2)], f(1.0).1),
        ("set.ge.and.u32.f32", "b32", &[f(1.0), f(0.0), ("pred", 0)], 0),
        ("selp.b32", "b32", &[w(1), w(2), ("pred", 1)], 1),
        ("selp.f64", "f64", &[g(1.0), g(2.0), ("pred", 0)], g(2.0).1),
        ("slct.u32.s32", "b32", &[w(1), w(2), w(MINUS_ONE)], 2),
        ("slct.u32.f32", "b32", &[w(1), w(2), f(-0.0)], 1),
        ("slct.u32.f32", "b32", &[w(1), w(2), f(f32::NAN)], 2),
        ("slct.ftz.u32.f32", "b32", &[w(1), w(2), ("f32", 0x8000_0001)], 1),
        ("and.pred", "pred", &[("pred", 1), ("pred", 0)], 0),
        ("or.pred", "pred", &[("pred", 1), ("pred", 0)], 1),
        ("xor.pred", "pred", &[("pred", 1), ("pred", 1)], 0),
        ("not.pred", "pred", &[("pred", 1)], 0),
        ("mov.pred %d, !%a0//$", "pred", &[("pred", 0)], 1),
        ("testp.subnormal.f32", "pred", &[TINY], 1),
        ("testp.normal.f32", "pred", &[TINY], 0),
        ("testp.infinite.f64", "pred", &[g(f64::NEG_INFINITY)], 1),
        ("testp.notanumber.f32", "pred", &[nan], 1),
        ("testp.finite.f32", "pred", &[nan], 0),
        ("@%a1 add.s32 %d, %a0, 1//$", "b32", &[w(5), ("pred", 1)], 6),
        ("mov.u32 %d, 9; @!%a1 add.s32 %d, %a0, 1//$", "b32", &[w(5), ("pred", 1)], 9),
    ]);
}

#[test]
fn atomics() {
    // The new value; the old one must come back as well.
    let cases: &[(&str, &str, u64, u64, u64)] = &[
        ("add.u32", "b32", 5, 7, 12),
        ("add.s32", "b32", 5, MINUS_ONE, 4),
        ("add.u64", "b64", u64::MAX, 2, 1),
        ("add.f32", "f32", f(1.5).1, f(2.5).1, f(4.0).1),
        ("add.f64", "f64", g(1.5).1, g(2.5).1, g(4.0).1),
        ("add.noftz.f16x2", "b32", 0x3c00_3c00, 0x3c00_4000, 0x4000_4200),
        ("exch.b64", "b64", 1, 2, 2),
        ("min.s32", "b32", 5, MINUS_ONE, MINUS_ONE),
        ("min.u32", "b32", 5, MINUS_ONE, 5),
        ("max.s64", "b64", 5, u64::MAX, 5),
        ("max.u64", "b64", 5, u64::MAX, u64::MAX),
        ("and.b32", "b32", 0b1100, 0b1010, 0b1000),
        ("or.b32", "b32", 0b1100, 0b1010, 0b1110),
        ("xor.b64", "b64", 0b1100, 0b1010, 0b0110),
        ("inc.u32", "b32", 5, 5, 0),
        ("inc.u32", "b32", 4, 5, 5),
        ("dec.u32", "b32", 0, 5, 5),
        ("dec.u32", "b32", 9, 5, 5),
        ("dec.u32", "b32", 3, 5, 2),
    ];
    for &(operation, ty, old, operand, new) in cases {
        for space in ["", ".global", ".relaxed.gpu.global"] {
            let atom = format!("atom{space}.{operation} %d, [%in], %a1//$");
            assert_eq!(run(&atom, ty, &[(ty, old), (ty, operand)]), old, "{atom}");
            let red = format!("red{space}.{operation} [%in], %a1; ld.global.b{} %d, [%in]//$", bits(ty));
            let red = if operation.starts_with("exch") {
                red.replace("red", "atom").replace("atom.exch.b64 ", "atom.exch.b64 %d, ")
            } else {
                red
            };
            if !red.starts_with("atom") {
                assert_eq!(run(&red, ty, &[(ty, old), (ty, operand)]), new, "{red}");
            }
        }
        let shared = format!(
            ".shared .align 8 .b8 cell[8]; st.shared.b{0} [cell], %a0; atom.shared.{operation} %d, [cell], %a1; \
             ld.shared.b{0} %d, [cell]//$",
            bits(ty)
        );
        assert_eq!(run(&shared, ty, &[(ty, old), (ty, operand)]), new, "{shared}");
    }
    table(&[
        ("atom.cas.b32 %d, [%in], %a1, %a2; ld.global.b32 %d, [%in]//$", "b32", &[w(5), w(5), w(9)], 9),
        ("atom.cas.b32 %d, [%in], %a1, %a2; ld.global.b32 %d, [%in]//$", "b32", &[w(5), w(6), w(9)], 5),
        ("atom.global.acq_rel.gpu.cas.b64 %d, [%in], %a1, %a2//$", "b64", &[d(5), d(6), d(9)], 5),
        ("atom.cas.b16 %d, [%in], %a1, %a2; ld.global.b16 %d, [%in]//$", "b16", &[h(5), h(5), h(9)], 9),
    ]);
    // In global memory `f32` sums flush subnormals, in shared memory they do not.
    let shared = ".shared .b32 cell; st.shared.b32 [cell], %a0; red.shared.add.f32 [cell], %a1; ld.shared.b32 %d, [cell]//$";
    assert_eq!(run("red.global.add.f32 [%in], %a1; ld.global.b32 %d, [%in]//$", "f32", &[TINY, TINY]), 0);
    assert_eq!(run(shared, "f32", &[TINY, TINY]), 2);
}

#[test]
fn addresses_and_spaces() {
    let local = ".local .align 8 .b8 stack[16]; .reg .b64 %p, %q; .reg .pred %is; mov.u64 %p, stack; cvta.local.u64 %q, %p; ";
    let shared = ".shared .align 8 .b8 tile[16]; .reg .b64 %p, %q; .reg .pred %is; mov.u64 %p, tile; cvta.shared.u64 %q, %p; ";
    table(&[
        // A generic access reaches what an access in the space wrote, and the other way round.
        (&format!("{local}st.local.b32 [stack+4], %a0; ld.b32 %d, [%q+4]//$"), "b32", &[w(77)], 77),
        (&format!("{shared}st.b32 [%q+8], %a0; ld.shared.b32 %d, [tile+8]//$"), "b32", &[w(78)], 78),
        (&format!("{shared}cvta.to.shared.u64 %d, %q//$"), "b64", &[w(0)], 0),
        (&format!("{local}isspacep.local %d, %q//$"), "pred", &[w(0)], 1),
        (&format!("{local}isspacep.shared %d, %q//$"), "pred", &[w(0)], 0),
        (&format!("{local}isspacep.global %d, %q//$"), "pred", &[w(0)], 0),
        (&format!("{shared}isspacep.shared %d, %q//$"), "pred", &[w(0)], 1),
        ("isspacep.global %d, %in//$", "pred", &[w(0)], 1),
        // Loads extend by the sign of their type to the width of the register.
        ("ld.global.s8 %d, [%in]//$", "b32", &[w(0x80)], 0xffff_ff80),
        ("ld.global.u8 %d, [%in]//$", "b32", &[w(0x80)], 0x80),
        ("ld.global.s16 %d, [%in]//$", "b64", &[w(0x8000)], 0xffff_ffff_ffff_8000),
        ("ld.global.s8 %d, [%in]//$", "b16", &[w(0x80)], 0xff80),
        ("ld.volatile.global.u32 %d, [%in]//$", "b32", &[w(3)], 3),
        ("ld.global.nc.L1::no_allocate.L2::128B.u32 %d, [%in]//$", "b32", &[w(3)], 3),
        ("ld.acquire.gpu.u32 %d, [%in]//$", "b32", &[w(3)], 3),
        (".reg .b32 %x; ld.global.v2.u32 {%x, %d}, [%in]//$", "b32", &[d(0x7_0000_0003)], 7),
        ("ld.global.v4.u16 {_, _, %d, _}, [%in]//$", "b16", &[d(0x4444_3333_2222_1111)], 0x3333),
        (
            "st.global.v2.b16 [%in], {%a1, %a1}; ld.global.b32 %d, [%in]//$",
            "b32",
            &[w(0), h(0x1234)],
            0x1234_1234,
        ),
    ]);
}
