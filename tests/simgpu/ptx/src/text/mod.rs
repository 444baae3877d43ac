//! From text to statements: tokens, then the grammar. Nothing here knows what an instruction means.

pub(crate) mod syntax;
pub(crate) mod token;
