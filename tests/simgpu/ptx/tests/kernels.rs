//! Every sample kernel against a reference on the CPU, for the PTX of both compilers.

mod support;

use headgate_simgpu_ptx::{FaultKind, LaunchConfig, LaunchError};
use support::{Arg, Loaded, Random, SETS};

#[test]
#[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is wanted")]
fn saxpy() {
    for set in SETS {
        for name in ["saxpy", "saxpy_strided"] {
            let mut gpu = Loaded::file(set, "saxpy");
            let mut random = Random(7);
            let x: Vec<f32> = (0..1000).map(|_| random.unit() as f32).collect();
            let y: Vec<f32> = (0..1000).map(|_| random.unit() as f32).collect();
            let (px, py) = (gpu.insert(&x), gpu.insert(&y));
            let args = [Arg::U32(1000), Arg::F32(1.7), Arg::U64(px), Arg::U64(py)];
            let grid = if name == "saxpy" { [4, 1, 1] } else { [2, 1, 1] };
            let stats = gpu.launch(name, grid, [256, 1, 1], &args).unwrap();
            let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 1.7f32.mul_add(*x, *y)).collect();
            assert_eq!(gpu.read::<f32>(py), want, "{set} {name}");
            assert_eq!((stats.global_loads, stats.global_stores), (2000, 1000), "{set} {name}");
            assert_eq!((stats.blocks, stats.threads), (u64::from(grid[0]), 256 * u64::from(grid[0])));
        }
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is wanted")]
fn matmul() {
    for set in SETS {
        for n in [16u32, 33] {
            let mut gpu = Loaded::file(set, "matmul");
            let mut random = Random(u64::from(n));
            let size = (n * n) as usize;
            let a: Vec<f32> = (0..size).map(|_| random.unit() as f32).collect();
            let b: Vec<f32> = (0..size).map(|_| random.unit() as f32).collect();
            let (pa, pb) = (gpu.insert(&a), gpu.insert(&b));
            let pc = gpu.insert(&vec![f32::NAN; size]);
            let blocks = n.div_ceil(16);
            let args = [Arg::U64(pa), Arg::U64(pb), Arg::U64(pc), Arg::U32(n)];
            gpu.launch("matmul", [blocks, blocks, 1], [16, 16, 1], &args).unwrap();
            let n = n as usize;
            let want: Vec<f32> = (0..size)
                .map(|at| (0..n).fold(0.0, |sum, k| a[at / n * n + k].mul_add(b[k * n + at % n], sum)))
                .collect();
            assert_eq!(gpu.read::<f32>(pc), want, "{set} {n}");
        }
    }
}

#[test]
fn reductions() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "reduction");
        // Small whole numbers add up exactly in any order.
        let values: Vec<f32> = (0..5000u16).map(|i| f32::from(i % 17)).collect();
        let (input, out) = (gpu.insert(&values), gpu.insert(&[0f32]));
        let args = [Arg::U64(input), Arg::U64(out), Arg::U32(5000)];
        gpu.launch("reduce_sum", [7, 1, 1], [256, 1, 1], &args).unwrap();
        assert_eq!(gpu.read::<f32>(out), [values.iter().sum::<f32>()], "{set}");

        let values: Vec<u32> = (0..3000).map(|i| i * 1_000_003).collect();
        let (input, out) = (gpu.insert(&values), gpu.insert(&[0u64]));
        let args = [Arg::U64(input), Arg::U64(out), Arg::U32(3000)];
        gpu.launch("reduce_sum_shuffle", [24, 1, 1], [128, 1, 1], &args).unwrap();
        assert_eq!(gpu.read::<u64>(out), [values.iter().map(|&v| u64::from(v)).sum::<u64>()], "{set}");

        let values: Vec<i32> = (0..2000).map(|i| (i * 7919) % 1001 - 500).collect();
        let input = gpu.insert(&values);
        let (count, largest, any) = (gpu.insert(&[0u32]), gpu.insert(&[i32::MIN]), gpu.insert(&[0u32]));
        let limit = 470;
        let args = [
            Arg::U64(input),
            Arg::U32(2000),
            Arg::I32(limit),
            Arg::U64(count),
            Arg::U64(largest),
            Arg::U64(any),
        ];
        gpu.launch("count_at_least", [32, 1, 1], [64, 1, 1], &args).unwrap();
        let hits = |part: &[i32]| part.iter().filter(|&&v| v >= limit).count();
        assert_eq!(gpu.read::<u32>(count), [u32::try_from(hits(&values)).unwrap()], "{set}");
        assert_eq!(gpu.read::<i32>(largest), [*values.iter().max().unwrap()], "{set}");
        let blocks = values.chunks(64).filter(|part| hits(part) > 0).count();
        assert_eq!(gpu.read::<u32>(any), [u32::try_from(blocks).unwrap()], "{set}");
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "bytes are wanted")]
fn histogram() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "histogram");
        let mut random = Random(3);
        let data: Vec<u8> = (0..10_000).map(|_| (random.next() >> 9) as u8).collect();
        let (input, bins) = (gpu.insert(&data), gpu.insert(&[0u32; 256]));
        let args = [Arg::U64(input), Arg::U32(10_000), Arg::U64(bins)];
        gpu.launch("histogram", [5, 1, 1], [192, 1, 1], &args).unwrap();
        let mut want = [0u32; 256];
        for byte in data {
            want[usize::from(byte)] += 1;
        }
        assert_eq!(gpu.read::<u32>(bins), want, "{set}");
    }
}

