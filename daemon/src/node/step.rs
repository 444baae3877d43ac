//! The one function that changes a node.

use std::sync::Arc;

use headgate_abi::limits::DEVICES_MAX;
use headgate_abi::segment::SeatIndex;
use headgate_abi::wire::{Hello, RefusalReason, Welcome};

use super::census;
use super::effect::{Effect, TenantLimits};
use super::event::{AdoptedSeat, ConnectionId, DeviceFacts, Event, Peer, Process, RequestId};
use super::identify::identify;
use super::state::{Configured, REASONS, Row, SeatRef, Sitter, State, TenantSlot, TenantState};
use super::{incidents, loans};
use crate::config::Config;
use crate::config::model::{DeviceUuid, Identity, Tenant};
use crate::limits::ROOTS_MAX;

/// Takes one event in and says what is to be done.
pub fn step(state: &mut State, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    match event {
        Event::Configured { config, hash, at } => {
            configure(state, &config, &mut effects);
            state.configured = Some(Configured { config, hash, at, rejected: None });
            publish_all(state, &mut effects);
        }
        Event::ConfigRejected { text } => {
            if let Some(configured) = &mut state.configured {
                configured.rejected = Some(text);
            }
        }
        Event::Devices(devices) => {
            discover(state, devices);
            publish_all(state, &mut effects);
            effects.push(Effect::Remember);
        }
        Event::DevicesMissing { reason } => state.devices_missing = Some(reason),
        Event::Residents(residents) => census::take(state, residents),
        Event::LedgerFound { tenant, seats } => adopt(state, &tenant, seats, &mut effects),
        Event::RootFound { root, tenant } => {
            let known = state.configured.as_ref().is_some_and(|c| named(&c.config, &tenant).is_some());
            if known && state.roots.len() < ROOTS_MAX && state.roots.insert(root, tenant).is_none() {
                effects.push(Effect::WatchRoot { root });
            }
        }
        Event::Hello { connection, peer, hello } => greet(state, connection, &peer, &hello, &mut effects),
        Event::Malformed { connection, text } => {
            // A session that breaks the protocol ends; its seat stays for as long as its process lives.
            close(state, connection, &mut effects);
            refuse(state, connection, RefusalReason::BadHello, text, &mut effects);
        }
        Event::Unidentified { connection, text } => {
            refuse(state, connection, RefusalReason::Internal, text, &mut effects);
        }
        Event::TurnedAway { reason } => count_refusal(state, reason),
        Event::Closed { connection } => close(state, connection, &mut effects),
        Event::SeatFailed { seat, connection, text } => {
            vacate(state, seat);
            refuse(state, connection, RefusalReason::Internal, text, &mut effects);
            retire_if_empty(state, seat.slot, &mut effects);
        }
        Event::Exited { seat } | Event::Unmapped { seat } => release(state, seat, &mut effects),
        Event::Place { request, caller, tenant } => place(state, request, caller, tenant, &mut effects),
        Event::PlaceUnable { request, caller, tenant, why } => {
            let outcome = root(state, caller, &tenant, &mut effects)
                .map_err(|full| format!("{why}; and as a process tree: {full}"));
            effects.push(Effect::Placed { request, outcome, note: Some(why) });
        }
        Event::Space(standings) => {
            let mut space = std::mem::take(&mut state.space);
            let seated = state.tenants().filter(|(_, tenant)| !tenant.seats.is_empty());
            space.take(standings, &seated.map(|(_, tenant)| tenant.policy.name.as_str()).collect());
            state.space = space;
            publish_all(state, &mut effects);
        }
        Event::Lent(limits) => loans::lend(state, limits, &mut effects),
        Event::Incident { now, incident, ended } => {
            incidents::heard(state, now, incident, ended, &mut effects);
        }
        Event::Late(now) => incidents::expire(state, now, &mut effects),
        Event::Overstays { district, tenant } => loans::evict(state, &district, &tenant, &mut effects),
        Event::RootExited { root } => {
            state.roots.remove(&root);
        }
    }
    effects
}

