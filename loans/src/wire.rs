//! What nodes say to each other, as bytes: protocol buffers, written by hand so that no compiler is needed.
//! `proto/peer.proto` is the same for people and other languages; a test compares names, types and tags.
//!
//! Everything is checked when it is read: names are names, words are words, amounts of a loan fit its terms. A
//! message that is not whole is refused as [`Reason::Malformed`](crate::refused::Reason::Malformed).

use std::sync::Arc;

use headgate_quota::Class;
use headgate_quota::loan::{
    Amount, Ask, District, Guest, Incident, IncidentName, LoanId, Promise, Revision, Terms, ToBorrower,
    ToLender,
};
use headgate_quota::units::{Bytes, Micros, Share};

/// One message, with its place in what its sender says.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Frame {
    /// Which start of the sender's daemon.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// Counts within that start.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// What is said.
    #[prost(oneof = "Body", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub body: Option<Body>,
}

/// The message itself.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// To a lender: a new loan, please.
    #[prost(message, tag = "3")]
    Ask(WireAsk),
    /// To a lender: I still use it.
    #[prost(message, tag = "4")]
    Renew(WireRenew),
    /// To a lender: I heard the notice.
    #[prost(message, tag = "5")]
    Acknowledge(WireHeld),
    /// To a lender: I have stopped.
    #[prost(message, tag = "6")]
    Release(WireHeld),
    /// To a borrower: granted or renewed.
    #[prost(message, tag = "7")]
    Promise(WirePromise),
    /// To a borrower: no.
    #[prost(message, tag = "8")]
    Refuse(WireEnd),
    /// To a borrower: stop soon.
    #[prost(message, tag = "9")]
    Notice(WireEnd),
    /// To a borrower: it is over.
    #[prost(message, tag = "10")]
    Over(WireEnd),
    /// To a borrower: your release was heard.
    #[prost(message, tag = "11")]
    Closed(WireEnd),
}

/// [`Amount`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct WireAmount {
    /// Parts per million of a device's time.
    #[prost(uint64, tag = "1")]
    pub sm_ppm: u64,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub memory_bytes: u64,
}

/// [`Ask`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireAsk {
    /// `NODE/INCARNATION/NUMBER`.
    #[prost(string, tag = "1")]
    pub loan: String,
    /// Named in the answer.
    #[prost(uint64, tag = "2")]
    pub attempt: u64,
    /// `DISTRICT/NODE/DEVICE`.
    #[prost(string, tag = "3")]
    pub place: String,
    /// `DISTRICT/TENANT`.
    #[prost(string, tag = "4")]
    pub guest: String,
    /// Its class.
    #[prost(string, tag = "5")]
    pub class: String,
    /// What it will send.
    #[prost(string, tag = "6")]
    pub data: String,
    /// How much.
    #[prost(message, required, tag = "7")]
    pub amount: WireAmount,
}

/// [`ToLender::Renew`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireRenew {
    /// The loan.
    #[prost(string, tag = "1")]
    pub loan: String,
    /// Which start of the borrower's daemon.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Named in the answer.
    #[prost(uint64, tag = "3")]
    pub attempt: u64,
    /// The guest's class now.
    #[prost(string, tag = "4")]
    pub class: String,
}

/// [`ToLender::Acknowledge`] and [`ToLender::Release`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireHeld {
    /// The loan.
    #[prost(string, tag = "1")]
    pub loan: String,
    /// Which start of the borrower's daemon.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
}

/// [`Promise`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WirePromise {
    /// The loan.
    #[prost(string, tag = "1")]
    pub loan: String,
    /// To which start of the borrower's daemon.
    #[prost(uint64, tag = "2")]
    pub holder: u64,
    /// The sending that is answered.
    #[prost(uint64, tag = "3")]
    pub attempt: u64,
    /// The fencing token.
    #[prost(uint64, tag = "4")]
    pub token: u64,
    /// Where.
    #[prost(string, tag = "5")]
    pub place: String,
    /// How much.
    #[prost(message, required, tag = "6")]
    pub amount: WireAmount,
    /// Its times.
    #[prost(message, required, tag = "7")]
    pub terms: WireTerms,
}

