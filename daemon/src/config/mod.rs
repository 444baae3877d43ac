//! Configuration: a versioned YAML document, parsed whole into checked types.
//!
//! ```text
//! text --tree--> nodes with their places --read--> model, each value checked --relations--> Config
//!                        \________________ problems, all of them, with file:line:column ______/
//! ```
//!
//! A `Config` that exists is valid; there is no half-checked one. A reload builds another and swaps.
//!
//! Read in this order: [`model`], [`enforcement`], [`loans`], [`space`], [`mod@read`], [`relations`], [`tree`], [`watch`].

pub mod enforcement;
pub mod fields;
pub mod loans;
pub mod model;
pub mod problem;
pub mod quantity;
pub mod read;
pub mod relations;
pub mod space;
pub mod tree;
pub mod watch;

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

pub use model::{Config, DeviceKey, Tenant};
pub use problem::{Place, Problem, Problems};

use crate::limits::CONFIG_BYTES_MAX;

/// Why a configuration cannot be used. The operator is at fault in each case.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}; check the path and its permissions", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file was read and is wrong.
    #[error("{0}")]
    Wrong(Problems),
}

/// A configuration and what it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Identifies the file's content in `status` and metrics. Not a signature.
    pub hash: String,
}

/// Reads and checks a file.
pub fn load(file: &Path) -> Result<Loaded, ConfigError> {
    check(file, &read(file)?)
}

/// Checks what was read from a file.
pub fn check(file: &Path, text: &str) -> Result<Loaded, ConfigError> {
    let config = parse(&file.display().to_string(), text).map_err(ConfigError::Wrong)?;
    Ok(Loaded { config, hash: content_hash(text) })
}

/// Checks a document. `file` is only named in problems.
pub fn parse(file: &str, text: &str) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    let config = tree::parse(text, &mut problems).and_then(|root| read::config(&root, &mut problems));
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems::new(file, problems)),
    }
}

/// Reads a file of bounded size.
pub fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length <= CONFIG_BYTES_MAX as u64 {
        return std::fs::read_to_string(file).map_err(unreadable);
    }
    Err(unreadable(std::io::Error::other(format!("{length} bytes, above the bound of {CONFIG_BYTES_MAX}"))))
}

/// Identifies the content of a file.
#[must_use]
pub fn content_hash(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    format!("{:016x}", hasher.finish())
}
