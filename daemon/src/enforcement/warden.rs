//! Makes a plan hold, and goes on making it hold: cgroups and interfaces come and go, drivers get their numbers when they
//! are loaded, budgets run out of their period.
//!
//! Everything is applied again and again by difference, so that what failed once is tried again and what has not changed
//! costs a look.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headgate_ebpf::enforce::{DeviceClass, Open};
use headgate_ebpf::{
    Cgroup, Cidr, Devices, Enforcement, EnforcementConfig, Error, Part, RuleMode, Rules, Side, State,
};

use super::book::{Book, Due, due};
use super::figures::{self, Figures};
use super::plan::{Plan, TenantPlan};

/// Why tenants that demand refusals do not get them: read by whoever says whether the node is ready.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<Stand>>);

#[derive(Debug, Default)]
struct Stand {
    reasons: Vec<String>,
    /// Plans handed over, and those taken in.
    asked: u64,
    taken: u64,
}

impl Standing {
    /// The reasons; empty when everything that is demanded holds.
    #[must_use]
    pub fn failing(&self) -> Vec<String> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pending =
            (now.asked != now.taken).then(|| "the kernel is still being told what to refuse".to_owned());
        now.reasons.iter().cloned().chain(pending).collect()
    }

    /// A plan is on its way.
    pub fn ask(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked += 1;
    }

    fn take(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).taken += 1;
    }

    fn set(&self, reasons: Vec<String>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.reasons != reasons {
            for reason in reasons.iter().filter(|reason| !now.reasons.contains(reason)) {
                tracing::error!(reason, "the kernel does not hold what the configuration demands");
            }
            now.reasons = reasons;
        }
    }
}

/// What the kernel was told about a tenant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Applied {
    rules: Rules,
    cgroup: Option<u64>,
    interfaces: BTreeMap<String, u32>,
    /// Bytes granted by district, for budgets whose running period the kernel has heard of.
    pub(super) budgets: BTreeMap<String, u64>,
}

/// Holds enforcement for the daemon.
#[derive(Debug)]
pub struct Warden {
    plan: Option<Plan>,
    /// Why there is no plan although one is wanted.
    impossible: Option<String>,
    held: Option<Held>,
    book: Book,
    standing: Standing,
}

#[derive(Debug)]
struct Held {
    enforcement: Enforcement,
    pins: PathBuf,
    governed: PathBuf,
    districts: Option<Vec<(String, Vec<Cidr>)>>,
    tenants: BTreeMap<String, Applied>,
    /// What could not be done for a tenant, until it could.
    trouble: BTreeMap<String, String>,
    /// The same for what concerns all.
    common_trouble: Option<String>,
}

impl Warden {
    /// A warden that holds nothing yet. Its book is in the state directory.
    #[must_use]
    pub fn new(state_dir: &Path, standing: Standing) -> Self {
        Self { plan: None, impossible: None, held: None, book: Book::open(state_dir), standing }
    }

    /// Whether there is anything to hold.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// What is to hold from now on: `None` for nothing, which ends what stands.
    pub fn apply(&mut self, plan: Option<Result<Plan, String>>, now: Duration) {
        match plan {
            None => {
                (self.plan, self.impossible) = (None, None);
                self.retire();
            }
            Some(Err(reason)) => (self.plan, self.impossible) = (None, Some(reason)),
            Some(Ok(plan)) => {
                (self.plan, self.impossible) = (Some(plan), None);
                self.open();
            }
        }
        self.devices_may_have_changed();
        self.tick(now);
        self.standing.take();
    }

    /// Makes the plan hold for what has come, gone or run out since.
    pub fn tick(&mut self, now: Duration) {
        if let (Some(held), Some(plan)) = (&mut self.held, &self.plan) {
            held.make_hold(plan);
            held.grant(plan, &mut self.book, now);
        }
        self.standing.set(self.failing());
    }

    /// Drivers get their device numbers when they are loaded.
    pub fn devices_may_have_changed(&mut self) {
        if let (Some(held), Some(plan)) = (&mut self.held, &self.plan) {
            held.guard_devices(plan);
        }
    }

