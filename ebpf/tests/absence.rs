//! A process without privileges: everything is reported missing and nothing fails.
//!
//! Alone in its binary, because aya finds out the kernel's features once a process and would find none here.

mod support;

use std::path::Path;

use headgate_ebpf::{Config, Error, Probe, Probes, Slot, State};
use support::skip;

/// Runs on a thread that has given up every capability, as a daemon started by an ordinary user has none.
fn without_capabilities<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                drop_capabilities();
                body()
            })
            .join()
            .expect("the body passes")
    })
}

/// Capabilities belong to threads; the other tests keep theirs.
fn drop_capabilities() {
    // struct __user_cap_header_struct and two struct __user_cap_data_struct, all zeros: nothing effective, permitted
    // or inheritable.
    let header: [u32; 2] = [0x2008_0522, 0];
    let data = [0u32; 6];
    #[expect(unsafe_code, reason = "capset(2) has no wrapper here")]
    // SAFETY: both structures have the sizes that version 3 of the header promises.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(answer, 0, "anyone may give up capabilities");
}

#[test]
fn without_privileges_everything_is_missing_and_nothing_fails() {
    let mount = headgate_ebpf::cgroup::unified_mount();
    let statuses = without_capabilities(|| {
        let mut probes = Probes::load(Config::default());
        let statuses = probes.status();
        if statuses.iter().any(|status| status.state != State::Missing) {
            return Err(format!("this kernel lets everyone load programs: {statuses:?}"));
        }
        let slot = Slot::of_tenant(0).expect("a small index");
        assert_eq!(probes.gpu_waits(slot).expect("no kernel call"), None);
        assert_eq!(probes.round_trips(slot).expect("no kernel call"), None);
        assert_eq!(probes.sockets(slot).expect("no kernel call"), None);
        assert!(probes.counters().expect("no kernel call").values().all(|count| *count == 0));
        assert!(probes.exits_fd().is_none());
        assert_eq!(probes.drain_exits(|_| ()), 0);
        assert!(matches!(probes.attach_library(Path::new("/bin/sh")), Err(Error::NotLoaded(Probe::GpuWait))));
        if let Some(mount) = mount {
            let cgroup = headgate_ebpf::Cgroup::open(&mount).expect("directories are readable to all");
            probes.set_cgroup(&cgroup, slot).expect("missing probes are passed over");
            probes.remove_cgroup(cgroup.id()).expect("missing probes are passed over");
        }
        probes.clear(slot).expect("missing probes are passed over");
        probes.detach_all();
        Ok(statuses)
    });
    match statuses {
        Err(why) => skip!("{why}"),
        Ok(statuses) => {
            assert_eq!(statuses.len(), Probe::ALL.len());
            for status in statuses {
                assert!(!status.up() && status.mode.is_none());
                assert!(status.reason.contains("CAP_BPF"), "a reason to act on: {status}");
            }
        }
    }
}

#[test]
fn a_skip_cannot_hide_a_program_that_the_verifier_has_begun_to_refuse() {
    let refused = "residency: missing: border_egress: Permission denied (os error 13)";
    let able = support::expect::verdict(refused).is_some();
    // Whoever may not load programs at all, or says that this kernel lacks them, may skip.
    assert_eq!(able, support::expect::verdict("device_gate: missing: the same").is_some());
    assert!(
        support::expect::verdict("no C compiler").is_none(),
        "what is no feature of the kernel's may be missing"
    );
}