#[test]
fn spin_counts_launches() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "spin");
        let counter = gpu.insert(&[0u64]);
        for _ in 0..5 {
            gpu.launch("spin", [8, 1, 1], [32, 1, 1], &[Arg::U64(counter)]).unwrap();
        }
        let args = [Arg::U64(counter), Arg::I64(100_000)];
        let stats = gpu.launch("spin_for", [2, 1, 1], [64, 1, 1], &args).unwrap();
        assert_eq!(gpu.read::<u64>(counter), [6], "{set}");
        // The clock is the block's: threads spin together, blocks one after the other.
        assert!((50_000..200_000).contains(&stats.instructions), "{set}: {}", stats.instructions);
    }
}

#[test]
fn vector_copies() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "vector_copy");
        let floats: Vec<f32> = (0..400u16).map(f32::from).collect();
        let (input, out) = (gpu.insert(&floats), gpu.insert(&[0f32; 400]));
        let stats = gpu.launch(
            "copy_float4",
            [1, 1, 1],
            [128, 1, 1],
            &[Arg::U64(input), Arg::U64(out), Arg::U32(100)],
        );
        assert_eq!(gpu.read::<f32>(out), floats, "{set}");
        let stats = stats.unwrap();
        assert_eq!((stats.global_loads, stats.global_bytes_written), (100, 1600), "{set}");

        let pairs: Vec<i32> = (0..64).collect();
        let (input, out) = (gpu.insert(&pairs), gpu.insert(&[0i32; 64]));
        gpu.launch("swap_int2", [1, 1, 1], [32, 1, 1], &[Arg::U64(input), Arg::U64(out), Arg::U32(32)])
            .unwrap();
        assert_eq!(gpu.read::<i32>(out), (0..64).map(|i| i ^ 1).collect::<Vec<_>>(), "{set}");

        let bytes: Vec<u8> = (0..=255).collect();
        let (input, out) = (gpu.insert(&bytes), gpu.insert(&[0u8; 256]));
        gpu.launch("reverse_uchar4", [1, 1, 1], [64, 1, 1], &[Arg::U64(input), Arg::U64(out), Arg::U32(64)])
            .unwrap();
        assert_eq!(gpu.read::<u8>(out), (0..=255).map(|i| i ^ 3).collect::<Vec<_>>(), "{set}");

        let shorts: Vec<i16> = (-20..20).map(|i| i * 1000).collect();
        let (input, out) = (gpu.insert(&shorts), gpu.insert(&[0f64; 80]));
        gpu.launch("widen_short", [1, 1, 1], [64, 1, 1], &[Arg::U64(input), Arg::U64(out), Arg::U32(40)])
            .unwrap();
        let want: Vec<f64> = shorts.iter().flat_map(|&s| [f64::from(s), -f64::from(s)]).collect();
        assert_eq!(gpu.read::<f64>(out), want, "{set}");
    }
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    let error = (got - want).abs() / want.abs().max(f64::MIN_POSITIVE);
    assert!(error <= tolerance || got == want, "{what}: got {got:e}, want {want:e}, off by {error:e}");
}

