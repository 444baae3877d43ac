//! What the libraries show to and want from the processes they are loaded into.
//!
//! The hook exports exactly the hooked rows of the symbol tables and the loader's two look-ups, and imports
//! nothing that could end, fork or reconfigure a stranger's process. The driver stand-ins export every row, so
//! that no program finds less in them than in a driver; so does what redirects a driver's callers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use headgate_abi::cuda::Disposition;
use headgate_abi::{cuda, nvml};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSymbol as _};

use super::Findings;
use crate::workspace::{self, Profile};

/// Exports of the hook beside the tables.
const LOADER: [&str; 2] = ["dlsym", "dlvsym"];

/// What the hook must never be able to call in a stranger's process, and why.
///
/// Three calls in this neighbourhood are not among them. `abort`: Rust's own runtime refers to it for panics that
/// cannot unwind, which the boundary keeps from happening. `pthread_create` and `pthread_sigmask`: the watch starts
/// the one thread there is, with every signal blocked, so that the program's handlers never run on it.
const FORBIDDEN: &[(&[&str], &str)] = &[
    (&["exit", "_exit", "_Exit", "quick_exit", "exit_group"], "it never ends a process"),
    (&["raise", "kill", "tgkill", "pthread_kill", "sigqueue"], "it never signals a process"),
    (&["signal", "sigaction", "sigvec", "bsd_signal"], "it never installs a signal handler"),
    (
        &["umask", "chdir", "setenv", "putenv", "unsetenv", "setrlimit", "setrlimit64", "prctl"],
        "it never reconfigures a process",
    ),
    (
        &["fork", "vfork", "execve", "posix_spawn", "posix_spawnp", "system", "popen"],
        "it never starts a process",
    ),
];

pub(super) fn check(findings: &mut Findings) -> Result<()> {
    let packages = [
        "headgate-hook",
        "headgate-remote-redirect",
        "headgate-simgpu-libcuda",
        "headgate-simgpu-libnvml",
        "headgate-nulldriver",
    ];
    let built = workspace::build(Profile::Dev, &packages)?;

    let hooked = cuda::symbols::ROWS
        .iter()
        .filter(|row| row.disposition == Disposition::Hooked)
        .map(|row| row.elf_name)
        .chain(nvml::ROWS.iter().filter(|row| row.hooked).map(|row| row.elf_name))
        .chain(LOADER)
        .collect();
    let hook = Library::read(built.path("headgate_hook")?)?;
    check_hook(findings, &hook, &hooked);

    let cuda_rows: BTreeSet<&str> = cuda::symbols::ROWS.iter().map(|row| row.elf_name).collect();
    check_redirect(findings, &Library::read(built.path("headgate_redirect")?)?, &cuda_rows);

    let nvml_rows: BTreeSet<&str> = nvml::ROWS.iter().map(|row| row.elf_name).collect();
    for (package, target, rows) in [
        ("headgate-simgpu-libcuda", "headgate_simcuda", &cuda_rows),
        ("headgate-simgpu-libnvml", "headgate_simnvml", &nvml_rows),
        ("headgate-nulldriver", "headgate_nullcuda", &cuda_rows),
    ] {
        let library = Library::read(built.path(target)?)?;
        for row in rows.iter().filter(|row| !library.exports.contains(**row)) {
            findings.problem(package, format_args!("does not export `{row}`, which is a row of abi's table"));
        }
    }
    Ok(())
}

/// What stands in front of a driver must stand in front of all of it, and of nothing else.
fn check_redirect(findings: &mut Findings, library: &Library, rows: &BTreeSet<&str>) {
    let package = "headgate-remote-redirect";
    for name in rows.iter().chain(&LOADER).filter(|name| !library.exports.contains(**name)) {
        findings.problem(
            package,
            format_args!("does not export `{name}`: linked programs would find the driver's"),
        );
    }
    let known = |name: &str| rows.contains(name) || LOADER.contains(&name);
    for name in library.exports.iter().filter(|name| !known(name.as_str())) {
        findings.problem(package, format_args!("exports `{name}`, which is no row of abi's table"));
    }
}

fn check_hook(findings: &mut Findings, hook: &Library, hooked: &BTreeSet<&str>) {
    for name in hooked.iter().filter(|name| !hook.exports.contains(**name)) {
        findings.problem(
            "headgate-hook",
            format_args!("does not export `{name}`, which the table says is hooked"),
        );
    }
    for name in hook.exports.iter().filter(|name| !hooked.contains(name.as_str())) {
        findings.problem(
            "headgate-hook",
            format_args!("exports `{name}`, which is no hooked row of abi's table"),
        );
    }
    for (names, rule) in FORBIDDEN {
        for name in names.iter().filter(|name| hook.imports.contains(**name)) {
            findings.problem(
                "headgate-hook",
                format_args!("imports `{name}`, but in a stranger's process {rule}"),
            );
        }
    }
    for library in
        hook.needed.iter().filter(|name| name.starts_with("libcuda") || name.starts_with("libnvidia"))
    {
        findings.problem(
            "headgate-hook",
            format_args!("needs {library}: a program that never uses CUDA would pay for it"),
        );
    }
}

/// A shared library's dynamic symbols.
#[derive(Debug, Default)]
struct Library {
    exports: BTreeSet<String>,
    imports: BTreeSet<String>,
    needed: Vec<String>,
}

impl Library {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("reading the symbols of {}", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let file: ElfFile64 = ElfFile64::parse(bytes)?;
        let mut library = Self::default();
        for symbol in file.dynamic_symbols() {
            let name = symbol.name()?.to_owned();
            if symbol.is_undefined() {
                library.imports.insert(name);
            } else if symbol.is_global() {
                library.exports.insert(name);
            }
        }
        let table = file.elf_dynamic_table()?;
        for entry in table.iter().filter(|entry| entry.tag == object::elf::DT_NEEDED) {
            library.needed.push(String::from_utf8_lossy(table.string(entry)?).into_owned());
        }
        Ok(library)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn missing_extra_and_forbidden_symbols_are_each_named() {
        let hook = Library {
            exports: set(&["cuInit", "cuSurprise"]),
            imports: set(&["malloc", "sigaction"]),
            needed: vec!["libcuda.so.1".to_owned()],
        };
        let mut findings = Findings::default();
        check_hook(&mut findings, &hook, &BTreeSet::from(["cuInit", "dlsym"]));
        let found = findings.problems.join("\n");
        for name in ["`dlsym`", "`cuSurprise`", "`sigaction`", "libcuda.so.1"] {
            assert!(found.contains(name), "{name} in {found}");
        }
        assert_eq!(findings.problems.len(), 4);
    }

    #[test]
    fn this_very_program_can_be_read() {
        let library = Library::read(&std::env::current_exe().unwrap()).unwrap();
        assert!(library.imports.contains("malloc"), "a Rust program allocates by the C library");
        assert!(library.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", library.needed);
        assert!(Library::parse(b"not an ELF file").is_err());
    }
}
