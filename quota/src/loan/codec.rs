//! The ledger as text, for stores and for people who look into them.
//!
//! ```text
//! headgate-ledger 1 epoch=7
//! loan=south-1/12/3 owner=cases guest=south/alerts data=derived class=express sm=300000 memory=0 holder=12 ...
//! ```
//!
//! Every line must be complete and in order: what an older or newer daemon wrote differently is refused whole,
//! never half understood.

use core::fmt::{self, Write as _};
use core::str::FromStr;

use super::amount::Amount;
use super::ledger::{Ledger, Loan, Standing};
use super::limits::{LEDGER_BYTES_MAX, LOANS_PER_DEVICE_MAX};
use super::names::{Tenant, number};
use super::terms::Terms;
use crate::units::{Bytes, Micros, Share};

const HEAD: &str = "headgate-ledger 1";

/// A stored text that is no ledger. The store, or another version of the daemon, is to blame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLedger {
    /// The line, from one.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for BadLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ledger line {}: {}; was it written by another version?", self.line, self.what)
    }
}

impl core::error::Error for BadLedger {}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD} epoch={}", self.epoch)?;
        for loan in &self.loans {
            write_loan(f, loan)?;
            f.write_char('\n')?;
        }
        Ok(())
    }
}

fn write_loan(f: &mut fmt::Formatter<'_>, loan: &Loan) -> fmt::Result {
    let terms = &loan.terms;
    let standing = match loan.standing {
        Standing::Active => "active",
        Standing::Cut => "cut",
    };
    write!(
        f,
        "loan={} owner={} guest={} data={} class={}",
        loan.id,
        loan.owner,
        loan.guest,
        loan.data,
        loan.class.word()
    )?;
    write!(
        f,
        " sm={} memory={} holder={} age={} standing={standing}",
        loan.amount.sm.0, loan.amount.memory.0, loan.holder, loan.age.0
    )?;
    write!(
        f,
        " ttl={} renew={} margin={} skew={} min={} max={} notice={}",
        terms.ttl.0,
        terms.renew.0,
        terms.margin.0,
        terms.skew_permille,
        terms.min_duration.0,
        terms.max_duration.0,
        terms.notice.0
    )
}

impl FromStr for Ledger {
    type Err = BadLedger;

    fn from_str(text: &str) -> Result<Self, BadLedger> {
        let bad = |line, what| BadLedger { line, what };
        if LEDGER_BYTES_MAX < text.len() {
            return Err(bad(1, "longer than any ledger"));
        }
        let Some(body) = text.strip_suffix('\n') else {
            return Err(bad(text.lines().count().max(1), "cut off"));
        };
        let mut lines = body.split('\n').enumerate().map(|(index, line)| (index + 1, line));
        let head = lines.next().and_then(|(_, line)| line.strip_prefix(HEAD)?.strip_prefix(" epoch="));
        let epoch = head.and_then(number).ok_or(bad(1, "not a ledger of version 1"))?;
        let mut loans: Vec<Loan> = Vec::new();
        for (number, line) in lines {
            let loan = read_loan(line).map_err(|what| bad(number, what))?;
            if loans.iter().any(|known| known.id == loan.id) {
                return Err(bad(number, "a loan recorded twice"));
            }
            if loans.len() == LOANS_PER_DEVICE_MAX {
                return Err(bad(number, "more loans than a device can have"));
            }
            loans.push(loan);
        }
        Ok(Self { epoch, loans })
    }
}

struct Fields<'a>(core::str::Split<'a, char>);

impl<'a> Fields<'a> {
    fn next(&mut self, key: &'static str) -> Result<&'a str, &'static str> {
        self.0
            .next()
            .and_then(|field| field.split_once('='))
            .filter(|(found, _)| *found == key)
            .map(|(_, value)| value)
            .ok_or("a field is missing, unknown or out of order")
    }

    fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, &'static str> {
        parse(self.next(key)?).ok_or("a field's value is not of its kind")
    }

    fn micros(&mut self, key: &'static str) -> Result<Micros, &'static str> {
        self.parsed(key, number).map(Micros)
    }
}

fn read_loan(line: &str) -> Result<Loan, &'static str> {
    let mut fields = Fields(line.split(' '));
    let loan = Loan {
        id: fields.parsed("loan", |text| text.parse().ok())?,
        owner: fields.parsed("owner", Tenant::new)?,
        guest: fields.parsed("guest", |text| text.parse().ok())?,
        data: fields.parsed("data", |text| text.parse().ok())?,
        class: fields.parsed("class", |text| text.parse().ok())?,
        amount: Amount {
            sm: fields.parsed("sm", number).map(Share)?,
            memory: fields.parsed("memory", number).map(Bytes)?,
        },
        holder: fields.parsed("holder", number)?,
        age: fields.micros("age")?,
        standing: fields.parsed("standing", |text| match text {
            "active" => Some(Standing::Active),
            "cut" => Some(Standing::Cut),
            _ => None,
        })?,
        terms: Terms {
            ttl: fields.micros("ttl")?,
            renew: fields.micros("renew")?,
            margin: fields.micros("margin")?,
            skew_permille: fields.parsed("skew", number)?,
            min_duration: fields.micros("min")?,
            max_duration: fields.micros("max")?,
            notice: fields.micros("notice")?,
        },
    };
    if fields.0.next().is_some() {
        return Err("a field too many");
    }
    if loan.terms.check().is_err() {
        return Err("times that do not fit together");
    }
    Ok(loan)
}
