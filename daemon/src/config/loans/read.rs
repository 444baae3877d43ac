//! Nodes to checked types; see [`mod@crate::config::read`], whose hands these are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use headgate_loans::identity::Identity;
use headgate_quota::loan::{Amount, Borrowing, DataClass, Lending, Terms};
use headgate_quota::units::{Bytes, Micros, Share};

use super::{Borrow, BorrowedPrograms, ByteBudget, Loans, NatsStore, PeerNode, Peers, Store};
use crate::config::enforcement::read::{grant, span};
use crate::config::fields::{Fields, shown};
use crate::config::model::{Name, Tenant, memory_text};
use crate::config::problem::Problem;
use crate::config::read::{Report, checked_name, list, on_off, one_of, path, scalar, share, size};
use crate::config::tree::{Node, Value};
use crate::limits::{
    ADDRESS_BYTES_MAX, PATIENCE_DEFAULT, PEER_LEADS_MAX, SESSION_ASIDE_MAX, SESSION_CONNECTIONS_MAX,
    SET_ASIDE_DEFAULT, STORE_URLS_MAX, SUMMARY_EVERY_MAX, SUMMARY_EVERY_MIN,
};

fn problem(node: &Node, text: impl Into<String>, report: &mut Report) {
    report.push(Problem { place: node.place, text: text.into() });
}

/// `spec.loans`, of this node in this district.
pub fn loans(node: &Node, district: Option<&Name>, own: Option<&Name>, report: &mut Report) -> Option<Loans> {
    let mut fields = Fields::of(node, "spec.loans", report)?;
    let store = fields.optional("store").and_then(|node| store(node, report)).unwrap_or_default();
    let peers_node = fields.optional("peers");
    let terms_node = fields.optional("terms");
    let terms = terms_node.and_then(|node| terms(node, report)).unwrap_or_default();
    if let Err(bad) = terms.check() {
        problem(terms_node.unwrap_or(node), format!("the terms do not fit together: {bad}"), report);
    }
    let set_aside = fields.optional("setAside").and_then(|node| size(node, "setAside", report));
    let connections = fields.optional("connections").and_then(|node| connections(node, report));
    let lending = fields.optional("lending").and_then(|node| lending(node, terms, report));
    let borrowing = fields.optional("borrowing").and_then(|node| borrowing(node, report));
    fields.finish(report);
    let peers = peers_node.and_then(|node| peers(node, district, own, report));
    if let (Some(district), Some(own)) = (district, own)
        && let Err(bad) = Identity::new(district.as_str(), own.as_str())
    {
        problem(node, bad.to_string(), report);
    }
    let lending = lending.unwrap_or(Lending { terms, ..Lending::default() });
    Some(Loans {
        store,
        peers,
        lending,
        borrowing: borrowing.unwrap_or_default(),
        set_aside: set_aside.unwrap_or(SET_ASIDE_DEFAULT),
        connections,
    })
}

fn connections(node: &Node, report: &mut Report) -> Option<u8> {
    let text = scalar(node, "connections", report)?;
    let count = text.parse().ok().filter(|count| (1..=SESSION_CONNECTIONS_MAX).contains(count));
    if count.is_none() {
        let text =
            format!("`connections` is `{}`; write a number from 1 to {SESSION_CONNECTIONS_MAX}", shown(text));
        problem(node, text, report);
    }
    count
}

fn store(node: &Node, report: &mut Report) -> Option<Store> {
    if let Value::Scalar { .. } = node.value {
        return one_of(node, "store", &[("embedded", ())], report).map(|()| Store::Embedded);
    }
    let mut fields = Fields::of(node, "spec.loans.store", report)?;
    let nats = fields.required("nats", report).and_then(|node| nats(node, report));
    fields.finish(report);
    nats.map(Store::Nats)
}

fn nats(node: &Node, report: &mut Report) -> Option<NatsStore> {
    let mut fields = Fields::of(node, "spec.loans.store.nats", report)?;
    let urls = fields.required("urls", report).and_then(|node| {
        let items = list(node, "urls", STORE_URLS_MAX, report)?;
        if items.is_empty() {
            problem(node, "there is no server to keep ledgers in; add one such as nats://host:4222", report);
        }
        Some(items.iter().filter_map(|item| url(item, report)).collect::<Vec<_>>())
    });
    let bucket = fields.optional("bucket").and_then(|node| checked_name(node, "a bucket", report));
    let replicas = fields.optional("replicas").and_then(|node| {
        let word = [("1", 1), ("3", 3), ("5", 5)];
        one_of(node, "replicas", &word, report)
    });
    let mut file = |key, report: &mut Report| fields.optional(key).and_then(|node| path(node, key, report));
    let token = file("token", report);
    let ca = file("ca", report);
    let certificate = file("certificate", report);
    let key = file("key", report);
    fields.finish(report);
    if certificate.is_some() != key.is_some() {
        problem(node, "a client's `certificate` and `key` belong together; give both or neither", report);
    }
    Some(NatsStore {
        urls: urls?,
        bucket: bucket.map_or_else(|| "headgate-loans".to_owned(), |name| name.as_str().to_owned()),
        replicas: replicas.unwrap_or(1),
        token,
        ca,
        client: certificate.zip(key),
    })
}

