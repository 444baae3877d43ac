//! `cargo xtask ebpf`: builds the kernel programs and keeps the committed objects honest.
//!
//! `cargo xtask ebpf` compiles `ebpf/programs` and writes `ebpf/object/*.bpf.o` with a note (`BUILD`) of what made
//! them. `cargo xtask ebpf --check` compiles into a scratch directory and compares byte for byte. The build depends on
//! neither the checkout's place nor the machine's crate cache: paths are remapped and debug sections dropped.
//!
//! Exit codes: 0 the objects are current, 1 they differ from their sources, 3 the tool chain is absent so that nothing
//! was compiled (the sources' hash was still compared: a forgotten rebuild is found even then).

#![expect(clippy::print_stdout, reason = "a chore's verdict is its output")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The objects, by the name of the binary target that makes them.
const PROGRAMS: [&str; 8] = ["border", "exit", "gate", "ioctl", "ledger", "rival", "rtt", "wait"];

/// The one compiler whose output is committed: Debian's, because it builds for BPF without rustup components.
const RUSTC_RELEASE: &str = "1.96.0";

/// The last bpf-linker that borrows the compiler's own LLVM, so the two cannot disagree.
const BPF_LINKER_VERSION: &str = "0.10.4";

/// Exit code for "could not compare": CI shows it as skipped, not as a difference.
const EXIT_TOOLS_ABSENT: u8 = 3;

const USAGE: &str = "usage: cargo xtask ebpf [--check]";

/// Runs the chore. See the module's text for the exit codes.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("unexpected arguments {args:?}\n{USAGE}"),
    };
    let root = repository_root()?;
    let objects = root.join("ebpf/object");
    let sources = hash_of_sources(&root)?;

    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(missing) => return without_tools(check, &objects, sources, &missing),
    };
    if check {
        // From nothing: a check that trusts an earlier build's time stamps checks those.
        remove_if_present(&root.join("target/ebpf/bpfel-unknown-none"))?;
    }
    let built = build(&root, &tools)?;
    let note = note(&tools, sources, &built);
    if check { compare(&objects, &built, &note) } else { install(&objects, &built, &note) }
}

