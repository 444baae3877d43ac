//! Nodes to checked types, value by value. A wrong value is reported and reading goes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use headgate_abi::limits::{DEVICES_MAX, TENANTS_MAX};
use headgate_quota::{Bytes, Class, MemoryQuota, Mode, Ppm};

use super::enforcement::{self, Residency};
use super::fields::{Fields, nearest, shown};
use super::loans;
use super::model::{
    API_VERSION, CgroupPath, Config, DeviceKey, DeviceUuid, FailPolicy, Identity, KIND, Name, Probes, Quota,
    SmQuota, Sockets, Tenant, defaults,
};
use super::problem::Problem;
use super::quantity;
use super::relations::{self, ReadTenant, Relations};
use super::space;
use super::tree::{Node, Value};
use crate::limits::SOCKET_PATH_BYTES_MAX;

/// What is wrong so far.
pub(super) type Report = Vec<Problem>;

/// Reads a whole document and checks how its parts relate. `None` when something needed is missing.
pub fn config(root: &Node, report: &mut Report) -> Option<Config> {
    let mut fields = Fields::of(root, "the document", report)?;
    if let Some(node) = fields.required("apiVersion", report) {
        fixed(node, "apiVersion", API_VERSION, report);
    }
    if let Some(node) = fields.required("kind", report) {
        fixed(node, "kind", KIND, report);
    }
    let name = fields.required("metadata", report).and_then(|node| metadata(node, report));
    let spec = fields.required("spec", report);
    fields.finish(report);
    self::spec(spec?, name, report)
}

fn metadata(node: &Node, report: &mut Report) -> Option<Name> {
    let mut fields = Fields::of(node, "metadata", report)?;
    let name = fields.required("name", report).and_then(|node| checked_name(node, "a name", report));
    fields.finish(report);
    name
}

fn spec(node: &Node, name: Option<Name>, report: &mut Report) -> Option<Config> {
    let mut fields = Fields::of(node, "spec", report)?;
    let own_node = fields.optional("node").and_then(|node| checked_name(node, "a node name", report));
    let district =
        fields.required("district", report).and_then(|node| checked_name(node, "a district", report));
    let sockets = fields.optional("sockets").and_then(|node| sockets(node, report));
    let http = fields.optional("http").map(|node| http(node, report));
    let state_dir = fields.optional("stateDir").and_then(|node| path(node, "stateDir", report));
    let cgroup_root = fields.optional("cgroupRoot").and_then(|node| path(node, "cgroupRoot", report));
    let identity = fields.optional("identity").and_then(|node| identity(node, report));
    let default_node = fields.optional("defaultTenant");
    let default_tenant = default_node.and_then(|node| checked_name(node, "a tenant name", report));
    let hook_library = fields.optional("hookLibrary").and_then(|node| path(node, "hookLibrary", report));
    let devices = fields.optional("devices").and_then(|node| devices(node, report));
    let overcommit_sm = fields.optional("overcommit").and_then(|node| overcommit(node, report));
    let gpus = fields.optional("gpus").and_then(|node| space::gpus(node, report));
    let mps = fields.optional("mps").and_then(|node| space::mps(node, report));
    let probes = fields.optional("probes").and_then(|node| probes(node, report));
    let kernel_node = fields.optional("enforcement");
    let kernel = kernel_node.and_then(|node| enforcement::read::enforcement(node, report));
    let districts = fields.optional("districts").and_then(|node| enforcement::read::districts(node, report));
    let witness = fields.optional("witness").and_then(|node| enforcement::read::witness(node, report));
    let loans_node = fields.optional("loans");
    let tenant_nodes = fields.required("tenants", report);
    fields.finish(report);
    // Relations are checked over whatever could be read, so that one wrong value hides no other.
    let nowhere = Name::new("unknown");
    let tenants = tenant_nodes.and_then(|node| tenants(node, district.as_ref().or(nowhere.as_ref()), report));
    let node_name = own_node.as_ref().or(name.as_ref());
    let loans = loans_node.and_then(|node| loans::read::loans(node, district.as_ref(), node_name, report));
    let identity = identity.unwrap_or_default();
    let overcommit_sm = overcommit_sm.unwrap_or(false);
    if let Some(tenants) = &tenants {
        let default = default_tenant.as_ref().zip(default_node).map(|(name, node)| (name, node.place));
        let devices = devices.as_deref();
        relations::check(&Relations { tenants, identity, default, devices, overcommit_sm }, report);
        let lends = loans_node.is_some();
        let gpus = &gpus.clone().unwrap_or_default();
        let read = tenants.iter().map(|read| &read.tenant);
        space::check(&space::Relations { gpus, devices, overcommit_sm, lends }, read, report);
        let read = tenants.iter().map(|read| &read.tenant);
        loans::read::relate(loans_node.is_some(), district.as_ref(), read, report);
        let known = districts.as_deref().unwrap_or_default();
        let read = tenants.iter().map(|read| &read.tenant);
        enforcement::relations::check(&kernel.clone().unwrap_or_default(), known, read, report);
    }
    let tenants: Vec<Tenant> = tenants?.into_iter().map(|read| read.tenant).collect();
    let asked = tenants.iter().any(Tenant::asks_the_kernel);
    Some(Config {
        node: own_node.or_else(|| name.clone())?,
        name: name?,
        district: district?,
        sockets: sockets.unwrap_or_else(|| Sockets {
            control: defaults::CONTROL_SOCKET.into(),
            admin: defaults::ADMIN_SOCKET.into(),
            remote: None,
        }),
        http_listen: http.unwrap_or_else(|| defaults::HTTP_LISTEN.parse().ok()),
        state_dir: state_dir.unwrap_or_else(|| defaults::STATE_DIR.into()),
        cgroup_root,
        identity,
        default_tenant,
        hook_library,
        devices,
        overcommit_sm,
        gpus: gpus.unwrap_or_default(),
        mps: mps.unwrap_or_default(),
        probes: probes.unwrap_or_default(),
        enforcement: kernel.or_else(|| asked.then(Default::default)),
        districts: districts.unwrap_or_default(),
        witness: witness.unwrap_or_default(),
        loans,
        tenants,
    })
}

