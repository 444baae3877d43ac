//! The shape of source files.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Findings;
use crate::workspace;

/// A comfortable file ends below this.
const LINES_COMFORTABLE: usize = 400;
/// Past this it is two files.
const LINES_MAX: usize = 800;

/// Files allowed to be longer, each with its reason.
const LONG: &[(&str, &str)] = &[];

pub(super) fn check(findings: &mut Findings) -> Result<()> {
    let root = workspace::root()?;
    let machine = machine_paths(&root);
    for file in workspace::files()? {
        let Ok(text) = fs::read_to_string(root.join(&file)) else {
            continue; // Compiled objects are not text.
        };
        if file.extension().is_some_and(|extension| extension == "rs") {
            check_rust(findings, &file, &text);
        }
        for path in &machine {
            for (number, _) in lines_with(&text, path) {
                findings.problem(
                    place(&file, number),
                    "names a path of the machine it was written on; name it relative to the repository",
                );
            }
        }
    }
    check_manifests(findings, &root)
}

fn check_rust(findings: &mut Findings, file: &Path, text: &str) {
    let count = text.lines().count();
    let reason = LONG.iter().find(|(name, _)| Path::new(name) == file);
    if LINES_MAX < count && reason.is_none() {
        findings.problem(file.display(), format_args!("has {count} lines; past {LINES_MAX} it is two files"));
    } else if LINES_COMFORTABLE < count && reason.is_none() {
        findings.warning(file.display(), format_args!("has {count} lines; is it still one job?"));
    }
    let root_of_crate = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    if root_of_crate && !text.starts_with("//!") {
        findings.problem(
            file.display(),
            "does not open with `//!`: what this crate is, what it never does, in what order to read it",
        );
    }
    // The patterns are put together here so that this file does not find itself.
    for (pattern, what) in [
        (concat!("#[ig", "nore"), "an ignored test: let it print `SKIPPED: why` and return"),
        (concat!("tod", "o!("), "unfinished code: finish it, or return an error that says so"),
        (concat!("unimpl", "emented!("), "unfinished code: finish it, or return an error that says so"),
        (concat!("assert!(", "true"), "an assertion that cannot fail"),
    ] {
        for (number, line) in lines_with(text, pattern) {
            if !line.trim_start().starts_with("//") {
                findings.problem(place(file, number), what);
            }
        }
    }
}

/// Every package takes the workspace's lints: a forgotten line would switch them all off.
fn check_manifests(findings: &mut Findings, root: &Path) -> Result<()> {
    for file in workspace::files()?.iter().filter(|file| file.ends_with("Cargo.toml")) {
        let text =
            fs::read_to_string(root.join(file)).with_context(|| format!("reading {}", file.display()))?;
        let excluded = file.starts_with("ebpf/programs") || file.starts_with("fuzz");
        if text.contains("[package]") && !excluded && !text.contains("[lints]\nworkspace = true") {
            findings
                .problem(file.display(), "does not take the workspace's lints (`[lints] workspace = true`)");
        }
    }
    Ok(())
}

/// Directories that only this machine has: where the checkout lies, and home. The directory for temporary files is
/// every machine's, even if the checkout lies there.
fn machine_paths(root: &Path) -> Vec<String> {
    let home = env::var_os("HOME").map(PathBuf::from);
    root.parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(home)
        .map(|path| path.display().to_string())
        // A checkout in `/` or a home of `/` would make every path this machine's.
        .filter(|path| 1 < path.len() && Path::new(path) != env::temp_dir())
        .map(|path| path + "/")
        .collect()
}

fn lines_with<'a>(text: &'a str, pattern: &str) -> impl Iterator<Item = (usize, &'a str)> {
    text.lines()
        .enumerate()
        .filter(move |(_, line)| line.contains(pattern))
        .map(|(index, line)| (index + 1, line))
}

fn place(file: &Path, line: usize) -> String {
    format!("{}:{line}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(file: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check_rust(&mut findings, Path::new(file), text);
        findings.problems
    }

    #[test]
    fn each_shape_is_found_with_its_line() {
        let ignored = format!("fn a() {{}}\n#[{}]\nfn b() {{}}\n", "ignore = \"why\"");
        assert!(problems("x/src/a.rs", &ignored)[0].starts_with("x/src/a.rs:2: "));
        assert_eq!(problems("x/src/a.rs", &"\n".repeat(801)).len(), 1);
        assert_eq!(problems("x/src/lib.rs", "pub mod a;\n").len(), 1);
        assert!(problems("x/src/lib.rs", "//! What.\n").is_empty());
        assert!(problems("x/src/a.rs", &format!("// {}!(later)\n", "todo")).is_empty(), "prose is free");
        assert_eq!(problems("x/src/a.rs", &format!("    {}!()\n", "todo")).len(), 1);
    }
}
