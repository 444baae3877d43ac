//! A file on the node: redb, every transaction flushed to disk before it is confirmed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use headgate_quota::loan::{Ledger, Node, Place, Revision};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{LoanStore, StoreError, Stored, Swap};
use crate::limits::EMBEDDED_CACHE_BYTES;

/// Ledgers by place: revision and text.
const LEDGERS: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("ledgers.1");
/// The one count of changes that revisions and starts are taken from.
const CHANGES: TableDefinition<'_, &str, u64> = TableDefinition::new("changes.1");
const CHANGES_KEY: &str = "changes";

/// Ledgers in a file of this node. One process at a time has it open.
#[derive(Clone)]
pub struct Embedded {
    database: Arc<Database>,
    path: PathBuf,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the file, or makes it. What a daemon that was killed left half done is rolled back here.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |error: redb::Error| StoreError::File {
            path: path.to_owned(),
            what: match error {
                redb::Error::DatabaseAlreadyOpen => {
                    "another daemon has it open; give each daemon its own spec.stateDir".to_owned()
                }
                error => error.to_string(),
            },
        };
        let database = Database::builder()
            .set_cache_size(EMBEDDED_CACHE_BYTES)
            .create(path)
            .map_err(|error| failed(error.into()))?;
        let this = Self { database: Arc::new(database), path: path.to_owned() };
        // Tables are there from the start, so that reads need not tell a new file from an old one.
        let made = || -> Result<(), redb::Error> {
            let writing = this.database.begin_write()?;
            writing.open_table(LEDGERS)?;
            writing.open_table(CHANGES)?;
            writing.commit()?;
            Ok(())
        };
        made().map_err(failed)?;
        Ok(this)
    }

    /// Does something with the database on a thread that may wait for the disk.
    fn on_disk<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let (database, path) = (Arc::clone(&self.database), self.path.clone());
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&database)).await;
            match done {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(StoreError::File { path, what: error.to_string() }),
                Err(error) => Err(StoreError::File { path, what: error.to_string() }),
            }
        })
    }
}

/// Takes the next number within a transaction.
fn next(writing: &redb::WriteTransaction) -> Result<u64, redb::Error> {
    let mut changes = writing.open_table(CHANGES)?;
    let number = changes.get(CHANGES_KEY)?.map_or(0, |count| count.value()) + 1;
    changes.insert(CHANGES_KEY, number)?;
    Ok(number)
}

fn parsed(key: &str, text: &str) -> Result<Ledger, StoreError> {
    text.parse().map_err(|source| StoreError::Unreadable { key: key.to_owned(), source })
}

impl LoanStore for Embedded {
    fn word(&self) -> &'static str {
        "embedded"
    }

    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<(Revision, Ledger), StoreError>> {
        let key = place.to_string();
        let read = {
            let key = key.clone();
            self.on_disk(move |database| {
                let ledgers = database.begin_read()?.open_table(LEDGERS)?;
                let found = ledgers.get(key.as_str())?;
                Ok(found.map(|entry| (entry.value().0, entry.value().1.to_owned())))
            })
        };
        Box::pin(async move {
            match read.await? {
                Some((revision, text)) => Ok((Revision(revision), parsed(&key, &text)?)),
                None => Ok((Revision::default(), Ledger::default())),
            }
        })
    }

    fn swap<'a>(
        &'a self,
        place: &'a Place,
        expected: Revision,
        ledger: &'a Ledger,
    ) -> BoxFuture<'a, Result<Swap, StoreError>> {
        let (key, text) = (place.to_string(), ledger.to_string());
        self.on_disk(move |database| {
            // One writer at a time, so what is read here is what is replaced.
            let writing = database.begin_write()?;
            let current = {
                let ledgers = writing.open_table(LEDGERS)?;
                ledgers.get(key.as_str())?.map_or(0, |entry| entry.value().0)
            };
            if current != expected.0 {
                writing.abort()?;
                return Ok(Swap::Conflict);
            }
            let revision = next(&writing)?;
            writing.open_table(LEDGERS)?.insert(key.as_str(), (revision, text.as_str()))?;
            writing.commit()?;
            Ok(Swap::Done(Revision(revision)))
        })
    }

    fn start<'a>(&'a self, _node: &'a Node) -> BoxFuture<'a, Result<u64, StoreError>> {
        // The file is one node's, so the count of changes numbers its starts.
        self.on_disk(|database| {
            let writing = database.begin_write()?;
            let number = next(&writing)?;
            writing.commit()?;
            Ok(number)
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        let listed = self.on_disk(|database| {
            let ledgers = database.begin_read()?.open_table(LEDGERS)?;
            let entries = ledgers.iter()?.map(|entry| {
                let (key, value) = entry?;
                Ok((key.value().to_owned(), value.value().0, value.value().1.to_owned()))
            });
            entries.collect::<Result<Vec<_>, redb::Error>>()
        });
        Box::pin(async move {
            let mut all = Vec::new();
            for (key, revision, text) in listed.await? {
                let ledger = parsed(&key, &text)?;
                // Keys are written from places, so every key is one.
                if let Ok(place) = key.parse::<Place>() {
                    all.push(Stored { place, revision: Revision(revision), ledger });
                }
            }
            Ok(all)
        })
    }
}
