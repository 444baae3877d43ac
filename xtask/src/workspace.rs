//! The checkout and cargo: where things are, and building a few of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

pub(crate) use headgate_harness::workspace::cargo;

/// The repository's root.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest.parent().context("xtask lies in the repository's root")?.to_owned())
}

/// How to build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Profile {
    /// Shared with `cargo test`.
    Dev,
    /// For what is measured.
    Release,
}

/// What a build left behind, by target name: libraries and programs.
#[derive(Debug)]
pub(crate) struct Artifacts(BTreeMap<String, PathBuf>);

impl Artifacts {
    /// The file of a target: `headgate_hook` is `libheadgate_hook.so`.
    pub(crate) fn path(&self, target: &str) -> Result<&Path> {
        self.0.get(target).map(PathBuf::as_path).with_context(|| format!("the build made no `{target}`"))
    }
}

/// Builds packages in one go and tells where their libraries and programs are.
pub(crate) fn build(profile: Profile, packages: &[&str]) -> Result<Artifacts> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "building {} failed: {}", packages.join(", "), output.status);
    let mut artifacts = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line).context("reading cargo's messages")?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let Some(name) = message["target"]["name"].as_str() else { bail!("cargo's message names no target") };
        let file = message["executable"].as_str().or_else(|| shared_library(&message));
        if let Some(file) = file {
            artifacts.insert(name.to_owned(), PathBuf::from(file));
        }
    }
    Ok(Artifacts(artifacts))
}

fn shared_library(message: &Value) -> Option<&str> {
    message["filenames"].as_array()?.iter().filter_map(Value::as_str).find(|name| name.ends_with(".so"))
}

/// The commit being measured or checked, with `+changes` behind it when the tree differs; `unknown` outside of a
/// git checkout.
pub(crate) fn commit() -> Result<String> {
    let git = |args: &[&str]| -> Result<Option<String>> {
        let output = Command::new("git").current_dir(root()?).args(args).stderr(Stdio::null()).output();
        Ok(output
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"])? else { return Ok("unknown".to_owned()) };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?.unwrap_or_default();
    Ok(if changes.is_empty() { head } else { head + "+changes" })
}

/// Files that belong to the repository, tracked or about to be, relative to the root.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root()?)
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .output()
        .context("starting git: tidy reads the list of files from it")?;
    ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<PathBuf> =
        list.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    files.sort();
    files.dedup();
    let root = root()?;
    // A file that is deleted and not yet committed is still listed.
    files.retain(|file| root.join(file).is_file());
    Ok(files)
}
