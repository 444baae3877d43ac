//! Putting files into the kit's folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// Architectures that kernels are compiled for beforehand.
const ARCHITECTURES: [&str; 4] = ["80", "89", "90", "100"];

/// An empty folder; what was there before goes, if it was a kit.
pub(super) fn empty(kit: &Path) -> Result<()> {
    if kit.exists() {
        let was_kit = kit.join("kit.json").exists() || fs::read_dir(kit)?.next().is_none();
        ensure!(was_kit, "{} is there and is not a kit; name another folder with --into", kit.display());
        fs::remove_dir_all(kit).with_context(|| kit.display().to_string())?;
    }
    for folder in ["bin", "python", "kernels", "ebpf", "config"] {
        fs::create_dir_all(kit.join(folder)).with_context(|| kit.display().to_string())?;
    }
    Ok(())
}

/// One file.
pub(super) fn file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The files of a folder with this ending.
pub(super) fn folder(from: &Path, to: &Path, ending: &str) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == ending) {
            file(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// A program or library, without what only debuggers read.
pub(super) fn program(from: &Path, to: &Path) -> Result<()> {
    file(from, to)?;
    // Without `strip` the kit is whole, only larger; its size is checked at the end.
    let _stripped = Command::new("strip").arg("--strip-debug").arg(to).status();
    Ok(())
}

/// `run-all`, which needs nothing but a shell.
pub(super) fn script(to: &Path) -> Result<()> {
    const TEXT: &str = "#!/bin/sh\n\
        # The proof of Headgate on this machine's GPU; README.md says what it decides. Options: see run-all --help.\n\
        here=$(CDPATH= cd -- \"$(dirname -- \"$0\")\" && pwd) || exit 2\n\
        # Copies may have lost the permission to be started.\n\
        chmod u+x \"$here\"/bin/* 2>/dev/null\n\
        exec \"$here/bin/headgate-kit\" run \"$@\"\n";
    fs::write(to, TEXT).with_context(|| to.display().to_string())?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).with_context(|| to.display().to_string())
}

/// Kernels for each architecture, by an nvcc of this machine or one below `target/nvidia`. Those that it cannot make are left to
/// the driver, which compiles the PTX.
pub(super) fn cubins(kernels: &Path) -> Result<Vec<String>> {
    let mut made = Vec::new();
    let Some(ptxas) = find_ptxas()? else { return Ok(made) };
    for architecture in ARCHITECTURES {
        let name = format!("kit.sm_{architecture}.cubin");
        let to = kernels.join(&name);
        let output = Command::new(&ptxas)
            .arg(format!("--gpu-name=sm_{architecture}"))
            .arg(kernels.join("kit.ptx"))
            .arg("--output-file")
            .arg(&to)
            .output()
            .with_context(|| ptxas.display().to_string())?;
        if output.status.success() {
            made.push(name);
        }
    }
    Ok(made)
}

fn find_ptxas() -> Result<Option<PathBuf>> {
    let fetched = workspace::root()?.join("target/nvidia/python/nvidia");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join("ptxas")).collect();
    places.extend(["cu13/bin/ptxas", "cuda_nvcc/bin/ptxas"].map(|name| fetched.join(name)));
    places.push("/usr/local/cuda/bin/ptxas".into());
    Ok(places.into_iter().find(|place| place.is_file()))
}

/// Bytes of everything in a folder.
pub(super) fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += if facts.is_dir() { size(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}