    /// A process has its hook's code here; no error if no gate is held.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn attest(&mut self, process: u32, code: &Range<u64>) -> Result<(), Error> {
        match &mut self.held {
            Some(held) => missing_is_fine(held.enforcement.attest(process, code)),
            None => Ok(()),
        }
    }

    /// Takes that back.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn revoke(&mut self, process: u32) -> Result<(), Error> {
        match &mut self.held {
            Some(held) => missing_is_fine(held.enforcement.revoke(process)),
            None => Ok(()),
        }
    }

    /// The processes the kernel holds attested, those of an earlier run included.
    #[must_use]
    pub fn attested(&self) -> BTreeMap<u32, Range<u64>> {
        self.held.as_ref().and_then(|held| held.enforcement.attested().ok()).unwrap_or_default()
    }

    /// Attempts of tenants' processes to open a GPU since the last call.
    pub fn opens(&mut self) -> Vec<Open> {
        let mut opens = Vec::new();
        if let Some(held) = &mut self.held {
            held.enforcement.drain_opens(|open| opens.push(open));
        }
        opens
    }

    /// One reading of the kernel's tables; `None` when nothing is held.
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        self.held.as_ref().map(|held| figures::read(&held.enforcement, &held.tenants))
    }

    fn open(&mut self) {
        let Some(plan) = &self.plan else { return };
        if self.held.as_ref().is_some_and(|held| held.pins == plan.pins && held.governed == plan.governed) {
            return;
        }
        // What is new stands before what is old goes.
        let old = self.held.take();
        let stale =
            old.as_ref().map(|held| held.pins.clone()).or_else(|| self.book.pins().map(Path::to_owned));
        match Held::open(plan) {
            Ok(held) => self.held = Some(held),
            Err(reason) => {
                self.impossible = Some(reason);
                self.held = old;
                return;
            }
        }
        drop(old);
        if let Some(stale) = stale.filter(|stale| *stale != plan.pins) {
            end(&stale);
        }
        if let Err(error) = self.book.set_pins(Some(&plan.pins)) {
            tracing::error!(%error, "a restart would not find what stands in the kernel");
        }
    }

    fn retire(&mut self) {
        let held = self.held.take().map(|held| held.pins);
        if let Some(pins) = held.or_else(|| self.book.pins().map(Path::to_owned)) {
            end(&pins);
            if let Err(error) = self.book.set_pins(None) {
                tracing::error!(%error, "the record of what stands in the kernel cannot be written");
            }
        }
    }

    fn failing(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.impossible.iter().cloned().collect();
        let (Some(held), Some(plan)) = (&self.held, &self.plan) else { return reasons };
        let missing: BTreeMap<Part, String> = held
            .enforcement
            .status()
            .into_iter()
            .filter(|status| status.state == State::Missing)
            .map(|status| (status.part, status.reason))
            .collect();
        for tenant in plan.tenants.iter().filter(|tenant| tenant.refuses()) {
            let needs = [
                (tenant.rules.border, Part::Residency),
                (tenant.rules.gate, Part::DeviceGate),
                (
                    if tenant.interfaces.is_empty() { RuleMode::Off } else { tenant.rules.border },
                    Part::RawFrameGuard,
                ),
            ];
            for (mode, part) in needs {
                if mode == RuleMode::Enforce
                    && let Some(reason) = missing.get(&part)
                {
                    reasons
                        .push(format!("tenant `{}` demands {part}, which is missing: {reason}", tenant.name));
                }
            }
            if let Some(trouble) = held.trouble.get(&tenant.name) {
                reasons.push(format!("tenant `{}`: {trouble}", tenant.name));
            }
        }
        if plan.tenants.iter().any(TenantPlan::refuses) {
            reasons.extend(held.common_trouble.clone());
        }
        reasons
    }
}