fn remove_if_present(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// What can be said without a compiler: whether the sources changed since the objects were made.
fn without_tools(check: bool, objects: &Path, sources: u64, missing: &Missing) -> Result<ExitCode> {
    eprintln!("{missing}");
    if !check {
        return Ok(ExitCode::from(EXIT_TOOLS_ABSENT));
    }
    let path = objects.join("BUILD");
    let note = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if note.lines().any(|line| line == sources_line(sources)) {
        println!("ebpf: not rebuilt (tool chain absent); the sources are those the committed objects name");
        return Ok(ExitCode::from(EXIT_TOOLS_ABSENT));
    }
    println!(
        "ebpf: the sources changed after the committed objects were built: run `cargo xtask ebpf` and commit"
    );
    Ok(ExitCode::FAILURE)
}

fn compare(objects: &Path, built: &BTreeMap<String, Vec<u8>>, note: &str) -> Result<ExitCode> {
    let mut differences = Vec::new();
    for (name, bytes) in built {
        let path = objects.join(name);
        match fs::read(&path) {
            Ok(committed) if committed == *bytes => {}
            Ok(committed) => differences.push(format!("{name}: {}", first_difference(&committed, bytes))),
            Err(error) => differences.push(format!("{name}: {error}")),
        }
    }
    let path = objects.join("BUILD");
    let committed = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if committed != note {
        differences.push("BUILD: names other tools, sources or sizes".to_owned());
    }
    if differences.is_empty() {
        println!("ebpf: {} committed objects equal a rebuild, byte for byte", built.len());
        return Ok(ExitCode::SUCCESS);
    }
    for difference in &differences {
        println!("ebpf: {difference}");
    }
    println!(
        "ebpf: committed objects differ from their sources: run `cargo xtask ebpf` and commit ebpf/object"
    );
    Ok(ExitCode::FAILURE)
}

fn first_difference(committed: &[u8], built: &[u8]) -> String {
    let at =
        committed.iter().zip(built).position(|(a, b)| a != b).unwrap_or(committed.len().min(built.len()));
    format!("{} bytes committed, {} rebuilt, first difference at byte {at}", committed.len(), built.len())
}

fn install(objects: &Path, built: &BTreeMap<String, Vec<u8>>, note: &str) -> Result<ExitCode> {
    fs::create_dir_all(objects).with_context(|| format!("making {}", objects.display()))?;
    for (name, bytes) in built {
        let path = objects.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        println!("ebpf: {name}: {} bytes", bytes.len());
    }
    let path = objects.join("BUILD");
    fs::write(&path, note).with_context(|| format!("writing {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Compiles every program and drops what the kernel has no use for.
fn build(root: &Path, tools: &Tools) -> Result<BTreeMap<String, Vec<u8>>> {
    let target = root.join("target/ebpf");
    let llvm = target.join("llvm");
    // bpf-linker opens the first libLLVM it finds on this path, whatever its version: give it exactly one.
    fs::create_dir_all(&llvm).with_context(|| format!("making {}", llvm.display()))?;
    let link = llvm.join("libLLVM.so");
    if fs::read_link(&link).ok().as_deref() != Some(tools.llvm.as_path()) {
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
        }
        std::os::unix::fs::symlink(&tools.llvm, &link)
            .with_context(|| format!("linking {}", link.display()))?;
    }

    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root.join("ebpf/programs"))
        .args(["build", "--release", "--locked", "--target=bpfel-unknown-none", "-Zbuild-std=core"])
        .env("RUSTC", &tools.rustc)
        .env("RUSTC_BOOTSTRAP", "1") // -Zbuild-std and inline assembly for BPF, on a stable compiler
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, tools)?.join("\x1f"))
        .env("LD_LIBRARY_PATH", &llvm)
        .env("PATH", path_starting_with(&tools.linker)?)
        // The outer cargo's choices are for the host.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .context("starting cargo for the kernel programs")?;
    ensure!(status.success(), "building the kernel programs failed: {status}");

    let mut built = BTreeMap::new();
    for program in PROGRAMS {
        let path = target.join("bpfel-unknown-none/release").join(program);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut bytes =
            without_debug_sections(&bytes).with_context(|| format!("stripping {}", path.display()))?;
        without_crate_hashes(&mut bytes);
        built.insert(format!("{program}.bpf.o"), bytes);
    }
    Ok(built)
}

/// Compiler flags: BTF from debug info, 32-bit operations (`v3`, Linux 5.1), and no path of this machine.
fn rustflags(root: &Path, tools: &Tools) -> Result<Vec<String>> {
    let mut flags: Vec<String> =
        ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"].map(str::to_owned).to_vec();
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    remap(&root.canonicalize()?, "headgate");
    remap(root, "headgate");
    let library = tools.sysroot.join("lib/rustlib/src/rust");
    remap(&library.canonicalize()?, "rust");
    remap(&library, "rust");
    // One directory per registry, named after the registry's address.
    let registries = cargo_home()?.join("registry/src");
    if let Ok(entries) = fs::read_dir(&registries) {
        for entry in entries {
            remap(&entry?.path(), "crates");
        }
    }
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME")
        .context("neither CARGO_HOME nor HOME is set: set one, so that crate paths can be remapped")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

fn path_starting_with(program: &Path) -> Result<std::ffi::OsString> {
    let first = program.parent().context("a program found on disk has a directory")?.to_owned();
    let rest = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(std::iter::once(first).chain(env::split_paths(&rest)))?)
}

/// The tools the objects are made with, all found and of the right version.
struct Tools {
    rustc: PathBuf,
    sysroot: PathBuf,
    llvm: PathBuf,
    llvm_version: String,
    linker: PathBuf,
}

/// What is missing, and how to get it.
struct Missing(Vec<String>);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "ebpf: the tool chain for the kernel programs is incomplete:")?;
        for line in &self.0 {
            writeln!(f, "  - {line}")?;
        }
        write!(
            f,
            "install it on Debian 12 with\n  apt-get install rustc-web rust-web-src\n  cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked"
        )
    }
}

