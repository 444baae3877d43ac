//! The Python environment of the clients: made once, under `target/`, from pinned wheels checked by hash.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use headgate_harness::workspace;
use nix::fcntl::{Flock, FlockArg};

/// The Python that can run the clients; or, as the inner error, why there is none here.
///
/// # Errors
/// When what the index gives is not what was pinned: that must never pass for a skip.
pub fn python() -> Result<Result<PathBuf, String>> {
    static PYTHON: OnceLock<std::result::Result<Result<PathBuf, String>, String>> = OnceLock::new();
    let outcome = PYTHON.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    outcome.clone().map_err(|error| anyhow::anyhow!("{error}"))
}

/// A script of the suite.
pub fn script(name: &str) -> PathBuf {
    folder().join(name)
}

/// Sources of the sample kernels.
pub fn kernels() -> PathBuf {
    workspace::root().join("tests/apps/kernels")
}

fn folder() -> PathBuf {
    workspace::root().join("tests/conformance/python")
}

fn make() -> Result<Result<PathBuf, String>> {
    let version = "import sys, venv, ensurepip; raise SystemExit(0 if sys.version_info >= (3, 11) else 1)";
    match Command::new("python3").args(["-c", version]).output() {
        Err(error) => return Ok(Err(format!("no python3: {error}"))),
        Ok(output) if !output.status.success() => {
            return Ok(Err("python3 is older than 3.11 or cannot make environments (python3-venv)".into()));
        }
        Ok(_) => {}
    }
    let home = target_directory()?.join("conformance-python");
    std::fs::create_dir_all(&home)?;
    // Two test programs may come here at once; the second waits and finds the work done.
    let lock = std::fs::File::create(home.join("lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let wanted = std::fs::read_to_string(folder().join("requirements.txt"))?;
    let (environment, done) = (home.join("environment"), home.join("installed.txt"));
    let python = environment.join("bin/python");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) && python.exists() {
        return Ok(Ok(python));
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment).output()?;
    ensure!(made.status.success(), "python3 -m venv: {}", String::from_utf8_lossy(&made.stderr));
    if let Some(why) = install(&python)? {
        return Ok(Err(why));
    }
    std::fs::write(&done, wanted)?;
    Ok(Ok(python))
}

/// Installs what is pinned; the reason when the index cannot be reached.
fn install(python: &Path) -> Result<Option<String>> {
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "2",
    ]);
    pip.args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile", "--requirement"]);
    let output = pip.arg(folder().join("requirements.txt")).output().context("starting pip")?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("DO NOT MATCH THE HASHES") {
        bail!("the package index gave something other than what was pinned:\n{said}");
    }
    let last = said.lines().rfind(|line| line.contains("ERROR")).unwrap_or("pip failed without a word");
    Ok(Some(format!("the Python clients could not be installed: {last}")))
}

/// `target`, wherever cargo keeps it.
fn target_directory() -> Result<PathBuf> {
    let built = workspace::built()?;
    Ok(built.parent().context("the build directory has no parent")?.to_path_buf())
}
