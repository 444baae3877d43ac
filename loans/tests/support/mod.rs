//! Nodes without devices: what they see is what the test says.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use headgate_loans::certs::{self, Files};
use headgate_loans::demand::{DeviceLook, GuestLook, TenantLook};
use headgate_loans::desk::{Desk, DeskHandle, DeskView, DeviceLimits, Ground, Input};
use headgate_loans::identity::Identity;
use headgate_loans::settings::{DeviceHolding, Holdings, PeerAddress, PeerSettings, Settings, StoreChoice};
use headgate_loans::tls::TlsFiles;
use headgate_quota::Class;
use headgate_quota::loan::borrower::Client;
use headgate_quota::loan::{
    Allowance, Amount, Borrowing, DataClass, Device, District, Guest, Incident, Incidents, Lending, Owner,
    Tenant, Terms,
};
use headgate_quota::units::{Bytes, Micros, Share};
use tempfile::TempDir;
use tokio::sync::oneshot;

const DAY: Duration = Duration::from_secs(24 * 3_600);
const DEVICE: &str = "GPU-1";

/// Authorities, certificates and directories.
pub(crate) struct City {
    directory: TempDir,
    districts: Vec<String>,
}

/// A node's identity and the port it will listen at.
pub(crate) struct Reserved {
    pub(crate) identity: Identity,
    port: u16,
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid in real time")]
fn wall() -> SystemTime {
    SystemTime::now()
}

impl City {
    pub(crate) fn new(districts: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for district in districts {
            let authority = certs::authority(district, DAY, wall()).unwrap();
            Files::of_authority(directory.path(), district).write(&authority, true).unwrap();
        }
        Self { directory, districts: districts.iter().map(|&district| district.to_owned()).collect() }
    }

    pub(crate) fn reserve(&self, district: &str, node: &str) -> Reserved {
        let identity = Identity::new(district, node).unwrap();
        let key = std::fs::read_to_string(Files::of_authority(self.directory.path(), district).key).unwrap();
        let issued = certs::node(district, &key, &identity, DAY, wall()).unwrap();
        Files::of_node(self.directory.path(), &identity).write(&issued, true).unwrap();
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        Reserved { identity, port }
    }

    fn tls(&self, identity: &Identity) -> TlsFiles {
        let files = Files::of_node(self.directory.path(), identity);
        let trusted = self.districts.iter().map(|district| {
            let file = Files::of_authority(self.directory.path(), district).certificate;
            (District::new(district).unwrap(), file)
        });
        TlsFiles { certificate: files.certificate, key: files.key, authorities: trusted.collect() }
    }

    fn state(&self, identity: &Identity) -> PathBuf {
        self.directory.path().join(format!("{identity}.state"))
    }
}

/// What a node is made of.
#[derive(Clone)]
pub(crate) struct NodeOptions {
    identity: Identity,
    port: u16,
    pub(crate) owners: Vec<Owner>,
    clients: Vec<Client>,
    leads: Vec<PeerAddress>,
}

impl NodeOptions {
    pub(crate) fn new(reserved: &Reserved) -> Self {
        Self {
            identity: reserved.identity.clone(),
            port: reserved.port,
            owners: Vec::new(),
            clients: Vec::new(),
            leads: Vec::new(),
        }
    }

    pub(crate) fn owner(mut self, name: &str, sm: u64, class: Class) -> Self {
        let nominal = Amount { sm: Share(sm), memory: Bytes(1 << 30) };
        let lending_limit = Amount::compute(Share(sm));
        self.owners.push(Owner { tenant: Tenant::new(name).unwrap(), class, nominal, lending_limit });
        self
    }

    pub(crate) fn client(mut self, name: &str, sm: u64) -> Self {
        self.clients.push(Client {
            tenant: Tenant::new(name).unwrap(),
            class: Class::Express,
            mode: headgate_quota::Mode::Borrow,
            borrowing_limit: Some(Amount::compute(Share(sm))),
            data: DataClass::Derived,
        });
        self
    }

