//! What the exporter sees of the daemon.

use headgate_exporter::Snapshot;
use tokio::sync::oneshot;

use super::{Input, Inputs, Question};
use crate::probes::Witness;
use crate::{loans, page, view};

/// The exporter's view of the daemon.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) inputs: Inputs,
    pub(super) witness: Witness,
}

impl Source {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Asked(question(reply))).await.ok()?;
        answer.await.ok()
    }
}

impl headgate_exporter::Source for Source {
    async fn snapshot(&self) -> Option<Snapshot> {
        let (mut snapshot, keys) = self.ask(Question::Snapshot).await?;
        let desk = self.ask(Question::Desk).await?;
        snapshot.loans = loans::view(desk).await.map(|view| view::loans(&snapshot, &view));
        page::add_figures(&mut snapshot, &keys, self.witness.figures().await);
        Some(snapshot)
    }

    async fn unready(&self) -> Option<Vec<String>> {
        self.ask(Question::Unready).await
    }
}
