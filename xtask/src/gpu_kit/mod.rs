//! `cargo xtask gpu-kit`: gathers the folder that proves Headgate on a machine with a GPU and nothing of ours.
//!
//! ```text
//! target/gpu-kit/  run-all  kit.json  README.md  bin/  python/  kernels/  ebpf/  config/
//! ```
//!
//! What it takes care of: programs must not want a newer C library than the baseline below, the whole must stay small enough to
//! be sent, and kernels are compiled beforehand where there is a compiler (the driver compiles the PTX otherwise).

mod gather;
mod libc_versions;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::workspace::{self, Artifacts, Profile};

/// The oldest C library the kit runs on: that of Ubuntu 22.04 is 2.35, of RHEL 9 2.34.
const GLIBC_BASELINE: (u32, u32) = (2, 35);
/// Most the kit may take, so that it can be sent.
const KIT_BYTES_MAX: u64 = 40 << 20;

/// What is built, and under which name it goes into `bin`.
const PROGRAMS: &[(&str, &str)] = &[
    ("headgate", "headgate"),
    ("headgate_hook", "libheadgate_hook.so"),
    ("headgate-kit", "headgate-kit"),
    ("kit-gpu", "kit-gpu"),
    ("conform", "conform"),
    ("headgate-worker", "headgate-worker"),
    ("headgate_remote", "libheadgate_remote.so"),
    ("headgate_redirect", "libheadgate_redirect.so"),
    ("app-hog", "app-hog"),
    ("app-loop", "app-loop"),
    ("app-matmul", "app-matmul"),
    ("app-reduction", "app-reduction"),
    ("app-saxpy", "app-saxpy"),
    ("app-step", "app-step"),
    ("headgate-simgpu", "headgate-simgpu"),
    ("headgate_simcuda", "libheadgate_simcuda.so"),
    ("headgate_simnvml", "libheadgate_simnvml.so"),
];

const PACKAGES: &[&str] = &[
    "headgate",
    "headgate-hook",
    "headgate-remote",
    "headgate-remote-libcuda",
    "headgate-remote-redirect",
    "headgate-gpu-kit",
    "headgate-gpu-kit-programs",
    "headgate-conformance",
    "headgate-apps",
    "headgate-simgpu",
    "headgate-simgpu-libcuda",
    "headgate-simgpu-libnvml",
];

/// Options of the chore.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the kit goes.
    #[arg(long, value_name = "DIR", default_value = "target/gpu-kit")]
    into: PathBuf,
    /// Builds it as `cargo test` builds: quick, for trying the kit itself. Its figures say nothing.
    #[arg(long)]
    dev: bool,
    /// Makes a page of returned results (a folder) instead of a kit.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// With --report: results of a kit on the simulated device, to stand beside.
    #[arg(long, value_name = "FILE", requires = "report")]
    simulated: Option<PathBuf>,
    /// With --report: writes DATE-GPU.md and .json into docs/results instead of printing the page.
    #[arg(long, requires = "report")]
    keep: bool,
}

/// Gathers the kit, or reports what one brought back.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let profile = if options.dev { Profile::Dev } else { Profile::Release };
    if let Some(folder) = &options.report {
        return report(options, folder);
    }
    let artifacts = workspace::build(profile, PACKAGES)?;
    let root = workspace::root()?;
    let kit = root.join(&options.into);
    gather::empty(&kit)?;
    for (target, name) in PROGRAMS {
        let program = artifacts.path(target)?;
        libc_versions::check(program, GLIBC_BASELINE)?;
        gather::program(program, &kit.join("bin").join(name))?;
    }
    gather::folder(&root.join("tests/gpu-kit/python"), &kit.join("python"), "py")?;
    gather::folder(&root.join("tests/gpu-kit/kernels"), &kit.join("kernels"), "cu")?;
    gather::folder(&root.join("tests/gpu-kit/kernels/ptx"), &kit.join("kernels"), "ptx")?;
    gather::folder(&root.join("ebpf/object"), &kit.join("ebpf"), "o")?;
    gather::file(&root.join("deploy/config/node.yaml"), &kit.join("config/node.yaml"))?;
    gather::file(&root.join("docs/gpu-kit.md"), &kit.join("README.md"))?;
    let cubins = gather::cubins(&kit.join("kernels"))?;
    gather::script(&kit.join("run-all"))?;
    let facts = json!({
        "commit": workspace::commit()?,
        "profile": if options.dev { "dev" } else { "release" },
        "glibc_baseline": format!("{}.{}", GLIBC_BASELINE.0, GLIBC_BASELINE.1),
        "cubins": cubins,
    });
    std::fs::write(kit.join("kit.json"), serde_json::to_string_pretty(&facts)? + "\n")?;
    let bytes = gather::size(&kit)?;
    ensure!(
        options.dev || bytes <= KIT_BYTES_MAX,
        "{} takes {bytes} bytes, more than {KIT_BYTES_MAX}; is `strip` on PATH?",
        kit.display()
    );
    eprintln!("{}: {:.1} MiB; copy it to the machine and start run-all", kit.display(), mebibytes(bytes));
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::cast_precision_loss, reason = "display only")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn report(options: &Options, folder: &Path) -> Result<ExitCode> {
    let artifacts: Artifacts = workspace::build(Profile::Dev, &["headgate-gpu-kit"])?;
    let mut command = Command::new(artifacts.path("headgate-kit")?);
    command.arg("report").arg(folder);
    if let Some(simulated) = &options.simulated {
        command.arg("--simulated").arg(simulated);
    }
    if options.keep {
        command.arg("--into").arg(workspace::root()?.join("docs/results"));
    }
    let status = command.status().context("starting headgate-kit")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
