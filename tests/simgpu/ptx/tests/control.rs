//! Flow: branches, calls, barriers, warps, clocks, and what a launch may ask for.

mod support;

use headgate_simgpu_ptx::{
    ConfigError, ExecStats, Fault, FaultKind, LaunchConfig, LaunchError, Module, ParseErrorKind,
};
use support::{Arg, Loaded};

const HEADER: &str = ".version 8.2\n.target sm_80\n.address_size 64\n";

/// A kernel `run(out)` whose body sees `%out`, and `%t` as its thread's number within the block.
fn kernel(body: &str) -> String {
    format!(
        "{HEADER}.visible .entry run(.param .u64 out)\n{{\n.reg .b64 %out, %at, %d<8>;\n.reg .b32 %t, %r<16>;\n\
         .reg .pred %p<8>;\nld.param.u64 %out, [out];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %at, %t, 4;\n\
         add.u64 %at, %at, %out;\n{body}\nret;\n}}\n"
    )
}

/// Runs it with one block and returns a word for each thread.
fn words(body: &str, threads: u32) -> Vec<u32> {
    let mut gpu = Loaded::text(&kernel(body));
    let out = gpu.insert(&vec![0u32; threads as usize]);
    gpu.launch("run", [1, 1, 1], [threads, 1, 1], &[Arg::U64(out)]).unwrap_or_else(|error| panic!("{error}"));
    gpu.read(out)
}

