//! JetStream's key-value bucket: one for all districts, the stream's sequence as revision.
//!
//! ```text
//! ledger.<district>.<node>.<device>    the ledger, replaced by compare-and-swap
//! start.<node>                         written once at every start of that node's daemon
//! ```
//!
//! Names may hold a dot, which NATS takes as a separator; it is written `=2E`.
//!
//! What the server must be told for the promises to hold beyond the death of its process: file storage, and
//! either `sync_interval: always` or several replicas (`docs/loans.md`).

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::kv::{self, EntryErrorKind, UpdateErrorKind};
use async_nats::jetstream::{self, context::KeyValueErrorKind};
use async_nats::{ConnectOptions, ServerAddr};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use headgate_quota::loan::limits::LEDGER_BYTES_MAX;
use headgate_quota::loan::{Device, District, Ledger, Node, Place, Revision};
use tokio::sync::OnceCell;

use super::{LoanStore, StoreError, Stored, Swap};
use crate::limits::{STORE_READS_AT_ONCE, STORE_WAIT};

/// How to reach a NATS server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsOptions {
    /// Its addresses: `nats://host:4222`, or `tls://`.
    pub urls: Vec<String>,
    /// The bucket; made if it is not there.
    pub bucket: String,
    /// Copies a cluster keeps of it.
    pub replicas: usize,
    /// A file that holds the token the server wants.
    pub token: Option<PathBuf>,
    /// Roots that the server's certificate must lead to.
    pub ca: Option<PathBuf>,
    /// Certificate and key for servers that want to know their clients.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Ledgers in a bucket. Connects in the background and reconnects by itself.
#[derive(Clone)]
pub struct Nats {
    context: jetstream::Context,
    options: NatsOptions,
    bucket: std::sync::Arc<OnceCell<kv::Store>>,
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nats").field("options", &self.options).finish_non_exhaustive()
    }
}

fn unanswered(step: &'static str) -> impl Fn(&dyn std::fmt::Display) -> StoreError {
    move |error| StoreError::Unanswered { step, what: error.to_string() }
}

impl Nats {
    /// A client that connects as soon as it can. Wrong addresses and an unreadable token are errors here; a
    /// server that does not answer is one of each operation.
    pub async fn connect(options: NatsOptions) -> Result<Self, StoreError> {
        let failed = unanswered("connecting");
        let parsed: Result<Vec<ServerAddr>, _> = options.urls.iter().map(|url| url.parse()).collect();
        let addresses = parsed.map_err(|error| failed(&error))?;
        let mut connect = ConnectOptions::new()
            .name("headgate")
            .connection_timeout(STORE_WAIT)
            .request_timeout(Some(STORE_WAIT))
            .retry_on_initial_connect()
            // A lender that waits for its ledger should not wait for the client's patience as well.
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(50u64.saturating_mul(1 << attempts.min(4)))
            });
        if let Some(file) = &options.token {
            let text = std::fs::read_to_string(file)
                .map_err(|error| StoreError::File { path: file.clone(), what: error.to_string() })?;
            connect = connect.token(text.trim_end().to_owned());
        }
        if let Some(ca) = &options.ca {
            connect = connect.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &options.client {
            connect = connect.add_client_certificate(certificate.clone(), key.clone());
        }
        let client = connect.connect(addresses).await.map_err(|error| failed(&error))?;
        let mut context = jetstream::new(client);
        context.set_timeout(STORE_WAIT);
        Ok(Self { context, options, bucket: std::sync::Arc::default() })
    }

    /// The bucket, found or made at the first use that reaches the server.
    async fn bucket(&self) -> Result<&kv::Store, StoreError> {
        self.bucket.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<kv::Store, StoreError> {
        match self.context.get_key_value(&self.options.bucket).await {
            Ok(bucket) => return Ok(bucket),
            Err(error) if error.kind() == KeyValueErrorKind::GetBucket => {}
            Err(error) => return Err(unanswered("opening the bucket")(&error)),
        }
        let config = kv::Config {
            bucket: self.options.bucket.clone(),
            description: "Headgate's loan ledgers".to_owned(),
            max_value_size: i32::try_from(LEDGER_BYTES_MAX).unwrap_or(i32::MAX),
            history: 1,
            storage: jetstream::stream::StorageType::File,
            num_replicas: self.options.replicas,
            ..kv::Config::default()
        };
        // Two daemons that make it at once make the same.
        self.context.create_key_value(config).await.map_err(|error| unanswered("making the bucket")(&error))
    }

    /// Bounds an operation whose client bounds some of its steps only.
    async fn within<T>(
        step: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(STORE_WAIT, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unanswered { step, what: "no answer in time".to_owned() }),
        }
    }

    async fn entry(&self, key: &str) -> Result<Option<(Revision, Ledger)>, StoreError> {
        let entry = match self.bucket().await?.entry(key).await {
            Ok(entry) => entry,
            Err(error) if error.kind() == EntryErrorKind::InvalidKey => None,
            Err(error) => return Err(unanswered("reading")(&error)),
        };
        let Some(entry) = entry else { return Ok(None) };
        let text = std::str::from_utf8(&entry.value).unwrap_or_default();
        let ledger = text.parse().map_err(|source| StoreError::Unreadable { key: key.to_owned(), source })?;
        Ok(Some((Revision(entry.revision), ledger)))
    }
}