fn url(node: &Node, report: &mut Report) -> Option<String> {
    let text = scalar(node, "a url", report)?;
    if ["nats://", "tls://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Some(text.to_owned());
    }
    problem(
        node,
        format!("`{}` is no NATS address; write nats://host:4222 or tls://..", shown(text)),
        report,
    );
    None
}

fn peers(node: &Node, own: Option<&Name>, own_node: Option<&Name>, report: &mut Report) -> Option<Peers> {
    let mut fields = Fields::of(node, "spec.loans.peers", report)?;
    let listen = fields.required("listen", report).and_then(|node| socket(node, report));
    let advertise = fields.optional("advertise").and_then(|node| address(node, report));
    let mut file =
        |key, report: &mut Report| fields.required(key, report).and_then(|node| path(node, key, report));
    let certificate = file("certificate", report);
    let key = file("key", report);
    let authorities_node = fields.required("authorities", report);
    let authorities = authorities_node.and_then(|node| authorities(node, report));
    let lead = fields.optional("lead").map(|node| lead(node, own, report));
    let leads = fields.optional("leads").and_then(|node| {
        let items = list(node, "leads", PEER_LEADS_MAX, report)?;
        Some(items.iter().filter_map(|item| peer(item, None, report)).collect::<Vec<_>>())
    });
    let every = fields.optional("summaryEvery").and_then(|node| summary_every(node, report));
    fields.finish(report);
    if let (Some(known), Some(node), Some(own)) = (&authorities, authorities_node, own)
        && !known.contains_key(own)
    {
        problem(node, format!("no authority for this node's own district {own}; add it"), report);
    }
    let lead = lead.unwrap_or(Some(None));
    let leads = leads.unwrap_or_default();
    if let Some(Some(lead)) = &lead
        && own_node == Some(&lead.node)
    {
        problem(node, format!("{} is this node itself; write `lead: self`", lead.node), report);
    }
    if matches!(lead, Some(Some(_))) && !leads.is_empty() {
        problem(node, "only a district's lead talks to other leads; remove `lead` or `leads`", report);
    }
    for peer in &leads {
        if authorities.as_ref().is_some_and(|known| !known.contains_key(&peer.district)) {
            let text = format!("no authority for district {} of lead {}; add it", peer.district, peer.node);
            problem(node, text, report);
        }
        if own == Some(&peer.district) {
            let text =
                format!("{} is of this node's own district; name it as `lead`, or remove it", peer.node);
            problem(node, text, report);
        }
        if 1 < leads.iter().filter(|other| other.district == peer.district).count() {
            problem(node, format!("district {} has more than one lead; keep one", peer.district), report);
        }
    }
    if let (Some(listen), None) = (listen, &advertise)
        && listen.ip().is_unspecified()
    {
        let text = format!("others cannot dial {listen}; add `advertise: HOST:{}`", listen.port());
        problem(node, text, report);
    }
    let listen = listen?;
    Some(Peers {
        listen,
        advertise: advertise.unwrap_or_else(|| listen.to_string()),
        certificate: certificate?,
        key: key?,
        authorities: authorities?,
        lead: lead?,
        leads,
        summary_every: every.unwrap_or(Duration::from_secs(2)),
    })
}

fn summary_every(node: &Node, report: &mut Report) -> Option<Duration> {
    let every = span(node, "summaryEvery", report)?;
    if !(SUMMARY_EVERY_MIN..=SUMMARY_EVERY_MAX).contains(&every) {
        let text = format!("`summaryEvery` must be between {SUMMARY_EVERY_MIN:?} and {SUMMARY_EVERY_MAX:?}");
        problem(node, text, report);
        return None;
    }
    Some(every)
}

/// `self`, or another node of the district. `Some(None)` is this node.
#[expect(clippy::option_option, reason = "wrong is neither this node nor another")]
fn lead(node: &Node, own: Option<&Name>, report: &mut Report) -> Option<Option<PeerNode>> {
    if let Value::Scalar { .. } = node.value {
        return one_of(node, "lead", &[("self", ())], report).map(|()| None);
    }
    peer(node, own, report).map(Some)
}

