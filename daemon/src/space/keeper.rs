//! The task that keeps the control programs: starts them, divides devices among tenants, and tells how it stands.
//!
//! Every look asks what is there and moves it nearer to what is wanted, so that a control program that died, a daemon that
//! was killed and a program that ended are all the same: something to be found at the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use headgate_quota::groups::Place;
use headgate_quota::space::{Held, Move, Shape, Unplaceable, moves, percentage, place};
use headgate_quota::{Ppm, Room};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::answers::{Partition, Table};
use super::control::{Control, ControlError};
use super::groups::{self, agrees};
use super::{Grant, Standing, Wanted, WantedGpu};
use crate::config::model::DeviceUuid;
use crate::config::space::Sharing;
use crate::limits::MPS_LOOK_PERIOD;
use crate::node::Event;
use crate::run::{Input, Inputs};

/// What the daemon that comes after this one has to know.
const RECORD: &str = "headgate.json";

/// Keeps devices as they are wanted until nobody wants anything any more.
pub async fn keep(mut wanted: watch::Receiver<Wanted>, inputs: Inputs) {
    let mut keeper = Keeper::default();
    let mut last: Vec<Standing> = Vec::new();
    loop {
        let want = wanted.borrow_and_update().clone();
        let standings = keeper.look(&want).await;
        if last != standings || !agrees(&want, &standings) {
            tell(&last, &standings);
            last.clone_from(&standings);
            if inputs.send(Input::Node(Event::Space(standings))).await.is_err() {
                break;
            }
        }
        let busy = !keeper.kept.is_empty() || !keeper.leaving.is_empty();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(MPS_LOOK_PERIOD), if busy => {}
        }
    }
    keeper.leave().await;
}

fn tell(before: &[Standing], now: &[Standing]) {
    for standing in now {
        let was = before.iter().find(|was| was.gpu == standing.gpu);
        let (gpu, sharing) = (standing.gpu, standing.sharing.word());
        match &standing.down {
            Some(why) if was.is_none_or(|was| was.down.as_ref() != Some(why)) => {
                tracing::warn!(%gpu, sharing, why, "the device is shared by time instead");
            }
            None if was.is_none_or(|was| was.down.is_some() || was.sharing != standing.sharing) => {
                tracing::info!(%gpu, sharing, "the device is shared by space");
            }
            _ => {}
        }
    }
}

#[derive(Debug, Default)]
struct Keeper {
    kept: BTreeMap<DeviceUuid, Kept>,
    /// Control programs that nobody wants any more, while programs are at work in them.
    leaving: Vec<Control>,
}

/// A device that is kept.
#[derive(Debug)]
struct Kept {
    sharing: Sharing,
    control: Control,
    /// Whether what its control program does is known to be what is wanted.
    settled: bool,
    chunk_sms: Option<u32>,
    /// Tenants' partitions by their whole names.
    partitions: BTreeMap<String, String>,
    /// The greatest percentage that the control program allows.
    allowed: Option<u32>,
    /// Tenants' places, where green contexts share the device.
    places: BTreeMap<String, Place>,
}

impl Keeper {
    async fn look(&mut self, wanted: &Wanted) -> Vec<Standing> {
        let named = |gpu: &DeviceUuid, kept: &Kept| {
            wanted.gpus.iter().any(|wanted| wanted.gpu == *gpu && wanted.sharing == kept.sharing)
        };
        let gone: Vec<DeviceUuid> =
            self.kept.iter().filter(|(gpu, kept)| !named(gpu, kept)).map(|(gpu, _)| *gpu).collect();
        self.leaving.extend(gone.iter().filter_map(|gpu| self.kept.remove(gpu)).map(|kept| kept.control));
        // One that is wanted again is found again.
        self.leaving.retain(|control| !wanted.gpus.iter().any(|wanted| wanted.gpu == control.gpu));
        let mut still = Vec::new();
        for control in std::mem::take(&mut self.leaving) {
            if !control.end_if_idle().await {
                still.push(control);
            }
        }
        self.leaving = still;
        let mut standings = Vec::new();
        for gpu in &wanted.gpus {
            let kept = self.kept.entry(gpu.gpu).or_insert_with(|| Kept::new(wanted, gpu));
            let found = kept.look(gpu).await;
            let (down, grants) = match found {
                Ok(grants) => (None, grants),
                Err(why) => (Some(why), BTreeMap::new()),
            };
            standings.push(Standing { gpu: gpu.gpu, sharing: gpu.sharing, down, grants });
        }
        standings
    }