#[test]
fn double_precision() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "double_math");
        let mut random = Random(11);
        let n = 300usize;
        let x: Vec<f64> = (0..n).map(|i| random.unit() * [1.0, 50.0, 1e6, 1e300][i % 4]).collect();
        let y: Vec<f64> = (0..n).map(|i| random.unit() * [1.0, 20.0, 700.0][i % 3]).collect();
        let (px, py) = (gpu.insert(&x), gpu.insert(&y));
        let out = gpu.insert(&vec![0f64; 6 * n]);
        let args = [Arg::U64(px), Arg::U64(py), Arg::U64(out), Arg::U32(300)];
        gpu.launch("double_math", [3, 1, 1], [128, 1, 1], &args).unwrap();
        let got = gpu.read::<f64>(out);
        for i in 0..n {
            let (a, b) = (x[i], y[i]);
            assert_eq!(got[i].to_bits(), (a / b).to_bits(), "{set} {a:e} / {b:e}");
            assert_eq!(got[n + i].to_bits(), a.abs().sqrt().to_bits(), "{set} sqrt {a:e}");
            assert_eq!(got[2 * n + i].to_bits(), a.mul_add(b, -a).to_bits(), "{set} fma {a:e} {b:e}");
            close(got[3 * n + i], (-b.abs()).exp(), 1e-15, "exp");
            close(got[4 * n + i], (a.abs() + 1.0).ln(), 1e-15, "log");
            close(got[5 * n + i], a.sin(), 1e-13, &format!("{set} sin {a:e}"));
        }
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is wanted")]
fn single_precision() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "double_math");
        let mut random = Random(13);
        let n = 300usize;
        let x: Vec<f32> = (0..n).map(|i| (random.unit() * [1.0, 50.0, 1e5][i % 3]) as f32).collect();
        let y: Vec<f32> = (0..n).map(|i| (random.unit() * [1.0, 30.0][i % 2]) as f32).collect();
        let (px, py) = (gpu.insert(&x), gpu.insert(&y));
        let out = gpu.insert(&vec![0f32; 8 * n]);
        let args = [Arg::U64(px), Arg::U64(py), Arg::U64(out), Arg::U32(300)];
        gpu.launch("float_math", [3, 1, 1], [128, 1, 1], &args).unwrap();
        let got = gpu.read::<f32>(out);
        for i in 0..n {
            let (a, b) = (x[i], y[i]);
            assert_eq!(got[i].to_bits(), (a / b).to_bits(), "{set} {a:e} / {b:e}");
            assert_eq!(got[n + i].to_bits(), a.abs().sqrt().to_bits(), "{set} sqrt {a:e}");
            assert_eq!(got[2 * n + i], a.floor() + a.min(b) - b.trunc(), "{set} {a:e} {b:e}");
            // Sums and products of two floats are exact in double precision or nearly so: the directed results bracket.
            let (sum, product) = (f64::from(a) + f64::from(b), f64::from(a) * f64::from(b));
            let toward_zero = got[3 * n + i];
            assert!(f64::from(toward_zero).abs() <= sum.abs(), "{set} {a:e} + {b:e}");
            assert!(((sum as f32).to_bits().abs_diff(toward_zero.to_bits())) <= 1);
            let up = got[4 * n + i];
            assert!(f64::from(up) >= product, "{set} {a:e} * {b:e}");
            assert!((product as f32).to_bits().abs_diff(up.to_bits()) <= 1);
            close(f64::from(got[5 * n + i]), (-f64::from(b).abs()).exp(), 3e-7, "expf");
            close(f64::from(got[6 * n + i]), f64::from(b).sin(), 1e-5, "__sinf");
            close(f64::from(got[7 * n + i]), f64::from(a).tanh(), 1e-6, "tanhf");
        }
    }
}

