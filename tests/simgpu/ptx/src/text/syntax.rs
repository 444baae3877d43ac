//! A module as its text says it, with names unresolved and instructions not yet understood.

use super::token::Number;
use crate::error::Place;
use crate::types::{Space, Type};

/// A whole text.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) target: u32,
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) functions: Vec<Routine<'a>>,
}

/// A variable or a parameter.
#[derive(Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) space: Space,
    pub(crate) name: &'a str,
    pub(crate) element: Type,
    /// Bytes of the whole; zero for an array without a length.
    pub(crate) bytes: u64,
    pub(crate) align: u64,
    pub(crate) initialiser: Vec<Initialiser<'a>>,
    pub(crate) managed: bool,
    pub(crate) linkage: Linkage,
    pub(crate) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linkage {
    Module,
    Visible,
    Weak,
    Extern,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Initialiser<'a> {
    Number(Number, bool),
    /// The address of a variable or function plus so many bytes.
    Address {
        name: &'a str,
        addend: i64,
        place: Place,
    },
}

/// An `.entry` or `.func`.
#[derive(Debug)]
pub(crate) struct Routine<'a> {
    pub(crate) name: &'a str,
    pub(crate) is_entry: bool,
    pub(crate) returns: Vec<Variable<'a>>,
    pub(crate) params: Vec<Variable<'a>>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    /// `None` for a declaration.
    pub(crate) body: Option<Vec<Statement<'a>>>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum Statement<'a> {
    Open,
    Close,
    /// One name of a `.reg` declaration, with the count of `%r<n>`.
    Register {
        name: &'a str,
        count: Option<u32>,
        register: Type,
        place: Place,
    },
    Variable(Variable<'a>),
    Label(&'a str, Place),
    /// `name: .branchtargets a, b;`
    Targets(&'a str, Vec<(&'a str, Place)>, Place),
    /// `name: .callprototype (...) _ (...);`: sizes of returns and parameters.
    Prototype(&'a str, Vec<u64>, Vec<u64>, Place),
    Instruction(Instruction<'a>),
}

#[derive(Debug)]
pub(crate) struct Instruction<'a> {
    /// The guard register, and whether it is negated.
    pub(crate) guard: Option<(&'a str, bool)>,
    pub(crate) opcode: &'a str,
    pub(crate) operands: Vec<Operand<'a>>,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) struct Operand<'a> {
    pub(crate) shape: Shape<'a>,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape<'a> {
    /// A register, variable, label or function, plus a constant number of bytes.
    Name(&'a str, i64),
    /// A literal and whether it is negated.
    Number(Number, bool),
    Not(&'a str),
    /// `p|q`
    Pair(&'a str, &'a str),
    Vector(Vec<Operand<'a>>),
    Address(Box<Operand<'a>>),
    /// The parentheses of a call.
    Group(Vec<Operand<'a>>),
}
