//! Ways around the hook that are known from other sharing layers: each ends refused by the kernel, or counted under its tenant's name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually, is_root, skipped};
use support::{Puppet, SOON, node_of, puppet};

/// What a driver without its device node answers.
const NO_DEVICE: u32 = 100;
/// `EPERM`.
const EPERM: u64 = 1;

/// A C program of this test, compiled.
fn compile(directory: &Path, source: &str, flags: &[&str]) -> Result<PathBuf, String> {
    let output = directory.join(source.trim_end_matches(".c"));
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-fno-omit-frame-pointer"]).args(flags).arg("-o").arg(&output).arg(from).arg("-ldl");
    let result = cc.output().map_err(|error| format!("no C compiler: {error}"))?;
    if result.status.success() {
        Ok(output)
    } else {
        Err(String::from_utf8_lossy(&result.stderr).into_owned())
    }
}

/// A device node of our own under the name of a GPU, not in /tmp, which may be mounted without devices.
fn device_node() -> Result<(tempfile::TempDir, PathBuf), String> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let directory = tempfile::tempdir_in("/dev").map_err(|error| error.to_string())?;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), open).map_err(|error| error.to_string())?;
    let path = directory.path().join("gpu0");
    mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 7))
        .map_err(|e| e.to_string())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(|error| error.to_string())?;
    Ok((directory, path))
}

fn refusals(node: &Node) -> f64 {
    let labels = ["tenant=\"clinic\"", "reason=\"unattested\"", "outcome=\"refused\""];
    node.metrics().unwrap().value("headgate_refusals_total", &labels).unwrap_or(0.0)
}

fn bypasses(node: &Node, call: &str, origin: &str) -> f64 {
    let labels = ["tenant=\"clinic\"", &format!("call=\"{call}\""), &format!("origin=\"{origin}\"")];
    node.metrics().unwrap().value("headgate_bypass_calls_total", &labels).unwrap_or(0.0)
}

/// A puppet in the tenant's cgroup by way of another program.
fn by_way_of(node: &Node, program: &str, arguments: &[&str]) -> Puppet {
    Puppet::start(node.command("clinic", Path::new(program)).unwrap().args(arguments))
}

