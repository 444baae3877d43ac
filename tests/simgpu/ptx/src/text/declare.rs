//! Declarations: variables, parameters and their initial values.

use super::parser::{Parsed, Parser};
use super::syntax::{Initialiser, Linkage, Variable};
use super::token::{Kind, Token};
use crate::limits;
use crate::types::{Space, Type};

/// What stands before the name of a variable.
#[derive(Debug)]
struct Qualifiers {
    align: Option<u64>,
    element: Option<Type>,
    lanes: u64,
    managed: bool,
}

impl<'a> Parser<'a> {
    /// One declaration of one or more variables in a state space, up to its semicolon.
    pub(super) fn variables(&mut self, linkage: Linkage) -> Parsed<Vec<Variable<'a>>> {
        let (word, place) = self.word("a state space")?;
        let space = match word {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" | ".shared::cta" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::FrameParam,
            _ => return Err(place.invalid(format!("`{word}` is not a state space"))),
        };
        let qualifiers = self.qualifiers()?;
        let mut variables = Vec::new();
        loop {
            let mut variable = self.variable(space, &qualifiers)?;
            variable.linkage = linkage;
            if self.eat('=') {
                variable.initialiser = self.initialiser(&variable)?;
            }
            variables.push(variable);
            if !self.eat(',') {
                self.expect(';')?;
                return Ok(variables);
            }
        }
    }

    /// What stands before the name of a variable or parameter.
    fn qualifiers(&mut self) -> Parsed<Qualifiers> {
        let mut found = Qualifiers { align: None, element: None, lanes: 1, managed: false };
        while let Token { kind: Kind::Word(word), place } = self.peek()
            && word.starts_with('.')
        {
            self.next();
            match word {
                ".align" => {
                    let (value, place) = self.integer("an alignment")?;
                    if !value.is_power_of_two() || value > limits::ALIGNMENT_MAX {
                        let most = limits::ALIGNMENT_MAX;
                        return Err(place.invalid(format!("{value} is not a power of two up to {most}")));
                    }
                    found.align = Some(value);
                }
                ".attribute" => {
                    self.expect('(')?;
                    let (attribute, place) = self.word("an attribute")?;
                    if attribute != ".managed" {
                        return Err(place.unsupported(format!("the attribute `{attribute}`")));
                    }
                    found.managed = true;
                    self.expect(')')?;
                }
                ".v2" => found.lanes = 2,
                ".v4" => found.lanes = 4,
                // `.param .u64 .ptr .global .align 16 name`: what a pointer parameter points to.
                ".ptr" => {
                    if let Kind::Word(".global" | ".const" | ".shared" | ".local") = self.peek().kind {
                        self.next();
                    }
                    if self.eat_word(".align") {
                        self.integer("an alignment")?;
                    }
                }
                ".texref" | ".samplerref" | ".surfref" | ".b128" => {
                    return Err(place.unsupported(format!("variables of type `{word}`")));
                }
                _ => match Type::parse(&word[1..]) {
                    Some(Type::Pred) => {
                        return Err(place.invalid("a predicate cannot be a variable in memory"));
                    }
                    Some(element) => found.element = Some(element),
                    None => return Err(place.invalid(format!("`{word}` is not a type"))),
                },
            }
        }
        Ok(found)
    }

    /// Name and dimensions.
    fn variable(&mut self, space: Space, qualifiers: &Qualifiers) -> Parsed<Variable<'a>> {
        let (name, place) = self.identifier("the name of a variable")?;
        let element = qualifiers.element.ok_or_else(|| place.invalid(format!("`{name}` has no type")))?;
        let natural = u64::from(element.bytes()) * qualifiers.lanes;
        let mut bytes = natural;
        while self.eat('[') {
            if self.eat(']') {
                bytes = 0;
                continue;
            }
            let (length, _) = self.integer("the length of an array")?;
            let most = limits::VARIABLE_BYTES_MAX;
            bytes = bytes
                .checked_mul(length)
                .filter(|&bytes| bytes <= most)
                .ok_or_else(|| place.limit(format!("`{name}` is larger than {most} bytes")))?;
            self.expect(']')?;
        }
        Ok(Variable {
            space,
            name,
            element,
            bytes,
            align: qualifiers.align.unwrap_or(natural),
            initialiser: Vec::new(),
            managed: qualifiers.managed,
            linkage: Linkage::Module,
            place,
        })
    }

    /// The values after `=`.
    pub(super) fn initialiser(&mut self, variable: &Variable<'a>) -> Parsed<Vec<Initialiser<'a>>> {
        if !matches!(variable.space, Space::Global | Space::Const) {
            return Err(variable.place.invalid("only .global and .const variables have initialisers"));
        }
        let mut values = Vec::new();
        if self.peek().kind != Kind::Punct('{') {
            values.push(self.initial_value()?);
            return Ok(values);
        }
        let mut depth = 0usize;
        loop {
            let token = self.peek();
            match token.kind {
                Kind::Punct('{') => {
                    self.next();
                    depth += 1;
                    if depth > 1 {
                        return Err(token
                            .place
                            .unsupported("initialisers nested in braces; nvcc writes them flat"));
                    }
                }
                Kind::Punct('}') => {
                    self.next();
                    return Ok(values);
                }
                Kind::Punct(',') => {
                    self.next();
                }
                Kind::End => return Err(token.place.invalid("this initialiser has no `}`")),
                _ => values.push(self.initial_value()?),
            }
        }
    }

    fn initial_value(&mut self) -> Parsed<Initialiser<'a>> {
        let negative = self.eat('-');
        let token = self.next();
        match token.kind {
            Kind::Number(number) => Ok(Initialiser::Number(number, negative)),
            Kind::Word(word) if !negative && !word.starts_with('.') => {
                let (name, place) = if word == "generic" && self.eat('(') {
                    let named = self.identifier("the name of a variable")?;
                    self.expect(')')?;
                    named
                } else {
                    (word, token.place)
                };
                let addend = self.addend()?;
                Ok(Initialiser::Address { name, addend, place })
            }
            other => Err(token.place.invalid(format!("expected a value or an address, found {other}"))),
        }
    }

    /// `+4`, `-4`, `+-4`, or nothing.
    pub(super) fn addend(&mut self) -> Parsed<i64> {
        let negative = match (self.eat('+'), self.eat('-')) {
            (false, false) => return Ok(0),
            (_, negative) => negative,
        };
        let (value, _) = self.integer("an offset")?;
        let value = value.cast_signed();
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    /// The rest of a parameter list after its `(`.
    pub(super) fn params(&mut self) -> Parsed<Vec<Variable<'a>>> {
        let mut params = Vec::new();
        if self.eat(')') {
            return Ok(params);
        }
        loop {
            let (word, place) = self.word("`.param`")?;
            if word == ".reg" {
                return Err(place.unsupported("parameters in registers; the CUDA ABI passes `.param`"));
            }
            if word != ".param" {
                return Err(place.invalid(format!("expected `.param`, found `{word}`")));
            }
            let qualifiers = self.qualifiers()?;
            params.push(self.variable(Space::FrameParam, &qualifiers)?);
            if !self.eat(',') {
                self.expect(')')?;
                return Ok(params);
            }
        }
    }
}
