//! Looking at the devices, for as long as the daemon runs.

use std::collections::HashMap;

use headgate_quota::Bytes;
use tokio::sync::{oneshot, watch};

use super::{Input, Inputs};
use crate::config::model::DeviceUuid;
use crate::devices::xids::XidCounts;
use crate::devices::{Discover, DiscoveryError, DriverLimit};
use crate::identity::{peer, process};
use crate::limits::{CENSUS_PERIOD, DISCOVERY_PERIOD};
use crate::node::{DeviceFacts, Event, Peer, Resident};

/// Looks for devices again and again: a driver may be installed, reloaded or fall off while we run. The first
/// answer goes to `first`, later ones to the node when they differ. In between, more often, asks the driver who is on
/// the devices, and has it hold the limits that are wanted.
pub(super) async fn discovery(
    mut discover: Box<dyn Discover>,
    first: oneshot::Sender<Event>,
    inputs: Inputs,
    wanted: watch::Receiver<Vec<DriverLimit>>,
) {
    let rounds = DISCOVERY_PERIOD.as_millis() / CENSUS_PERIOD.as_millis();
    let mut first = Some(first);
    let (mut last, mut last_held, mut last_xids, mut could_tell) =
        (None, Vec::new(), XidCounts::new(), false);
    for round in (0..rounds).cycle() {
        let limits = wanted.borrow().clone();
        // Away from the runtime: a driver in trouble answers late or never.
        let looked = tokio::task::spawn_blocking(move || {
            let found = (round == 0).then(|| discover.discover());
            let residents = discover.residents().map(identified);
            let held = discover.hold(&limits);
            let xids = discover.xids();
            (discover, found, residents, held, xids)
        });
        let (found, residents, held, xids);
        (discover, found, residents, held, xids) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%error, "device discovery ended; this is a bug of Headgate");
                return;
            }
        };
        let mut news = Vec::new();
        if let Some(found) = found
            && last.as_ref() != Some(&found)
        {
            tell(&found);
            last = Some(found.clone());
            let event = match found {
                Ok(devices) => Event::Devices(devices),
                Err(error) => Event::DevicesMissing { reason: error.to_string() },
            };
            // If nobody waits for the first answer any more, it came late and goes the way of the others.
            let unheard = match first.take() {
                Some(first) => first.send(event).err(),
                None => Some(event),
            };
            news.extend(unheard.map(Input::Node));
        }
        if residents.is_some() || could_tell {
            could_tell = residents.is_some();
            news.push(Input::Node(Event::Residents(residents)));
        }
        if held != last_held {
            last_held.clone_from(&held);
            news.push(Input::DriverLimits(held));
        }
        if xids != last_xids {
            last_xids.clone_from(&xids);
            news.push(Input::Xids(xids));
        }
        for input in news {
            if inputs.send(input).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(CENSUS_PERIOD).await;
    }
}

/// Finds out who the processes are that the driver names. One that has ended meanwhile is nobody.
fn identified(residents: Vec<(DeviceUuid, u32, Bytes)>) -> Vec<Resident> {
    let mut known: HashMap<u32, Option<Peer>> = HashMap::new();
    let look = |pid: u32| {
        let held = peer::open(process::process(pid).ok()?).ok()?;
        peer::facts(&held, true).ok()
    };
    residents
        .into_iter()
        .filter_map(|(gpu, pid, bytes)| {
            let peer = known.entry(pid).or_insert_with(|| look(pid)).clone()?;
            Some(Resident { gpu, peer, bytes })
        })
        .collect()
}

fn tell(found: &Result<Vec<DeviceFacts>, DiscoveryError>) {
    match found {
        Ok(devices) => {
            for device in devices {
                tracing::info!(gpu = %device.uuid, name = device.name, bytes = device.memory.0, "device");
            }
        }
        Err(reason) => tracing::warn!(%reason, "no devices"),
    }
}
