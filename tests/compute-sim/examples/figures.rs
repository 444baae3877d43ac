//! Prints the figures of the scheduler in virtual time: `cargo run -p headgate-compute-sim --example figures`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for developers")]

use headgate_compute_sim::scenario::{express, hard_cap, reclaim, settles, shares, tenant};
use headgate_compute_sim::{Behaviour, Gate, ProgramPlan};

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

fn main() {
    for kernel in [5 * US, 50 * US, 500 * US, 5 * MS, 50 * MS] {
        for caps in [&[30, 70][..], &[50, 50], &[10, 90], &[50, 30, 20]] {
            let plans: Vec<_> = caps.iter().map(|&c| tenant(c, ProgramPlan::saturating(kernel))).collect();
            let ten = shares(&plans, 10_000 * MS, 1).unwrap();
            let one: f64 =
                (0..5).map(|seed| shares(&plans, 1_000 * MS, seed).unwrap().error).fold(0.0, f64::max);
            println!(
                "{:>6} us {caps:?}: {:.2?} error 10 s {:.2} 1 s {one:.2} total {:.3}",
                kernel / US,
                ten.percent,
                ten.error,
                ten.total
            );
        }
    }
    let pulse = ProgramPlan::of(Behaviour::Pulse { kernels: 4, think_ns: 300 * US }, 100 * US);
    for (name, other) in [("saturating", ProgramPlan::saturating(100 * US)), ("host-bound", pulse)] {
        let s = shares(&[tenant(50, pulse), tenant(50, other)], 4_000 * MS, 1).unwrap();
        let bare = |mut program: ProgramPlan| {
            program.gate = Gate::Nowhere;
            tenant(50, program)
        };
        let native = shares(&[bare(pulse), bare(other)], 4_000 * MS, 1).unwrap();
        println!(
            "host-bound beside {name}: {:.2?} total {:.3}; native {:.2?} total {:.3}",
            s.percent, s.total, native.percent, native.total
        );
    }
    let mixed = [tenant(50, ProgramPlan::saturating(20 * US)), tenant(50, ProgramPlan::saturating(20 * MS))];
    let s = shares(&mixed, 10_000 * MS, 1).unwrap();
    println!("20 us beside 20 ms: {:.2?} total {:.3}", s.percent, s.total);
    for kernel in [5 * US, 50 * US, 250 * US, MS] {
        let (mae, done) = hard_cap(30, kernel, 50, 1).unwrap();
        println!("hard 30 %, {:>5} us: error {mae:.2} points, work {:.3}", kernel / US, done);
    }
    for kernel in [50 * US, 150 * US, MS] {
        let e: Vec<_> = (0..5).map(|seed| express(kernel, 30_000 * MS, seed).unwrap()).collect();
        let ratios: Vec<f64> = e.iter().map(|e| e.p99_ratio).collect();
        println!("express beside {:>5} us: p99 {ratios:.3?}, batch {:.1} %", kernel / US, e[0].batch_share);
    }
    for kernel in [50 * US, MS, 10 * MS] {
        let worst = (0..20).map(|seed| reclaim(kernel, seed).unwrap()).max_by_key(|(ns, _)| *ns).unwrap();
        let settled = (0..10).map(|seed| settles(kernel, 5.0, seed).unwrap()).max().unwrap();
        println!(
            "{:>5} us: reclaim {} us, lone borrower {:.4}, settles in {} us",
            kernel / US,
            worst.0 / US,
            worst.1,
            settled / US
        );
    }
}