    /// The daemon ends: so do control programs in which nobody is at work. The others are the next daemon's.
    async fn leave(self) {
        let controls = self.kept.into_values().map(|kept| kept.control).chain(self.leaving);
        for control in controls {
            control.end_if_idle().await;
        }
    }
}

impl Kept {
    fn new(wanted: &Wanted, gpu: &WantedGpu) -> Self {
        Self {
            sharing: gpu.sharing,
            control: Control::new(wanted.control.clone(), &wanted.directory, gpu.gpu),
            settled: false,
            chunk_sms: None,
            partitions: BTreeMap::new(),
            allowed: None,
            places: BTreeMap::new(),
        }
    }

    /// What each tenant has; why nobody has anything.
    async fn look(&mut self, wanted: &WantedGpu) -> Result<BTreeMap<String, Grant>, String> {
        let looked = match self.sharing {
            Sharing::MpsPartition => self.divide(wanted).await,
            Sharing::MpsPercentage => self.cap(wanted).await,
            Sharing::GreenContexts { multiply } => self.group(wanted, multiply).await,
            Sharing::Temporal => return Err("shared by time".to_owned()),
        };
        looked.map_err(|why| {
            self.settled = false;
            match (self.sharing, why) {
                (Sharing::GreenContexts { multiply: false }, Down::Control(why)) => {
                    format!("{why}; or do without by allowMultiplied, where part of the SMs is theirs part of the time")
                }
                (_, why) => why.to_string(),
            }
        })
    }

    /// Sees to it that the control program runs and does what is wanted. One that runs already is an earlier daemon's.
    async fn up(&mut self) -> Result<(), Down> {
        match self.control.say("get_server_list").await {
            Ok(_) if self.settled => return Ok(()),
            Ok(_) => {
                let record = Record::read(&self.record());
                if record.sharing == self.sharing.word() {
                    self.places = record.places();
                    self.partitions = record.partitions;
                    self.settled = true;
                    return Ok(());
                }
                if !self.control.end_if_idle().await {
                    return Err(Down::Former);
                }
            }
            Err(ControlError::Refused { .. } | ControlError::Kernel { .. }) => {}
            Err(why) => return Err(why.into()),
        }
        self.control.start(self.sharing == Sharing::MpsPartition).await?;
        self.partitions.clear();
        // Programs may be at work that outlived the control program, or are none of its.
        let record = Record::read(&self.record());
        if record.sharing == self.sharing.word() && self.places.is_empty() {
            self.places = record.places();
        }
        self.allowed = None;
        self.settled = true;
        self.write_down()
    }

    fn write_down(&self) -> Result<(), Down> {
        let places =
            self.places.iter().map(|(name, place)| (name.clone(), (place.from().get(), place.to().get())));
        let record = Record {
            sharing: self.sharing.word().to_owned(),
            partitions: self.partitions.clone(),
            places: places.collect(),
        };
        record.write(&self.record()).map_err(Down::Record)
    }

    /// Static partitions.
    async fn divide(&mut self, wanted: &WantedGpu) -> Result<BTreeMap<String, Grant>, Down> {
        self.up().await?;
        let mut table = self.table().await?;
        self.clear_strangers(&table).await?;
        let shape = self.shape(&mut table).await?;
        let shares: Vec<Ppm> = wanted.tenants.values().map(|part| part.share).collect();
        let chunks = place(shape, &shares).map_err(|why| Down::Shares(why.to_string()))?;
        let placed: BTreeMap<&String, u32> = wanted.tenants.keys().zip(chunks).collect();
        self.partitions.retain(|_, name| find(&table, name).is_some());
        let names: BTreeSet<String> = wanted.tenants.keys().chain(self.partitions.keys()).cloned().collect();
        let names: Vec<String> = names.into_iter().collect();
        let holders: Vec<(Option<Held>, u32)> = names
            .iter()
            .map(|name| {
                let own = self.partitions.get(name).and_then(|own| find(&table, own));
                let held = own.map(|own| Held { chunks: own.chunks, in_use: own.used });
                (held, placed.get(name).copied().unwrap_or(0))
            })
            .collect();
        let strangers: u32 = table.partitions.iter().map(|one| one.chunks).sum::<u32>()
            - holders.iter().filter_map(|(held, _)| held.map(|held| held.chunks)).sum::<u32>();
        let moves = moves(shape.chunks.saturating_sub(strangers), &holders);
        if self.apply(&names, &moves).await? {
            table = self.table().await?;
            self.partitions.retain(|_, name| find(&table, name).is_some());
            self.write_down()?;
        }
        let grants = names.iter().zip(moves).filter_map(|(name, to_do)| {
            let chunks = *placed.get(name)?;
            Some((name.clone(), self.grant(shape, &table, name, chunks, to_do)))
        });
        Ok(grants.collect())
    }