fn sockets(node: &Node, report: &mut Report) -> Option<Sockets> {
    let mut fields = Fields::of(node, "spec.sockets", report)?;
    let control_node = fields.optional("control");
    let admin_node = fields.optional("admin");
    let remote_node = fields.optional("remote");
    fields.finish(report);
    let control = control_node.and_then(|node| socket(node, "control", report));
    let admin = admin_node.and_then(|node| socket(node, "admin", report));
    let sockets = Sockets {
        control: control.unwrap_or_else(|| defaults::CONTROL_SOCKET.into()),
        admin: admin.unwrap_or_else(|| defaults::ADMIN_SOCKET.into()),
        remote: remote_node.and_then(|node| socket(node, "remote", report)),
    };
    if sockets.control == sockets.admin {
        let text = "the control and the admin socket have the same path; give each its own".to_owned();
        report.push(Problem { place: admin_node.or(control_node).unwrap_or(node).place, text });
    }
    if [&sockets.control, &sockets.admin].contains(&&sockets.remote()) {
        let text = "the socket for remote sessions has another socket's path; give it its own".to_owned();
        report.push(Problem { place: remote_node.unwrap_or(node).place, text });
    }
    let beside = sockets.remote().as_os_str().len();
    if remote_node.is_none() && SOCKET_PATH_BYTES_MAX < beside {
        let text = format!(
            "the socket for remote sessions, beside the control socket, has a path {beside} bytes long, but the kernel takes \
             {SOCKET_PATH_BYTES_MAX}; shorten `control`, or give `remote` a path of its own"
        );
        report.push(Problem { place: control_node.unwrap_or(node).place, text });
    }
    Some(sockets)
}

fn socket(node: &Node, key: &'static str, report: &mut Report) -> Option<PathBuf> {
    let path = path(node, key, report)?;
    let length = path.as_os_str().len();
    if SOCKET_PATH_BYTES_MAX < length {
        let text = format!(
            "`{key}` is {length} bytes long, but the kernel takes {SOCKET_PATH_BYTES_MAX}; shorten it"
        );
        report.push(Problem { place: node.place, text });
        return None;
    }
    Some(path)
}

fn http(node: &Node, report: &mut Report) -> Option<SocketAddr> {
    let mut fields = Fields::of(node, "spec.http", report)?;
    let listen = fields.required("listen", report);
    fields.finish(report);
    let (text, place) = (scalar(listen?, "listen", report)?, listen?.place);
    if text == "off" {
        return None;
    }
    let address = SocketAddr::from_str(text).ok();
    if address.is_none() {
        let text = format!(
            "`listen` is `{}`; write an address and a port such as {}, or off",
            shown(text),
            defaults::HTTP_LISTEN
        );
        report.push(Problem { place, text });
    }
    address
}