/// Lays a new configuration over the tenants: those that stay keep their slots and seats, those that are gone
/// keep theirs only until their processes are.
fn configure(state: &mut State, config: &Arc<Config>, effects: &mut Vec<Effect>) {
    let kept: Vec<(TenantSlot, Option<Tenant>)> = state
        .tenants()
        // Guests come and go with their loans, whatever the file says.
        .filter(|(_, tenant)| tenant.policy.name.as_guest().is_none())
        .map(|(slot, tenant)| (slot, named(config, tenant.policy.name.as_str()).cloned()))
        .collect();
    for (slot, policy) in kept {
        let Some(tenant) = state.tenants[slot.index()].as_mut() else { continue };
        tenant.retired = policy.is_none();
        if let Some(policy) = policy {
            tenant.policy = Arc::new(policy);
        }
        retire_if_empty(state, slot, effects);
    }
    state.crowded_out.clear();
    for policy in &config.tenants {
        // The number of configured tenants is bounded, but removed ones may still hold slots; then the tenant
        // gets its slot at the next reload, its processes are refused until then, and readiness says so.
        if state.slot_of(policy.name.as_str()).is_none() && settle(state, policy.clone(), false).is_none() {
            state.crowded_out.push(policy.name.clone());
        }
    }
    let roots: Vec<Process> = state
        .roots
        .iter()
        .filter(|(_, name)| named(config, name).is_none() && !name.contains('.'))
        .map(|(root, _)| *root)
        .collect();
    for root in roots {
        state.roots.remove(&root);
    }
    effects.push(Effect::Attribute);
}

fn named<'c>(config: &'c Config, name: &str) -> Option<&'c Tenant> {
    config.tenants.iter().find(|tenant| tenant.name.as_str() == name)
}

pub(super) fn settle(state: &mut State, policy: Tenant, retired: bool) -> Option<TenantSlot> {
    let slot = state.free_slot()?;
    let serial = state.next_serial;
    state.next_serial += 1;
    let tenant =
        TenantState { serial, policy: Arc::new(policy), retired, seats: std::collections::BTreeMap::new() };
    state.tenants[slot.index()] = Some(tenant);
    Some(slot)
}

fn publish_all(state: &State, effects: &mut Vec<Effect>) {
    let limits = state.tenants().map(|(slot, tenant)| TenantLimits::of(state, slot, tenant));
    effects.extend(limits.map(Effect::Publish));
    effects.push(Effect::Regate);
}

/// Gives every device its row. A device keeps its row for good, because segments of running processes carry
/// the row's number; only a row nobody can have seen is given away.
fn discover(state: &mut State, devices: Vec<DeviceFacts>) {
    state.devices_missing = None;
    let governed = |uuid: DeviceUuid| {
        let configured = state.configured.as_ref();
        let list = configured.and_then(|configured| configured.config.devices.as_ref());
        list.is_none_or(|list| list.contains(&uuid))
    };
    let devices: Vec<DeviceFacts> = devices.into_iter().filter(|device| governed(device.uuid)).collect();
    for row in state.rows.iter_mut().flatten() {
        row.present = false;
    }
    let seated = state.seats().next().is_some();
    for DeviceFacts { uuid, name, memory } in devices {
        let own = state.rows.iter().position(|row| row.as_ref().is_some_and(|row| row.uuid == uuid));
        let free = || state.rows.iter().position(Option::is_none);
        let stale = || {
            let absent = |row: &Option<Row>| row.as_ref().is_some_and(|row| !row.present);
            (!seated).then(|| state.rows.iter().position(absent)).flatten()
        };
        match own.or_else(free).or_else(stale) {
            Some(index) => state.rows[index] = Some(Row { uuid, name, memory, present: true }),
            None => {
                state.devices_missing =
                    Some(format!("device {uuid} has no row: a node takes at most {DEVICES_MAX} devices"));
            }
        }
    }
}

