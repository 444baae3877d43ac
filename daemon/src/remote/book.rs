//! What sessions carried, written down: the audit log's lines, chained like those of loans.
//!
//! ```text
//! begun   session=.. loan=.. guest=south/review place=north/.. data=derived
//! told    session=.. .. up frames=12 to_device=.. ..      a window's end, told to the other daemon
//! agreed  session=.. .. down frames=9 from_device=.. ..   what the other daemon told, and counted here as well
//! differs session=.. .. up frames=.. told frames=..       the session ends
//! aside   session=.. ..                                the loan is over, and what was on the device is kept
//! returned session=.. loan=OTHER ..                    it is back there, under another loan
//! ended   session=.. .. why=..
//! ```
//!
//! Figures add up from the session's beginning; what a window carried is the difference of two lines.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use headgate_loans::audit::{Audit, AuditError};
use headgate_remote::meter::{Direction, Mark};

use crate::clock;

/// What a session is about, the same on both nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct About {
    /// The loan it stands on.
    pub(super) loan: String,
    /// `DISTRICT/TENANT` that borrows.
    pub(super) guest: String,
    /// `DISTRICT/NODE/DEVICE` that lends.
    pub(super) place: String,
    /// What may be sent.
    pub(super) data: &'static str,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loan={} guest={} place={} data={}", self.loan, self.guest, self.place, self.data)
    }
}

/// What is written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A session has begun.
    Begun,
    /// The other daemon was told what had been carried.
    Told(Direction, Mark),
    /// It told, and it is what was counted here.
    Agreed(Direction, Mark),
    /// It told something else.
    Differs {
        /// Which way.
        direction: Direction,
        /// What was counted here.
        here: Mark,
        /// What it told.
        told: Mark,
    },
    /// Its loan is over; what was on the device is in its worker's memory.
    Aside,
    /// It goes on under the loan that the line names.
    Returned,
    /// A session has ended.
    Ended(String),
}

struct Line<'a> {
    session: u64,
    about: &'a About,
    entry: &'a Entry,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, about, entry } = self;
        let head =
            |f: &mut fmt::Formatter<'_>, word: &str| write!(f, "{word} session={session:016x} {about}");
        match entry {
            Entry::Begun => head(f, "begun"),
            Entry::Aside => head(f, "aside"),
            Entry::Returned => head(f, "returned"),
            Entry::Told(direction, mark) => {
                head(f, "told")?;
                write!(f, " {} {mark}", direction.word())
            }
            Entry::Agreed(direction, mark) => {
                head(f, "agreed")?;
                write!(f, " {} {mark}", direction.word())
            }
            Entry::Differs { direction, here, told } => {
                head(f, "differs")?;
                write!(f, " {} {here} told {told}", direction.word())
            }
            Entry::Ended(why) => {
                head(f, "ended")?;
                write!(f, " why={why}")
            }
        }
    }
}

/// The log of a node's sessions.
#[derive(Debug)]
pub(super) struct Book(Mutex<Audit>);

impl Book {
    /// Opens the log, or begins one.
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        Audit::open(path).map(|audit| Self(Mutex::new(audit)))
    }

    /// Writes a line. `false` if it could not be written: then nothing may go on that it should have recorded.
    pub(super) fn write(&self, session: u64, about: &About, entry: &Entry) -> bool {
        let mut audit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = audit.write(SystemTime::UNIX_EPOCH + clock::wall(), &Line { session, about, entry });
        if let Err(error) = &written {
            tracing::error!(%error, "what a remote session carries cannot be recorded, so it ends");
        }
        if let Some(sync) = audit.sync() {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = sync() {
                    tracing::error!(%error, "the sessions' audit log could not be written to the disk");
                }
            });
        }
        written.is_ok()
    }
}