fn identity(node: &Node, report: &mut Report) -> Option<Identity> {
    one_of(
        node,
        "identity",
        &[Identity::Auto, Identity::Cgroup, Identity::ProcessTree].map(|i| (i.word(), i)),
        report,
    )
}

fn devices(node: &Node, report: &mut Report) -> Option<Vec<DeviceUuid>> {
    let items = list(node, "devices", DEVICES_MAX, report)?;
    Some(items.iter().filter_map(|item| uuid(item, report)).collect())
}

fn uuid(node: &Node, report: &mut Report) -> Option<DeviceUuid> {
    let text = scalar(node, "a device", report)?;
    let uuid = DeviceUuid::parse(text);
    if uuid.is_none() {
        report.push(Problem { place: node.place, text: bad_uuid(text) });
    }
    uuid
}

pub(super) fn bad_uuid(text: &str) -> String {
    format!("`{}` is not a device UUID; write one as `nvidia-smi -L` prints it (GPU-...)", shown(text))
}

fn overcommit(node: &Node, report: &mut Report) -> Option<bool> {
    let mut fields = Fields::of(node, "spec.overcommit", report)?;
    let sm = fields.optional("sm").and_then(|node| boolean(node, "sm", report));
    fields.finish(report);
    sm
}

fn probes(node: &Node, report: &mut Report) -> Option<Probes> {
    let mut fields = Fields::of(node, "spec.probes", report)?;
    let mut probe = |key, report: &mut Report| {
        fields.optional(key).and_then(|node| on_off(node, key, report)).unwrap_or(true)
    };
    let gpu_wait = probe("gpuWait", report);
    let network_rtt = probe("networkRtt", report);
    let process_exit = probe("processExit", report);
    let libraries = fields.optional("libraries").and_then(|node| {
        let items = list(node, "libraries", 16, report)?;
        Some(items.iter().filter_map(|item| path(item, "a library", report)).collect())
    });
    fields.finish(report);
    Some(Probes { gpu_wait, network_rtt, process_exit, libraries: libraries.unwrap_or_default() })
}

fn tenants(node: &Node, district: Option<&Name>, report: &mut Report) -> Option<Vec<ReadTenant>> {
    let items = list(node, "tenants", TENANTS_MAX, report)?;
    let read = items.iter().filter_map(|item| {
        let before = report.len();
        let tenant = tenant(item, district, report)?;
        Some(ReadTenant { tenant, whole: report.len() == before })
    });
    Some(read.collect())
}

fn tenant(node: &Node, district: Option<&Name>, report: &mut Report) -> Option<Tenant> {
    let mut fields = Fields::of(node, "a tenant", report)?;
    let name = fields.required("name", report).and_then(|node| checked_name(node, "a tenant name", report));
    let own_district = fields.optional("district").and_then(|node| checked_name(node, "a district", report));
    let cgroup = fields.optional("cgroup").and_then(|node| cgroup(node, report));
    let class = fields
        .optional("class")
        .and_then(|node| one_of(node, "class", &classes(), report))
        .unwrap_or_default();
    let mode =
        fields.optional("mode").and_then(|node| one_of(node, "mode", &modes(), report)).unwrap_or_default();
    let policies = [FailPolicy::Open, FailPolicy::LastKnown].map(|policy| (policy.word(), policy));
    let fail_policy = fields
        .optional("failPolicy")
        .and_then(|node| one_of(node, "failPolicy", &policies, report))
        .unwrap_or_default();
    let enforcement =
        fields.optional("enforcement").and_then(|node| on_off(node, "enforcement", report)).unwrap_or(true);
    let quota = fields.optional("quota").and_then(|node| quotas(node, report)).unwrap_or_default();
    let borrow = fields.optional("borrow").and_then(|node| loans::read::borrow(node, report));
    let residency = fields.optional("residency").and_then(|node| enforcement::read::residency(node, report));
    let device_gate =
        fields.optional("deviceGate").and_then(|node| enforcement::read::device_gate(node, report));
    fields.finish(report);
    Some(Tenant {
        name: name?,
        district: own_district.or_else(|| district.cloned())?,
        cgroup,
        class,
        mode,
        fail_policy,
        enforcement,
        quota,
        residency: residency.unwrap_or_else(Residency::default),
        device_gate: device_gate.unwrap_or_default(),
        borrow,
        place: node.place,
    })
}

