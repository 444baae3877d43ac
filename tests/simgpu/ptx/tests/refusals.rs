//! Bad texts: every one is refused at the right line, with words that name what is wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use ParseErrorKind::{Invalid, Limit, Target, Unsupported, Version};
use headgate_simgpu_ptx::{Module, ParseErrorKind};

const HEADER: &str = ".version 8.2\n.target sm_80\n.address_size 64\n";

/// Refused whole texts: text, kind, line, part of the message.
fn refused(text: &str, kind: ParseErrorKind, line: u32, part: &str) {
    match Module::parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => {
            assert_eq!((error.kind, error.line), (kind, line), "{error}\n{text}");
            assert!(error.message.contains(part), "{error}");
            assert!(error.column >= 1 && error.to_string().contains(&format!("line {line}")), "{error}");
        }
    }
}

/// Refused bodies; the first line of the body is line 8.
fn refused_body(body: &str, kind: ParseErrorKind, part: &str) {
    let text = format!(
        "{HEADER}.visible .entry run(.param .u64 out)\n{{\n.reg .b32 %r<8>; .reg .b64 %d<8>; .reg .f32 %f<8>;\n\
         .reg .pred %p<4>; .reg .b16 %h<4>;\n{body}\nret;\n}}\n"
    );
    let line = 8 + u32::try_from(body.trim_end().matches('\n').count()).unwrap();
    refused(&text, kind, line, part);
}

#[test]
fn modules() {
    refused("", Invalid, 1, "expected `.version`");
    refused("\n\nhello", Invalid, 3, "expected `.version` first");
    refused(".version 8", Invalid, 1, "a version like 8.2");
    refused(".version 99.0\n", Version, 1, "newer than");
    refused(".version 8.2\n.entry", Invalid, 2, "expected `.target`");
    refused(".version 8.2\n.target sm_20", Target, 2, "older than");
    refused(".version 8.2\n.target banana", Invalid, 2, "not a target");
    refused(".version 8.2\n.target debug", Invalid, 2, "no architecture");
    refused(".version 8.2\n.target sm_80\n.address_size 32", Unsupported, 3, "32-bit addresses");
    refused(&format!("{HEADER}.wibble"), Invalid, 4, "`.wibble`");
    refused(&format!("{HEADER}.visible .global .texref t;"), Unsupported, 4, ".texref");
    refused(&format!("{HEADER}.alias a, b;"), Unsupported, 4, ".alias");
    refused(
        &format!("{HEADER}\n.global .u32 x[4] = {{1,2,3,4,5}};"),
        Invalid,
        5,
        "16 bytes but values for 20",
    );
    refused(&format!("{HEADER}.global .align 3 .u32 x;"), Invalid, 4, "power of two");
    refused(&format!("{HEADER}.global .u32 x;\n.global .u32 x;"), Invalid, 5, "declared twice");
    refused(&format!("{HEADER}.global .u32 x[99999999999999999999];"), Invalid, 4, "not a number");
    refused(&format!("{HEADER}.global .u32 x[9999999999999999];"), Limit, 4, "larger than");
    refused(&format!("{HEADER}.global .u64 x = y;"), Invalid, 4, "`y` has no address");
    refused(&format!("{HEADER}.global .u32 y;\n.global .u32 x = y;"), Unsupported, 5, "less than 64 bits");
    refused(&format!("{HEADER}.extern .global .u32 x;"), Unsupported, 4, "declared extern");
    refused(&format!("{HEADER}.const .b8 x[70000];"), Limit, 4, "65536 bytes of constants");
    refused(&format!("{HEADER}.shared .b8 x[300000];"), Limit, 4, "shared memory");
    refused(&format!("{HEADER}.global .pred x;"), Invalid, 4, "predicate");
    refused(&format!("{HEADER}.section .debug {{ .b8 1"), Invalid, 4, "no matching");
    refused(&format!("{HEADER}.entry a() {{ ret;"), Invalid, 4, "no matching");
    refused(&format!("{HEADER}.entry a() {{ ret; }}\n.entry a() {{ ret; }}"), Invalid, 5, "defined twice");
    refused(
        &format!("{HEADER}.func a(.param .b32 x);\n.func a(.param .b64 x) {{ ret; }}"),
        Invalid,
        5,
        "otherwise",
    );
    refused(&format!("{HEADER}.func a(.reg .b32 x) {{ ret; }}"), Unsupported, 4, "in registers");
    refused(&format!("{HEADER}.entry a(.param .b8 x[40000]) {{ ret; }}"), Limit, 4, "kernel parameters");
    refused(&format!("{HEADER}.entry a() .wibble {{ ret; }}"), Unsupported, 4, ".wibble");
    refused(&format!("{HEADER}.entry a() {{ .local .b8 x[600000]; ret; }}"), Limit, 4, "local memory");
    refused(&format!("{HEADER}.entry a()\n{}", "{".repeat(100)), Limit, 5, "nested deeper");
}

