//! What can be wrong with a PTX text, with its place in it.

use std::fmt;

/// Why a text was refused. Each kind is a different CUDA error of a real driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParseErrorKind {
    /// The text is not PTX: a wrong token, an unknown name, operands that do not fit. `CUDA_ERROR_INVALID_PTX`.
    Invalid,
    /// Valid PTX perhaps, but an instruction, directive or feature that this interpreter does not have. The simulated
    /// driver refuses the module as a driver's JIT refuses what it cannot compile: `CUDA_ERROR_INVALID_PTX`.
    Unsupported,
    /// The `.version` is newer than this interpreter knows. `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`.
    Version,
    /// The `.target` is not one that a current GPU can run. `CUDA_ERROR_NO_BINARY_FOR_GPU`.
    Target,
    /// A bound of [`crate::limits`] was reached. `CUDA_ERROR_INVALID_PTX`.
    Limit,
}

impl ParseErrorKind {
    /// The value of `CUresult` that `cuModuleLoadData` answers with (CUDA driver API, `cuda.h`).
    #[must_use]
    pub fn cuda_code(self) -> u32 {
        match self {
            Self::Invalid | Self::Unsupported | Self::Limit => 218,
            Self::Version => 222,
            Self::Target => 209,
        }
    }
}

/// A PTX text that was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What sort of fault it is.
    pub kind: ParseErrorKind,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What is wrong and what was expected instead.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ptx line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    pub(crate) fn error(self, kind: ParseErrorKind, message: impl Into<String>) -> ParseError {
        ParseError { kind, line: self.line, column: self.column, message: message.into() }
    }

    pub(crate) fn invalid(self, message: impl Into<String>) -> ParseError {
        self.error(ParseErrorKind::Invalid, message)
    }

    pub(crate) fn unsupported(self, message: impl Into<String>) -> ParseError {
        self.error(ParseErrorKind::Unsupported, message)
    }

    pub(crate) fn limit(self, message: impl Into<String>) -> ParseError {
        self.error(ParseErrorKind::Limit, message)
    }
}