/// [`Terms`], in microseconds.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct WireTerms {
    /// Life of a promise without renewal.
    #[prost(uint64, tag = "1")]
    pub ttl_us: u64,
    /// How often it is renewed.
    #[prost(uint64, tag = "2")]
    pub renew_us: u64,
    /// What the borrower stops early.
    #[prost(uint64, tag = "3")]
    pub margin_us: u64,
    /// Ratio of clocks' rates, in thousandths.
    #[prost(uint32, tag = "4")]
    pub skew_permille: u32,
    /// Shortest life of a loan.
    #[prost(uint64, tag = "5")]
    pub min_duration_us: u64,
    /// Longest life of a loan.
    #[prost(uint64, tag = "6")]
    pub max_duration_us: u64,
    /// Between calling back and taking.
    #[prost(uint64, tag = "7")]
    pub notice_us: u64,
}

/// What ends a loan, or does not begin one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireEnd {
    /// The loan.
    #[prost(string, tag = "1")]
    pub loan: String,
    /// The ledger's revision, where it matters.
    #[prost(uint64, tag = "2")]
    pub token: u64,
    /// Why, in a sentence.
    #[prost(string, tag = "3")]
    pub why: String,
}

/// A load summary, and its answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireSummary {
    /// Which start of the sender's daemon.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// Counts within that start.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// What nodes have to lend.
    #[prost(message, repeated, tag = "3")]
    pub nodes: Vec<WireNode>,
    /// Incidents that hold.
    #[prost(message, repeated, tag = "4")]
    pub incidents: Vec<WireIncident>,
}

/// A node in a summary.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireNode {
    /// Its district.
    #[prost(string, tag = "1")]
    pub district: String,
    /// Its own name.
    #[prost(string, tag = "2")]
    pub node: String,
    /// Where its daemon listens for peers.
    #[prost(string, tag = "3")]
    pub address: String,
    /// What its devices have to lend.
    #[prost(message, repeated, tag = "4")]
    pub offers: Vec<WireOffer>,
    /// How old this is, in milliseconds, when it is passed on.
    #[prost(uint64, tag = "5")]
    pub age_ms: u64,
}

/// What a device has to lend.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireOffer {
    /// The device.
    #[prost(string, tag = "1")]
    pub device: String,
    /// The most in one loan.
    #[prost(message, required, tag = "2")]
    pub amount: WireAmount,
}

/// [`Incident`], with what is left of its duration.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireIncident {
    /// Who declared it.
    #[prost(string, tag = "1")]
    pub issuer: String,
    /// Its number.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// `DISTRICT/TENANT` of each that it names.
    #[prost(string, repeated, tag = "3")]
    pub tenants: Vec<String>,
    /// The class they are raised to.
    #[prost(string, tag = "4")]
    pub class: String,
    /// What is left of it, in microseconds.
    #[prost(uint64, tag = "5")]
    pub left_us: u64,
    /// Whether what these tenants have lent is called back.
    #[prost(bool, tag = "6")]
    pub reclaim: bool,
    /// Whether it was ended before its time.
    #[prost(bool, tag = "7")]
    pub ended: bool,
    /// What it is called.
    #[prost(string, tag = "8")]
    pub name: String,
}

/// A message that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl From<Amount> for WireAmount {
    fn from(amount: Amount) -> Self {
        Self { sm_ppm: amount.sm.0, memory_bytes: amount.memory.0 }
    }
}

impl From<WireAmount> for Amount {
    fn from(wire: WireAmount) -> Self {
        Self { sm: Share(wire.sm_ppm), memory: Bytes(wire.memory_bytes) }
    }
}

impl From<Terms> for WireTerms {
    fn from(terms: Terms) -> Self {
        Self {
            ttl_us: terms.ttl.0,
            renew_us: terms.renew.0,
            margin_us: terms.margin.0,
            skew_permille: terms.skew_permille,
            min_duration_us: terms.min_duration.0,
            max_duration_us: terms.max_duration.0,
            notice_us: terms.notice.0,
        }
    }
}

impl TryFrom<WireTerms> for Terms {
    type Error = Malformed;