    fn grant(&self, shape: Shape, table: &Table, tenant: &str, chunks: u32, to_do: Move) -> Grant {
        let name = self.partitions.get(tenant);
        let own = name.and_then(|name| find(table, name));
        let given = shape.fraction(chunks);
        let held = own.map_or(given, |own| shape.fraction(own.chunks));
        let sms = |chunks: u32| chunks * shape.chunk_sms;
        let pending = match to_do {
            Move::WaitForItself(chunks) => Some(format!(
                "has {} SMs and is to have {}; that changes when its running programs have ended",
                own.map_or(0, |own| own.sms),
                sms(chunks)
            )),
            Move::WaitForOthers(chunks) => Some(format!(
                "is to have {} SMs; they come free when other tenants' running programs have ended",
                sms(chunks)
            )),
            _ if own.is_none() => Some("its partition has just been taken away; looking again".to_owned()),
            _ => None,
        };
        let environment =
            own.and(name).map(|name| vec![self.pipe_variable(), ("CUDA_MPS_SM_PARTITION", name.clone())]);
        Grant {
            environment,
            room: Room { given, held },
            per_process: false,
            sms: own.map(|own| own.sms),
            groups: None,
            pending,
        }
    }

    fn pipe_variable(&self) -> (&'static str, String) {
        ("CUDA_MPS_PIPE_DIRECTORY", self.control.pipe.display().to_string())
    }

    /// Carries moves out, those that take away first. Whether anything may have changed.
    async fn apply(&mut self, names: &[String], moves: &[Move]) -> Result<bool, Down> {
        let mut changed = false;
        let growth = |to_do: &Move| matches!(to_do, Move::Add(_));
        let (later, first): (Vec<_>, Vec<_>) = names.iter().zip(moves).partition(|(_, to_do)| growth(to_do));
        let mut to_add: Vec<(&String, u32)> = Vec::new();
        for (name, to_do) in first {
            let (Move::Remove | Move::Replace(_)) = to_do else { continue };
            let Some(old) = self.partitions.get(name) else { continue };
            self.control.remove(old).await?;
            changed = true;
            // A program may have come meanwhile; then it stays as it is.
            if find(&self.table().await?, old).is_none() {
                self.partitions.remove(name);
                if let Move::Replace(chunks) = to_do {
                    to_add.push((name, *chunks));
                }
            }
        }
        to_add.extend(later.into_iter().filter_map(|(name, to_do)| match to_do {
            Move::Add(chunks) => Some((name, *chunks)),
            _ => None,
        }));
        for (name, chunks) in to_add {
            let made = self.control.add(chunks).await?;
            tracing::info!(gpu = %self.control.gpu, tenant = %name, chunks, "a partition of SMs");
            self.partitions.insert(name.clone(), made);
            changed = true;
        }
        Ok(changed)
    }

    async fn table(&self) -> Result<Table, Down> {
        self.control.partitions().await?.ok_or(Down::NoPartitions)
    }

    /// Partitions that nobody of ours was given, of a daemon whose record is lost: gone, as far as nobody is in them.
    async fn clear_strangers(&self, table: &Table) -> Result<(), Down> {
        let ours = |one: &Partition| self.partitions.values().any(|name| is_named(one, name));
        for one in table.partitions.iter().filter(|one| !one.used && !ours(one)) {
            self.control.remove(&one.name).await?;
        }
        Ok(())
    }

    /// What the device can be divided into. The size of a chunk differs between devices and is only seen in a partition.
    async fn shape(&mut self, table: &mut Table) -> Result<Shape, Down> {
        if self.chunk_sms.is_none() && table.partitions.is_empty() {
            let name = self.control.add(1).await?;
            *table = self.table().await?;
            self.chunk_sms = find(table, &name).map(|one| one.sms);
            self.control.remove(&name).await?;
            *table = self.table().await?;
        }
        let seen = table.partitions.first().and_then(|one| one.sms.checked_div(one.chunks));
        let chunk_sms = self.chunk_sms.or(seen).filter(|sms| 0 < *sms).ok_or(Down::NoPartitions)?;
        self.chunk_sms = Some(chunk_sms);
        // Strangers' partitions may just have gone.
        *table = self.table().await?;
        Ok(Shape { sms: table.sms.0 + table.sms.1, chunk_sms, chunks: table.chunks.0 + table.chunks.1 })
    }

