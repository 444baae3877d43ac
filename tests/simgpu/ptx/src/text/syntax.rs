//! The grammar: a module as its text says it, with names unresolved and instructions not yet understood.

use super::token::{Kind, Number, Token, tokens};
use crate::error::{ParseError, Place};
use crate::limits;
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

/// Parses a whole text.
pub(crate) fn parse(text: &str) -> Result<Source<'_>, ParseError> {
    let tokens = tokens(text)?;
    Parser { tokens, at: 0, instructions: 0 }.module()
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    instructions: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        // The last token is `End` and nothing moves past it.
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .copied()
            .unwrap_or(Token { kind: Kind::End, place: Place::default() })
    }

    fn ahead(&self, by: usize) -> Kind<'a> {
        self.tokens.get(self.at + by).map_or(Kind::End, |token| token.kind)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek().kind == Kind::Punct(c);
        if found {
            self.next();
        }
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek().kind == Kind::Word(word);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        let token = self.next();
        if token.kind == Kind::Punct(c) {
            return Ok(());
        }
        Err(token.place.invalid(format!("expected `{c}`, found {}", token.kind)))
    }

    fn word(&mut self, what: &str) -> Parsed<(&'a str, Place)> {
        let token = self.next();
        match token.kind {
            Kind::Word(word) => Ok((word, token.place)),
            other => Err(token.place.invalid(format!("expected {what}, found {other}"))),
        }
    }

    fn identifier(&mut self, what: &str) -> Parsed<(&'a str, Place)> {
        let (word, place) = self.word(what)?;
        if word.starts_with('.') {
            return Err(place.invalid(format!("expected {what}, found `{word}`")));
        }
        Ok((word, place))
    }

    fn integer(&mut self, what: &str) -> Parsed<(u64, Place)> {
        let token = self.next();
        match token.kind {
            Kind::Number(Number::Integer(value)) => Ok((value, token.place)),
            other => Err(token.place.invalid(format!("expected {what}, found {other}"))),
        }
    }

    fn small(&mut self, what: &str) -> Parsed<u32> {
        let (value, place) = self.integer(what)?;
        u32::try_from(value).map_err(|_| place.invalid(format!("{value} is too large for {what}")))
    }

    /// Skips what is left of the line that `from` is on; `.loc` and `.file` end with their line.
    fn skip_line(&mut self, from: Place) {
        while self.peek().place.line == from.line && self.peek().kind != Kind::End {
            self.next();
        }
    }

    fn skip_braces(&mut self) -> Parsed<()> {
        let open = self.peek().place;
        self.expect('{')?;
        let mut depth = 1usize;
        while depth > 0 {
            match self.next().kind {
                Kind::Punct('{') => depth += 1,
                Kind::Punct('}') => depth -= 1,
                Kind::End => return Err(open.invalid("this `{` has no matching `}`")),
                _ => {}
            }
        }
        Ok(())
    }

    fn module(mut self) -> Parsed<Source<'a>> {
        let version = self.version()?;
        let target = self.target()?;
        let mut source = Source { version, target, variables: Vec::new(), functions: Vec::new() };
        loop {
            let token = self.peek();
            match token.kind {
                Kind::End => return Ok(source),
                Kind::Punct(';') => {
                    self.next();
                }
                // The old form of debug lines.
                Kind::Punct('@') if self.ahead(1) == Kind::Punct('@') => self.skip_line(token.place),
                Kind::Word(".file" | ".loc") => self.skip_line(token.place),
                Kind::Word(".section") => {
                    self.next();
                    self.word("the name of a section")?;
                    self.skip_braces()?;
                }
                Kind::Word(".pragma") => self.pragma()?,
                Kind::Word(".address_size") => {
                    self.next();
                    let (bits, place) = self.integer("an address size")?;
                    if bits != 64 {
                        return Err(
                            place.unsupported(format!("{bits}-bit addresses; CUDA 12 runs only 64-bit"))
                        );
                    }
                }
                Kind::Word(word) => {
                    let linkage = self.linkage()?;
                    match self.peek().kind {
                        Kind::Word(".entry" | ".func") => source.functions.push(self.routine()?),
                        Kind::Word(".global" | ".const" | ".shared") => {
                            let more = self.variables(linkage)?;
                            source.variables.extend(more);
                        }
                        _ => return Err(directive_error(token.place, word)),
                    }
                }
                other => return Err(token.place.invalid(format!("expected a directive, found {other}"))),
            }
        }
    }

    fn version(&mut self) -> Parsed<(u32, u32)> {
        let (word, place) = self.word("`.version`")?;
        if word != ".version" {
            return Err(place.invalid(format!("expected `.version` first, found `{word}`")));
        }
        let token = self.next();
        let Kind::Number(Number::Double(bits)) = token.kind else {
            return Err(token.place.invalid(format!("expected a version like 8.2, found {}", token.kind)));
        };
        let value = f64::from_bits(bits);
        if !(1.0..100.0).contains(&value) {
            return Err(token.place.invalid(format!("{value} is not a PTX version")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value lies between 10 and 1000"
        )]
        let tenths = (value * 10.0).round() as u32;
        let version = (tenths / 10, tenths % 10);
        if version > crate::VERSION_MAX {
            let (major, minor) = crate::VERSION_MAX;
            let message = format!("PTX {}.{} is newer than {major}.{minor}", version.0, version.1);
            return Err(token.place.error(crate::ParseErrorKind::Version, message));
        }
        Ok(version)
    }

    fn target(&mut self) -> Parsed<u32> {
        let (word, place) = self.word("`.target`")?;
        if word != ".target" {
            return Err(place.invalid(format!("expected `.target` after `.version`, found `{word}`")));
        }
        let mut target = None;
        loop {
            let (word, place) = self.word("a target like sm_80")?;
            if let Some(number) = word.strip_prefix("sm_") {
                let digits = number.trim_end_matches(['a', 'f']);
                let number =
                    digits.parse().map_err(|_| place.invalid(format!("`{word}` is not a target")))?;
                target = Some(number);
            } else if !matches!(word, "debug" | "texmode_unified" | "texmode_independent" | "map_f64_to_f32")
            {
                return Err(place.invalid(format!("`{word}` is not a target")));
            }
            if !self.eat(',') {
                break;
            }
        }
        match target {
            Some(target) if target < crate::TARGET_MIN => {
                let message = format!("sm_{target} is older than sm_{}", crate::TARGET_MIN);
                Err(place.error(crate::ParseErrorKind::Target, message))
            }
            Some(target) => Ok(target),
            None => Err(place.invalid("`.target` names no architecture like sm_80")),
        }
    }

    fn pragma(&mut self) -> Parsed<()> {
        self.next();
        loop {
            let token = self.next();
            if !matches!(token.kind, Kind::Text(_)) {
                return Err(token
                    .place
                    .invalid(format!("expected the string of a pragma, found {}", token.kind)));
            }
            if !self.eat(',') {
                return self.expect(';');
            }
        }
    }

    fn linkage(&mut self) -> Parsed<Linkage> {
        let mut linkage = Linkage::Module;
        loop {
            let token = self.peek();
            linkage = match token.kind {
                Kind::Word(".visible") => Linkage::Visible,
                Kind::Word(".weak" | ".common") => Linkage::Weak,
                Kind::Word(".extern") => Linkage::Extern,
                _ => return Ok(linkage),
            };
            self.next();
        }
    }

    /// One declaration of one or more variables in a state space, up to its semicolon.
    fn variables(&mut self, linkage: Linkage) -> Parsed<Vec<Variable<'a>>> {
        let (word, place) = self.word("a state space")?;
        let space = match word {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" | ".shared::cta" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::FrameParam,
            _ => return Err(place.invalid(format!("`{word}` is not a state space"))),
        };
        let mut variables = Vec::new();
        loop {
            let mut variable = self.variable(space)?;
            variable.linkage = linkage;
            if self.eat('=') {
                variable.initialiser = self.initialiser(&variable)?;
            }
            variables.push(variable);
            // A list shares the type, which this parser reads with each name; compilers write one name each.
            if !self.eat(',') {
                break;
            }
            return Err(self.peek().place.unsupported("more than one variable in a declaration"));
        }
        self.expect(';')?;
        Ok(variables)
    }

    /// Alignment, type, name and dimensions.
    fn variable(&mut self, space: Space) -> Parsed<Variable<'a>> {
        let mut align = None;
        let mut element = None;
        let mut lanes = 1;
        let mut managed = false;
        loop {
            let Token { kind: Kind::Word(word), place } = self.peek() else { break };
            if !word.starts_with('.') {
                break;
            }
            self.next();
            match word {
                ".align" => {
                    let (value, place) = self.integer("an alignment")?;
                    if !value.is_power_of_two() || value > limits::ALIGNMENT_MAX {
                        return Err(place.invalid(format!(
                            "{value} is not a power of two up to {}",
                            limits::ALIGNMENT_MAX
                        )));
                    }
                    align = Some(value);
                }
                ".attribute" => {
                    self.expect('(')?;
                    let (attribute, place) = self.word("an attribute")?;
                    if attribute != ".managed" {
                        return Err(place.unsupported(format!("the attribute `{attribute}`")));
                    }
                    managed = true;
                    self.expect(')')?;
                }
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                // `.param .u64 .ptr .global .align 16 name`: what a pointer parameter points to.
                ".ptr" => {
                    if matches!(
                        self.peek().kind,
                        Kind::Word(".global" | ".const" | ".shared" | ".local" | ".generic")
                    ) {
                        self.next();
                    }
                    if self.eat_word(".align") {
                        self.integer("an alignment")?;
                    }
                }
                _ => match Type::parse(&word[1..]) {
                    Some(Type::Pred) => {
                        return Err(place.invalid("a predicate cannot be a variable in memory"));
                    }
                    Some(found) => element = Some(found),
                    None if matches!(word, ".texref" | ".samplerref" | ".surfref" | ".b128") => {
                        return Err(place.unsupported(format!("variables of type `{word}`")));
                    }
                    None => return Err(place.invalid(format!("`{word}` is not a type"))),
                },
            }
        }
        let (name, place) = self.identifier("the name of a variable")?;
        let element = element.ok_or_else(|| place.invalid(format!("`{name}` has no type")))?;
        let too_large =
            || place.limit(format!("`{name}` is larger than {} bytes", limits::VARIABLE_BYTES_MAX));
        let mut bytes = u64::from(element.bytes()) * lanes;
        while self.eat('[') {
            if self.eat(']') {
                bytes = 0;
                continue;
            }
            let (length, _) = self.integer("the length of an array")?;
            bytes = bytes
                .checked_mul(length)
                .filter(|&bytes| bytes <= limits::VARIABLE_BYTES_MAX)
                .ok_or_else(too_large)?;
            self.expect(']')?;
        }
        let natural = u64::from(element.bytes()) * lanes;
        Ok(Variable {
            space,
            name,
            element,
            bytes,
            align: align.unwrap_or(natural),
            initialiser: Vec::new(),
            managed,
            linkage: Linkage::Module,
            place,
        })
    }

    /// The values after `=`, nested braces flattened with their rows padded as C does it.
    fn initialiser(&mut self, variable: &Variable<'a>) -> Parsed<Vec<Initialiser<'a>>> {
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
    fn addend(&mut self) -> Parsed<i64> {
        let negative = match (self.eat('+'), self.eat('-')) {
            (false, false) => return Ok(0),
            (_, negative) => negative,
        };
        let (value, _) = self.integer("an offset")?;
        let value = value.cast_signed();
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    fn routine(&mut self) -> Parsed<Routine<'a>> {
        let (word, _) = self.word("`.entry` or `.func`")?;
        let is_entry = word == ".entry";
        let mut noted = Vec::new();
        if !is_entry && self.eat_word(".attribute") {
            return Err(self.peek().place.unsupported("attributes of functions"));
        }
        let returns = if !is_entry && self.eat('(') { self.params()? } else { Vec::new() };
        let (name, place) = self.identifier("the name of a function")?;
        let params = if self.eat('(') { self.params()? } else { Vec::new() };
        loop {
            let token = self.peek();
            match token.kind {
                Kind::Word(".maxntid") => noted.push((".maxntid", self.dimensions()?)),
                Kind::Word(".reqntid") => noted.push((".reqntid", self.dimensions()?)),
                Kind::Word(".minnctapersm" | ".maxnctapersm" | ".maxnreg") => {
                    self.next();
                    self.small("a limit")?;
                }
                Kind::Word(".noreturn") => {
                    self.next();
                }
                Kind::Word(".pragma") => self.pragma()?,
                Kind::Word(word) if word.starts_with('.') => {
                    return Err(token.place.unsupported(format!("the directive `{word}` of a function")));
                }
                _ => break,
            }
        }
        let find = |wanted| noted.iter().rev().find(|(word, _)| *word == wanted).map(|&(_, value)| value);
        let (max_threads, required_threads) = (find(".maxntid"), find(".reqntid"));
        let body = if self.eat(';') { None } else { Some(self.body()?) };
        Ok(Routine { name, is_entry, returns, params, max_threads, required_threads, body, place })
    }

    fn dimensions(&mut self) -> Parsed<[u32; 3]> {
        self.next();
        let mut sizes = [1; 3];
        for (index, size) in sizes.iter_mut().enumerate() {
            if index == 0 || self.eat(',') {
                *size = self.small("a number of threads")?;
            }
        }
        Ok(sizes)
    }

    /// The rest of a parameter list after its `(`.
    fn params(&mut self) -> Parsed<Vec<Variable<'a>>> {
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
            params.push(self.variable(Space::FrameParam)?);
            if !self.eat(',') {
                self.expect(')')?;
                return Ok(params);
            }
        }
    }

    fn body(&mut self) -> Parsed<Vec<Statement<'a>>> {
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

fn directive_error(place: Place, word: &str) -> ParseError {
    let known = [
        ".alias",
        ".texref",
        ".samplerref",
        ".surfref",
        ".tex",
        ".reg",
        ".local",
        ".param",
        ".sreg",
        ".version",
        ".target",
        ".branchtargets",
        ".callprototype",
        ".explicitcluster",
        ".reqnctapercluster",
    ];
    if known.contains(&word) {
        return place.unsupported(format!("the directive `{word}` here"));
    }
    place.invalid(format!("expected a directive, found `{word}`"))
}
