//! Desks of several nodes in one process: real stores, real TLS, and ground that is a test's to move.

mod support;

use std::time::Duration;

use headgate_quota::Class;
use headgate_quota::loan::{Guest, Incident, IncidentName};
use headgate_quota::units::{Micros, Share};
use support::{City, NodeOptions, desk, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two districts with a node each, both leads.
fn two(city: &City) -> (NodeOptions, NodeOptions) {
    let (north, south) = (city.reserve("north", "n1"), city.reserve("south", "n2"));
    let lender = NodeOptions::new(&north).owner("cases", 700_000, Class::Batch).leads(&[&south]);
    let borrower =
        NodeOptions::new(&south).owner("alerts", 500_000, Class::Express).client("alerts", 400_000);
    let borrower = borrower.leads(&[&north]);
    (lender, borrower)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_idle_is_borrowed_enforced_and_given_back() {
    let city = City::new(&["north", "south"]);
    let (lender, borrower) = two(&city);
    let (lender, borrower) = (desk(&city, lender).await, desk(&city, borrower).await);
    until("the borrower hears what the lender has", PATIENCE, async || {
        borrower.view().await.peers.iter().any(|peer| 0 < peer.offer_sm_ppm)
    })
    .await;
    // Its own device is busy with somebody else's work: half of what it wants it does not get.
    borrower.ground.busy("alerts", true);
    borrower.ground.charging("alerts", 500);
    until("a loan", PATIENCE, async || !borrower.ground.allowed().is_empty()).await;
    let allowance = borrower.ground.allowed().remove(0);
    assert_eq!(allowance.place.node.as_str(), "north.n1");
    assert!(Share(50_000) <= allowance.amount.sm && allowance.amount.sm <= Share(400_000));
    // The lender's device: the owner has less, the guest has it, and together they have no more than there is.
    let limits = lender.ground.limits();
    let guest = limits.guests.iter().find(|guest| guest.guest.tenant.as_str() == "alerts").unwrap();
    assert_eq!(guest.limit.sm, allowance.amount.sm);
    let owner = limits.owners.iter().find(|(owner, _)| owner.as_str() == "cases").unwrap();
    assert_eq!(owner.1.sm, Share(700_000).saturating_sub(allowance.amount.sm));
    lender.ground.never_exceeded();
    // No longer needed.
    borrower.ground.busy("alerts", false);
    until("it is given back", PATIENCE, async || borrower.ground.allowed().is_empty()).await;
    until("the owner has its own", PATIENCE, async || {
        lender.ground.limits().owners.iter().all(|(_, limit)| limit.sm == Share(700_000))
    })
    .await;
    lender.ground.never_exceeded();
    let said: Vec<String> = lender.view().await.decisions.into_iter().map(|said| said.what).collect();
    assert!(said.contains(&"granted".to_owned()) && said.contains(&"closed".to_owned()), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_express_owner_takes_back_at_once() {
    let city = City::new(&["north", "south"]);
    let (mut lender, borrower) = two(&city);
    lender.owners[0].class = Class::Express;
    let (lender, borrower) = (desk(&city, lender).await, desk(&city, borrower).await);
    borrower.ground.busy("alerts", true);
    borrower.ground.charging("alerts", 300);
    until("a loan", PATIENCE, async || !borrower.ground.allowed().is_empty()).await;
    lender.ground.guest_active(true);
    lender.ground.busy("cases", true);
    let asked = lender.ground.clock();
    until("the owner has its own", PATIENCE, async || {
        lender.ground.limits().owners.iter().all(|(_, limit)| limit.sm == Share(700_000))
    })
    .await;
    let took = lender.ground.changed_at().saturating_sub(asked);
    assert!(took < Micros::from_millis(200), "after {took:?} on a machine that others use");
    until("the borrower hears it", PATIENCE, async || borrower.ground.allowed().is_empty()).await;
    lender.ground.never_exceeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_raises_classes_elsewhere_and_ends() {
    let city = City::new(&["north", "south"]);
    let (lender, borrower) = two(&city);
    let (lender, borrower) = (desk(&city, lender).await, desk(&city, borrower).await);
    let named = Guest {
        district: headgate_quota::loan::District::new("north").unwrap(),
        tenant: headgate_quota::loan::Tenant::new("cases").unwrap(),
    };
    let incident = Incident {
        issuer: headgate_quota::loan::District::new("south").unwrap(),
        number: 7,
        name: IncidentName::new("fire").unwrap(),
        tenants: vec![named.clone()],
        class: Class::Express,
        duration: Micros::from_secs(600),
        reclaim: true,
    };
    borrower.ground.incident(incident.clone(), false);
    until("the other district raises its tenant", PATIENCE, async || {
        lender.ground.class_of(&named, Class::Batch) == Class::Express
    })
    .await;
    until("and its lender knows why it lends nothing", PATIENCE, async || {
        lender.view().await.incidents.iter().any(|incident| incident.name == "fire" && incident.reclaim)
    })
    .await;
    borrower.ground.incident(incident, true);
    until("and lowers it again", PATIENCE, async || {
        lender.ground.class_of(&named, Class::Batch) == Class::Batch
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_lender_counts_what_its_predecessor_lent() {
    let city = City::new(&["north", "south"]);
    let (lender, borrower) = two(&city);
    let again = lender.clone();
    let (first, borrower) = (desk(&city, lender).await, desk(&city, borrower).await);
    borrower.ground.busy("alerts", true);
    borrower.ground.charging("alerts", 300);
    until("a loan", PATIENCE, async || !borrower.ground.allowed().is_empty()).await;
    let lent = borrower.ground.allowed()[0].clone();
    first.close().await;
    let second = desk(&city, again).await;
    until("the ledger is read", PATIENCE, async || !second.view().await.lent.is_empty()).await;
    assert_eq!(second.view().await.lent[0].loan, lent.loan.to_string());
    until("the loan is renewed with the new lender", PATIENCE, async || {
        borrower.ground.allowed().first().is_some_and(|now| lent.token < now.token)
    })
    .await;
    second.ground.never_exceeded();
}
