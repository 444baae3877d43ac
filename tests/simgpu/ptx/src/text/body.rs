//! The body of a function: declarations, labels, instructions and their operands.

use super::parser::{Parsed, Parser, directive_error};
use super::syntax::{Instruction, Linkage, Operand, Shape, Statement, Variable};
use super::token::Kind;
use crate::limits;
use crate::types::Type;

impl<'a> Parser<'a> {
    pub(super) fn body(&mut self) -> Parsed<Vec<Statement<'a>>> {
        let open = self.peek().place;
        self.expect('{')?;
        let mut depth = 1usize;
        let mut statements = Vec::new();
        loop {
            let token = self.peek();
            match token.kind {
                Kind::End => return Err(open.invalid("this `{` has no matching `}`")),
                Kind::Punct('{') => {
                    self.next();
                    depth += 1;
                    if depth > limits::SCOPE_DEPTH_MAX {
                        return Err(token
                            .place
                            .limit(format!("blocks nested deeper than {}", limits::SCOPE_DEPTH_MAX)));
                    }
                    statements.push(Statement::Open);
                }
                Kind::Punct('}') => {
                    self.next();
                    depth -= 1;
                    if depth == 0 {
                        return Ok(statements);
                    }
                    statements.push(Statement::Close);
                }
                Kind::Punct(';') => {
                    self.next();
                }
                Kind::Punct('@') if self.ahead(1) == Kind::Punct('@') => self.skip_line(token.place),
                Kind::Word(".loc" | ".file") => self.skip_line(token.place),
                Kind::Word(".pragma") => self.pragma()?,
                Kind::Word(".reg") => self.registers(&mut statements)?,
                Kind::Word(".local" | ".shared" | ".shared::cta" | ".param" | ".global" | ".const") => {
                    statements.extend(self.variables(Linkage::Module)?.into_iter().map(Statement::Variable));
                }
                Kind::Word(".extern" | ".visible" | ".weak") => {
                    let linkage = self.linkage()?;
                    statements.extend(self.variables(linkage)?.into_iter().map(Statement::Variable));
                }
                Kind::Word(word) if word.starts_with('.') => return Err(directive_error(token.place, word)),
                Kind::Word(_) if self.ahead(1) == Kind::Punct(':') => self.label(&mut statements)?,
                _ => {
                    self.instructions += 1;
                    if self.instructions > limits::INSTRUCTIONS_MAX {
                        return Err(token
                            .place
                            .limit(format!("more than {} instructions", limits::INSTRUCTIONS_MAX)));
                    }
                    let instruction = self.instruction()?;
                    statements.push(Statement::Instruction(instruction));
                }
            }
        }
    }

    fn registers(&mut self, statements: &mut Vec<Statement<'a>>) -> Parsed<()> {
        self.next();
        let (word, place) = self.word("the type of a register")?;
        let register = Type::parse(word.trim_start_matches('.')).filter(|_| word.starts_with('.'));
        let register = match register {
            Some(register) if register.bits() != 8 => register,
            Some(_) => return Err(place.invalid("registers have at least 16 bits")),
            None if matches!(word, ".b128" | ".v2" | ".v4") => {
                return Err(place.unsupported(format!("registers of type `{word}`")));
            }
            None => return Err(place.invalid(format!("`{word}` is not the type of a register"))),
        };
        loop {
            let (name, place) = self.identifier("the name of a register")?;
            let mut count = None;
            if self.eat('<') {
                count = Some(self.small("a number of registers")?);
                self.expect('>')?;
            }
            statements.push(Statement::Register { name, count, register, place });
            if !self.eat(',') {
                return self.expect(';');
            }
        }
    }

    fn label(&mut self, statements: &mut Vec<Statement<'a>>) -> Parsed<()> {
        let (name, place) = self.word("a label")?;
        self.expect(':')?;
        match self.peek().kind {
            Kind::Word(".branchtargets") => {
                self.next();
                let mut targets = Vec::new();
                loop {
                    targets.push(self.identifier("a label")?);
                    if !self.eat(',') {
                        break;
                    }
                }
                self.expect(';')?;
                statements.push(Statement::Targets(name, targets, place));
            }
            Kind::Word(".callprototype") => {
                self.next();
                let returns = if self.eat('(') { self.params()? } else { Vec::new() };
                self.identifier("`_`")?;
                let params = if self.eat('(') { self.params()? } else { Vec::new() };
                self.eat_word(".noreturn");
                self.expect(';')?;
                let sizes = |list: Vec<Variable<'_>>| list.iter().map(|param| param.bytes).collect();
                statements.push(Statement::Prototype(name, sizes(returns), sizes(params), place));
            }
            Kind::Word(word @ ".calltargets") => {
                return Err(place.unsupported(format!("the directive `{word}`")));
            }
            _ => statements.push(Statement::Label(name, place)),
        }
        Ok(())
    }

    fn instruction(&mut self) -> Parsed<Instruction<'a>> {
        let guard = if self.eat('@') {
            let negated = self.eat('!');
            Some((self.identifier("a predicate register")?.0, negated))
        } else {
            None
        };
        let (opcode, place) = self.identifier("an instruction")?;
        let mut operands = Vec::new();
        if !self.eat(';') {
            loop {
                operands.push(self.operand(0)?);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(';')?;
        }
        Ok(Instruction { guard, opcode, operands, place })
    }

    fn operand(&mut self, depth: usize) -> Parsed<Operand<'a>> {
        let token = self.next();
        let place = token.place;
        let shape = match token.kind {
            Kind::Word(word) if !word.starts_with('.') => {
                if self.eat('|') {
                    Shape::Pair(word, self.identifier("a register")?.0)
                } else {
                    Shape::Name(word, self.addend()?)
                }
            }
            Kind::Number(number) => Shape::Number(number, false),
            Kind::Punct('-') => match self.next().kind {
                Kind::Number(number) => Shape::Number(number, true),
                other => return Err(place.invalid(format!("expected a number after `-`, found {other}"))),
            },
            Kind::Punct('!') => Shape::Not(self.identifier("a predicate register")?.0),
            Kind::Punct('{') if depth == 0 => Shape::Vector(self.operands_until('}')?),
            Kind::Punct('(') if depth == 0 => Shape::Group(self.operands_until(')')?),
            Kind::Punct('[') if depth == 0 => {
                let inner = self.operand(1)?;
                if self.peek().kind == Kind::Punct(',') {
                    return Err(place.unsupported("addresses of textures and tensors"));
                }
                self.expect(']')?;
                Shape::Address(Box::new(inner))
            }
            other => return Err(place.invalid(format!("expected an operand, found {other}"))),
        };
        Ok(Operand { shape, place })
    }

    fn operands_until(&mut self, close: char) -> Parsed<Vec<Operand<'a>>> {
        let mut operands = Vec::new();
        if self.eat(close) {
            return Ok(operands);
        }
        loop {
            operands.push(self.operand(1)?);
            if !self.eat(',') {
                self.expect(close)?;
                return Ok(operands);
            }
        }
    }
}