impl Held {
    fn open(plan: &Plan) -> Result<Self, String> {
        let make = std::fs::create_dir_all(&plan.governed);
        let governed = make
            .map_err(|error| error.to_string())
            .and_then(|()| Cgroup::open(&plan.governed).map_err(|error| error.to_string()));
        let governed = governed.map_err(|reason| {
            format!("the governed cgroup {} cannot be used: {reason}", plan.governed.display())
        })?;
        let mut config = EnforcementConfig::new(&governed);
        config.pins.clone_from(&plan.pins);
        let enforcement = Enforcement::open(&config);
        Ok(Self {
            enforcement,
            pins: plan.pins.clone(),
            governed: plan.governed.clone(),
            districts: None,
            tenants: BTreeMap::new(),
            trouble: BTreeMap::new(),
            common_trouble: None,
        })
    }

    fn make_hold(&mut self, plan: &Plan) {
        if self.districts.as_ref() != Some(&plan.districts) {
            let districts = plan.districts.iter().map(|(name, ranges)| (name.as_str(), ranges.clone()));
            match missing_is_fine(self.enforcement.set_districts(districts)) {
                Ok(()) => (self.districts, self.common_trouble) = (Some(plan.districts.clone()), None),
                Err(error) => self.common_trouble = Some(error.to_string()),
            }
        }
        for tenant in &plan.tenants {
            match self.set(tenant) {
                Ok(()) => self.trouble.remove(&tenant.name),
                Err(error) => self.trouble.insert(tenant.name.clone(), error),
            };
        }
        let wanted: BTreeSet<&str> = plan.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        let gone: Vec<String> =
            self.enforcement.tenants().filter(|name| !wanted.contains(name)).map(str::to_owned).collect();
        for name in gone {
            if let Some(applied) = self.tenants.remove(&name) {
                self.unguard(applied.interfaces.values());
            }
            self.trouble.remove(&name);
            if let Err(error) = self.enforcement.remove_tenant(&name) {
                tracing::warn!(tenant = name, %error, "the kernel does not forget a tenant");
            }
        }
    }

    fn set(&mut self, tenant: &TenantPlan) -> Result<(), String> {
        let cgroup = tenant.directory.as_deref().and_then(|directory| {
            if tenant.is_looked_at() && !directory.exists() {
                // Whoever is moved in later must find the rules in force: so the cgroup is made now.
                if let Err(error) = std::fs::create_dir_all(directory) {
                    tracing::debug!(cgroup = %directory.display(), %error, "a tenant's cgroup cannot be made yet");
                }
            }
            Cgroup::open(directory).ok()
        });
        let id = cgroup.as_ref().map(Cgroup::id);
        let known = self.tenants.get(&tenant.name);
        if known.is_none_or(|applied| applied.rules != tenant.rules || applied.cgroup != id) {
            missing_is_fine(self.enforcement.set_tenant(&tenant.name, &tenant.rules, &cgroup))
                .map_err(|error| error.to_string())?;
            let applied = self.tenants.entry(tenant.name.clone()).or_default();
            applied.rules = tenant.rules.clone();
            applied.cgroup = id;
        }
        self.guard(tenant)
    }

    /// Guards exactly the tenant's interfaces that are there.
    fn guard(&mut self, tenant: &TenantPlan) -> Result<(), String> {
        let wanted: BTreeMap<String, u32> = tenant
            .interfaces
            .iter()
            .filter_map(|name| Some((name.clone(), nix::net::if_::if_nametoindex(name.as_str()).ok()?)))
            .collect();
        let known =
            self.tenants.get(&tenant.name).map(|applied| applied.interfaces.clone()).unwrap_or_default();
        if known == wanted {
            return Ok(());
        }
        let mut now = known.clone();
        for (name, index) in &wanted {
            if known.get(name) != Some(index) {
                missing_is_fine(self.enforcement.guard_interface(&tenant.name, *index, Side::HostIngress))
                    .map_err(|error| error.to_string())?;
                now.insert(name.clone(), *index);
            }
        }
        let kept: BTreeSet<u32> = wanted.values().copied().collect();
        self.unguard(known.values().filter(|index| !kept.contains(index)));
        now.retain(|name, _| wanted.contains_key(name));
        if let Some(applied) = self.tenants.get_mut(&tenant.name) {
            applied.interfaces = now;
        }
        Ok(())
    }

