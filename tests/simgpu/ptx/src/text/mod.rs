//! From text to statements: tokens, then the grammar. Nothing here knows what an instruction means.

pub(crate) mod token;
pub(crate) mod syntax;
mod parser;
mod declare;
mod body;

pub(crate) use parser::parse;
