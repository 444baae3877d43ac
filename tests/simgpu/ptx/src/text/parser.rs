//! The grammar of a module: header, directives, functions. Declarations and bodies have rooms of their own.

use super::syntax::{Linkage, Routine, Source};
use super::token::{Kind, Number, Token, tokens};
use crate::error::{ParseError, Place};

/// Parses a whole text.
pub(crate) fn parse(text: &str) -> Result<Source<'_>, ParseError> {
    let tokens = tokens(text)?;
    Parser { tokens, at: 0, instructions: 0 }.module()
}

pub(super) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Instructions of the whole module so far.
    pub(super) instructions: usize,
}

pub(super) type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Token<'a> {
        // The last token is `End` and nothing moves past it.
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .copied()
            .unwrap_or(Token { kind: Kind::End, place: Place::default() })
    }

    pub(super) fn ahead(&self, by: usize) -> Kind<'a> {
        self.tokens.get(self.at + by).map_or(Kind::End, |token| token.kind)
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek().kind == Kind::Punct(c);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek().kind == Kind::Word(word);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn expect(&mut self, c: char) -> Parsed<()> {
        let token = self.next();
        if token.kind == Kind::Punct(c) {
            return Ok(());
        }
        Err(token.place.invalid(format!("expected `{c}`, found {}", token.kind)))
    }

    pub(super) fn word(&mut self, what: &str) -> Parsed<(&'a str, Place)> {
        let token = self.next();
        match token.kind {
            Kind::Word(word) => Ok((word, token.place)),
            other => Err(token.place.invalid(format!("expected {what}, found {other}"))),
        }
    }

    pub(super) fn identifier(&mut self, what: &str) -> Parsed<(&'a str, Place)> {
        let (word, place) = self.word(what)?;
        if word.starts_with('.') {
            return Err(place.invalid(format!("expected {what}, found `{word}`")));
        }
        Ok((word, place))
    }

    pub(super) fn integer(&mut self, what: &str) -> Parsed<(u64, Place)> {
        let token = self.next();
        match token.kind {
            Kind::Number(Number::Integer(value)) => Ok((value, token.place)),
            other => Err(token.place.invalid(format!("expected {what}, found {other}"))),
        }
    }

    pub(super) fn small(&mut self, what: &str) -> Parsed<u32> {
        let (value, place) = self.integer(what)?;
        u32::try_from(value).map_err(|_| place.invalid(format!("{value} is too large for {what}")))
    }

    /// Skips what is left of the line that `from` is on; `.loc` and `.file` end with their line.
    pub(super) fn skip_line(&mut self, from: Place) {
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

    pub(super) fn pragma(&mut self) -> Parsed<()> {
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

    pub(super) fn linkage(&mut self) -> Parsed<Linkage> {
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
}

pub(super) fn directive_error(place: Place, word: &str) -> ParseError {
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