    fn unguard<'i>(&mut self, interfaces: impl Iterator<Item = &'i u32>) {
        for index in interfaces {
            if let Err(error) = missing_is_fine(self.enforcement.unguard_interface(*index, Side::HostIngress))
            {
                tracing::debug!(index, %error, "an interface's guard was gone already");
            }
        }
    }

    fn guard_devices(&mut self, plan: &Plan) {
        let mut devices = match Devices::of_this_node() {
            Ok(devices) => devices,
            Err(error) => {
                tracing::warn!(%error, "the node's devices cannot be listed; the gate guards those it knows");
                return;
            }
        };
        for path in &plan.devices {
            match character_device(path) {
                Ok((major, minor)) => devices = devices.with_device(major, minor, DeviceClass::Gpu),
                Err(reason) => tracing::warn!(device = %path.display(), reason, "not a device to guard"),
            }
        }
        if let Err(error) = missing_is_fine(self.enforcement.set_devices(&devices)) {
            tracing::warn!(%error, "the device gate does not learn of devices");
        }
    }

    /// Grants what is due. Written down first: a budget that cannot be written down is not granted.
    fn grant(&mut self, plan: &Plan, book: &mut Book, now: Duration) {
        let mut changes = Vec::new();
        let mut grants = Vec::new();
        for tenant in &plan.tenants {
            let Some(applied) = self.tenants.get(&tenant.name) else { continue };
            for budget in &tenant.budgets {
                let Ok(kernel) = self.enforcement.budget(&tenant.name, &budget.district) else { continue };
                let known = book.period(&tenant.name, &budget.district);
                let held = applied.budgets.contains_key(&budget.district);
                if let Due::Grant(period, bytes) = due(known, budget, now, kernel.passed, held) {
                    if known != Some(&period) {
                        changes.push((tenant.name.clone(), budget.district.clone(), Some(period)));
                    }
                    grants.push((tenant.name.clone(), budget.district.clone(), period.bytes, bytes));
                }
            }
        }
        let wanted: BTreeSet<(&str, &str)> = plan
            .tenants
            .iter()
            .flat_map(|tenant| {
                tenant.budgets.iter().map(|budget| (tenant.name.as_str(), budget.district.as_str()))
            })
            .collect();
        let struck: Vec<(String, String)> = book
            .budgets()
            .filter(|budget| !wanted.contains(budget))
            .map(|(tenant, district)| (tenant.to_owned(), district.to_owned()))
            .collect();
        changes.extend(struck.iter().map(|(tenant, district)| (tenant.clone(), district.clone(), None)));
        if let Err(error) = book.enter(&changes) {
            self.common_trouble =
                Some(format!("budgets cannot be written down, so none is granted: {error}"));
            return;
        }
        for (tenant, district, of, bytes) in grants {
            match self.enforcement.refill(&tenant, &district, bytes) {
                Ok(()) => {
                    if let Some(applied) = self.tenants.get_mut(&tenant) {
                        applied.budgets.insert(district, of);
                    }
                }
                Err(error) => tracing::warn!(tenant, district, %error, "a budget is not granted"),
            }
        }
        for (tenant, district) in struck {
            if let Some(applied) = self.tenants.get_mut(&tenant) {
                applied.budgets.remove(&district);
            }
            // A tenant that is gone took its budgets along.
            if let Err(error) = self.enforcement.refill(&tenant, &district, 0) {
                tracing::debug!(tenant, district, %error, "a budget was gone already");
            }
        }
    }
}

/// A part that is missing is in the status; whoever demands it makes the node unready.
fn missing_is_fine(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::PartMissing(_)) => Ok(()),
        other => other,
    }
}

fn end(pins: &Path) {
    match headgate_ebpf::enforce::retire(pins) {
        Ok(()) => tracing::info!(pins = %pins.display(), "the kernel refuses nothing any more"),
        Err(error) => tracing::error!(%error, "what stands in the kernel cannot be ended"),
    }
}

fn character_device(path: &Path) -> Result<(u32, u32), String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.file_type().is_char_device() {
        return Err("it is no character device".to_owned());
    }
    let number = |part: u64| u32::try_from(part).map_err(|error| error.to_string());
    let device = metadata.rdev();
    Ok((number(nix::sys::stat::major(device))?, number(nix::sys::stat::minor(device))?))
}
