//! What is wrong with a configuration, and where.

use std::fmt;

use crate::limits::CONFIG_PROBLEMS_MAX;

/// A place in the file, both counted from one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to do.
    pub text: String,
}

/// Everything wrong with a file, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems {
    file: String,
    problems: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// Sorts by place and keeps a bounded number.
    #[must_use]
    pub fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        problems.dedup();
        let left_out = problems.len().saturating_sub(CONFIG_PROBLEMS_MAX);
        problems.truncate(CONFIG_PROBLEMS_MAX);
        Self { file: file.to_owned(), problems, left_out }
    }

    /// The problems.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for Problem { place, text } in &self.problems {
            write!(f, "{separator}{}:{}:{}: {text}", self.file, place.line, place.column)?;
            separator = "\n";
        }
        if 0 < self.left_out {
            write!(f, "\n{}: and {} more problems", self.file, self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