impl Tools {
    fn find() -> Result<Self, Missing> {
        let mut missing = Vec::new();
        let rustc =
            env::var_os("HEADGATE_BPF_RUSTC").map_or_else(|| PathBuf::from("/usr/bin/rustc"), PathBuf::from);
        let version = output_of(&rustc, &["-vV"]).unwrap_or_default();
        let field = |name: &str| {
            version.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
        };
        let release = field("release:");
        if release.as_deref() != Some(RUSTC_RELEASE) {
            missing.push(format!(
                "rustc {RUSTC_RELEASE}: {} is {} (Debian package rustc-web; HEADGATE_BPF_RUSTC names another place)",
                rustc.display(),
                release.as_deref().unwrap_or("absent")
            ));
        }
        let sysroot = PathBuf::from(output_of(&rustc, &["--print=sysroot"]).unwrap_or_default().trim());
        let library = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !library.is_file() {
            missing.push(format!(
                "the standard library's source: no {} (Debian package rust-web-src)",
                library.display()
            ));
        }
        let llvm_version = field("LLVM version:").unwrap_or_default();
        let llvm = find_llvm(&llvm_version);
        if llvm.is_none() {
            missing.push(format!("the compiler's libLLVM {llvm_version} (comes with Debian's rustc-web)"));
        }
        let linker = find_linker();
        if linker.is_none() {
            missing.push(format!("bpf-linker {BPF_LINKER_VERSION} on PATH or in cargo's bin directory"));
        }
        match (llvm, linker) {
            (Some(llvm), Some(linker)) if missing.is_empty() => {
                Ok(Self { rustc, sysroot, llvm, llvm_version, linker })
            }
            _ => Err(Missing(missing)),
        }
    }
}

/// The shared library of the compiler's LLVM: `libLLVM.so.MAJOR.MINOR`, where distributions put it.
fn find_llvm(version: &str) -> Option<PathBuf> {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    let directories = [
        format!("/usr/lib/{}-linux-gnu", env::consts::ARCH),
        format!("/usr/lib/llvm-{major}/lib"),
        "/usr/lib64".to_owned(),
        "/usr/lib".to_owned(),
    ];
    directories
        .iter()
        .map(|directory| Path::new(directory).join(format!("libLLVM.so.{major}.{minor}")))
        .find(|p| p.is_file())
}

fn find_linker() -> Option<PathBuf> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let cargo_bin = cargo_home().ok().map(|home| home.join("bin"));
    env::split_paths(&on_path).chain(cargo_bin).map(|directory| directory.join("bpf-linker")).find(|path| {
        output_of(path, &["--version"])
            .is_some_and(|text| text.split_whitespace().any(|word| word == BPF_LINKER_VERSION))
    })
}

fn output_of(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn repository_root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest.parent().context("xtask lies in the repository's root")?.to_owned())
}

fn note(tools: &Tools, sources: u64, built: &BTreeMap<String, Vec<u8>>) -> String {
    let mut note = format!(
        "# Written by `cargo xtask ebpf`, compared by `cargo xtask ebpf --check`.\nrustc {RUSTC_RELEASE}\nllvm {}\nbpf-linker {BPF_LINKER_VERSION}\n{}\n",
        tools.llvm_version,
        sources_line(sources)
    );
    for (name, bytes) in built {
        note.push_str(&format!("{name} {} bytes, fnv1a {:016x}\n", bytes.len(), fnv1a(FNV_BASIS, bytes)));
    }
    note
}

fn sources_line(sources: u64) -> String {
    format!("sources fnv1a {sources:016x}")
}