#[test]
fn module_variables() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "constant");
        let values: Vec<f32> = (0..50u8).map(f32::from).collect();
        let (input, out) = (gpu.insert(&values), gpu.insert(&[0f32; 50]));
        for _ in 0..3 {
            gpu.launch("filter", [1, 1, 1], [64, 1, 1], &[Arg::U64(input), Arg::U64(out), Arg::U32(50)])
                .unwrap();
        }
        let weights = [1.0f32, 0.5, 0.25, 0.125, -1.0, -0.5, -0.25, -0.125];
        let want: Vec<f32> = (0..50)
            .map(|i| {
                weights
                    .iter()
                    .enumerate()
                    .filter(|(k, _)| i + k < 50)
                    .fold(0.0, |sum, (k, weight)| weight.mul_add(values[i + k], sum))
            })
            .collect();
        assert_eq!(gpu.read::<f32>(out), want, "{set}");

        let index = gpu.module.global_index("launches").unwrap();
        let launches = gpu.placement.address(index).unwrap();
        assert_eq!(gpu.read::<u32>(launches), [3], "{set}");
        let index = gpu.module.global_index("offset").unwrap();
        let offset = gpu.placement.address(index).unwrap();
        headgate_simgpu_ptx::DeviceMemory::store(&mut gpu.heap, offset, &100i32.to_le_bytes()).unwrap();
        let out = gpu.insert(&[0i32]);
        gpu.launch("sum_table", [1, 1, 1], [1, 1, 1], &[Arg::U64(out)]).unwrap();
        assert_eq!(gpu.read::<i32>(out), [109], "{set}");
        assert_eq!(gpu.module.const_bytes(), 36, "{set}");
    }
}

fn collatz(n: u64) -> u32 {
    if n <= 1 { 0 } else { 1 + collatz(if n % 2 == 1 { 3 * n + 1 } else { n / 2 }) }
}

#[test]
fn device_functions() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "device_call");
        let a: Vec<i32> = (0..70).map(|i| i * 37 % 101 - 50).collect();
        let b: Vec<i32> = (0..70).map(|i| i * 53 % 97 - 48).collect();
        let (pa, pb) = (gpu.insert(&a), gpu.insert(&b));
        let mean = gpu.insert(&[0f64; 70]);
        let (spread, steps, chosen) =
            (gpu.insert(&[0i32; 70]), gpu.insert(&[0u32; 70]), gpu.insert(&[0i32; 70]));
        let args = [pa, pb, mean, spread, steps, chosen].map(Arg::U64);
        let args: Vec<Arg> = args.into_iter().chain([Arg::U32(70)]).collect();
        gpu.launch("device_calls", [2, 1, 1], [48, 1, 1], &args).unwrap();
        let means = a.iter().zip(&b).map(|(a, b)| f64::from(a + b) / 2.0).collect::<Vec<_>>();
        assert_eq!(gpu.read::<f64>(mean), means, "{set}");
        let spreads = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>();
        assert_eq!(gpu.read::<i32>(spread), spreads, "{set}");
        assert_eq!(gpu.read::<u32>(steps), (1..=70).map(collatz).collect::<Vec<_>>(), "{set}");
        let chosen_ones = (0..70).map(|i| if i % 2 == 1 { 2 * i } else { i * i }).collect::<Vec<_>>();
        assert_eq!(gpu.read::<i32>(chosen), chosen_ones, "{set}");
    }
}