    fn try_from(wire: WireTerms) -> Result<Self, Malformed> {
        let terms = Self {
            ttl: Micros(wire.ttl_us),
            renew: Micros(wire.renew_us),
            margin: Micros(wire.margin_us),
            skew_permille: wire.skew_permille,
            min_duration: Micros(wire.min_duration_us),
            max_duration: Micros(wire.max_duration_us),
            notice: Micros(wire.notice_us),
        };
        terms.check().map_err(|_| Malformed)?;
        Ok(terms)
    }
}

fn read<T: std::str::FromStr>(text: &str) -> Result<T, Malformed> {
    text.parse().map_err(|_| Malformed)
}

impl From<ToLender> for Body {
    fn from(message: ToLender) -> Self {
        match message {
            ToLender::Ask(ask) => Self::Ask(WireAsk {
                loan: ask.loan.to_string(),
                attempt: ask.attempt,
                place: ask.place.to_string(),
                guest: ask.guest.to_string(),
                class: ask.class.word().to_owned(),
                data: ask.data.word().to_owned(),
                amount: ask.amount.into(),
            }),
            ToLender::Renew { loan, incarnation, attempt, class } => Self::Renew(WireRenew {
                loan: loan.to_string(),
                incarnation,
                attempt,
                class: class.word().to_owned(),
            }),
            ToLender::Acknowledge { loan, incarnation } => {
                Self::Acknowledge(WireHeld { loan: loan.to_string(), incarnation })
            }
            ToLender::Release { loan, incarnation } => {
                Self::Release(WireHeld { loan: loan.to_string(), incarnation })
            }
        }
    }
}

impl From<ToBorrower> for Body {
    fn from(message: ToBorrower) -> Self {
        let end = |loan: &LoanId, token: Revision, why: &str| WireEnd {
            loan: loan.to_string(),
            token: token.0,
            why: why.to_owned(),
        };
        match message {
            ToBorrower::Promise(promise) => Self::Promise(WirePromise {
                loan: promise.loan.to_string(),
                holder: promise.holder,
                attempt: promise.attempt,
                token: promise.token.0,
                place: promise.place.to_string(),
                amount: promise.amount.into(),
                terms: promise.terms.into(),
            }),
            ToBorrower::Refuse { loan, why } => Self::Refuse(end(&loan, Revision(0), &why)),
            ToBorrower::Notice { loan, token, why } => Self::Notice(end(&loan, token, &why)),
            ToBorrower::Over { loan, token, why } => Self::Over(end(&loan, token, &why)),
            ToBorrower::Closed { loan } => Self::Closed(end(&loan, Revision(0), "")),
        }
    }
}

/// Either kind of message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// By a borrower.
    ToLender(ToLender),
    /// By a lender.
    ToBorrower(ToBorrower),
}

impl TryFrom<Body> for Said {
    type Error = Malformed;

    fn try_from(body: Body) -> Result<Self, Malformed> {
        let held = |wire: &WireHeld| Ok((read::<LoanId>(&wire.loan)?, wire.incarnation));
        let end = |wire: WireEnd| {
            Ok((read::<LoanId>(&wire.loan)?, Revision(wire.token), Arc::<str>::from(wire.why)))
        };
        Ok(match body {
            Body::Ask(wire) => Self::ToLender(ToLender::Ask(Ask {
                loan: read(&wire.loan)?,
                attempt: wire.attempt,
                place: read(&wire.place)?,
                guest: read(&wire.guest)?,
                class: read(&wire.class)?,
                data: read(&wire.data)?,
                amount: wire.amount.into(),
            })),
            Body::Renew(wire) => Self::ToLender(ToLender::Renew {
                loan: read(&wire.loan)?,
                incarnation: wire.incarnation,
                attempt: wire.attempt,
                class: read(&wire.class)?,
            }),
            Body::Acknowledge(wire) => {
                let (loan, incarnation) = held(&wire)?;
                Self::ToLender(ToLender::Acknowledge { loan, incarnation })
            }
            Body::Release(wire) => {
                let (loan, incarnation) = held(&wire)?;
                Self::ToLender(ToLender::Release { loan, incarnation })
            }
            Body::Promise(wire) => Self::ToBorrower(ToBorrower::Promise(Promise {
                loan: read(&wire.loan)?,
                holder: wire.holder,
                attempt: wire.attempt,
                token: Revision(wire.token),
                place: read(&wire.place)?,
                amount: wire.amount.into(),
                terms: wire.terms.try_into()?,
            })),
            Body::Refuse(wire) => {
                let (loan, _, why) = end(wire)?;
                Self::ToBorrower(ToBorrower::Refuse { loan, why })
            }
            Body::Notice(wire) => {
                let (loan, token, why) = end(wire)?;
                Self::ToBorrower(ToBorrower::Notice { loan, token, why })
            }
            Body::Over(wire) => {
                let (loan, token, why) = end(wire)?;
                Self::ToBorrower(ToBorrower::Over { loan, token, why })
            }
            Body::Closed(wire) => Self::ToBorrower(ToBorrower::Closed { loan: end(wire)?.0 }),
        })
    }
}