/// Takes over a ledger of an earlier run: the seats of living processes that still belong to the tenant stay,
/// the others are given back.
fn adopt(state: &mut State, name: &str, seats: Vec<AdoptedSeat>, effects: &mut Vec<Effect>) {
    let slot = match state.slot_of(name) {
        Some(slot) => slot,
        None => {
            // The tenant left the configuration while the daemon was away.
            let guest = || Some(loans::unknown_guest(&crate::config::model::Name::as_guest_text(name)?));
            let known = crate::config::model::Name::new(name).and_then(|name| bare(state, name));
            let Some(slot) = known.or_else(guest).and_then(|policy| settle(state, policy, true)) else {
                return;
            };
            slot
        }
    };
    let retired = state.tenant(slot).is_some_and(|tenant| tenant.retired);
    let mut kept = Vec::new();
    let mut dead = Vec::new();
    for AdoptedSeat { seat, generation, peer } in seats {
        let peer = peer.filter(|peer| retired || identify(state, peer).is_ok_and(|(own, _)| own == slot));
        // Seat words are the tenant's to scribble on: one process gets one seat, whatever they say.
        let peer = peer.filter(|peer| !state.processes.contains_key(&peer.process.pid));
        match peer {
            Some(Peer { process, .. }) => {
                let seat = SeatRef { slot, seat, generation };
                sit(state, seat, process, None);
                kept.push((seat, process));
            }
            None => dead.push(seat),
        }
    }
    if let Some(tenant) = state.tenant(slot) {
        let limits = TenantLimits::of(state, slot, tenant);
        effects.push(Effect::Adopt { tenant: name.to_owned(), slot, limits });
    }
    effects.extend(dead.into_iter().map(|seat| Effect::Forget { slot, seat }));
    effects.extend(kept.into_iter().map(|(seat, process)| Effect::Watch { seat, process }));
    retire_if_empty(state, slot, effects);
    effects.extend([Effect::Regate, Effect::Remember]);
}

/// A removed tenant of which only the name is known.
fn bare(state: &State, name: crate::config::model::Name) -> Option<Tenant> {
    let district = state.configured.as_ref()?.config.district.clone();
    Some(Tenant {
        name,
        district,
        cgroup: None,
        class: headgate_quota::Class::default(),
        mode: headgate_quota::Mode::default(),
        fail_policy: crate::config::model::FailPolicy::default(),
        enforcement: true,
        quota: std::collections::BTreeMap::new(),
        residency: crate::config::enforcement::Residency::default(),
        device_gate: headgate_ebpf::RuleMode::default(),
        borrow: None,
        place: crate::config::Place { line: 1, column: 1 },
    })
}

fn greet(state: &mut State, connection: ConnectionId, peer: &Peer, hello: &Hello, effects: &mut Vec<Effect>) {
    if state.connections.contains_key(&connection) {
        let text = "a session says hello once; close it and connect again".to_owned();
        close(state, connection, effects);
        return refuse(state, connection, RefusalReason::BadHello, text, effects);
    }
    let slot = match identify(state, peer) {
        Ok((slot, _)) => slot,
        Err(text) => return refuse(state, connection, RefusalReason::NoTenant, text, effects),
    };
    let held = state.processes.get(&peer.process.pid).copied();
    if let Some(held) = held {
        let same = state.sitter(held).is_some_and(|sitter| sitter.process == peer.process)
            && held.slot == slot
            && hello.seat == Some((held.seat, held.generation));
        if same {
            return resume(state, connection, held, peer.process, hello, effects);
        }
        // The process called exec, moved to another tenant, or lost its memory of the seat.
        release(state, held, effects);
    }
    let Some(seat) = state.free_seat(slot) else {
        let text = format!(
            "tenant `{}` has {} processes already; end some, or split the tenant",
            state.tenant(slot).map_or("?", |tenant| tenant.policy.name.as_str()),
            headgate_abi::limits::SEATS_MAX
        );
        return refuse(state, connection, RefusalReason::SeatsFull, text, effects);
    };
    let seat = take(state, slot, seat, peer.process, connection);
    welcome(state, connection, seat, peer.process, hello, true, effects);
    effects.push(Effect::Regate);
}

