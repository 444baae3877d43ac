//! Where the workspace is and where its built things are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result, ensure};

/// Packages whose binaries and libraries tests start.
const PACKAGES: [&str; 9] = [
    "headgate",
    "headgate-hook",
    "headgate-simgpu",
    "headgate-simgpu-libcuda",
    "headgate-simgpu-libnvml",
    "headgate-apps",
    "headgate-remote",
    "headgate-remote-libcuda",
    "headgate-remote-redirect",
];

/// The root of the checkout.
#[must_use]
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors().nth(2).unwrap_or(here).to_path_buf()
    })
}

/// Cargo, run in the root by a program that cargo may have started itself.
///
/// Such a program has been told which package it belongs to, and build scripts may ask for just that: one that does runs
/// again, and all that needs it is built again, whenever two packages' programs build the same things in turn.
#[must_use]
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").or_else(|| option_env!("CARGO").map(Into::into));
    let mut command = Command::new(cargo.unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let told = name.as_encoded_bytes();
        if told.starts_with(b"CARGO_MANIFEST_") || told.starts_with(b"CARGO_PKG_") {
            command.env_remove(&name);
        }
    }
    command
}

static GIVEN: OnceLock<PathBuf> = OnceLock::new();

/// Takes built things from a folder that holds them all, instead of asking cargo: the kit runs where there is none. The
/// first call decides.
pub fn use_folder(folder: PathBuf) {
    let _first_wins = GIVEN.set(folder);
}

/// Where built things lie, after making sure they are built.
///
/// Cargo builds a package's shared libraries and binaries for that package's own tests only, so whoever needs
/// those of another asks cargo once more; when nothing changed that takes a fraction of a second.
///
/// # Errors
/// When the build fails; cargo's own output says why.
pub fn built() -> Result<&'static Path> {
    if let Some(folder) = GIVEN.get() {
        return Ok(folder);
    }
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(directory) => Ok(directory),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    }
}

fn build() -> Result<PathBuf> {
    let directory = profile_directory()?;
    let mut cargo = cargo();
    cargo.args(["build", "--quiet"]);
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    if let Some(target) = directory.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let status = cargo.status().context("running cargo")?;
    ensure!(status.success(), "cargo build of {PACKAGES:?} failed: {status}");
    Ok(directory)
}

/// The directory of the profile this very program was built in: `target/debug` or `target/release`.
fn profile_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("asking where this program is")?;
    let found = program
        .ancestors()
        .find(|directory| directory.ends_with("debug") || directory.ends_with("release"))
        .with_context(|| format!("{} is not in a cargo target directory", program.display()))?;
    Ok(found.to_path_buf())
}

/// A built program.
///
/// # Errors
/// When the build failed or made no such program.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = built()?.join(name);
    ensure!(path.exists(), "{} was not built; is it a binary of one of {PACKAGES:?}?", path.display());
    Ok(path)
}

/// The hook's library.
///
/// # Errors
/// When the build failed.
pub fn hook() -> Result<PathBuf> {
    program("libheadgate_hook.so")
}

/// A directory that holds the simulated driver libraries under the names programs look for.
///
/// # Errors
/// When the build failed or the directory cannot be made.
pub fn driver_directory() -> Result<PathBuf> {
    let nvml = ("libheadgate_simnvml.so", ["libnvidia-ml.so.1", "libnvidia-ml.so"]);
    directory_of("simulated-driver", &[("libheadgate_simcuda.so", ["libcuda.so.1", "libcuda.so"]), nvml])
}

/// A directory that holds the remote client under the names programs look for.
///
/// # Errors
/// As [`driver_directory`].
pub fn remote_directory() -> Result<PathBuf> {
    let library = "libheadgate_remote.so";
    let names = [["libcuda.so.1", "libcuda.so"], ["libnvidia-ml.so.1", "libnvidia-ml.so"]];
    directory_of("remote-driver", &names.map(|names| (library, names)))
}

fn directory_of(name: &str, libraries: &[(&str, [&str; 2])]) -> Result<PathBuf> {
    let built = built()?;
    let directory = built.join(name);
    std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    for &(library, names) in libraries {
        for name in names {
            link(&built.join(library), &directory.join(name))?;
        }
    }
    Ok(directory)
}

/// Makes `link` point at `library`, replacing what was there in one step: other tests may be loading it. They run in
/// other processes and in other threads of this one, and each has a name of its own for the step.
fn link(library: &Path, link: &Path) -> Result<()> {
    static STEPS: AtomicU32 = AtomicU32::new(0);
    if std::fs::read_link(link).is_ok_and(|target| target == library) {
        return Ok(());
    }
    let step = STEPS.fetch_add(1, Relaxed);
    let fresh = link.with_extension(format!("{}-{step}.tmp", std::process::id()));
    std::os::unix::fs::symlink(library, &fresh).with_context(|| format!("linking {}", fresh.display()))?;
    std::fs::rename(&fresh, link).with_context(|| format!("linking {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_link_at_once_do_not_meet() {
        let directory = tempfile::tempdir().unwrap();
        let (library, name) = (directory.path().join("library"), directory.path().join("lib.so.1"));
        for _ in 0..50 {
            std::thread::scope(|scope| {
                let racers = [(); 8].map(|()| scope.spawn(|| link(&library, &name)));
                for racer in racers {
                    racer.join().unwrap().unwrap();
                }
            });
            assert_eq!(std::fs::read_link(&name).unwrap(), library);
            std::fs::remove_file(&name).unwrap();
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing is left of the steps");
    }
}