#[test]
fn no_known_way_around_the_hook_opens_a_gpu() {
    let name = "no_known_way_around_the_hook_opens_a_gpu";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let (_nodes, gpu) = match device_node() {
        Ok(made) => made,
        Err(why) => return skipped(name, &why),
    };
    let here = tempfile::tempdir().unwrap();
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let gated = TenantSpec::new("clinic").with("deviceGate: {mode: enforce}");
    let options =
        NodeOptions { device_node: Some(gpu.clone()), enforced: true, ..NodeOptions::simulated(vec![gated]) };
    let node = node_of(options);
    let puppet_path = puppet().to_str().unwrap();
    let mut expected = 0.0;
    let mut refused_once_more = |what: &str| {
        expected += 1.0;
        eventually(&format!("{what} is counted"), SOON, || (refusals(&node) == expected).then_some(()));
    };

    // An emptied environment: `env -i` keeps nothing but what the driver itself needs.
    let kept: Vec<String> = node
        .native_command(puppet())
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, value?.to_str()?)))
        .collect();
    let mut arguments = vec!["-i"];
    arguments.extend(kept.iter().map(String::as_str));
    arguments.push(puppet_path);
    let mut emptied = by_way_of(&node, "env", &arguments);
    assert_eq!(emptied.ask("init"), Err(NO_DEVICE));
    refused_once_more("an emptied environment");

    // A container made inside, with files of its own: nothing of the node's preload files is there.
    let script = "exec env -u LD_PRELOAD \"$0\"";
    let mut inner = by_way_of(&node, "unshare", &["-m", "sh", "-c", script, puppet_path]);
    assert_eq!(inner.ask("init"), Err(NO_DEVICE));
    refused_once_more("a mount namespace of its own");

    // A program of another user: the loader drops what was preloaded and every path of libraries.
    let owned = here.path().join("owned");
    fs::copy(puppet(), &owned).unwrap();
    fs::set_permissions(&owned, fs::Permissions::from_mode(0o4755)).unwrap();
    let driver = here.path().join("driver.so");
    fs::copy(node.device().libcuda(), &driver).unwrap();
    let mut command = node.command("clinic", Path::new("setpriv")).unwrap();
    command.args(["--reuid=65534", "--clear-groups"]).arg(&owned).arg("--driver").arg(&driver);
    let mut owned = Puppet::start(&mut command);
    assert_eq!(owned.ask("init"), Err(NO_DEVICE));
    refused_once_more("a setuid program");

    // A program without a loader.
    match compile(here.path(), "still.c", &["-static"]) {
        Ok(still) => {
            let mut still = Puppet::start(node.command("clinic", &still).unwrap().arg(&gpu));
            assert_eq!(still.said(), Err(vec![EPERM]));
            refused_once_more("a static program");
        }
        Err(why) => skipped("a static program", &why),
    }

    // A fork of an attested program that goes around the hook; one that goes through it is seated by itself.
    let around = compile(here.path(), "around.c", &["-shared", "-fPIC"]).unwrap();
    let mut parent = Puppet::in_tenant(&node, "clinic");
    parent.must(&format!("around {}", around.display()));
    assert_eq!(parent.ask("fork-around"), Err(NO_DEVICE));
    refused_once_more("a fork without exec");
    assert_eq!(parent.must("fork"), [0]);

    // An open device handed over a socket: the gate was asked when it was opened, and is not asked again. That the
    // descriptor arrives is the residual risk; the driver of whoever got it still opens its own.
    let mut giver = Puppet::in_tenant(&node, "clinic");
    giver.must("init");
    let socket = here.path().join("socket");
    giver.must(&format!("share-device {} {}", gpu.display(), socket.display()));
    let mut taker = Puppet::native_in(&node, "clinic");
    assert_eq!(taker.ask(&format!("take-device {}", socket.display())), Ok(vec![]));
    assert_eq!(taker.ask("init"), Err(NO_DEVICE));
    refused_once_more("the taker's own opening");
}