fn peer(node: &Node, own: Option<&Name>, report: &mut Report) -> Option<PeerNode> {
    let mut fields = Fields::of(node, "a peer", report)?;
    let district = match own {
        Some(own) => Some(own.clone()),
        None => fields.required("district", report).and_then(|node| checked_name(node, "a district", report)),
    };
    let name = fields.required("node", report).and_then(|node| checked_name(node, "a node name", report));
    let address = fields.required("address", report).and_then(|node| address(node, report));
    fields.finish(report);
    Some(PeerNode { district: district?, node: name?, address: address? })
}

fn authorities(node: &Node, report: &mut Report) -> Option<BTreeMap<Name, PathBuf>> {
    let Value::Map(entries) = &node.value else {
        problem(node, "authorities must map a district to the file of its authority", report);
        return None;
    };
    let mut authorities = BTreeMap::new();
    for (key, node) in entries {
        let file = path(node, "an authority", report);
        match Name::new(&key.text) {
            Some(district) => authorities.extend(file.map(|file| (district, file))),
            None => {
                let text = format!("`{}` cannot be a district", shown(&key.text));
                report.push(Problem { place: key.place, text });
            }
        }
    }
    Some(authorities)
}

fn socket(node: &Node, report: &mut Report) -> Option<SocketAddr> {
    let text = scalar(node, "listen", report)?;
    let parsed = SocketAddr::from_str(text).ok();
    if parsed.is_none() {
        let text = format!("`listen` is `{}`; write an address and a port such as 0.0.0.0:9478", shown(text));
        problem(node, text, report);
    }
    parsed
}

fn address(node: &Node, report: &mut Report) -> Option<String> {
    let text = scalar(node, "an address", report)?;
    let port = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((host, _)) if !host.is_empty() && text.len() <= ADDRESS_BYTES_MAX => Some(text.to_owned()),
        _ => {
            problem(node, format!("`{}` is no host and port such as node-a:9478", shown(text)), report);
            None
        }
    }
}

fn terms(node: &Node, report: &mut Report) -> Option<Terms> {
    let mut fields = Fields::of(node, "spec.loans.terms", report)?;
    let default = Terms::default();
    let mut time = |key, default, report: &mut Report| {
        fields.optional(key).and_then(|node| micros(node, key, report)).unwrap_or(default)
    };
    let terms = Terms {
        ttl: time("ttl", default.ttl, report),
        renew: time("renew", default.renew, report),
        margin: time("margin", default.margin, report),
        min_duration: time("minDuration", default.min_duration, report),
        max_duration: time("maxDuration", default.max_duration, report),
        notice: time("notice", default.notice, report),
        skew_permille: default.skew_permille,
    };
    let skew = fields.optional("clockSkew").and_then(|node| ratio(node, report));
    fields.finish(report);
    Some(Terms { skew_permille: skew.unwrap_or(default.skew_permille), ..terms })
}

fn lending(node: &Node, terms: Terms, report: &mut Report) -> Option<Lending> {
    let mut fields = Fields::of(node, "spec.loans.lending", report)?;
    let default = Lending::default();
    let mut time = |key, default, report: &mut Report| {
        fields.optional(key).and_then(|node| micros(node, key, report)).unwrap_or(default)
    };
    let idle_for = time("idleFor", default.idle_for, report);
    let rise_for = time("riseFor", default.rise_for, report);
    let rest = time("rest", default.rest, report);
    let headroom = fields.optional("headroom").and_then(|node| amount(node, "headroom", report));
    let least = fields.optional("least").and_then(|node| {
        let least = share(node, "least", report)?;
        if least.get() == 0 {
            let text = "a loan of nothing helps nobody; write the `least` share worth lending, such as 5%";
            problem(node, text, report);
        }
        Some(least)
    });
    let evict = fields.optional("evict").and_then(|node| on_off(node, "evict", report));
    fields.finish(report);
    Some(Lending {
        terms,
        idle_for,
        rise_for,
        rest,
        headroom: headroom.unwrap_or(default.headroom),
        least: least.map_or(default.least, Share::from),
        evict: evict.unwrap_or(default.evict),
        ..default
    })
}