fn take(
    state: &mut State,
    slot: TenantSlot,
    seat: SeatIndex,
    process: Process,
    connection: ConnectionId,
) -> SeatRef {
    let generation = state.next_generation;
    state.next_generation = state.next_generation.wrapping_add(1);
    let seat = SeatRef { slot, seat, generation };
    sit(state, seat, process, Some(connection));
    seat
}

/// A process that kept its seat across a restart of the daemon, or across closing its socket.
fn resume(
    state: &mut State,
    connection: ConnectionId,
    seat: SeatRef,
    process: Process,
    hello: &Hello,
    effects: &mut Vec<Effect>,
) {
    let sitter =
        state.tenants[seat.slot.index()].as_mut().and_then(|tenant| tenant.seats.get_mut(&seat.seat.get()));
    if let Some(sitter) = sitter
        && let Some(old) = sitter.connection.replace(connection)
    {
        state.connections.remove(&old);
        effects.push(Effect::Close { connection: old });
    }
    state.connections.insert(connection, seat);
    welcome(state, connection, seat, process, hello, false, effects);
}

fn welcome(
    state: &State,
    connection: ConnectionId,
    seat: SeatRef,
    process: Process,
    hello: &Hello,
    fresh: bool,
    effects: &mut Vec<Effect>,
) {
    let Some(tenant) = state.tenant(seat.slot) else { return };
    let row_of = |uuid: &[u8; 16]| {
        let index = state
            .rows
            .iter()
            .position(|row| row.as_ref().is_some_and(|row| row.present && row.uuid.0 == *uuid))?;
        u8::try_from(index).ok()
    };
    let welcome = Welcome {
        tenant: seat.slot.to_u32(),
        seat: seat.seat,
        generation: seat.generation,
        fresh,
        off: !tenant.policy.enforcement,
        rows: hello.devices.iter().map(row_of).collect(),
        tenant_name: tenant.policy.name.as_str().to_owned(),
    };
    let limits = TenantLimits::of(state, seat.slot, tenant);
    let hook_text = hello.text_start;
    effects.push(Effect::Welcome { connection, seat, process, welcome, hook_text, limits });
}

fn refuse(
    state: &mut State,
    connection: ConnectionId,
    reason: RefusalReason,
    text: String,
    effects: &mut Vec<Effect>,
) {
    count_refusal(state, reason);
    effects.push(Effect::Refuse { connection, reason, text });
}

fn count_refusal(state: &mut State, reason: RefusalReason) {
    for ((known, _), count) in REASONS.iter().zip(&mut state.refused) {
        if *known == reason {
            *count += 1;
        }
    }
}

/// A session ended while its process may live on: either the process called `exec`, or it closed every
/// descriptor it found. The first frees the seat, the second does not.
fn close(state: &mut State, connection: ConnectionId, effects: &mut Vec<Effect>) {
    let Some(seat) = state.connections.remove(&connection) else { return };
    let sitter = state.tenants[seat.slot.index()]
        .as_mut()
        .and_then(|tenant| tenant.seats.get_mut(&seat.seat.get()))
        .filter(|sitter| sitter.generation == seat.generation && sitter.connection == Some(connection));
    if let Some(sitter) = sitter {
        sitter.connection = None;
        effects.push(Effect::Inspect { seat, process: sitter.process });
    }
}

