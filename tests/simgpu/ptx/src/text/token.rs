//! Tokens of PTX text. Comments and white space vanish here.

use crate::error::{ParseError, Place};
use crate::limits;

/// One token with its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) place: Place,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind<'a> {
    /// An identifier, a register, an opcode with its modifiers, a directive: everything that begins with a letter or one
    /// of `_ $ % .` and goes on with those, digits and `::`.
    Word(&'a str),
    Number(Number),
    /// The text between double quotes, escapes left as they are.
    Text(&'a str),
    Punct(char),
    /// The end of the text.
    End,
}

/// A literal. Integers carry 64 bits; the minus sign is a token of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Integer(u64),
    /// `0f` and eight hexadecimal digits.
    Single(u32),
    /// `0d` and sixteen hexadecimal digits, or a decimal with a point or an exponent.
    Double(u64),
}

impl std::fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Number(_) => f.write_str("a number"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Punct(c) => write!(f, "`{c}`"),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

/// Splits the whole text. The last token is always [`Kind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    if text.len() > limits::TEXT_BYTES_MAX {
        return Err(Place { line: 1, column: 1 }.limit(format!(
            "the text has {} bytes; at most {} are taken",
            text.len(),
            limits::TEXT_BYTES_MAX
        )));
    }
    let mut lexer = Lexer { text, at: 0, place: Place { line: 1, column: 1 } };
    // Real modules come at about five bytes a token.
    let mut tokens = Vec::with_capacity(text.len() / 5 + 1);
    loop {
        let token = lexer.next()?;
        tokens.push(token);
        if token.kind == Kind::End {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    place: Place,
}

fn begins_word(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '%' | '.')
}

fn continues_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        if c == '\n' {
            self.place.line = self.place.line.saturating_add(1);
            self.place.column = 1;
        } else {
            self.place.column = self.place.column.saturating_add(1);
        }
        Some(c)
    }

    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        while let Some(c) = self.peek() {
            if c.is_ascii_whitespace() {
                self.advance();
            } else if self.rest().starts_with("//") {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.advance();
                }
            } else if self.rest().starts_with("/*") {
                let open = self.place;
                self.advance();
                self.advance();
                while !self.rest().starts_with("*/") {
                    if self.advance().is_none() {
                        return Err(open.invalid("this comment has no end; expected `*/`"));
                    }
                }
                self.advance();
                self.advance();
            } else {
                break;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Token<'a>, ParseError> {
        self.skip_blanks()?;
        let place = self.place;
        let kind = match self.peek() {
            // Drivers take PTX as a C string, so texts often come with their terminating NUL.
            None | Some('\0') => Kind::End,
            Some(c) if begins_word(c) => Kind::Word(self.word()),
            Some(c) if c.is_ascii_digit() => Kind::Number(self.number(place)?),
            Some('"') => Kind::Text(self.quoted(place)?),
            Some(c) if "(){}[]<>,;:=+-!|@*&~?/".contains(c) => {
                self.advance();
                Kind::Punct(c)
            }
            Some(c) => return Err(place.invalid(format!("the character {c:?} does not belong in PTX"))),
        };
        Ok(Token { kind, place })
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        while let Some(c) = self.peek() {
            // `::` joins a word only where a letter follows, as in `.L2::128B`; a label's colon stays apart.
            let joined = self.rest().starts_with("::")
                && self.rest()[2..].chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
            if joined {
                self.advance();
                self.advance();
            } else if continues_word(c) {
                self.advance();
            } else {
                break;
            }
        }
        &self.text[start..self.at]
    }

    fn quoted(&mut self, open: Place) -> Result<&'a str, ParseError> {
        self.advance();
        let start = self.at;
        loop {
            match self.peek() {
                Some('"') => {
                    let text = &self.text[start..self.at];
                    self.advance();
                    return Ok(text);
                }
                Some('\\') => {
                    self.advance();
                    self.advance();
                }
                None | Some('\n') => return Err(open.invalid("this string has no closing quote on its line")),
                Some(_) => {
                    self.advance();
                }
            }
        }
    }

    fn number(&mut self, place: Place) -> Result<Number, ParseError> {
        let start = self.at;
        let mut seen = '0';
        while let Some(c) = self.peek() {
            let prefix = &self.text[start..self.at];
            let hexadecimal = prefix.len() > 1 && "xXfFdD".contains(&prefix[1..2]) && prefix.starts_with('0');
            let exponent_sign = matches!(c, '+' | '-') && matches!(seen, 'e' | 'E') && !hexadecimal;
            if !(c.is_ascii_alphanumeric() || c == '.' || exponent_sign) {
                break;
            }
            seen = c;
            self.advance();
        }
        let word = &self.text[start..self.at];
        parse_number(word).ok_or_else(|| place.invalid(format!("`{word}` is not a number PTX knows")))
    }
}