fn fault(result: Result<ExecStats, LaunchError>) -> Fault {
    match result {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

fn fault_of(body: &str, threads: u32) -> Fault {
    let mut gpu = Loaded::text(&kernel(body));
    let out = gpu.insert(&vec![0u32; threads as usize]);
    fault(gpu.launch("run", [1, 1, 1], [threads, 1, 1], &[Arg::U64(out)]))
}

#[test]
fn indices_of_threads_and_blocks() {
    let text = format!(
        "{HEADER}.visible .entry run(.param .u64 out)\n{{\n.reg .b64 %o, %a; .reg .b32 %r<20>;\n\
         ld.param.u64 %o, [out];\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z;\n\
         mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ctaid.y; mov.u32 %r5, %ctaid.z;\n\
         mov.u32 %r6, %ntid.x; mov.u32 %r7, %ntid.y; mov.u32 %r8, %ntid.z;\n\
         mov.u32 %r9, %nctaid.x; mov.u32 %r10, %nctaid.y;\n\
         mad.lo.u32 %r11, %r5, %r10, %r4; mad.lo.u32 %r11, %r11, %r9, %r3;\n\
         mad.lo.u32 %r12, %r2, %r7, %r1; mad.lo.u32 %r12, %r12, %r6, %r0;\n\
         mul.lo.u32 %r13, %r6, %r7; mul.lo.u32 %r13, %r13, %r8;\n\
         mad.lo.u32 %r14, %r11, %r13, %r12;\n\
         mul.wide.u32 %a, %r14, 4; add.u64 %a, %a, %o; st.global.u32 [%a], %r14;\nret;\n}}\n"
    );
    let mut gpu = Loaded::text(&text);
    let count = 2 * 3 * 2 * (5 * 2 * 3);
    let out = gpu.insert(&vec![u32::MAX; count]);
    let stats = gpu.launch("run", [2, 3, 2], [5, 2, 3], &[Arg::U64(out)]).unwrap();
    assert_eq!(gpu.read::<u32>(out), (0..u32::try_from(count).unwrap()).collect::<Vec<_>>());
    assert_eq!((stats.blocks, stats.threads), (12, 360));
}

#[test]
fn lanes_and_warps() {
    let read = |special: &str| words(&format!("mov.u32 %r1, %{special}; st.global.u32 [%at], %r1;"), 40);
    assert_eq!(read("laneid"), (0..40).map(|t| t % 32).collect::<Vec<_>>());
    assert_eq!(read("warpid"), (0..40).map(|t| t / 32).collect::<Vec<_>>());
    assert_eq!(read("lanemask_lt")[5], 0b1_1111);
    assert_eq!(read("lanemask_ge")[31], 1 << 31);
    assert_eq!(read("lanemask_gt")[31], 0);
    assert_eq!(read("lanemask_le")[39], 0xff);
    assert_eq!(read("nsmid")[0], 132);
    assert_eq!(read("smid")[0], 0);
}

#[test]
fn jump_tables() {
    let body = "ts: .branchtargets A, B, C;\nbrx.idx %t, ts;\nA: mov.u32 %r1, 10; bra.uni E;\nB: mov.u32 %r1, 20; bra E;\n\
                C: mov.u32 %r1, 30;\nE: st.global.u32 [%at], %r1;";
    assert_eq!(words(body, 3), [10, 20, 30]);
    let found = fault_of(body, 4);
    assert_eq!((found.kind, found.thread), (FaultKind::InvalidPc, [3, 0, 0]));
}

#[test]
fn labels_are_scoped() {
    let body = "mov.u32 %r1, 0;\n{ L: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5; @%p1 bra L; }\n\
                { L: add.u32 %r1, %r1, 10; setp.lt.u32 %p1, %r1, 50; @%p1 bra L; }\nst.global.u32 [%at], %r1;";
    assert_eq!(words(body, 1), [55]);
}

#[test]
fn barriers_order_shared_memory() {
    // Neighbours exchange through shared memory, many times over.
    let body = ".shared .b32 cells[128];\nmov.u32 %r9, cells;\nshl.b32 %r2, %t, 2; add.u32 %r2, %r2, %r9;\n\
                add.u32 %r3, %t, 1; and.b32 %r3, %r3, 127; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r9;\n\
                mov.u32 %r1, %t; mov.u32 %r5, 0;\n\
                L: st.shared.u32 [%r2], %r1; bar.sync 0; ld.shared.u32 %r1, [%r3]; bar.sync 0;\n\
                add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 10; @%p1 bra L;\nst.global.u32 [%at], %r1;";
    assert_eq!(words(body, 128), (0..128).map(|t| (t + 10) % 128).collect::<Vec<_>>());
}

#[test]
fn a_barrier_waits_only_for_threads_that_still_run() {
    let body = "setp.ge.u32 %p1, %t, 40; @%p1 exit;\nbarrier.cta.sync.aligned 0;\nmov.u32 %r1, 1; st.global.u32 [%at], %r1;";
    assert_eq!(words(body, 96).iter().sum::<u32>(), 40);
}

#[test]
fn barriers_on_both_sides_of_a_branch_meet() {
    // Warp by warp, sm_70 and later match barriers by their number, not by their place.
    let body = "setp.ge.u32 %p1, %t, 32; @%p1 bra B;\nbar.sync 1; mov.u32 %r1, 1; bra E;\nB: bar.sync 1; mov.u32 %r1, 2;\n\
                E: st.global.u32 [%at], %r1;";
    let got = words(body, 64);
    assert_eq!((got[0], got[63]), (1, 2));
}

#[test]
fn producers_arrive_without_waiting() {
    let body = ".shared .b32 cell;\nsetp.ge.u32 %p1, %t, 32; @%p1 bra CONSUMER;\n\
                setp.eq.u32 %p2, %t, 0; mov.u32 %r1, 42; @%p2 st.shared.u32 [cell], %r1; bar.arrive 3, 64; bra E;\n\
                CONSUMER: bar.sync 3, 64; ld.shared.u32 %r2, [cell]; st.global.u32 [%at], %r2;\nE:";
    let got = words(body, 64);
    assert_eq!((got[0], got[32], got[63]), (0, 42, 42));
}

#[test]
fn barriers_reduce() {
    let body = "setp.lt.u32 %p1, %t, 5; bar.red.popc.u32 %r1, 0, %p1; bar.red.or.pred %p2, 0, %p1; bar.red.and.pred %p3, 0, !%p1;\n\
                selp.u32 %r2, 100, 0, %p2; selp.u32 %r3, 1000, 0, %p3; add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; st.global.u32 [%at], %r1;";
    assert_eq!(words(body, 70), vec![105; 70]);
}

#[test]
fn deadlocks_are_found() {
    let found = fault_of("setp.lt.u32 %p1, %t, 32; @%p1 bar.sync 1; @!%p1 bar.sync 2;", 64);
    assert_eq!(found.kind, FaultKind::Deadlock);
    assert!(found.detail.contains("64 threads"), "{found}");
    let found = fault_of("bar.sync 1, 96;", 64);
    assert_eq!(found.kind, FaultKind::Deadlock);
    // Half a warp waits for lanes that wait at a barrier for the half.
    let found = fault_of("setp.lt.u32 %p1, %t, 16; @%p1 bar.warp.sync -1; @!%p1 bar.sync 0;", 32);
    assert_eq!(found.kind, FaultKind::Deadlock);
    assert_eq!(fault_of("bar.sync 16;", 1).kind, FaultKind::IllegalInstruction);
    assert_eq!(fault_of("bar.sync 1, 33;", 64).kind, FaultKind::IllegalInstruction);
}

#[test]
fn spinning_threads_do_not_starve_others() {
    // Thread 0 spins until the last thread of the block has written.
    let body = ".shared .b32 flag;\nsetp.eq.u32 %p1, %t, 0; @!%p1 bra W;\n\
                L: ld.volatile.shared.u32 %r1, [flag]; setp.eq.u32 %p2, %r1, 0; @%p2 bra L; st.global.u32 [%at], %r1; bra E;\n\
                W: setp.eq.u32 %p3, %t, 63; mov.u32 %r2, 9; @%p3 st.volatile.shared.u32 [flag], %r2;\nE:";
    assert_eq!(words(body, 64)[0], 9);
}

#[test]
fn shuffles() {
    let shuffle = |mode: &str, b: u32, c: u32| {
        words(
            &format!(
                "add.u32 %r1, %t, 100; shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1; selp.u32 %r3, 1000, 0, %p1; \
                 add.u32 %r2, %r2, %r3; st.global.u32 [%at], %r2;"
            ),
            32,
        )
    };
    let expect = |from: &dyn Fn(u32) -> (u32, bool)| {
        (0..32)
            .map(|lane| {
                let (from, ok) = from(lane);
                100 + from + if ok { 1000 } else { 0 }
            })
            .collect::<Vec<_>>()
    };
    let all = 0x1f;
    assert_eq!(shuffle("down", 3, all), expect(&|l| if l + 3 < 32 { (l + 3, true) } else { (l, false) }));
    assert_eq!(shuffle("up", 3, 0), expect(&|l| if l >= 3 { (l - 3, true) } else { (l, false) }));
    assert_eq!(shuffle("bfly", 5, all), expect(&|l| (l ^ 5, true)));
    assert_eq!(shuffle("idx", 7, all), expect(&|_| (7, true)));
    // Segments of eight lanes: the segment mask 0x18 in bits 8 to 12.
    let eights = 0x1f | 0x18 << 8;
    assert_eq!(
        shuffle("down", 3, eights),
        expect(&|l| if l % 8 + 3 < 8 { (l + 3, true) } else { (l, false) })
    );
    assert_eq!(shuffle("idx", 2, eights), expect(&|l| (l / 8 * 8 + 2, true)));
}

#[test]
fn votes_matches_and_reductions() {
    let out = " st.global.u32 [%at], %r1;";
    let half = "setp.lt.u32 %p1, %t, 16; ";
    assert_eq!(words(&format!("{half}vote.sync.ballot.b32 %r1, %p1, -1;{out}"), 32), vec![0xffff; 32]);
    assert_eq!(words(&format!("{half}vote.sync.ballot.b32 %r1, !%p1, -1;{out}"), 32), vec![0xffff_0000; 32]);
    for (mode, want) in [("all", 0), ("any", 1), ("uni", 0)] {
        let body = format!("{half}vote.sync.{mode}.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;{out}");
        assert_eq!(words(&body, 32), vec![want; 32], "{mode}");
    }
    let body = format!("and.b32 %r2, %t, 3; match.any.sync.b32 %r1, %r2, -1;{out}");
    assert_eq!(words(&body, 32)[..4], [0x1111_1111, 0x2222_2222, 0x4444_4444, 0x8888_8888]);
    let body = format!("mov.u32 %r2, 7; match.all.sync.b32 %r1|%p1, %r2, -1;{out}");
    assert_eq!(words(&body, 32), vec![u32::MAX; 32]);
    for (operation, want) in
        [("add.u32", 496), ("max.s32", 31), ("min.u32", 0), ("xor.b32", 0), ("or.b32", 31)]
    {
        let body = format!("redux.sync.{operation} %r1, %t, -1;{out}");
        assert_eq!(words(&body, 32), vec![want; 32], "{operation}");
    }
    let body = format!("elect.sync %r2|%p1, -1; selp.u32 %r1, 1, 0, %p1;{out}");
    assert_eq!(words(&body, 32).iter().sum::<u32>(), 1);
    // Only the lanes of the mask take part; the others have gone elsewhere.
    let body = format!("{half}@!%p1 bra E; redux.sync.add.u32 %r1, %t, 0xffff;{out}\nE:");
    assert_eq!(words(&body, 32)[..17], [&[120; 16][..], &[0]].concat());
    // Lanes that have exited are not waited for.
    let body = format!("setp.ge.u32 %p1, %t, 20; @%p1 exit; bar.warp.sync -1; activemask.b32 %r1;{out}");
    assert_eq!(words(&body, 32)[19], 0xf_ffff);
    let found = fault_of("vote.sync.any.pred %p1, %p1, 1;", 2);
    assert_eq!((found.kind, found.thread), (FaultKind::IllegalInstruction, [1, 0, 0]));
}

#[test]
fn functions_and_stacks() {
    let text = format!(
        "{HEADER}.func (.param .b32 r) depth(.param .b32 n)\n{{\n.reg .b32 %r<4>; .reg .pred %p;\n\
         ld.param.u32 %r0, [n]; mov.u32 %r1, 0; setp.eq.u32 %p, %r0, 0; @%p bra E; sub.u32 %r2, %r0, 1;\n\
         {{ .param .b32 a; st.param.b32 [a], %r2; .param .b32 b; call.uni (b), depth, (a); ld.param.b32 %r1, [b]; }}\n\
         add.u32 %r1, %r1, 1;\nE: st.param.b32 [r], %r1; ret;\n}}\n\
         .visible .entry run(.param .u64 out, .param .u32 n)\n{{\n.reg .b64 %o; .reg .b32 %r<3>;\n\
         ld.param.u64 %o, [out]; ld.param.u32 %r0, [n];\n\
         {{ .param .b32 a; st.param.b32 [a], %r0; .param .b32 b; call.uni (b), depth, (a); ld.param.b32 %r1, [b]; }}\n\
         st.global.u32 [%o], %r1; ret;\n}}\n"
    );
    let mut gpu = Loaded::text(&text);
    let out = gpu.insert(&[0u32]);
    gpu.launch("run", [1, 1, 1], [1, 1, 1], &[Arg::U64(out), Arg::U32(500)]).unwrap();
    assert_eq!(gpu.read::<u32>(out), [500]);
    let found = fault(gpu.launch("run", [1, 1, 1], [1, 1, 1], &[Arg::U64(out), Arg::U32(1_000_000)]));
    assert_eq!((found.kind, found.function.as_str()), (FaultKind::HardwareStackError, "depth"));

    let body = "mov.u64 %d1, 12345;\n{ P: .callprototype (.param .b32 _) _ (.param .b32 _);\n.param .b32 a; .param .b32 b;\n\
                call (b), %d1, (a), P; }";
    let found = fault_of(body, 1);
    assert_eq!((found.kind, found.address), (FaultKind::InvalidPc, Some(12345)));
}

#[test]
fn accesses_in_the_wrong_space() {
    let body = ".shared .b32 cell; mov.u64 %d1, cell; cvta.shared.u64 %d2, %d1; ld.global.u32 %r1, [%d2];";
    assert_eq!(fault_of(body, 1).kind, FaultKind::InvalidAddressSpace);
    let body = ".local .b32 cell; mov.u64 %d1, cell; cvta.local.u64 %d2, %d1; atom.add.u32 %r1, [%d2], 1;";
    assert_eq!(fault_of(body, 1).kind, FaultKind::InvalidAddressSpace);
    let body = ".local .b32 cell; ld.local.u32 %r1, [cell+16];";
    assert_eq!(fault_of(body, 1).kind, FaultKind::IllegalAddress);
    let body = "mov.u64 %d1, out; cvta.param.u64 %d2, %d1; ld.u32 %r1, [%d2+8];";
    assert_eq!(fault_of(body, 1).kind, FaultKind::IllegalAddress);
    let body = "mov.u64 %d1, out; cvta.param.u64 %d2, %d1; ld.u64 %d3, [%d2]; mov.u32 %r1, 5; st.global.u32 [%d3], %r1;";
    assert_eq!(words(body, 1), [5]);
    assert_eq!(fault_of("ld.global.u32 %r1, [0];", 1).address, Some(0));
    assert_eq!(fault_of("ld.global.v2.u32 {%r1, %r2}, [%out+4];", 2).kind, FaultKind::MisalignedAddress);
    assert_eq!(fault_of("atom.global.add.u32 %r1, [%out+4096], 1;", 2).kind, FaultKind::IllegalAddress);
    assert_eq!(fault_of("brkpt;", 1).kind.cuda_name(), "CUDA_ERROR_LAUNCH_FAILED");
}

#[test]
fn launches_are_checked() {
    let text = kernel("st.global.u32 [%at], %t;");
    let module = Module::parse(&text).unwrap();
    let run = module.kernel("run").unwrap();
    let params = [0; 8];
    let check = |grid, block| run.check(&LaunchConfig::new(grid, block, &params));
    assert_eq!(check([1, 1, 1], [1024, 1, 1]), Ok(()));
    for (grid, block) in [
        ([0, 1, 1], [1, 1, 1]),
        ([1, 65_536, 1], [1, 1, 1]),
        ([1, 1, 1], [1025, 1, 1]),
        ([1, 1, 1], [1, 1, 65]),
        ([1, 1, 1], [1024, 2, 1]),
        ([1, 1, 1], [1, 0, 1]),
    ] {
        assert!(matches!(check(grid, block), Err(ConfigError::InvalidValue(_))), "{grid:?} {block:?}");
    }
    let short = LaunchConfig::new([1, 1, 1], [1, 1, 1], &params[..4]);
    assert_eq!(run.check(&short).unwrap_err().cuda_code(), 1);
    let large =
        LaunchConfig { dynamic_shared_bytes: 1 << 20, ..LaunchConfig::new([1, 1, 1], [1, 1, 1], &params) };
    assert_eq!(run.check(&large).unwrap_err().cuda_code(), 1);
    let wide = LaunchConfig { cooperative: true, ..LaunchConfig::new([1000, 1, 1], [1024, 1, 1], &params) };
    assert_eq!(run.check(&wide).unwrap_err().cuda_code(), 720);

    let bounded = text.replace("\n{\n", "\n.maxntid 64, 2\n.minnctapersm 2\n{\n");
    let module = Module::parse(&bounded).unwrap();
    let run = module.kernel("run").unwrap();
    assert_eq!((run.max_threads_per_block(), run.required_block()), (128, None));
    assert!(run.check(&LaunchConfig::new([1, 1, 1], [256, 1, 1], &params)).is_err());
    let module = Module::parse(&text.replace("\n{\n", "\n.reqntid 64\n{\n")).unwrap();
    let run = module.kernel("run").unwrap();
    assert_eq!(run.required_block(), Some([64, 1, 1]));
    assert!(run.check(&LaunchConfig::new([1, 1, 1], [32, 1, 1], &params)).is_err());
    assert_eq!(run.check(&LaunchConfig::new([1, 1, 1], [64, 1, 1], &params)), Ok(()));
}

#[test]
fn cooperative_blocks_wait_for_each_other() {
    // A barrier over the grid, as cooperative groups build it: every block counts itself and waits for all.
    let body = "mov.u32 %r1, %nctaid.x; setp.ne.u32 %p1, %t, 0; @%p1 bra B;\nred.release.gpu.global.add.u32 [%out], 1;\n\
                L: ld.acquire.gpu.global.u32 %r2, [%out]; setp.lt.u32 %p2, %r2, %r1; @%p2 bra L;\nB: bar.sync 0;\n\
                ld.global.u32 %r3, [%out]; st.global.u32 [%at+4], %r3;";
    let mut gpu = Loaded::text(&kernel(body));
    let out = gpu.insert(&[0u32; 65]);
    gpu.launch_with("run", &[Arg::U64(out)], |params| LaunchConfig {
        cooperative: true,
        ..LaunchConfig::new([20, 1, 1], [64, 1, 1], params)
    })
    .unwrap();
    assert_eq!(gpu.read::<u32>(out), vec![20; 65]);
    let out = gpu.insert(&[0u32; 65]);
    let alone = gpu.launch_with("run", &[Arg::U64(out)], |params| LaunchConfig {
        instruction_budget: 100_000,
        ..LaunchConfig::new([20, 1, 1], [64, 1, 1], params)
    });
    assert_eq!(fault(alone).kind, FaultKind::BudgetExceeded);
}

#[test]
fn clocks_advance() {
    let body = "mov.u64 %d1, %clock64; mov.u32 %r5, 0; L: add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 100; @%p1 bra L;\n\
                mov.u64 %d2, %clock64; sub.u64 %d3, %d2, %d1; cvt.u32.u64 %r1, %d3; st.global.u32 [%at], %r1;\n\
                mov.u64 %d4, %globaltimer; nanosleep.u32 100;";
    let elapsed = words(body, 1)[0];
    assert!((1000..2000).contains(&elapsed), "{elapsed}");
}

#[test]
fn layouts() {
    let text = format!(
        "{HEADER}.shared .align 4 .b8 unused[1000];\n.shared .align 16 .b8 used[100];\n\
         .extern .shared .align 16 .b8 dynamic[];\n.global .align 16 .b8 blob[40] = {{1, 2}};\n.const .u32 limit = 7;\n\
         .global .u64 pointer = blob+8;\n.global .attribute(.managed) .align 8 .u64 both;\n\
         .visible .entry run(.param .u8 a, .param .u64 .ptr .global .align 16 b, .param .align 4 .b8 c[12], .param .u16 d)\n\
         {{\n.reg .b32 %r<3>; .local .align 16 .b8 depot[20]; mov.u32 %r1, used; mov.u32 %r2, dynamic; ret;\n}}\n"
    );
    let gpu = Loaded::text(&text);
    let run = gpu.kernel("run");
    let layout: Vec<_> = run.params().iter().map(|p| (p.offset, p.bytes, p.align)).collect();
    assert_eq!(layout, [(0, 1, 1), (8, 8, 8), (16, 12, 4), (28, 2, 2)]);
    assert_eq!((run.param_bytes(), run.static_shared_bytes(), run.local_bytes()), (30, 112, 32));
    assert!(run.uses_dynamic_shared());
    let blob = gpu.placement.address(0).unwrap();
    assert_eq!(gpu.heap.bytes(blob).unwrap()[..3], [1, 2, 0]);
    assert_eq!(gpu.read::<u64>(gpu.placement.address(2).unwrap()), [blob + 8]);
    assert!(gpu.module.globals()[3].managed);
    assert_eq!(gpu.module.kernel_names().collect::<Vec<_>>(), ["run"]);
    assert_eq!((gpu.module.version(), gpu.module.target()), ((8, 2), 80));
    assert!(gpu.module.kernel("nothing").is_none());
}

#[test]
fn kinds_of_parse_errors_have_cuda_codes() {
    let kind = |text: &str| Module::parse(text).unwrap_err().kind;
    assert_eq!(kind(".version 12.0\n.target sm_80"), ParseErrorKind::Version);
    assert_eq!(kind(".version 8.0\n.target sm_35"), ParseErrorKind::Target);
    assert_eq!(ParseErrorKind::Version.cuda_code(), 222);
    assert_eq!(kind("hello").cuda_code(), 218);
}