fn local_table(i: u32, input: u32) -> u32 {
    let mut words = [0u32; 16];
    for k in 0..16u32 {
        words[((k * 7 + i) & 15) as usize] = k.wrapping_add(input);
    }
    let value = words[(input & 15) as usize];
    match input % 9 {
        0 => value.wrapping_mul(3),
        1 => value ^ 0x55aa_55aa,
        2 => !value,
        3 => value.wrapping_add(i),
        4 => value.rotate_left(5),
        5 => value.wrapping_sub(words[3]),
        6 => value / 7,
        7 => words[(value & 15) as usize],
        _ => 0,
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
fn local_memory() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "device_call");
        let mut random = Random(5);
        let input: Vec<u32> = (0..200).map(|_| random.next() as u32).collect();
        let (pin, pout) = (gpu.insert(&input), gpu.insert(&[0u32; 200]));
        let args = [Arg::U64(pin), Arg::U64(pout), Arg::U32(200)];
        gpu.launch("local_table", [4, 1, 1], [64, 1, 1], &args).unwrap();
        let want: Vec<u32> = (0..).zip(&input).map(|(i, &value)| local_table(i, value)).collect();
        assert_eq!(gpu.read::<u32>(pout), want, "{set}");
        assert!(gpu.kernel("local_table").local_bytes() >= 64);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "the kernel reinterprets its words"
)]
fn integer_mix(i: u32, v: u64) -> [u64; 8] {
    let (low, high) = (v as u32, (v >> 32) as u32);
    let s = v as i64;
    let both = v;
    let n = i & 31;
    let divisor = if i == 7 { 3 } else { i64::from(i) - 7 };
    let ffs = if low == 0 { 0 } else { low.trailing_zeros() + 1 };
    let bytes = v.to_le_bytes();
    let permuted = u32::from_le_bytes([5, 7, 1, 3].map(|at: usize| bytes[at]));
    let right = if i >= 32 { high } else { (both >> i.min(32)) as u32 };
    let wide = u128::from(v) * u128::from(v) + u128::from(high);
    [
        ((u128::from(v) * 0x9e37_79b9_7f4a_7c15) >> 64) as u64,
        ((i128::from(s) * -7919) >> 64) as u64,
        u64::from(v.count_ones() + 100 * v.leading_zeros() + 10_000 * ffs),
        v.reverse_bits() ^ u64::from(permuted),
        ((both << n >> 32) & 0xffff_ffff) << 32 | u64::from(right),
        (s.wrapping_div(divisor) as u64).wrapping_add(v % u64::from(i + 1)),
        (u64::from(low) * u64::from(high)) >> 32 << 32
            | u64::from(((i64::from(low as i32) * i64::from(high as i32)) >> 32) as u32),
        (wide >> 64) as u64 ^ wide as u64 ^ u64::from(low.abs_diff(high).wrapping_add(7)),
    ]
}

#[test]
fn integers() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "integer_mix");
        let mut random = Random(17);
        let mut input: Vec<u64> = (0..150).map(|_| random.next()).collect();
        input.extend([0, 1, u64::MAX, 1 << 63, i64::MAX.cast_unsigned(), 0xffff_ffff, 1 << 32]);
        let n = input.len();
        let (pin, pout) = (gpu.insert(&input), gpu.insert(&vec![0u64; 8 * n]));
        let args = [Arg::U64(pin), Arg::U64(pout), Arg::U32(u32::try_from(n).unwrap())];
        gpu.launch("integer_mix", [3, 1, 1], [64, 1, 1], &args).unwrap();
        let got = gpu.read::<u64>(pout);
        for (i, &value) in (0u32..).zip(&input) {
            let row = &got[8 * i as usize..][..8];
            assert_eq!(row, integer_mix(i, value), "{set}: element {i}, {value:#x}");
        }
    }
}

#[test]
fn dynamic_shared_memory() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "shared_reverse");
        let input: Vec<u32> = (0..256).collect();
        let (pin, pout) = (gpu.insert(&input), gpu.insert(&[0u32; 256]));
        let args = [Arg::U64(pin), Arg::U64(pout)];
        assert!(gpu.kernel("shared_reverse").uses_dynamic_shared());
        gpu.launch_with("shared_reverse", &args, |params| LaunchConfig {
            dynamic_shared_bytes: 256,
            ..LaunchConfig::new([4, 1, 1], [64, 1, 1], params)
        })
        .unwrap();
        let want: Vec<u32> = (0..256).map(|i| i / 64 * 64 + 63 - i % 64).collect();
        assert_eq!(gpu.read::<u32>(pout), want, "{set}");

        // One word too few: the last thread writes beyond the block's shared memory.
        let error = gpu
            .launch_with("shared_reverse", &args, |params| LaunchConfig {
                dynamic_shared_bytes: 252,
                ..LaunchConfig::new([4, 1, 1], [64, 1, 1], params)
            })
            .unwrap_err();
        let LaunchError::Fault(fault) = error else { panic!("{error}") };
        assert_eq!(
            (fault.kind, fault.thread, fault.address),
            (FaultKind::IllegalAddress, [63, 0, 0], Some(252))
        );
    }
}

