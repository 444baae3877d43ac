//! Noticing that the configuration file changed.
//!
//! The directory is watched, not the file: editors and Kubernetes replace files by renaming, and a mounted
//! ConfigMap changes by swapping the `..data` link beside the file. Every event only means "look again"; what
//! counts is whether the content's hash changed. A slow poll covers a directory that was itself replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::limits::{CONFIG_DEBOUNCE, CONFIG_POLL_PERIOD};

/// Of all accesses, the one that follows a change.
const WRITTEN: AccessKind = AccessKind::Close(AccessMode::Write);

/// Tells when the file may have changed.
#[derive(Debug)]
pub struct Watch {
    changed: Arc<Notify>,
    directory: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// When a noticed change may be acted upon.
    due: Option<Instant>,
    next_poll: Instant,
}

impl Watch {
    /// Watches the directory of `file`. If the kernel refuses, the poll alone remains, and the log says so.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading is no change, and our own reading would otherwise call for the next. An error does mean
            // "look again".
            let read_only = |kind| matches!(kind, EventKind::Access(access) if access != WRITTEN);
            if !event.is_ok_and(|event| read_only(event.kind)) {
                notify.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(
                    directory = %directory.display(), %error,
                    "cannot watch the configuration's directory; changes are noticed by polling every {} s",
                    CONFIG_POLL_PERIOD.as_secs()
                );
            })
            .ok();
        Self { changed, directory, watcher, due: None, next_poll: Instant::now() + CONFIG_POLL_PERIOD }
    }

    /// Returns when the file should be read again.
    ///
    /// Safe to drop and call again: the daemon's loop does so whenever something else happens first, and a
    /// change that was noticed meanwhile must not be forgotten, nor the poll put off for ever.
    pub async fn changed(&mut self) {
        if self.due.is_none() {
            if timeout_at(self.next_poll, self.changed.notified()).await.is_ok() {
                self.due = Some(Instant::now() + CONFIG_DEBOUNCE);
            } else {
                self.rewatch();
                self.due = Some(self.next_poll);
            }
        }
        sleep_until(self.due.unwrap_or(self.next_poll)).await;
        self.due = None;
        self.next_poll = Instant::now() + CONFIG_POLL_PERIOD;
    }

    fn rewatch(&mut self) {
        // The watch dies with the directory it was set on; setting it again is cheap and idempotent.
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(&self.directory, RecursiveMode::NonRecursive)
        {
            tracing::debug!(%error, "the configuration's directory cannot be watched now");
        }
    }
}
