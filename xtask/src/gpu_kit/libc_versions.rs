//! Which version of the C library a program wants.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::read::elf::{ElfFile64, FileHeader as _, SectionHeader as _};

/// Fails when a program wants a newer C library than the baseline, and names the versions.
pub(super) fn check(program: &Path, baseline: (u32, u32)) -> Result<()> {
    let bytes = std::fs::read(program).with_context(|| program.display().to_string())?;
    let newest = newest(&bytes).with_context(|| program.display().to_string())?;
    ensure!(
        newest <= baseline,
        "{} wants glibc {}.{}, and the kit promises to run on {}.{}: build it on an older system, or raise the baseline in \
         xtask/src/gpu_kit/mod.rs and docs/gpu-kit.md",
        program.display(),
        newest.0,
        newest.1,
        baseline.0,
        baseline.1
    );
    Ok(())
}

/// The newest `GLIBC_x.y` that an ELF file needs; `(0, 0)` when it needs none.
fn newest(bytes: &[u8]) -> Result<(u32, u32)> {
    let elf = ElfFile64::<object::Endianness>::parse(bytes)?;
    let endian = elf.endian();
    let sections = elf.elf_header().sections(endian, bytes)?;
    let mut newest = (0, 0);
    for section in sections.iter() {
        let Some((mut needed, link)) = section.gnu_verneed(endian, bytes)? else { continue };
        let strings = sections.strings(endian, bytes, link)?;
        while let Some((_, mut versions)) = needed.next()? {
            while let Some(version) = versions.next()? {
                let name = version.name(endian, strings)?;
                newest = newest.max(parse(std::str::from_utf8(name)?).unwrap_or((0, 0)));
            }
        }
    }
    Ok(newest)
}

/// `GLIBC_2.34` as `(2, 34)`; other version names, and private ones, are none.
fn parse(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("GLIBC_2.34"), Some((2, 34)));
        assert_eq!(parse("GLIBC_2.2.5"), Some((2, 2)));
        assert!(parse("GLIBC_2.4") < parse("GLIBC_2.34"));
        assert_eq!(parse("GLIBC_PRIVATE"), None);
        assert_eq!(parse("GCC_3.0"), None);
    }

    #[test]
    fn this_program_wants_some_version_and_an_older_baseline_is_refused_by_name() {
        let this = std::env::current_exe().unwrap();
        let newest = newest(&std::fs::read(&this).unwrap()).unwrap();
        assert!((2, 2) <= newest, "{newest:?}");
        check(&this, newest).unwrap();
        let refused = check(&this, (2, 2)).unwrap_err().to_string();
        assert!(refused.contains(&format!("wants glibc {}.{}", newest.0, newest.1)), "{refused}");
    }
}