#[test]
fn instructions() {
    refused_body("frobnicate.u32 %r1, %r2;", Unsupported, "`frobnicate.u32`");
    refused_body(
        "\n\nwmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%d1];",
        Unsupported,
        "wmma.load",
    );
    refused_body("tex.2d.v4.f32.s32 {%f1}, [%d1, {%r1, %r2}];", Unsupported, "textures");
    refused_body("add.wibble.u32 %r1, %r2, %r3;", Unsupported, "`.wibble`");
    refused_body("add %r1, %r2, %r3;", Invalid, "no type");
    refused_body("add.u32 %r1, %r2;", Invalid, "3 operands, not 2");
    refused_body("add.u32 %r1, %r2, %r3, %r4;", Invalid, "3 operands, not 4");
    refused_body("add.u32 %r1, %r2, %r9;", Invalid, "`%r9` is not declared");
    refused_body("add.u32 %r9, %r2, %r1;", Invalid, "`%r9` is not a register");
    refused_body("add.u32 %r1, %r2, %d1;", Invalid, "`%d1` is B64");
    refused_body("add.f32 %f1, %f2, %r1;\nadd.u32 %r1, %f1, %r2;", Invalid, "`%f1` is F32");
    refused_body("add.f32 %f1, %f2, 1;", Invalid, "floating-point literal");
    refused_body("add.u32 %r1, %r2, 1.5;", Invalid, "does not fit");
    refused_body("add.b32 %r1, %r2, %r3;", Invalid, "");
    refused_body("fma.f32 %f1, %f2, %f3, %f4;", Invalid, "no rounding");
    refused_body("div.f32 %f1, %f2, %f3;", Invalid, "no rounding");
    refused_body("cvt.f32.s32 %f1, %r1;", Invalid, "no rounding");
    refused_body("cvt.s32.f32 %r1, %f1;", Invalid, "no rounding");
    refused_body("cvt.b32.b16 %r1, %h1;", Invalid, "not a conversion");
    refused_body("sin.f32 %f1, %f2;", Invalid, ".approx");
    refused_body("lop3.b32 %r1, %r2, %r3, %r4, 256;", Invalid, "8 bits");
    refused_body("lop3.b32 %r1, %r2, %r3, %r4, %r5;", Invalid, "a number");
    refused_body("setp.u32 %p1, %r1, %r2;", Invalid, "no comparison");
    refused_body("setp.lo.s32 %p1, %r1, %r2;", Invalid, "does not exist");
    refused_body("setp.lt.u32 %r1, %r1, %r2;", Invalid, "`%r1` is B32");
    refused_body("selp.u32 %r1, %r2, %r3, %r4;", Invalid, "not a predicate");
    refused_body("L: @%r1 bra L;", Invalid, "not a predicate");
    refused_body("bra NOWHERE;", Invalid, "`NOWHERE` is not a label");
    refused_body("L: L:", Invalid, "stands twice");
    refused_body("mov.u32 %r1, %wibble;", Invalid, "`%wibble` is not declared");
    refused_body("mov.u64 %d1, %tid.x;", Invalid, "32 bits, not 64");
    refused_body("mov.u32 %r1, %pm0.x;", Unsupported, "special register");
    refused_body("mov.u32 %r1, run;", Unsupported, "the address of a kernel");
    refused_body("ld.global.u32 %r1, %d1;", Invalid, "address in brackets");
    refused_body("ld.global.u32 %r1, [%f1];", Invalid, "cannot hold an address");
    refused_body("ld.global.u32 %r1, [out];", Invalid, "does not lie in the space");
    refused_body("ld.global.u32 %h1, [%d1];", Invalid, "`%h1` is B16");
    refused_body("ld.global.v2.u32 %r1, [%d1];", Invalid, "vector of 2");
    refused_body("ld.global.v2.u32 {%r1, %r2, %r3}, [%d1];", Invalid, "expected 2 elements");
    refused_body("ld.global.v4.u64 {%d1, %d2, %d3, %d4}, [%d1];", Invalid, "16 bytes");
    refused_body("st.param.u64 [out], %d1;", Invalid, "cannot be stored");
    refused_body("st.const.u32 [%d1], %r1;", Invalid, "constant");
    refused_body("atom.add.b32 %r1, [%d1], %r2;", Unsupported, "on this type");
    refused_body("atom.frob.u32 %r1, [%d1], %r2;", Unsupported, "atomic operation");
    refused_body("atom.local.add.u32 %r1, [%d1], %r2;", Invalid, "global and shared");
    refused_body("call nothing;", Invalid, "`nothing` is not a function");
    refused_body("{ .param .b32 a; call run, (a); }", Unsupported, "address of a kernel");
    refused_body("call %d1;", Invalid, ".callprototype");
    refused_body("shfl.down.b32 %r1, %r2, 1, 31;", Unsupported, "without `.sync`");
    refused_body("bar.sync;", Invalid, "1 to 2 operands");
    refused_body("mov.b64 %d1, {};", Unsupported, "0 parts");
    refused_body("mov.b64 %d1, {%r1, %r2, %r3};", Unsupported, "3 parts");
    refused_body("add.u32 %r1, %r2, %r3 ret;", Invalid, "expected `;`");
    refused_body("add.u32 %r1, %r2, -;", Invalid, "expected a number");
    refused_body(".reg .b8 %x;", Invalid, "16 bits");
    refused_body(".reg .b128 %x;", Unsupported, ".b128");
    refused_body(".reg .b32 %r<3>;", Invalid, "declared twice");
    refused_body(".global .u32 x;", Unsupported, "inside a function");
    refused_body("add.u32 %r1, %r2, \u{1f980};", Invalid, "character");
    refused_body("ret; /* never ends", Invalid, "no end");
}

#[test]
fn functions_that_the_device_does_not_have() {
    let text = format!(
        "{HEADER}.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n.entry run()\n{{\n\
         .param .b32 r; .param .b64 a; .param .b64 b;\ncall.uni (r), vprintf, (a, b);\nret;\n}}\n"
    );
    refused(&text, Unsupported, 8, "`vprintf` is declared but not defined");
}

#[test]
fn registers_have_a_limit() {
    use std::fmt::Write as _;
    let mut body = String::from(".reg .b32 %r<4000000000>;\n");
    for register in 0..20_000 {
        writeln!(body, "mov.u32 %r{register}, 0;").unwrap();
    }
    let text = format!("{HEADER}.entry run()\n{{\n{body}ret;\n}}\n");
    let error = Module::parse(&text).unwrap_err();
    assert_eq!(error.kind, Limit);
    assert!(error.message.contains("registers"), "{error}");
}

#[test]
fn a_trailing_nul_ends_the_text() {
    assert!(Module::parse(&format!("{HEADER}.entry run() {{ ret; }}\0garbage {{{{")).is_ok());
}