/// A name as one token of a key.
fn token(name: &str) -> String {
    name.replace('.', "=2E")
}

fn name(token: &str) -> String {
    token.replace("=2E", ".")
}

fn ledger_key(place: &Place) -> String {
    let [district, node, device] =
        [place.district.as_str(), place.node.as_str(), place.device.as_str()].map(token);
    format!("ledger.{district}.{node}.{device}")
}

fn place(key: &str) -> Option<Place> {
    let mut parts = key.strip_prefix("ledger.")?.split('.').map(name);
    let place = Place {
        district: District::new(&parts.next()?)?,
        node: Node::new(&parts.next()?)?,
        device: Device::new(&parts.next()?)?,
    };
    parts.next().is_none().then_some(place)
}

impl LoanStore for Nats {
    fn word(&self) -> &'static str {
        "nats"
    }

    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<(Revision, Ledger), StoreError>> {
        Box::pin(async move {
            let key = ledger_key(place);
            let found = Self::within("reading", self.entry(&key)).await?;
            Ok(found.unwrap_or_default())
        })
    }

    fn swap<'a>(
        &'a self,
        place: &'a Place,
        expected: Revision,
        ledger: &'a Ledger,
    ) -> BoxFuture<'a, Result<Swap, StoreError>> {
        let swap = async move {
            let text = ledger.to_string();
            let bucket = self.bucket().await?;
            match bucket.update(ledger_key(place), text.into(), expected.0).await {
                Ok(revision) => Ok(Swap::Done(Revision(revision))),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(Swap::Conflict),
                Err(error) => Err(unanswered("swapping")(&error)),
            }
        };
        Box::pin(Self::within("swapping", swap))
    }

    fn start<'a>(&'a self, node: &'a Node) -> BoxFuture<'a, Result<u64, StoreError>> {
        let start = async move {
            let key = format!("start.{}", token(node.as_str()));
            let put = self.bucket().await?.put(key, "headgate".into()).await;
            put.map_err(|error| unanswered("counting a start")(&error))
        };
        Box::pin(Self::within("counting a start", start))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Stored>, StoreError>> {
        Box::pin(async move {
            let failed = unanswered("listing");
            let keys = self.bucket().await?.keys().await.map_err(|error| failed(&error))?;
            let keys: Vec<String> = keys.try_collect().await.map_err(|error| failed(&error))?;
            let places = keys.into_iter().filter_map(|key| Some((place(&key)?, key)));
            let read = places.map(|(place, key)| async move {
                let found = Self::within("listing", self.entry(&key)).await?;
                Ok(found.map(|(revision, ledger)| Stored { place, revision, ledger }))
            });
            let found: Vec<Option<Stored>> =
                futures_util::stream::iter(read).buffer_unordered(STORE_READS_AT_ONCE).try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_place_whatever_the_names_hold() {
        let device = Device::new("GPU-1.2").unwrap();
        let place_of = |node: &str| Place {
            district: District::new("north").unwrap(),
            node: Node::new(node).unwrap(),
            device: device.clone(),
        };
        for node in ["n1", "n.1", ".n", "n..", "n_1-x"] {
            let key = ledger_key(&place_of(node));
            assert_eq!(place(&key), Some(place_of(node)), "{key}");
            assert!(key.split('.').all(|token| !token.is_empty()) && key.split('.').count() == 4, "{key}");
        }
        assert_eq!(place("start.n1"), None);
    }
}
