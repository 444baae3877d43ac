//! Districts that renew loans against a real NATS server: the load of `cargo xtask bench loans`.
//!
//! Each district is a real lender on a connection of its own; its borrower renews on time. A renewal is measured
//! from when the lender hears it to when its promise leaves: one compare-and-swap, and what the policy does.
//!
//! ```text
//! renewals URL DISTRICTS SECONDS     prints one JSON object
//! ```

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a load that cannot run has no figures")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headgate_loans::store::{LoanStore, Nats, NatsOptions, Swap};
use headgate_quota::Class;
use headgate_quota::loan::store::{StoreCommand, StoreReply};
use headgate_quota::loan::{
    Amount, Ask, DataClass, Device, District, Guest, Lender, Lending, LoanId, Node, Owner, Peer, Place,
    Revision, Tenant, ToBorrower, ToLender, lender, point,
};
use headgate_quota::units::{Bytes, Micros, Share};
use tokio::sync::Barrier;

/// How often a loan is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// How long requests are gathered.
const GATHER: Duration = Duration::from_millis(2);

/// What one district took, in microseconds: its grant, its renewals on time, and as fast as it could.
struct Took {
    grant: u64,
    paced: Vec<u64>,
    fast: Vec<u64>,
}

struct Seat {
    lender: Lender,
    store: Nats,
    start: Instant,
    loan: LoanId,
    peer: Peer,
    place: Place,
}

fn name(number: usize) -> String {
    format!("d{number}.node")
}

impl Seat {
    async fn open(url: &str, number: usize) -> Self {
        let place = Place {
            district: District::new(&format!("d{number}")).unwrap(),
            node: Node::new(&name(number)).unwrap(),
            device: Device::new("GPU-0").unwrap(),
        };
        let borrower = Node::new(&format!("b{number}.node")).unwrap();
        let store = Nats::connect(NatsOptions {
            urls: vec![url.to_owned()],
            bucket: "headgate-bench".to_owned(),
            replicas: 1,
            token: None,
            ca: None,
            client: None,
        })
        .await
        .unwrap();
        let capacity = Amount { sm: Share::WHOLE, memory: Bytes(80 << 30) };
        let owner = Owner {
            tenant: Tenant::new("cases").unwrap(),
            class: Class::Standard,
            nominal: Amount::compute(Share(700_000)),
            lending_limit: Amount::compute(Share(600_000)),
        };
        let lending =
            Lending { idle_for: Micros(1_000), gather: Micros::from_millis(2), ..Lending::default() };
        let owners = vec![owner];
        let lender =
            Lender::new(place.clone(), capacity, lending, owners, Revision::default(), Micros(1)).unwrap();
        let district = District::new(&format!("b{number}")).unwrap();
        Self {
            lender,
            store,
            start: Instant::now(),
            loan: LoanId { node: borrower.clone(), incarnation: 1, number: 1 },
            peer: Peer { node: borrower, district, weight: 1, distance: 1 },
            place,
        }
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap() + 1_000_000)
    }

    /// Gives the lender an input and does what it says until it waits. The last promise, if any.
    async fn give(&mut self, input: lender::Input) -> Option<Revision> {
        let mut promised = None;
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.lender.handle(self.now(), input) {
                match output {
                    lender::Output::Store(command) => {
                        inputs.push_back(lender::Input::Store(asked(&self.store, command).await));
                    }
                    lender::Output::Install { .. } => {
                        inputs.push_back(lender::Input::Installed(Ok(point::Accepted::default())));
                    }
                    lender::Output::Send { message: ToBorrower::Promise(promise), .. } => {
                        promised = Some(promise.token);
                    }
                    lender::Output::Send { message, .. } => panic!("{message:?}"),
                    _ => {}
                }
            }
        }
        promised
    }

    /// Has a loan granted; how long that took from the request, without the time for which requests are gathered.
    async fn grant(&mut self) -> Duration {
        self.give(lender::Input::Tick).await;
        let demand =
            lender::Demand { tenant: Tenant::new("cases").unwrap(), wants: Amount::ZERO, borrows: false };
        let observed = lender::Observed { demands: vec![demand], guests: Vec::new() };
        self.give(lender::Input::Observed(observed)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let guest = Guest { district: self.peer.district.clone(), tenant: Tenant::new("alerts").unwrap() };
        let ask = Ask {
            loan: self.loan.clone(),
            attempt: 1,
            place: self.place.clone(),
            guest,
            class: Class::Standard,
            data: DataClass::Derived,
            amount: Amount::compute(Share(200_000)),
        };
        let heard = lender::Input::Heard { from: self.peer.clone(), message: ToLender::Ask(ask) };
        let gathered = self.give(heard).await;
        assert!(gathered.is_none(), "a request is gathered with others before it is served");
        loop {
            tokio::time::sleep(GATHER).await;
            let served = Instant::now();
            if self.give(lender::Input::Tick).await.is_some() {
                return served.elapsed();
            }
        }
    }

    async fn renew(&mut self, attempt: u64) -> Duration {
        let message =
            ToLender::Renew { loan: self.loan.clone(), incarnation: 1, attempt, class: Class::Standard };
        let asked = Instant::now();
        let promised = self.give(lender::Input::Heard { from: self.peer.clone(), message }).await;
        assert!(promised.is_some(), "a renewal was not answered");
        asked.elapsed()
    }
}

