//! Loans between nodes, as the daemon runs them: a desk (`headgate_loans`) that stands on this node's floor.
//!
//! ```text
//! segments, state --show--> Floor --look--> Desk --limits--> Input::Lent --> step --> Publish, Regate
//! ```
//!
//! The desk decides nothing about the node: limits enter as events and are carried out like any other. What may be
//! placed on other nodes ([`Floor::allowed`]) and the guests' terms ([`Floor::guests`]) are what whoever forwards
//! calls between nodes builds on.

mod floor;
mod settings;

use std::sync::Arc;

use headgate_loans::desk::{Desk, DeskError, DeskHandle, DeskView, Input as DeskInput};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::node::State;

pub use floor::Floor;

/// A running desk, or why there is none.
#[derive(Debug, Default)]
pub struct Loans {
    desk: Option<Running>,
    holdings: headgate_loans::settings::Holdings,
}

#[derive(Debug)]
struct Running {
    handle: DeskHandle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Loans {
    /// Opens the desk that the configuration asks for.
    pub async fn open(config: &Config, floor: &Arc<Floor>) -> Result<Self, DeskError> {
        let Some(settings) = settings::settings(config) else { return Ok(Self::default()) };
        let (desk, handle, inbox, listener) = Desk::open(settings, Arc::clone(floor) as _).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            // Sent or dropped, it means the same.
            let _either = stopped.await;
        };
        let task = tokio::spawn(desk.run(inbox, listener, stopped));
        Ok(Self { desk: Some(Running { handle, stop, task }), ..Self::default() })
    }

    /// Tells the desk what devices, owners and borrowers there are, if that changed.
    pub fn tell(&mut self, state: &State) {
        let Some(desk) = &self.desk else { return };
        let holdings = settings::holdings(state);
        if holdings != self.holdings {
            self.holdings.clone_from(&holdings);
            let handle = desk.handle.clone();
            tokio::spawn(async move { handle.give(DeskInput::Configure(holdings)).await });
        }
    }

    /// The way to the desk.
    #[must_use]
    pub fn handle(&self) -> Option<DeskHandle> {
        self.desk.as_ref().map(|desk| desk.handle.clone())
    }

    /// Ends the desk. Loans stay in the ledger; a later start takes them up.
    pub async fn close(self) {
        if let Some(Running { handle, stop, task }) = self.desk {
            drop((handle, stop));
            if task.await.is_err() {
                tracing::error!("the desk panicked; this is a bug of Headgate");
            }
        }
    }
}

/// How loans stand; `None` where there are none.
pub async fn view(handle: Option<DeskHandle>) -> Option<Box<DeskView>> {
    handle?.show().await
}
