//! Where the probes would sit in a driver library, without attaching any: what to look at on a new driver.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use crate::{
    error::Error,
    site::{launch, ledger_call, sites, sync_call},
};

/// A call of a driver library and where its probe would sit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Exported names, aliases included.
    pub symbols: Vec<String>,
    /// Offset of the probe in the file.
    pub offset: u64,
    /// Whether the kernel carries out the instruction there itself.
    pub cheap: bool,
    /// The bytes from the probe on.
    pub code: [u8; 16],
}

/// The calls that have probes in a driver library: those that wait, those that launch, those of the second ledger.
///
/// # Errors
/// [`Error::Library`] or [`Error::NotDriver`] when the file cannot be read as one.
pub fn survey(path: &Path) -> Result<Vec<Surveyed>, Error> {
    let failed = |source| Error::Library { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut surveyed = Vec::new();
    for site in sites(&file, path, [sync_call, launch, ledger_call])?.into_iter().flatten() {
        let mut code = [0; 16];
        file.read_exact_at(&mut code, site.offset).map_err(failed)?;
        surveyed.push(Surveyed { symbols: site.symbols, offset: site.offset, cheap: site.cheap, code });
    }
    Ok(surveyed)
}
