//! Loans between nodes, as the daemon runs them: a desk (`headgate_loans`) that stands on this node's floor.
//!
//! ```text
//! segments, state --show--> Floor --look--> Desk --limits--> Input::Lent --> step --> Publish, Regate
//! Event::Incident --> step --tell--> Desk --summaries--> peers' desks --heard--> Event::Incident --> step
//! ```
//!
//! The desk decides nothing about the node: limits enter as events and are carried out like any other. What may be
//! placed on other nodes ([`Floor::allowed`]), the guests' terms ([`Floor::guests`]) and who stands on which loan
//! ([`Uses`]) are what remote sessions ([`crate::remote`]) build on.

mod uses;
mod floor;
mod settings;

use std::sync::Arc;

use headgate_loans::desk::{Desk, DeskError, DeskHandle, DeskView, Input as DeskInput};
use headgate_loans::settings::Holdings;
use headgate_quota::loan::Incidents;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::node::State;

pub use floor::Floor;
pub use uses::{Uses, Using, Wanting};

/// A running desk, or none.
#[derive(Debug, Default)]
pub struct Loans {
    desk: Option<Running>,
}

#[derive(Debug)]
struct Running {
    handle: DeskHandle,
    told: watch::Sender<Told>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What the desk works from. It hears the newest and may miss what was in between.
#[derive(Clone, PartialEq, Debug, Default)]
struct Told {
    holdings: Holdings,
    incidents: Incidents,
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
        let (told, hears) = watch::channel(Told::default());
        tokio::spawn(pass_on(hears, handle.clone()));
        Ok(Self { desk: Some(Running { handle, told, stop, task }) })
    }

    /// Tells the desk what devices, owners, borrowers and incidents there are, if that changed.
    pub fn tell(&self, state: &State) {
        let Some(desk) = &self.desk else { return };
        let now = Told { holdings: settings::holdings(state), incidents: state.incidents.clone() };
        desk.told.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }

    /// The way to the desk.
    #[must_use]
    pub fn handle(&self) -> Option<DeskHandle> {
        self.desk.as_ref().map(|desk| desk.handle.clone())
    }

    /// Ends the desk. Loans stay in the ledger; a later start takes them up.
    pub async fn close(self) {
        if let Some(Running { handle, told, stop, task }) = self.desk {
            drop((handle, told, stop));
            if task.await.is_err() {
                tracing::error!("the desk panicked; this is a bug of Headgate");
            }
        }
    }
}

/// Tells the desk what changed, in the order in which it did, for as long as there is anything to tell.
async fn pass_on(mut hears: watch::Receiver<Told>, desk: DeskHandle) {
    let mut before = Told::default();
    while hears.changed().await.is_ok() {
        let now = hears.borrow_and_update().clone();
        let mut open = true;
        if now.holdings != before.holdings {
            open &= desk.give(DeskInput::Configure(now.holdings.clone())).await;
        }
        if now.incidents != before.incidents {
            open &= desk.give(DeskInput::Incidents(now.incidents.clone())).await;
        }
        if !open {
            return;
        }
        before = now;
    }
}

/// How loans stand; `None` where there are none.
pub async fn view(handle: Option<DeskHandle>) -> Option<Box<DeskView>> {
    handle?.show().await
}
