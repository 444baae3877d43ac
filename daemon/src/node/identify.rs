//! Whose process is this?

use super::event::Peer;
use super::state::{State, TenantSlot};

/// How a process came to its tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Its cgroup is the tenant's or below it.
    Cgroup,
    /// It, or an ancestor, was placed in the tenant.
    ProcessTree,
    /// It belongs to nobody, and there is a default tenant.
    Default,
}

/// The tenant of a process, or why it has none and what to do.
///
/// The tenant with the longest matching cgroup wins; then the nearest placed ancestor; then the default tenant.
/// There is no fourth way: a process nobody claims is refused, never unlimited.
pub fn identify(state: &State, peer: &Peer) -> Result<(TenantSlot, By), String> {
    let live = || state.tenants().filter(|(_, tenant)| !tenant.retired);
    if let Some(cgroup) = &peer.cgroup {
        let matching = live().filter_map(|(slot, tenant)| {
            let own = tenant.policy.cgroup.as_ref()?;
            own.holds(cgroup).then_some((own.as_str().len(), slot))
        });
        if let Some((_, slot)) = matching.max_by_key(|(length, _)| *length) {
            return Ok((slot, By::Cgroup));
        }
    }
    let line = [peer.process];
    let placed = line.iter().chain(&peer.ancestors).find_map(|process| state.roots.get(process));
    if let Some(name) = placed {
        return match live().find(|(_, tenant)| tenant.policy.name.as_str() == name) {
            Some((slot, _)) => Ok((slot, By::ProcessTree)),
            None => Err(format!("tenant `{name}`, in which this process was placed, has been removed")),
        };
    }
    let default = state.configured.as_ref().and_then(|configured| configured.config.default_tenant.as_ref());
    if let Some(name) = default
        && let Some(slot) = state.slot_of(name.as_str())
    {
        return Ok((slot, By::Default));
    }
    let cgroup = peer.cgroup.as_deref().unwrap_or("(none: this kernel has no cgroup2 mount)");
    Err(format!(
        "process {} is in cgroup {cgroup}, which belongs to no tenant, and there is no default tenant; start it \
         with `headgate run --tenant NAME -- ...`, or give a tenant this cgroup, or set spec.defaultTenant",
        peer.process.pid
    ))
}