fn classes() -> [(&'static str, Class); 3] {
    [Class::Express, Class::Standard, Class::Batch].map(|class| (class.word(), class))
}

fn modes() -> [(&'static str, Mode); 2] {
    [Mode::Borrow, Mode::Hard].map(|mode| (mode.word(), mode))
}

pub(super) fn cgroup(node: &Node, report: &mut Report) -> Option<CgroupPath> {
    let text = scalar(node, "cgroup", report)?;
    let cgroup = CgroupPath::new(text);
    if cgroup.is_none() {
        let text = format!(
            "`{}` is not a cgroup path; write it from the cgroup2 root, such as /headgate/alerts, without . or ..",
            shown(text)
        );
        report.push(Problem { place: node.place, text });
    }
    cgroup
}

fn quotas(node: &Node, report: &mut Report) -> Option<BTreeMap<DeviceKey, Quota>> {
    let Value::Map(entries) = &node.value else {
        let text = format!("quota must map a device UUID or \"*\" to a quota, found {}", node.kind());
        report.push(Problem { place: node.place, text });
        return None;
    };
    let mut quotas = BTreeMap::new();
    for (key, node) in entries {
        let device = match key.text.as_str() {
            "*" => Some(DeviceKey::All),
            text => DeviceUuid::parse(text).map(DeviceKey::One),
        };
        let quota = quota(node, report);
        match device {
            None => {
                let text = format!("{}, or \"*\" for every device", bad_uuid(&key.text));
                report.push(Problem { place: key.place, text });
            }
            Some(device) => {
                if let Some(quota) = quota
                    && quotas.insert(device, quota).is_some()
                {
                    let text = format!("a second quota for device {device}; keep one");
                    report.push(Problem { place: key.place, text });
                }
            }
        }
    }
    Some(quotas)
}

fn quota(node: &Node, report: &mut Report) -> Option<Quota> {
    let mut fields = Fields::of(node, "a quota", report)?;
    let sm_node = fields.optional("sm");
    let sm = sm_node.and_then(|node| share(node, "sm", report));
    let memory = fields.optional("memory").and_then(|node| size(node, "memory", report));
    let borrowing = fields.optional("borrowingLimit");
    let lending = fields.optional("lendingLimit");
    fields.finish(report);
    if let (Some(node), Some(Ppm::ZERO)) = (sm_node, sm) {
        let text = "an sm share of 0 could never run; leave `sm` out for no limit, or give it a share";
        report.push(Problem { place: node.place, text: text.to_owned() });
    }
    let (borrowing_sm, _) =
        borrowing.map_or((None, None), |node| limits(node, "borrowingLimit", false, report));
    let (lending_sm, lending_memory) =
        lending.map_or((None, None), |node| limits(node, "lendingLimit", true, report));
    for (limit, node) in [(borrowing_sm, borrowing), (lending_sm, lending)] {
        if let (Some(_), Some(node), None) = (limit, node, sm_node) {
            let text = "a limit on sm needs an `sm` share beside it; add one or remove the limit".to_owned();
            report.push(Problem { place: node.place, text });
        }
    }
    if let (Some(lent), Some(node), Some(nominal)) = (lending_sm, lending, sm)
        && nominal < lent
    {
        let text = format!("lendingLimit sm {lent} is more than the nominal {nominal}; lower it");
        report.push(Problem { place: node.place, text });
    }
    if let (Some(lent), Some(node)) = (lending_memory, lending) {
        match memory {
            None => {
                let text =
                    "lendingLimit memory needs a `memory` quota beside it; add one or remove the limit";
                report.push(Problem { place: node.place, text: text.to_owned() });
            }
            Some(nominal) if nominal < lent => {
                let (lent, nominal) = (super::model::memory_text(lent), super::model::memory_text(nominal));
                let text = format!("lendingLimit memory {lent} is more than the nominal {nominal}; lower it");
                report.push(Problem { place: node.place, text });
            }
            Some(_) => {}
        }
    }
    Some(Quota {
        sm: sm.map(|nominal| SmQuota { nominal, borrowing_limit: borrowing_sm, lending_limit: lending_sm }),
        memory: memory
            .map(|nominal| MemoryQuota { nominal, lending_limit: lending_memory.unwrap_or(Bytes::ZERO) }),
    })
}

/// A limit: one share for sm, or a mapping with `sm` and, where memory can be lent, `memory`.
fn limits(
    node: &Node,
    what: &'static str,
    memory: bool,
    report: &mut Report,
) -> (Option<Ppm>, Option<Bytes>) {
    if let Value::Scalar { .. } = node.value {
        return (share(node, what, report), None);
    }
    let Some(mut fields) = Fields::of(node, what, report) else { return (None, None) };
    let sm = fields.optional("sm").and_then(|node| share(node, "sm", report));
    let bytes = fields.optional("memory").and_then(|node| {
        if memory {
            return size(node, "memory", report);
        }
        let text = "memory cannot be borrowed, because it cannot be taken back at once; remove it".to_owned();
        report.push(Problem { place: node.place, text });
        None
    });
    fields.finish(report);
    (sm, bytes)
}

pub(super) fn share(node: &Node, key: &'static str, report: &mut Report) -> Option<Ppm> {
    let text = scalar(node, key, report)?;
    let share = quantity::share(text);
    if share.is_none() {
        let text = format!("`{key}` is `{}`; write a percentage from 0 to 100 such as 70%", shown(text));
        report.push(Problem { place: node.place, text });
    }
    share
}

pub(super) fn size(node: &Node, key: &'static str, report: &mut Report) -> Option<Bytes> {
    let text = scalar(node, key, report)?;
    let size = quantity::size(text);
    if size.is_none() {
        let text = format!("`{key}` is `{}`; write bytes or a size such as 8Gi or 500Mi", shown(text));
        report.push(Problem { place: node.place, text });
    }
    size
}

pub(super) fn list<'a>(
    node: &'a Node,
    key: &'static str,
    max: usize,
    report: &mut Report,
) -> Option<&'a [Node]> {
    match &node.value {
        Value::List(items) if items.len() <= max => Some(items),
        Value::List(items) => {
            let text = format!("`{key}` has {} entries, above the bound of {max}", items.len());
            report.push(Problem { place: node.place, text });
            None
        }
        _ => {
            let text = format!("`{key}` must be a list, found {}", node.kind());
            report.push(Problem { place: node.place, text });
            None
        }
    }
}