    /// Percentages.
    async fn cap(&mut self, wanted: &WantedGpu) -> Result<BTreeMap<String, Grant>, Down> {
        self.up().await?;
        // Whatever a program makes of its own environment, nobody has more than the tenant that has most.
        let most = wanted.tenants.values().map(|part| percentage(part.share)).max().unwrap_or(1);
        self.allow(most).await?;
        let grants = wanted.tenants.iter().map(|(name, part)| {
            let percent = percentage(part.share);
            let part = Ppm::from_percent(percent).unwrap_or(Ppm::WHOLE);
            let environment =
                vec![self.pipe_variable(), ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", percent.to_string())];
            let grant = Grant {
                environment: Some(environment),
                room: Room { given: part, held: part },
                per_process: true,
                sms: None,
                groups: None,
                pending: None,
            };
            (name.clone(), grant)
        });
        Ok(grants.collect())
    }

    /// Sees to it that nobody's percentage is above this.
    async fn allow(&mut self, most: u32) -> Result<(), Down> {
        if self.allowed != Some(most) {
            self.control.say(&format!("set_default_active_thread_percentage {most}")).await?;
            self.allowed = Some(most);
        }
        let said = self.control.say("get_server_list").await?;
        for server in super::answers::pids(&said) {
            let now = self.control.say(&format!("get_active_thread_percentage {server}")).await?;
            if now.trim().parse::<f64>().is_ok_and(|now| now != f64::from(most)) {
                self.control.say(&format!("set_active_thread_percentage {server} {most}")).await?;
            }
        }
        Ok(())
    }

    /// Places for green contexts, under MPS that leaves all SMs to everybody, or without it.
    async fn group(&mut self, wanted: &WantedGpu, multiply: bool) -> Result<BTreeMap<String, Grant>, Down> {
        const ALL: u32 = 100;
        let environment = if multiply {
            self.up_alone().await?;
            Vec::new()
        } else {
            self.up().await?;
            self.allow(ALL).await?;
            vec![self.pipe_variable()]
        };
        let promised: u64 = wanted.tenants.values().map(|part| u64::from(part.share.get())).sum();
        if u64::from(Ppm::WHOLE.get()) < promised {
            return Err(Down::Shares(Unplaceable::TooMuch.to_string()));
        }
        let places = groups::settled(wanted, &self.places);
        if self.places != places {
            self.places.clone_from(&places);
            self.write_down()?;
        }
        Ok(groups::grants(wanted, &places, &environment))
    }

    /// As [`Self::up`], where the device is not to be served by MPS.
    async fn up_alone(&mut self) -> Result<(), Down> {
        if self.settled {
            return Ok(());
        }
        let record = Record::read(&self.record());
        if self.control.say("get_server_list").await.is_ok() && !self.control.end_if_idle().await {
            return Err(Down::Former);
        }
        let made = std::fs::create_dir_all(&self.control.pipe);
        made.map_err(Down::Record)?;
        if record.sharing == self.sharing.word() {
            self.places = record.places();
        }
        self.settled = true;
        self.write_down()
    }

    fn record(&self) -> PathBuf {
        self.control.pipe.join(RECORD)
    }
}

fn is_named(one: &Partition, name: &str) -> bool {
    name.rsplit('/').next() == Some(one.name.as_str())
}

fn find<'t>(table: &'t Table, name: &str) -> Option<&'t Partition> {
    table.partitions.iter().find(|one| is_named(one, name))
}

/// What the next daemon has to know of a control program that outlives this one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What it was started for.
    sharing: String,
    /// Whose partitions are whose.
    partitions: BTreeMap<String, String>,
    /// Whose places are whose, from and to in parts per million.
    #[serde(default)]
    places: BTreeMap<String, (u32, u32)>,
}

impl Record {
    /// What an earlier daemon wrote down. Without it, or if it is damaged, its control program is a stranger's.
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn places(&self) -> BTreeMap<String, Place> {
        let place = |(name, (from, to)): (&String, &(u32, u32))| {
            Some((name.clone(), Place::new(Ppm::new(*from)?, Ppm::new(*to)?)?))
        };
        self.places.iter().filter_map(place).collect()
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, serde_json::to_string(self).map_err(std::io::Error::other)?)?;
        std::fs::rename(fresh, file)
    }
}

/// Why a device cannot be shared by space.
#[derive(Debug, thiserror::Error)]
enum Down {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("programs are at work in the MPS of another sharing of the device; end them, and it changes")]
    Former,
    #[error(
        "this nvidia-cuda-mps-control does not partition the device; static partitions need CUDA 13.1 and an Ampere or \
         newer GPU: use mpsPercentage, or temporal"
    )]
    NoPartitions,
    #[error("{0}")]
    Shares(String),
    #[error("cannot write down whose partition is whose: {0}; look at spec.mps.directory")]
    Record(std::io::Error),
}