fn parse_number(word: &str) -> Option<Number> {
    let exact = |digits: &str, count: usize| {
        (digits.len() == count).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    if let Some(digits) = word.strip_prefix("0f").or_else(|| word.strip_prefix("0F")) {
        return exact(digits, 8).and_then(|bits| u32::try_from(bits).ok()).map(Number::Single);
    }
    if let Some(digits) = word.strip_prefix("0d").or_else(|| word.strip_prefix("0D")) {
        return exact(digits, 16).map(Number::Double);
    }
    let hexadecimal = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    if hexadecimal.is_none() && word.contains(['.', 'e', 'E']) {
        return word.parse::<f64>().ok().map(|value| Number::Double(value.to_bits()));
    }
    let unsigned = |digits: &str, radix| u64::from_str_radix(digits.trim_end_matches('U'), radix).ok();
    let value = if let Some(digits) = hexadecimal {
        unsigned(digits, 16)
    } else if let Some(digits) = word.strip_prefix("0b").or_else(|| word.strip_prefix("0B")) {
        unsigned(digits, 2)
    } else if word.len() > 1 && word.starts_with('0') && word != "0U" {
        unsigned(&word[1..], 8)
    } else {
        unsigned(word, 10)
    };
    value.map(Number::Integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind<'_>> {
        tokens(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn numbers_of_every_radix() {
        for (text, number) in [
            ("0", Number::Integer(0)),
            ("0U", Number::Integer(0)),
            ("42U", Number::Integer(42)),
            ("017", Number::Integer(15)),
            ("0b101", Number::Integer(5)),
            ("0xffffffffffffffff", Number::Integer(u64::MAX)),
            ("0x1e", Number::Integer(30)),
            ("0f3F800000", Number::Single(0x3f80_0000)),
            ("0d3FF0000000000000", Number::Double(0x3ff0_0000_0000_0000)),
            ("1.5", Number::Double(1.5f64.to_bits())),
            ("2.5e-3", Number::Double(2.5e-3f64.to_bits())),
        ] {
            assert_eq!(kinds(text), [Kind::Number(number), Kind::End], "{text}");
        }
        for text in ["0x", "0f3F8", "18446744073709551616", "08", "1.2.3", "0d3FF", "12abc"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_labels_and_signs() {
        assert_eq!(
            kinds("$L__BB0_2: ld.global.L2::128B.u32 %r1, [%rd1+-4]; // done"),
            [
                Kind::Word("$L__BB0_2"),
                Kind::Punct(':'),
                Kind::Word("ld.global.L2::128B.u32"),
                Kind::Word("%r1"),
                Kind::Punct(','),
                Kind::Punct('['),
                Kind::Word("%rd1"),
                Kind::Punct('+'),
                Kind::Punct('-'),
                Kind::Number(Number::Integer(4)),
                Kind::Punct(']'),
                Kind::Punct(';'),
                Kind::End
            ]
        );
    }

    #[test]
    fn errors_have_places() {
        let error = tokens("a\n  \u{fc}").unwrap_err();
        assert_eq!((error.line, error.column), (2, 3));
        let error = tokens("a /* b").unwrap_err();
        assert_eq!((error.line, error.column), (1, 3));
        let error = tokens("\n.file 1 \"x").unwrap_err();
        assert_eq!((error.line, error.column), (2, 9));
    }
}