    pub(crate) fn leads(mut self, leads: &[&Reserved]) -> Self {
        self.leads = leads
            .iter()
            .map(|lead| PeerAddress {
                identity: lead.identity.clone(),
                address: format!("127.0.0.1:{}", lead.port),
            })
            .collect();
        self
    }
}

#[derive(Debug, Default)]
struct Seen {
    busy: BTreeMap<String, bool>,
    /// Of each millisecond, microseconds.
    charging: BTreeMap<String, u64>,
    charged: BTreeMap<String, u64>,
    last: Micros,
    guest_active: bool,
    limits: Option<DeviceLimits>,
    changed_at: Micros,
    exceeded: Option<DeviceLimits>,
    allowed: Vec<Allowance>,
    incidents: Incidents,
}

/// Ground that is a test's to move.
#[derive(Debug)]
pub(crate) struct TestGround {
    origin: Instant,
    owners: Vec<Owner>,
    seen: Mutex<Seen>,
    desk: OnceLock<DeskHandle>,
}

impl TestGround {
    /// What the node does with an incident, declared here or heard of.
    pub(crate) fn incident(&self, incident: Incident, ended: bool) {
        let incidents = {
            let now = self.now();
            let mut seen = self.seen.lock().unwrap();
            let (issuer, number) = (incident.issuer.clone(), incident.number);
            // It may be known already.
            let _known = seen.incidents.declare(now, incident);
            if ended {
                seen.incidents.end(&issuer, number);
            }
            seen.incidents.clone()
        };
        let desk = self.desk.get().unwrap().clone();
        tokio::spawn(async move { desk.give(Input::Incidents(incidents)).await });
    }

    pub(crate) fn busy(&self, tenant: &str, busy: bool) {
        self.seen.lock().unwrap().busy.insert(tenant.to_owned(), busy);
    }

    /// While it is busy, it is charged so many microseconds of each millisecond.
    pub(crate) fn charging(&self, tenant: &str, us_per_ms: u64) {
        self.seen.lock().unwrap().charging.insert(tenant.to_owned(), us_per_ms);
    }

    pub(crate) fn guest_active(&self, active: bool) {
        self.seen.lock().unwrap().guest_active = active;
    }

    pub(crate) fn limits(&self) -> DeviceLimits {
        self.seen.lock().unwrap().limits.clone().unwrap()
    }

    pub(crate) fn allowed(&self) -> Vec<Allowance> {
        self.seen.lock().unwrap().allowed.clone()
    }

    pub(crate) fn class_of(&self, tenant: &Guest, own: Class) -> Class {
        self.seen.lock().unwrap().incidents.class_of(tenant, own).0
    }

    pub(crate) fn changed_at(&self) -> Micros {
        self.seen.lock().unwrap().changed_at
    }

    pub(crate) fn clock(&self) -> Micros {
        self.now()
    }