impl WireIncident {
    /// An incident, its duration being what is left of it.
    #[must_use]
    pub fn of(incident: &Incident, ended: bool) -> Self {
        Self {
            issuer: incident.issuer.to_string(),
            number: incident.number,
            tenants: incident.tenants.iter().map(Guest::to_string).collect(),
            class: incident.class.word().to_owned(),
            left_us: incident.duration.0,
            reclaim: incident.reclaim,
            ended,
            name: incident.name.to_string(),
        }
    }

    /// The incident, to be counted from now.
    pub fn incident(&self) -> Result<Incident, Malformed> {
        Ok(Incident {
            issuer: District::new(&self.issuer).ok_or(Malformed)?,
            number: self.number,
            name: IncidentName::new(&self.name).ok_or(Malformed)?,
            tenants: self.tenants.iter().map(|text| read(text)).collect::<Result<_, _>>()?,
            class: read::<Class>(&self.class)?,
            duration: Micros(self.left_us),
            reclaim: self.reclaim,
        })
    }
}

#[cfg(test)]
mod tests {
    /// Messages of a source, each with its fields as `type name = tag`, in the proto's words.
    type Messages = std::collections::BTreeMap<String, Vec<String>>;

    fn of_proto() -> Messages {
        let mut messages = Messages::new();
        let mut current = String::new();
        for line in include_str!("../proto/peer.proto").lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("message ") {
                current = name.trim_end_matches(" {").to_owned();
            } else if let Some(field) = line.strip_suffix(';')
                && field.contains(" = ")
                && !current.is_empty()
            {
                messages.entry(current.clone()).or_default().push(field.to_owned());
            }
        }
        messages
    }

    fn of_rust() -> Messages {
        let mut messages = Messages::new();
        let (mut current, mut attribute) = (String::new(), String::new());
        let source = include_str!("wire.rs");
        let source = source.split_once("#[cfg(test)]").map_or(source, |(code, _)| code);
        for line in source.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum ")) {
                let name = name.trim_end_matches(" {").trim_start_matches("Wire");
                current = if name == "Body" { "Frame" } else { name }.to_owned();
            } else if let Some(found) = line.strip_prefix("#[prost(") {
                attribute = found.trim_end_matches(")]").to_owned();
            } else if !attribute.is_empty() && !attribute.starts_with("oneof") {
                messages.entry(current.clone()).or_default().push(field(&attribute, line));
                attribute.clear();
            } else {
                attribute.clear();
            }
        }
        messages
    }

    fn field(attribute: &str, line: &str) -> String {
        let tag = attribute.split('"').nth(1).unwrap();
        let repeated = if attribute.contains("repeated") { "repeated " } else { "" };
        let line = line.trim_end_matches(',');
        let (name, kind) = match line.strip_prefix("pub ") {
            Some(field) => field.split_once(": ").unwrap(),
            None => line.trim_end_matches(')').split_once('(').unwrap(),
        };
        let word = attribute.split(',').next().unwrap();
        let message = kind.trim_start_matches("Vec<").trim_end_matches('>').trim_start_matches("Wire");
        let kind = if word == "message" { message } else { word };
        format!("{repeated}{kind} {} = {tag}", name.to_lowercase())
    }

    #[test]
    fn the_proto_file_says_what_the_code_does() {
        assert_eq!(of_proto(), of_rust());
    }
}
