//! Prints shares measured by the device beside what the daemon charged, second by second. For looking at a
//! scheduler: `cargo run -p headgate-e2e --example shares -- 50:spin:20 50:spin_for:1500`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool for developers"
)]

use headgate_harness::{Node, NodeOptions, TenantSpec};
use serde_json::json;

fn main() {
    let rows: Vec<Vec<String>> =
        std::env::args().skip(1).map(|word| word.split(':').map(str::to_owned).collect()).collect();
    let mut kernels = serde_json::Map::new();
    let mut tenants = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let micros: u64 = row[2].parse().unwrap();
        kernels.insert(row[1].clone(), json!({ "base_ns": micros * 1000, "execute": false }));
        let mut tenant = TenantSpec::new(&format!("t{index}")).sm(row[0].parse().unwrap());
        if row.get(3).is_some_and(|mode| mode == "hard") {
            tenant = tenant.with("mode: hard");
        }
        tenants.push(tenant);
    }
    let mut options = NodeOptions::simulated(tenants);
    options.device = Some(json!({ "kernels": kernels }));
    let node = Node::start(options).unwrap();
    let programs: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            node.run(&format!("t{index}"), "app-loop", &["--seconds", "60", "--kernel", &row[1]]).unwrap()
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut before: Vec<u64> = vec![0; rows.len()];
    for _ in 0..4 {
        node.device().control().mark().unwrap();
        let status = node.status().unwrap();
        for (index, row) in status["tenants"].as_array().unwrap().iter().enumerate() {
            before[index] = row["gpus"][0]["charged_us"].as_u64().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_secs(2));
        let statistics = node.device().control().statistics().unwrap();
        let status = node.status().unwrap();
        let elapsed = statistics["elapsed_ns"].as_f64().unwrap();
        for (index, program) in programs.iter().enumerate() {
            let busy: f64 = statistics["processes"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["pid"] == program.pid())
                .map(|row| row["busy_ns"].as_f64().unwrap())
                .sum();
            let gpu = &status["tenants"][index]["gpus"][0];
            let charged = gpu["charged_us"].as_u64().unwrap() - before[index];
            println!(
                "t{index}: device {:5.1} %  charged {:5.1} %  tokens {:>8} us  launches {} batches {}",
                busy * 100.0 / elapsed,
                charged as f64 * 100_000.0 / elapsed,
                gpu["tokens_us"],
                gpu["launches"],
                gpu["batches"]
            );
        }
        let device = &statistics["devices"][0];
        println!(
            "    switches {} idle {:.1} %",
            device["switches"],
            device["idle_ns"].as_f64().unwrap() * 100.0 / elapsed
        );
    }
}