fn borrowing(node: &Node, report: &mut Report) -> Option<Borrowing> {
    let mut fields = Fields::of(node, "spec.loans.borrowing", report)?;
    let default = Borrowing::default();
    let mut time = |key, default, report: &mut Report| {
        fields.optional(key).and_then(|node| micros(node, key, report)).unwrap_or(default)
    };
    let borrowing = Borrowing {
        need_for: time("needFor", default.need_for, report),
        spare_for: time("spareFor", default.spare_for, report),
        backoff: time("backoff", default.backoff, report),
        ..default
    };
    fields.finish(report);
    Some(borrowing)
}

/// A tenant's `borrow`.
pub fn borrow(node: &Node, report: &mut Report) -> Option<Borrow> {
    let mut fields = Fields::of(node, "borrow", report)?;
    let sm = fields.required("sm", report).and_then(|node| share(node, "sm", report));
    let memory = fields.optional("memory").and_then(|node| size(node, "memory", report));
    let total = fields.optional("memoryTotal").and_then(|node| size(node, "memoryTotal", report));
    let words = DataClass::ALL.map(|class| (class.word(), class));
    let data = fields.optional("data").and_then(|node| one_of(node, "data", &words, report));
    let budget = fields.optional("budget").and_then(|node| byte_budget(node, report));
    let words = [("asked", BorrowedPrograms::Asked), ("next", BorrowedPrograms::Next)];
    let programs = fields.optional("programs").and_then(|node| one_of(node, "programs", &words, report));
    let patience = fields.optional("patience").and_then(|node| patience(node, report));
    fields.finish(report);
    let memory = memory.unwrap_or(Bytes::ZERO);
    if total.is_some_and(|total| total < memory) {
        let text = format!(
            "`memoryTotal` is below `memory`, so that no loan would fit; raise it to {}",
            memory_text(memory)
        );
        problem(node, text, report);
    }
    let limit = Amount { sm: sm?.into(), memory: total.unwrap_or(memory) };
    Some(Borrow {
        limit,
        memory,
        data: data.unwrap_or_default(),
        budget,
        programs: programs.unwrap_or_default(),
        patience: patience.unwrap_or(PATIENCE_DEFAULT),
    })
}

fn patience(node: &Node, report: &mut Report) -> Option<Duration> {
    let patience = span(node, "patience", report)?;
    if SESSION_ASIDE_MAX < patience {
        let text =
            format!("lenders keep nothing longer than {SESSION_ASIDE_MAX:?}; `patience` is at most that");
        problem(node, text, report);
        return None;
    }
    Some(patience)
}

fn byte_budget(node: &Node, report: &mut Report) -> Option<ByteBudget> {
    let mut fields = Fields::of(node, "borrow.budget", report)?;
    let grant = grant(&mut fields, report);
    fields.finish(report);
    let (bytes, every) = grant?;
    Some(ByteBudget { bytes, every })
}

fn amount(node: &Node, what: &'static str, report: &mut Report) -> Option<Amount> {
    let mut fields = Fields::of(node, what, report)?;
    let sm = fields.optional("sm").and_then(|node| share(node, "sm", report));
    let memory = fields.optional("memory").and_then(|node| size(node, "memory", report));
    fields.finish(report);
    Some(Amount { sm: sm.map_or(Share::ZERO, Share::from), memory: memory.unwrap_or(Bytes::ZERO) })
}

fn ratio(node: &Node, report: &mut Report) -> Option<u32> {
    let text = scalar(node, "clockSkew", report)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parsed = || {
        let scale = 10u32.checked_pow(3u32.checked_sub(u32::try_from(fraction.len()).ok()?)?)?;
        whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(fraction.parse::<u32>().ok()? * scale)
    };
    let parsed = parsed();
    if parsed.is_none() {
        problem(node, format!("`clockSkew` is `{}`; write a ratio such as 1.5", shown(text)), report);
    }
    parsed
}

fn micros(node: &Node, key: &'static str, report: &mut Report) -> Option<Micros> {
    span(node, key, report).map(|span| Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
}

/// What loans ask of the rest of the configuration.
pub fn relate<'t>(
    configured: bool,
    district: Option<&Name>,
    tenants: impl Iterator<Item = &'t Tenant>,
    report: &mut Report,
) {
    for tenant in tenants.filter(|tenant| tenant.borrow.is_some()) {
        let name = &tenant.name;
        if !configured {
            let text = format!("tenant `{name}` borrows, but there is no spec.loans; add one");
            report.push(Problem { place: tenant.place, text });
        }
        if let Some(district) = district.filter(|district| **district != tenant.district) {
            let text = format!(
                "tenant `{name}` of district {} cannot borrow here: a node of {district} borrows for {district} only",
                tenant.district
            );
            report.push(Problem { place: tenant.place, text });
        }
    }
}