    /// No limits that were ever applied added up to more than the device.
    pub(crate) fn never_exceeded(&self) {
        let exceeded = self.seen.lock().unwrap().exceeded.clone();
        assert!(exceeded.is_none(), "{exceeded:?}");
    }
}

impl Ground for TestGround {
    fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap() + 1_000_000)
    }

    fn wall(&self) -> SystemTime {
        wall()
    }

    fn look(&self) -> Vec<DeviceLook> {
        let now = self.now();
        let mut seen = self.seen.lock().unwrap();
        let span = now.saturating_sub(seen.last).0;
        seen.last = now;
        let tenants = self.owners.iter().map(|owner| {
            let name = owner.tenant.as_str();
            let active = seen.busy.get(name).copied().unwrap_or(false);
            if active {
                let rate = seen.charging.get(name).copied().unwrap_or(0);
                *seen.charged.entry(name.to_owned()).or_default() += span * rate / 1_000;
            }
            TenantLook {
                tenant: owner.tenant.clone(),
                class: owner.class,
                active,
                throttled: active,
                charged: Micros(seen.charged.get(name).copied().unwrap_or(0)),
                memory: Bytes::ZERO,
            }
        });
        let tenants = tenants.collect();
        let guest =
            Guest { district: District::new("south").unwrap(), tenant: Tenant::new("alerts").unwrap() };
        let guests = vec![GuestLook { guest, active: seen.guest_active, memory: Bytes::ZERO }];
        vec![DeviceLook { device: Device::new(DEVICE).unwrap(), tenants, guests }]
    }

    fn apply(&self, limits: DeviceLimits) -> BoxFuture<'_, bool> {
        let now = self.now();
        let mut seen = self.seen.lock().unwrap();
        let owners: Amount = limits.owners.iter().map(|(_, limit)| *limit).sum();
        let guests: Amount = limits.guests.iter().map(|guest| guest.limit).sum();
        if Share::WHOLE < owners.saturating_add(guests).sm {
            seen.exceeded = Some(limits.clone());
        }
        seen.limits = Some(limits);
        seen.changed_at = now;
        Box::pin(std::future::ready(true))
    }

    fn evict(&self, _device: &Device, _guest: &Guest) {}

    fn allow(&self, allowances: Vec<Allowance>) {
        self.seen.lock().unwrap().allowed = allowances;
    }

    fn heard(&self, incident: Incident, ended: bool) {
        self.incident(incident, ended);
    }
}

/// A running desk.
pub(crate) struct Running {
    pub(crate) ground: Arc<TestGround>,
    pub(crate) handle: DeskHandle,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) async fn view(&self) -> DeskView {
        *self.handle.show().await.unwrap()
    }

    pub(crate) async fn close(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// Times short enough for a test.
fn quick() -> Lending {
    let terms = Terms {
        ttl: Micros::from_secs(3),
        renew: Micros::from_millis(500),
        margin: Micros::from_millis(500),
        skew_permille: 1_500,
        min_duration: Micros::from_secs(2),
        max_duration: Micros::from_secs(60),
        notice: Micros::from_millis(1_500),
    };
    Lending {
        terms,
        idle_for: Micros::from_millis(500),
        rest: Micros::from_secs(2),
        rise_for: Micros::from_millis(300),
        ..Lending::default()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's clock")]
pub(crate) async fn desk(city: &City, options: NodeOptions) -> Running {
    let NodeOptions { identity, port, owners, clients, leads } = options;
    let settings = Settings {
        own: identity.clone(),
        directory: city.state(&identity),
        store: StoreChoice::Embedded,
        peers: Some(PeerSettings {
            listen: ([127, 0, 0, 1], port).into(),
            advertise: format!("127.0.0.1:{port}"),
            tls: city.tls(&identity),
            lead: None,
            leads,
            summary_every: Duration::from_millis(300),
            unsent_bytes_max: 128 << 10,
        }),
        lending: quick(),
        borrowing: Borrowing { spare_for: Micros::from_millis(500), ..Borrowing::default() },
    };
    let ground = Arc::new(TestGround {
        origin: Instant::now(),
        owners: owners.clone(),
        seen: Mutex::default(),
        desk: OnceLock::new(),
    });
    let (desk, handle, inbox, listener) =
        Desk::open(settings, Arc::clone(&ground) as Arc<dyn Ground>).await.unwrap();
    ground.desk.set(handle.clone()).unwrap();
    let capacity = Amount { sm: Share::WHOLE, memory: Bytes(80 << 30) };
    let device = DeviceHolding { device: Device::new(DEVICE).unwrap(), capacity, owners };
    let client_memory = clients.iter().map(|_| Bytes::ZERO).collect();
    handle.give(Input::Configure(Holdings { devices: vec![device], clients, client_memory })).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _closed = stopped.await;
    };
    let task = tokio::spawn(desk.run(inbox, listener, stopped));
    Running { ground, handle, stop, task }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let looked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(patience, looked).await.is_ok(), "{what}: not within {patience:?}");
}