async fn asked(store: &Nats, command: StoreCommand) -> StoreReply {
    match command {
        StoreCommand::Read { op, place } => match store.read(&place).await {
            Ok((revision, ledger)) => StoreReply::Read { op, revision, ledger },
            Err(_) => StoreReply::Failed { op },
        },
        StoreCommand::Swap { op, place, expected, ledger } => {
            match store.swap(&place, expected, &ledger).await {
                Ok(Swap::Done(revision)) => StoreReply::Swapped { op, revision },
                Ok(Swap::Conflict) => StoreReply::Conflict { op },
                Err(_) => StoreReply::Failed { op },
            }
        }
    }
}

/// Renews on time, then as fast as it can, and tells how long each renewal took.
async fn district(url: String, number: usize, districts: usize, seconds: u64, start: Arc<Barrier>) -> Took {
    let us = |took: Duration| u64::try_from(took.as_micros()).unwrap();
    let mut seat = Seat::open(&url, number).await;
    start.wait().await;
    // Everybody asks within a second, as after a partition of the whole city.
    tokio::time::sleep(Duration::from_secs(1).mul_f64(number as f64 / districts as f64)).await;
    let grant = us(seat.grant().await);
    start.wait().await;
    let begun = Instant::now();
    // Renewals are spread over the period, as they are where daemons start when they start.
    let offset = RENEW.mul_f64(number as f64 / districts as f64);
    let (mut paced, mut attempt) = (Vec::new(), 1);
    let mut due = begun + offset;
    while due < begun + Duration::from_secs(seconds) {
        tokio::time::sleep_until(due.into()).await;
        attempt += 1;
        paced.push(us(seat.renew(attempt).await));
        due += RENEW;
    }
    start.wait().await;
    let flat_out = Instant::now();
    let mut fast = Vec::new();
    while flat_out.elapsed() < Duration::from_secs(5) {
        attempt += 1;
        fast.push(us(seat.renew(attempt).await));
    }
    Took { grant, paced, fast }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, districts, seconds] = &arguments[..] else { panic!("renewals URL DISTRICTS SECONDS") };
    let (districts, seconds): (usize, u64) = (districts.parse().unwrap(), seconds.parse().unwrap());
    let start = Arc::new(Barrier::new(districts));
    let tasks: Vec<_> = (0..districts)
        .map(|number| tokio::spawn(district(url.clone(), number, districts, seconds, Arc::clone(&start))))
        .collect();
    let (mut grants, mut paced, mut fast) = (Vec::new(), Vec::new(), Vec::new());
    for task in tasks {
        let took = task.await.unwrap();
        grants.push(took.grant);
        paced.extend(took.paced);
        fast.extend(took.fast);
    }
    grants.sort_unstable();
    paced.sort_unstable();
    fast.sort_unstable();
    let quantile = |sorted: &[u64], permille: usize| sorted[(sorted.len() - 1) * permille / 1_000];
    println!(
        "{{\"districts\":{districts},\"seconds\":{seconds},\"renewals\":{},\"per_second\":{},\"p50_us\":{},\"p99_us\":{},\
         \"max_us\":{},\"grant_p50_us\":{},\"grant_p99_us\":{},\"flat_out_per_second\":{},\"flat_out_p50_us\":{},\"flat_out_p99_us\":{}}}",
        paced.len(),
        paced.len() as u64 / seconds,
        quantile(&paced, 500),
        quantile(&paced, 990),
        quantile(&paced, 1_000),
        quantile(&grants, 500),
        quantile(&grants, 990),
        fast.len() as u64 / 5,
        quantile(&fast, 500),
        quantile(&fast, 990),
    );
}
