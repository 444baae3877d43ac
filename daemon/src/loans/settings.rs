//! What the configuration and the node's state are for a desk.

use headgate_loans::identity::Identity;
use headgate_loans::settings::{DeviceHolding, Holdings, PeerAddress, PeerSettings, Settings, StoreChoice};
use headgate_loans::store::NatsOptions;
use headgate_loans::tls::TlsFiles;
use headgate_quota::Bytes;
use headgate_quota::loan::{Amount, Device, District, Owner, Tenant as LoanTenant, borrower};
use headgate_quota::units::Share;
use headgate_remote::limits::UNSENT_BYTES_MAX;

use crate::config::Config;
use crate::config::loans::{PeerNode, Peers, Store};
use crate::config::model::{DeviceUuid, Tenant};
use crate::node::State;

/// What only changes with a restart. `None` where nothing is lent or borrowed.
pub(super) fn settings(config: &Config) -> Option<Settings> {
    let loans = config.loans.as_ref()?;
    // Configuration has checked the names together.
    let own = Identity::new(config.district.as_str(), config.node.as_str()).ok()?;
    let store = match &loans.store {
        Store::Embedded => StoreChoice::Embedded,
        Store::Nats(nats) => StoreChoice::Nats(NatsOptions {
            urls: nats.urls.clone(),
            bucket: nats.bucket.clone(),
            replicas: nats.replicas,
            token: nats.token.clone(),
            ca: nats.ca.clone(),
            client: nats.client.clone(),
        }),
    };
    Some(Settings {
        own,
        directory: config.state_dir.join("loans"),
        store,
        peers: loans.peers.as_ref().map(peers),
        lending: loans.lending,
        borrowing: loans.borrowing,
    })
}

fn peers(peers: &Peers) -> PeerSettings {
    let address = |peer: &PeerNode| {
        let identity = Identity::new(peer.district.as_str(), peer.node.as_str()).ok()?;
        Some(PeerAddress { identity, address: peer.address.clone() })
    };
    let authorities = peers.authorities.iter();
    PeerSettings {
        listen: peers.listen,
        advertise: peers.advertise.clone(),
        tls: TlsFiles {
            certificate: peers.certificate.clone(),
            key: peers.key.clone(),
            authorities: authorities
                .filter_map(|(district, file)| Some((District::new(district.as_str())?, file.clone())))
                .collect(),
        },
        lead: peers.lead.as_ref().and_then(address),
        leads: peers.leads.iter().filter_map(address).collect(),
        summary_every: peers.summary_every,
        unsent_bytes_max: UNSENT_BYTES_MAX,
    }
}

/// A device as loans name it.
pub(super) fn device(uuid: DeviceUuid) -> Option<Device> {
    Device::new(&uuid.to_string())
}

/// Devices, owners and borrowers as they are now.
pub(super) fn holdings(state: &State) -> Holdings {
    let Some(configured) = &state.configured else { return Holdings::default() };
    let tenants = &configured.config.tenants;
    let present = state.rows.iter().flatten().filter(|row| row.present);
    let devices = present.filter_map(|row| {
        let owners = tenants.iter().filter_map(|tenant| owner(tenant, row.uuid));
        Some(DeviceHolding {
            device: device(row.uuid)?,
            capacity: Amount { sm: Share::WHOLE, memory: row.memory },
            owners: owners.collect(),
        })
    });
    let clients = tenants.iter().filter_map(|tenant| {
        let borrow = tenant.borrow?;
        let client = borrower::Client {
            tenant: LoanTenant::new(tenant.name.as_str())?,
            class: tenant.class,
            mode: tenant.mode,
            borrowing_limit: Some(borrow.limit),
            data: borrow.data,
        };
        Some((client, borrow.memory))
    });
    let (clients, client_memory): (Vec<_>, Vec<Bytes>) = clients.unzip();
    Holdings { devices: devices.collect(), clients, client_memory }
}

/// What a tenant owns of a device. One without a share of its time owns nothing that could be lent, and what it
/// uses is not metered.
fn owner(tenant: &Tenant, device: DeviceUuid) -> Option<Owner> {
    let quota = tenant.quota_on(device);
    let sm = quota.sm.filter(|_| tenant.enforcement)?;
    let memory = quota.memory;
    let nominal = Amount { sm: sm.nominal.into(), memory: memory.map_or(Bytes::ZERO, |m| m.nominal) };
    let lending_limit = Amount {
        sm: sm.lending_limit.unwrap_or(sm.nominal).into(),
        memory: memory.map_or(Bytes::ZERO, |m| m.lending_limit),
    };
    Some(Owner {
        tenant: LoanTenant::new(tenant.name.as_str())?,
        class: tenant.class,
        nominal,
        lending_limit,
    })
}