fn fault(result: Result<headgate_simgpu_ptx::ExecStats, LaunchError>) -> headgate_simgpu_ptx::Fault {
    match result {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

#[test]
fn faults() {
    for set in SETS {
        let mut gpu = Loaded::file(set, "faults");
        let words = gpu.insert(&[0i32; 16]);
        let out = gpu.insert(&[0i32]);
        let write = |index| [Arg::U64(words), Arg::I64(index), Arg::I32(9)];
        gpu.launch("write_at", [1, 1, 1], [1, 1, 1], &write(15)).unwrap();
        assert_eq!(gpu.read::<i32>(words)[15], 9);
        let found = fault(gpu.launch("write_at", [1, 1, 1], [1, 1, 1], &write(16)));
        assert_eq!((found.kind, found.address), (FaultKind::IllegalAddress, Some(words + 64)));
        assert_eq!((found.kernel.as_str(), found.function.as_str()), ("write_at", "write_at"));
        let line = support::source(set, "faults").lines().nth(found.line as usize - 1).unwrap().to_owned();
        assert!(line.contains("st.global"), "{set} line {}: {line}", found.line);
        let found = fault(gpu.launch("write_at", [1, 1, 1], [1, 1, 1], &write(i64::MAX / 2)));
        assert_eq!(found.kind.cuda_code(), 700);

        let read = |offset| [Arg::U64(words), Arg::U32(offset), Arg::U64(out)];
        gpu.launch("read_unaligned", [1, 1, 1], [1, 1, 1], &read(60)).unwrap();
        let found = fault(gpu.launch("read_unaligned", [1, 1, 1], [1, 1, 1], &read(2)));
        assert_eq!((found.kind, found.address), (FaultKind::MisalignedAddress, Some(words + 2)));
        assert_eq!(found.kind.cuda_code(), 716);

        let found = fault(gpu.launch("trap_in_thread", [3, 1, 1], [64, 1, 1], &[Arg::U32(40)]));
        assert_eq!((found.kind, found.block, found.thread), (FaultKind::Trap, [0; 3], [40, 0, 0]));
        gpu.launch("trap_in_thread", [3, 1, 1], [64, 1, 1], &[Arg::U32(64)]).unwrap();

        gpu.launch("shared_read_at", [1, 1, 1], [32, 1, 1], &[Arg::U32(31), Arg::U64(out)]).unwrap();
        assert_eq!(gpu.read::<i32>(out), [31]);
        let found =
            fault(gpu.launch("shared_read_at", [1, 1, 1], [32, 1, 1], &[Arg::U32(32), Arg::U64(out)]));
        assert_eq!(found.kind, FaultKind::IllegalAddress);

        let flag = gpu.insert(&[0i32]);
        let waited = gpu.launch_with("wait_for_flag", &[Arg::U64(flag)], |params| LaunchConfig {
            instruction_budget: 10_000,
            ..LaunchConfig::new([1, 1, 1], [1, 1, 1], params)
        });
        let found = fault(waited);
        assert_eq!(found.kind, FaultKind::BudgetExceeded);
        let flag = gpu.insert(&[1i32]);
        gpu.launch("wait_for_flag", [1, 1, 1], [1, 1, 1], &[Arg::U64(flag)]).unwrap();

        let marks = gpu.insert(&[0i32; 64]);
        gpu.launch("exit_before_barrier", [1, 1, 1], [64, 1, 1], &[Arg::U64(marks)]).unwrap();
        assert_eq!(gpu.read::<i32>(marks).iter().sum::<i32>(), 32);
    }
}