#[test]
fn every_call_around_the_hook_is_counted_for_its_tenant() {
    let name = "every_call_around_the_hook_is_counted_for_its_tenant";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let here = tempfile::tempdir().unwrap();
    let node = node_of(NodeOptions::simulated(vec![TenantSpec::new("clinic").memory("1Gi")]));
    let around = compile(here.path(), "around.c", &["-shared", "-fPIC"]).unwrap();

    // RTLD_DEEPBIND: the library's own `dlsym` is the C library's, and answers the driver's own addresses.
    let mut deep = Puppet::in_tenant(&node, "clinic");
    deep.must("init");
    deep.must(&format!("around {}", around.display()));
    let before = bypasses(&node, "allocate", "outside");
    deep.must("around-alloc 4096");
    assert_eq!(bypasses(&node, "allocate", "outside"), before + 1.0, "RTLD_DEEPBIND");
    let before = bypasses(&node, "export_table", "outside");
    let _unknown_table = deep.ask("around-table");
    assert_eq!(bypasses(&node, "export_table", "outside"), before + 1.0, "cuGetExportTable");
    // Through the hook nothing is counted.
    let before = bypasses(&node, "allocate", "outside");
    deep.must("alloc 4096");
    assert_eq!(bypasses(&node, "allocate", "outside"), before);

    // A copy of the driver under another name, a file that no probe knew of: found when it is mapped.
    let copy = here.path().join("libanything.so.7");
    fs::copy(node.device().libcuda(), &copy).unwrap();
    let mut bare = node.native_command(puppet());
    let mut bare = Puppet::start_in(&node, "clinic", bare.arg("--driver").arg(&copy));
    bare.must("init");
    let before = bypasses(&node, "allocate", "unattested");
    let mut calls = 0.0;
    eventually("a copied driver is found", SOON, || {
        bare.must("alloc 4096");
        calls += 1.0;
        (before < bypasses(&node, "allocate", "unattested")).then_some(())
    });
    println!("a copied driver was probed by its allocation number {calls}");
    // Under the hook, the copy's allocations are the hook's to judge, or they are counted.
    let hooked = Puppet::start(node.command("clinic", puppet()).unwrap().arg("--driver").arg(&copy));
    let mut hooked = hooked;
    hooked.must("init");
    let before = bypasses(&node, "allocate", "outside");
    let outcome = hooked.ask("alloc 2147483648");
    let counted = bypasses(&node, "allocate", "outside") - before;
    assert!(outcome == Err(2) || counted == 1.0, "{outcome:?} beyond the quota, {counted} counted");

    // A copy in a file system that only the program's own mount namespace has.
    let script = "mount -t tmpfs none \"$1\" && cp \"$2\" \"$1/libcuda.so.1\" && exec env -u LD_PRELOAD \"$0\" --driver \"$1/libcuda.so.1\"";
    let place = here.path().join("place");
    fs::create_dir(&place).unwrap();
    let (program, libcuda) = (puppet().to_str().unwrap(), node.device().libcuda());
    let arguments = ["-m", "sh", "-c", script, program, place.to_str().unwrap(), libcuda.to_str().unwrap()];
    let mut inner = by_way_of(&node, "unshare", &arguments);
    inner.must("init");
    let before = bypasses(&node, "allocate", "unattested");
    eventually("a container's own driver is found", SOON, || {
        inner.must("alloc 4096");
        (before < bypasses(&node, "allocate", "unattested")).then_some(())
    });
}

#[test]
fn a_witness_that_refuses_ends_who_allocates_around_the_hook() {
    let name = "a_witness_that_refuses_ends_who_allocates_around_the_hook";
    if !is_root() {
        return skipped(name, &"needs root to load kernel programs");
    }
    let here = tempfile::tempdir().unwrap();
    let mut node = node_of(NodeOptions {
        spec: vec!["witness: {policy: refuse}".to_owned()],
        ..NodeOptions::simulated(vec![TenantSpec::new("clinic")])
    });
    let around = compile(here.path(), "around.c", &["-shared", "-fPIC"]).unwrap();
    let mut hooked = Puppet::in_tenant(&node, "clinic");
    hooked.ready();
    hooked.must("alloc 4096");
    hooked.must("free");

    let mut bare = Puppet::native_in(&node, "clinic");
    bare.must("init");
    bare.tell("alloc 1048576");
    assert_eq!(bare.ended().signal(), Some(libc::SIGKILL), "before the driver saw it");
    let mut deep = Puppet::in_tenant(&node, "clinic");
    deep.must("init");
    deep.must(&format!("around {}", around.display()));
    deep.tell("around-alloc 1048576");
    assert_eq!(deep.ended().signal(), Some(libc::SIGKILL));
    let ended = || node.metrics().unwrap().value("headgate_bypass_refusals_total", &["tenant=\"clinic\""]);
    assert_eq!(ended(), Some(2.0));
    hooked.must("alloc 4096");

    // The next daemon's witness knows nothing of the attestations before it: it counts who was there, and ends nobody.
    node.kill_daemon().unwrap();
    node.start_daemon().unwrap();
    hooked.must("alloc 4096");
    hooked.must("sync");
    node.set_spec(vec!["witness: {policy: count}".to_owned()]).unwrap();
    eventually("a witness that only counts ends nobody", SOON, || {
        let mut bare = Puppet::native_in(&node, "clinic");
        bare.must("init");
        bare.tell("alloc 4096");
        bare.answer_or_end().map(|_answer| ())
    });
}