/// One number for everything the objects are made of. It finds forgotten rebuilds, not forgeries.
fn hash_of_sources(root: &Path) -> Result<u64> {
    let mut files = Vec::new();
    for directory in ["ebpf/programs/src", "ebpf/records/src"] {
        list(&root.join(directory), &mut files)?;
    }
    for file in ["ebpf/programs/Cargo.toml", "ebpf/programs/Cargo.lock", "ebpf/records/Cargo.toml"] {
        files.push(root.join(file));
    }
    files.sort();
    let mut hash = FNV_BASIS;
    for file in files {
        let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        // Lengths keep a byte from moving between a name and its contents unseen.
        hash = fnv1a(hash, &name.len().to_le_bytes());
        hash = fnv1a(hash, name.as_bytes());
        hash = fnv1a(hash, &bytes.len().to_le_bytes());
        hash = fnv1a(hash, &bytes);
    }
    Ok(hash)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Replaces the crates' hashes in names of functions by zeros: cargo makes them from where a dependency outside the
/// programs' own workspace lies, and an object must not depend on that. Names are otherwise as the compiler made them:
/// `_RNv..Cs` and a number to base 62, `_`, and the crate's name with its length.
fn without_crate_hashes(object: &mut [u8]) {
    const MARK: &[u8] = b"Cs";
    const DIGITS: std::ops::RangeInclusive<usize> = 8..=12;
    for name in object.split_mut(|byte| *byte == 0).filter(|name| name.starts_with(b"_R")) {
        let mut at = 0;
        while let Some(found) = name[at..].windows(MARK.len()).position(|two| two == MARK) {
            let start = at + found + MARK.len();
            let digits = name[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            let after = name.get(start + digits..start + digits + 2);
            let is_hash = DIGITS.contains(&digits)
                && after.is_some_and(|after| after[0] == b'_' && after[1].is_ascii_digit());
            if is_hash {
                name[start..start + digits].fill(b'0');
            }
            at = start;
        }
    }
}

/// Rewrites a 64-bit little-endian ELF object without its DWARF sections.
///
/// BTF has been made from them and the loader reads nothing else; they hold nine tenths of the bytes and most of what
/// varies between machines. Their headers stay behind as empty `SHT_NULL` entries, so that no section index in symbols
/// or relocations changes.
fn without_debug_sections(elf: &[u8]) -> Result<Vec<u8>> {
    const HEADER: usize = 64;
    const SECTION: usize = 64;
    const SHT_NOBITS: u64 = 8;
    ensure!(
        elf.len() >= HEADER && elf.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF file"
    );
    let table = number(elf, 40, 8)?;
    let (count, names) = (number(elf, 60, 2)?, number(elf, 62, 2)?);
    ensure!(number(elf, 58, 2)? == SECTION, "unexpected section header size");

    let header = |index: usize| -> Result<&[u8]> {
        elf.get(table + index * SECTION..table + (index + 1) * SECTION).context("section header past the end")
    };
    let contents = |header: &[u8]| -> Result<&[u8]> {
        let (at, size) = (number(header, 24, 8)?, number(header, 32, 8)?);
        elf.get(at..at.checked_add(size).context("section size overflows")?).context("section past the end")
    };
    let strings = contents(header(names)?)?;

    let mut out = elf[..HEADER].to_vec();
    let mut headers = Vec::with_capacity(count * SECTION);
    for index in 0..count {
        let original = header(index)?;
        let name = strings.get(number(original, 0, 4)?..).context("section name past the end")?;
        let mut kept = original.to_vec();
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            kept[4..].fill(0);
        } else if number(original, 4, 4)? as u64 != SHT_NOBITS && index != 0 {
            let alignment = number(original, 48, 8)?.max(1);
            out.resize(out.len().next_multiple_of(alignment), 0);
            kept[24..32].copy_from_slice(&(out.len() as u64).to_le_bytes());
            out.extend_from_slice(contents(original)?);
        }
        headers.extend_from_slice(&kept);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let table = out.len() as u64;
    out[40..48].copy_from_slice(&table.to_le_bytes());
    out.extend_from_slice(&headers);
    Ok(out)
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Result<usize> {
    let field = bytes.get(at..at + size).context("field past the end")?;
    let value = field.iter().rev().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
    usize::try_from(value).context("field larger than memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hashes_of_crates_go_from_names() {
        let mut object =
            b"\x7fELF\0_RYvNvNtCscueUfMKcYsp_6border3rowINtCsiEHDzxyzcHT_4core\0Csabcdefghijk_6border\0_RCsab_1x\0".to_vec();
        without_crate_hashes(&mut object);
        let expected =
            b"\x7fELF\0_RYvNvNtCs00000000000_6border3rowINtCs00000000000_4core\0Csabcdefghijk_6border\0_RCsab_1x\0";
        assert_eq!(object, expected);
    }
}
