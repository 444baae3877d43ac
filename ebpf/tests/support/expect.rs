//! What must be there: a test may be skipped because this machine has not got something, never because we broke it.
//!
//! Whether a kernel offers a feature is not asked of our own objects, which would take a program that the verifier has begun to
//! refuse for a kernel without the feature. Each feature has the Linux version since which every kernel built for servers has it; as
//! root on such a kernel its absence fails the test. Who runs on a kernel that was built or locked down otherwise says so:
//! `HEADGATE_MAY_LACK=residency,raw_frame_guard`, or `all`.

use std::fs;

/// Every feature that a test may ask for, by the name in its status, and the first Linux version that has it.
const FEATURES: [(&str, (u32, u32)); 10] = [
    ("gpu_wait", (5, 15)),
    ("network_rtt", (5, 15)),
    ("process_exit", (5, 15)),
    ("residency", (5, 15)),
    ("raw_frame_guard", (6, 6)),
    ("device_gate", (5, 15)),
    ("memory_ledger", (5, 15)),
    ("bypass_witness", (5, 15)),
    ("launch_audit", (5, 15)),
    ("ioctl_audit", (5, 15)),
];

/// Why a test must not be skipped for this reason; `None` if it may.
pub(crate) fn verdict(why: &str) -> Option<String> {
    if !is_root() {
        return None;
    }
    let (feature, since) = FEATURES.iter().find(|(feature, _)| why.starts_with(feature))?;
    let allowed = std::env::var("HEADGATE_MAY_LACK").unwrap_or_default();
    if allowed.split(',').any(|name| name == *feature || name == "all") {
        return None;
    }
    let running = release()?;
    (*since <= running).then(|| {
        format!(
            "{feature} is in every Linux since {}.{} and this is {}.{}, so this is a defect of ours and no lack of the \
             machine's; if the kernel was built without it, set HEADGATE_MAY_LACK={feature}. It said: {why}",
            since.0, since.1, running.0, running.1
        )
    })
}

/// Root with all capabilities that kernel programs need: `CAP_BPF`, `CAP_PERFMON`, `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`.
fn is_root() -> bool {
    const NEEDED: u64 = 1 << 39 | 1 << 38 | 1 << 12 | 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .is_some_and(|held| held & NEEDED == NEEDED)
}

fn release() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
