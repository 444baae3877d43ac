//! Sharing devices by space: NVIDIA's MPS, kept by the daemon, and places for green contexts.
//!
//! ```text
//! configuration, devices --Wanted--> keeper --commands--> nvidia-cuda-mps-control (one for each device)
//!                                      |
//!                                      '--Standing--> node: limits (what the hook checks), gates (who holds how much),
//!                                                           `headgate run` (the environment), status, metrics
//! ```
//!
//! The control programs outlive the daemon, as the programs that run in them must; the next daemon finds them by their
//! directories. What is decided (how many chunks for whom, what changes when) is `headgate_quota::space`.
//!
//! Green contexts are made by the tenants' own processes, by the hook, on the groups of SMs in the place that the limits say. Who
//! has which place is `headgate_quota::groups`; it changes only while nobody is seated whom it would move, which only the node
//! knows at every moment: it takes the keeper's word or waits for another ([`Space::take`]). What the processes say they hold is
//! read in their seats ([`holding`]).
//!
//! Read in this order: this file, [`keeper`], [`groups`], [`holding`], [`control`], [`answers`].

pub mod answers;
pub mod control;
pub mod groups;
pub mod holding;
pub mod keeper;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use headgate_abi::space;
use headgate_quota::groups::Place;
use headgate_quota::{Ppm, Room};

use crate::config::model::DeviceUuid;
use crate::config::space::Sharing;
use crate::node::State;

/// What devices are to be shared by space, and among whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The control program; `None` looks for it.
    pub control: Option<PathBuf>,
    /// Directory of the pipes.
    pub directory: PathBuf,
    /// The devices.
    pub gpus: Vec<WantedGpu>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedGpu {
    /// Which.
    pub gpu: DeviceUuid,
    /// How.
    pub sharing: Sharing,
    /// Tenants by name.
    pub tenants: BTreeMap<String, WantedPart>,
}

/// What a tenant is to have of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WantedPart {
    /// Its share.
    pub share: Ppm,
    /// The place that is in force; only where green contexts share the device.
    pub place: Option<Place>,
    /// Whether processes of it are seated; only there.
    pub seated: bool,
}

impl Wanted {
    /// What a node's configuration comes to on the devices there are.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let Some(config) = state.configured.as_ref().map(|configured| &configured.config) else {
            return Self::default();
        };
        let present = state.rows.iter().flatten().filter(|row| row.present);
        let gpus = present.filter_map(|row| {
            let sharing = config.gpus.sharing_on(row.uuid);
            let in_groups = matches!(sharing, Sharing::GreenContexts { .. });
            let parts = state.tenants().filter(|(_, tenant)| in_groups || !tenant.retired);
            let parts = parts.filter_map(|(_, tenant)| {
                let sm = tenant.policy.quota_on(row.uuid).sm?;
                let name = tenant.policy.name.to_string();
                let place = state.space.grant(row.uuid, &name).and_then(|grant| grant.groups?.place);
                let share = if tenant.retired { Ppm::ZERO } else { sm.nominal };
                let seated = in_groups && !tenant.seats.is_empty();
                Some((name, WantedPart { share, place: place.filter(|_| in_groups), seated }))
            });
            sharing.is_spatial().then(|| WantedGpu { gpu: row.uuid, sharing, tenants: parts.collect() })
        });
        Self {
            control: config.mps.control.clone(),
            directory: config.mps.directory(&config.sockets),
            gpus: gpus.collect(),
        }
    }
}

/// How a device that is to be shared by space stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which.
    pub gpu: DeviceUuid,
    /// How it is to be shared.
    pub sharing: Sharing,
    /// Why it is shared by time instead, and what to do; `None` while it is shared as it is to be.
    pub down: Option<String>,
    /// What each tenant has, by name. Empty while it is down.
    pub grants: BTreeMap<String, Grant>,
}

/// What a tenant has of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// What its programs find in their environment; `None` while they cannot start.
    pub environment: Option<Vec<(&'static str, String)>>,
    /// What it was given, and what it holds.
    pub room: Room,
    /// Whether each of its processes holds that much for itself.
    pub per_process: bool,
    /// SMs, where they are known.
    pub sms: Option<u32>,
    /// Its place on the device, where green contexts share it.
    pub groups: Option<Groups>,
    /// What is still to change, and when.
    pub pending: Option<String>,
}

/// A tenant's place on a device that green contexts share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups {
    /// The one that is in force.
    pub place: Option<Place>,
    /// Whether it is the one it is to have.
    pub settled: bool,
}

impl Grant {
    /// What the hook compares the environment with; zero asks nothing.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let Some(environment) = &self.environment else { return 0 };
        space::digest(|name| {
            let own = environment.iter().find(|(known, _)| *known == name);
            own.map(|(_, value)| value.as_bytes().to_vec())
        })
    }
}

/// How devices shared by space stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Space(pub BTreeMap<DeviceUuid, Standing>);

impl Space {
    /// What a tenant has of a device that is shared by space now.
    #[must_use]
    pub fn grant(&self, gpu: DeviceUuid, tenant: &str) -> Option<&Grant> {
        self.0.get(&gpu)?.grants.get(tenant)
    }

    /// Takes the keeper's word, but for a device on which a tenant was to be moved of which a process has come meanwhile: there
    /// things stay as they are until the keeper, who hears of it, says something else.
    pub fn take(&mut self, standings: Vec<Standing>, seated: &BTreeSet<&str>) {
        let before = std::mem::take(&mut self.0);
        let moves = |was: &Standing, standing: &Standing| {
            was.grants.iter().any(|(name, grant)| {
                let place = |grant: &Grant| grant.groups.and_then(|groups| groups.place);
                let now = standing.grants.get(name).and_then(place);
                seated.contains(name.as_str()) && place(grant).is_some_and(|was| now != Some(was))
            })
        };
        let stays = |standing: Standing| match before.get(&standing.gpu) {
            Some(was)
                if was.sharing == standing.sharing && standing.down.is_none() && moves(was, &standing) =>
            {
                was.clone()
            }
            _ => standing,
        };
        self.0 = standings.into_iter().map(stays).map(|standing| (standing.gpu, standing)).collect();
    }

    /// The environment of a program of a tenant, which can be a client on one device only.
    ///
    /// # Errors
    /// Why it cannot start, and what to do.
    pub fn environment(
        &self,
        tenant: &str,
        gpu: Option<DeviceUuid>,
    ) -> Result<Option<Vec<(String, String)>>, String> {
        let mut up = self.0.values().filter(|standing| standing.down.is_none());
        let standing = match gpu {
            Some(gpu) => up.find(|standing| standing.gpu == gpu),
            None => {
                let one = up.next();
                if let (Some(one), Some(other)) = (one, up.next()) {
                    return Err(format!(
                        "devices {} and {} are both shared by space, and a program can be on one such only; name it with \
                         --gpu",
                        one.gpu, other.gpu
                    ));
                }
                one
            }
        };
        let Some(standing) = standing else { return Ok(None) };
        let grant = standing.grants.get(tenant);
        let environment = grant.and_then(|grant| grant.environment.as_ref()).ok_or_else(|| {
            let pending =
                grant.and_then(|grant| grant.pending.as_deref()).unwrap_or("it has no sm share there");
            format!("tenant `{tenant}` has no SMs of device {} yet: {pending}", standing.gpu)
        })?;
        Ok(Some(environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()))
    }
}