fn sit(state: &mut State, seat: SeatRef, process: Process, connection: Option<ConnectionId>) {
    if let Some(tenant) = state.tenants[seat.slot.index()].as_mut() {
        tenant.seats.insert(seat.seat.get(), Sitter { process, generation: seat.generation, connection });
        state.processes.insert(process.pid, seat);
    }
    if let Some(connection) = connection {
        state.connections.insert(connection, seat);
    }
}

/// Takes a sitter off its seat, in the state only. `None` when that taking of the seat is over already.
fn vacate(state: &mut State, seat: SeatRef) -> Option<Sitter> {
    state.sitter(seat)?;
    let sitter = state.tenants[seat.slot.index()].as_mut()?.seats.remove(&seat.seat.get())?;
    census::departed(state, sitter.process);
    if state.processes.get(&sitter.process.pid) == Some(&seat) {
        state.processes.remove(&sitter.process.pid);
    }
    if let Some(connection) = sitter.connection {
        state.connections.remove(&connection);
    }
    Some(sitter)
}

fn release(state: &mut State, seat: SeatRef, effects: &mut Vec<Effect>) {
    let Some(sitter) = vacate(state, seat) else { return };
    effects.push(Effect::Reap { seat });
    if let Some(connection) = sitter.connection {
        effects.push(Effect::Close { connection });
    }
    retire_if_empty(state, seat.slot, effects);
    effects.push(Effect::Regate);
}

pub(super) fn retire_if_empty(state: &mut State, slot: TenantSlot, effects: &mut Vec<Effect>) {
    if state.tenant(slot).is_some_and(|tenant| tenant.retired && tenant.seats.is_empty()) {
        state.tenants[slot.index()] = None;
        census::forget(state, slot);
        effects.push(Effect::Retire { slot });
        effects.push(Effect::Remember);
    }
}

fn place(state: &mut State, request: RequestId, caller: Process, tenant: String, effects: &mut Vec<Effect>) {
    let found = state.tenants().find(|(_, t)| !t.retired && t.policy.name.as_str() == tenant);
    let Some((_, found)) = found else {
        let known: Vec<&str> =
            state.tenants().filter(|(_, t)| !t.retired).map(|(_, t)| t.policy.name.as_str()).collect();
        let outcome = Err(match crate::config::fields::nearest(&tenant, &known) {
            Some(near) => format!("there is no tenant `{tenant}`; did you mean `{near}`?"),
            None => format!("there is no tenant `{tenant}`; there are: {}", known.join(", ")),
        });
        effects.push(Effect::Placed { request, outcome, note: None });
        return;
    };
    let identity =
        state.configured.as_ref().map_or(Identity::default(), |configured| configured.config.identity);
    match (identity, found.policy.cgroup.clone()) {
        (Identity::Auto | Identity::Cgroup, Some(cgroup)) => {
            effects.push(Effect::Place { request, caller, tenant, cgroup, identity });
        }
        (Identity::Cgroup, None) => {
            let outcome = Err(format!(
                "tenant `{tenant}` has no cgroup to be placed in; add `cgroup: /headgate/{tenant}` to it"
            ));
            effects.push(Effect::Placed { request, outcome, note: None });
        }
        (Identity::ProcessTree, _) | (Identity::Auto, None) => {
            let outcome = root(state, caller, &tenant, effects);
            effects.push(Effect::Placed { request, outcome, note: None });
        }
    }
}

fn root(
    state: &mut State,
    caller: Process,
    tenant: &str,
    effects: &mut Vec<Effect>,
) -> Result<String, String> {
    if ROOTS_MAX <= state.roots.len() {
        return Err(format!("{ROOTS_MAX} process trees are placed already; end some"));
    }
    if state.roots.insert(caller, tenant.to_owned()).is_none() {
        effects.push(Effect::WatchRoot { root: caller });
    }
    effects.push(Effect::Remember);
    Ok(tenant.to_owned())
}