pub(super) fn scalar<'a>(node: &'a Node, key: &'static str, report: &mut Report) -> Option<&'a str> {
    if let Value::Scalar { text, .. } = &node.value
        && !text.is_empty()
    {
        return Some(text);
    }
    let text = format!("`{key}` must be a single value, found {}", node.kind());
    report.push(Problem { place: node.place, text });
    None
}

pub(super) fn checked_name(node: &Node, what: &'static str, report: &mut Report) -> Option<Name> {
    let text = scalar(node, what, report)?;
    let name = Name::new(text);
    if name.is_none() {
        let text = format!(
            "`{}` cannot be {what}; use at most {} lower-case letters, digits and inner dashes",
            shown(text),
            crate::limits::NAME_BYTES_MAX
        );
        report.push(Problem { place: node.place, text });
    }
    name
}

pub(super) fn path(node: &Node, key: &'static str, report: &mut Report) -> Option<PathBuf> {
    let text = scalar(node, key, report)?;
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        return Some(path);
    }
    let text = format!("`{key}` is `{}`; write an absolute path", shown(text));
    report.push(Problem { place: node.place, text });
    None
}

pub(super) fn boolean(node: &Node, key: &'static str, report: &mut Report) -> Option<bool> {
    one_of(node, key, &[("true", true), ("false", false)], report)
}

pub(super) fn on_off(node: &Node, key: &'static str, report: &mut Report) -> Option<bool> {
    one_of(node, key, &[("on", true), ("off", false)], report)
}

pub(super) fn one_of<T: Copy>(
    node: &Node,
    key: &'static str,
    words: &[(&'static str, T)],
    report: &mut Report,
) -> Option<T> {
    let text = scalar(node, key, report)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let advice = nearest(text, &known).map_or_else(
        || format!("write one of: {}", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    report.push(Problem { place: node.place, text: format!("`{key}` is `{}`; {advice}", shown(text)) });
    None
}

fn fixed(node: &Node, key: &'static str, expected: &str, report: &mut Report) {
    if let Some(found) = scalar(node, key, report)
        && found != expected
    {
        let text = format!("`{key}` is `{}`, but this build reads `{expected}`", shown(found));
        report.push(Problem { place: node.place, text });
    }
}
