//! What the kernel is to hold: the configuration in the kernel's terms.

use std::path::PathBuf;
use std::time::Duration;

use headgate_ebpf::{Cidr, RuleMode, Rules};

use crate::config::Config;
use crate::config::enforcement::{Enforcement, Witness};
use crate::config::model::Tenant;
use crate::identity::cgroup::Cgroups;
use crate::node::State;

/// Everything that is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Directory of the pins.
    pub pins: PathBuf,
    /// Directory of the governed cgroup.
    pub governed: PathBuf,
    /// Device nodes that count as GPUs besides the driver's own.
    pub devices: Vec<PathBuf>,
    /// Districts and their addresses.
    pub districts: Vec<(String, Vec<Cidr>)>,
    /// Tenants, removed ones that still run included.
    pub tenants: Vec<TenantPlan>,
}

/// What is to hold for a tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantPlan {
    /// Its name.
    pub name: String,
    /// Directory of its cgroup.
    pub directory: Option<PathBuf>,
    /// Its rules.
    pub rules: Rules,
    /// Its budgets.
    pub budgets: Vec<BudgetPlan>,
    /// Host names of its network interfaces.
    pub interfaces: Vec<String>,
}

/// A budget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetPlan {
    /// Where to.
    pub district: String,
    /// Bytes in each period.
    pub bytes: u64,
    /// The period.
    pub every: Duration,
}

impl TenantPlan {
    /// Whether something is to be refused, so that a node that cannot is not ready.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.rules.border == RuleMode::Enforce || self.rules.gate == RuleMode::Enforce
    }

    /// Whether the kernel looks at anything of it.
    #[must_use]
    pub fn is_looked_at(&self) -> bool {
        self.rules.border != RuleMode::Off || self.rules.gate != RuleMode::Off
    }

    fn of(tenant: &Tenant, cgroups: &Cgroups) -> Self {
        let residency = &tenant.residency;
        let home = (residency.mode != RuleMode::Off).then(|| tenant.district.as_str().to_owned());
        let budgets = residency.budgets.iter().map(|budget| BudgetPlan {
            district: budget.district.as_str().to_owned(),
            bytes: budget.bytes.0,
            every: budget.every,
        });
        Self {
            name: tenant.name.as_str().to_owned(),
            directory: tenant.cgroup.as_ref().and_then(|cgroup| cgroups.directory(cgroup)),
            rules: Rules {
                home,
                border: residency.mode,
                channel_port: residency.channel_port,
                gate: tenant.device_gate,
            },
            budgets: budgets.collect(),
            interfaces: residency.interfaces.clone(),
        }
    }
}

impl Plan {
    /// The plan of a node: `None` when its configuration asks for nothing, an error when there is no cgroup to govern.
    #[must_use]
    pub fn of(state: &State, cgroups: &Cgroups) -> Option<Result<Self, String>> {
        let config: &Config = &state.configured.as_ref()?.config;
        let Enforcement { pins, governed, devices } = config.enforcement.as_ref()?;
        let root = cgroups.root().map(ToOwned::to_owned);
        let directory = match governed {
            Some(cgroup) => cgroups.directory(cgroup),
            None => root,
        };
        let Some(governed) = directory else {
            return Some(Err("this kernel has no cgroup2 mount, so nothing can be refused".to_owned()));
        };
        Some(Ok(Self {
            pins: pins.clone(),
            governed,
            devices: devices.clone(),
            districts: districts_of(config),
            tenants: state.tenants().map(|(_, tenant)| TenantPlan::of(&tenant.policy, cgroups)).collect(),
        }))
    }
}

fn districts_of(config: &Config) -> Vec<(String, Vec<Cidr>)> {
    let districts = config.districts.iter().map(|district| {
        let ranges = district.ranges.iter().map(|(range, _)| *range).collect();
        (district.name.as_str().to_owned(), ranges)
    });
    districts.collect()
}

/// Districts and their addresses, by the configuration in force.
#[must_use]
pub fn districts(state: &State) -> Vec<(String, Vec<Cidr>)> {
    state.configured.as_ref().map_or_else(Vec::new, |configured| districts_of(&configured.config))
}

/// What the witness is to do, by the configuration in force.
#[must_use]
pub fn witness(state: &State) -> Witness {
    state.configured.as_ref().map_or_else(Witness::default, |configured| configured.config.witness)
}
