//! One instruction being decoded: its opcode split into modifiers, each of which must be used by exactly one question,
//! so that no modifier is ever ignored by accident.

use crate::alu::Rounding;
use crate::error::{ParseError, Place};
use crate::text::syntax::{Instruction, Operand};
use crate::types::Type;

pub(crate) type Parsed<T> = Result<T, ParseError>;

pub(crate) struct Form<'i, 'a> {
    pub(crate) opcode: &'a str,
    pub(crate) name: &'a str,
    modifiers: Vec<Option<&'a str>>,
    pub(crate) operands: &'i [Operand<'a>],
    pub(crate) place: Place,
}

impl<'i, 'a> Form<'i, 'a> {
    pub(crate) fn new(instruction: &'i Instruction<'a>) -> Self {
        let mut parts = instruction.opcode.split('.');
        Self {
            opcode: instruction.opcode,
            name: parts.next().unwrap_or_default(),
            modifiers: parts.map(Some).collect(),
            operands: &instruction.operands,
            place: instruction.place,
        }
    }

    /// Whether the modifier is there; using it up.
    pub(crate) fn flag(&mut self, modifier: &str) -> bool {
        match self.modifiers.iter_mut().find(|slot| **slot == Some(modifier)) {
            Some(slot) => {
                *slot = None;
                true
            }
            None => false,
        }
    }

    /// The first of these modifiers that is there.
    pub(crate) fn one_of(&mut self, choices: &[&'static str]) -> Option<&'static str> {
        let slot = self.modifiers.iter_mut().find(|slot| slot.is_some_and(|word| choices.contains(&word)))?;
        let word = slot.take()?;
        choices.iter().copied().find(|choice| *choice == word)
    }

    /// Uses up modifiers that change nothing here, such as cache hints.
    pub(crate) fn skip(&mut self, words: &[&str]) {
        for slot in &mut self.modifiers {
            if slot.is_some_and(|word| words.contains(&word)) {
                *slot = None;
            }
        }
    }

    pub(crate) fn skip_prefixes(&mut self, prefixes: &[&str]) {
        for slot in &mut self.modifiers {
            if slot.is_some_and(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))) {
                *slot = None;
            }
        }
    }

    /// The first modifier that is a type.
    pub(crate) fn maybe_type(&mut self) -> Option<Type> {
        let slot = self.modifiers.iter_mut().find(|slot| slot.and_then(Type::parse).is_some())?;
        slot.take().and_then(Type::parse)
    }

    pub(crate) fn ty(&mut self) -> Parsed<Type> {
        self.maybe_type().ok_or_else(|| self.place.invalid(format!("`{}` has no type", self.opcode)))
    }

    /// `.rn`, `.rz`, `.rm`, `.rp`.
    pub(crate) fn rounding(&mut self) -> Option<Rounding> {
        self.one_of(&["rn", "rz", "rm", "rp", "rna"]).map(|word| match word {
            "rz" => Rounding::Zero,
            "rm" => Rounding::Down,
            "rp" => Rounding::Up,
            "rna" => Rounding::NearestAway,
            _ => Rounding::NearestEven,
        })
    }

    /// `.rni`, `.rzi`, `.rmi`, `.rpi`.
    pub(crate) fn integral_rounding(&mut self) -> Option<Rounding> {
        self.one_of(&["rni", "rzi", "rmi", "rpi"]).map(|word| match word {
            "rzi" => Rounding::Zero,
            "rmi" => Rounding::Down,
            "rpi" => Rounding::Up,
            _ => Rounding::NearestEven,
        })
    }

    pub(crate) fn operands(&self, least: usize, most: usize) -> Parsed<()> {
        let count = self.operands.len();
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(self.place.invalid(format!("`{}` takes {wanted} operands, not {count}", self.opcode)))
    }

    /// Fails when a modifier was left over.
    pub(crate) fn finish(&self) -> Parsed<()> {
        match self.modifiers.iter().flatten().next() {
            Some(word) => Err(self.place.unsupported(format!("the modifier `.{word}` in `{}`", self.opcode))),
            None => Ok(()),
        }
    }

    pub(crate) fn unsupported(&self) -> ParseError {
        self.place.unsupported(format!("the instruction `{}` is not one this interpreter knows", self.opcode))
    }
}
