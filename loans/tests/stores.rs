//! One suite for every loan store: what the protocol needs of one, and that `kill -9` loses nothing.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use headgate_harness::nats::Nats as Server;
use headgate_harness::{eventually, skipped};
use headgate_loans::store::{Embedded, LoanStore, Nats, NatsOptions, Swap};
use headgate_quota::Class;
use headgate_quota::loan::{
    Amount, DataClass, Device, District, Guest, Ledger, Loan, LoanId, Node, Place, Revision, Standing,
    Tenant, Terms,
};
use headgate_quota::units::{Bytes, Micros, Share};

fn place(node: &str) -> Place {
    Place {
        district: District::new("north").unwrap(),
        node: Node::new(node).unwrap(),
        device: Device::new("GPU-1").unwrap(),
    }
}

fn loan(node: &str, number: u64) -> Loan {
    Loan {
        id: LoanId { node: Node::new(node).unwrap(), incarnation: 3, number },
        owner: Tenant::new("cases").unwrap(),
        guest: Guest { district: District::new("south").unwrap(), tenant: Tenant::new("alerts").unwrap() },
        data: DataClass::Derived,
        class: Class::Standard,
        amount: Amount { sm: Share(200_000), memory: Bytes(1 << 30) },
        terms: Terms::default(),
        holder: 3,
        age: Micros(number),
        standing: Standing::Active,
    }
}

fn ledger(epoch: u64, loans: u64) -> Ledger {
    Ledger { epoch, loans: (0..loans).map(|number| loan("south.n2", number)).collect() }
}

fn done(swap: Swap) -> Revision {
    match swap {
        Swap::Done(revision) => revision,
        Swap::Conflict => panic!("a conflict where nobody else writes"),
    }
}

/// What every store must do.
async fn conforms(store: Arc<dyn LoanStore>) {
    let (here, there) = (place("north.n1"), place("north.n.2"));
    // Never written: revision zero, empty.
    assert_eq!(store.read(&here).await.unwrap(), (Revision(0), Ledger::default()));
    // A swap of what exists needs its revision, the first one zero.
    assert_eq!(store.swap(&here, Revision(7), &ledger(1, 1)).await.unwrap(), Swap::Conflict);
    let first = done(store.swap(&here, Revision(0), &ledger(1, 1)).await.unwrap());
    assert_eq!(store.swap(&here, Revision(0), &ledger(9, 9)).await.unwrap(), Swap::Conflict);
    assert_eq!(store.read(&here).await.unwrap(), (first, ledger(1, 1)));
    let second = done(store.swap(&here, first, &ledger(1, 64)).await.unwrap());
    assert!(first < second, "revisions grow");
    // A writer that comes late changes nothing.
    assert_eq!(store.swap(&here, first, &ledger(9, 9)).await.unwrap(), Swap::Conflict);
    assert_eq!(store.read(&here).await.unwrap(), (second, ledger(1, 64)));
    // Devices do not touch each other.
    assert_eq!(store.read(&there).await.unwrap(), (Revision(0), Ledger::default()));
    let other = done(store.swap(&there, Revision(0), &ledger(4, 0)).await.unwrap());
    assert_eq!(store.read(&here).await.unwrap().0, second);
    // Starts of one node grow, whatever happens in between.
    let node = Node::new("south.n.2").unwrap();
    let one = store.start(&node).await.unwrap();
    store.swap(&there, other, &ledger(5, 2)).await.unwrap();
    let two = store.start(&node).await.unwrap();
    assert!(0 < one && one < two, "starts {one} and {two}");
    // Everything is found again.
    let listed: BTreeMap<Place, Ledger> =
        store.list().await.unwrap().into_iter().map(|stored| (stored.place, stored.ledger)).collect();
    assert_eq!(listed, BTreeMap::from([(here.clone(), ledger(1, 64)), (there, ledger(5, 2))]));
    contended(store).await;
}

/// Of many writers with one expectation exactly one succeeds, and no increment is lost.
async fn contended(store: Arc<dyn LoanStore>) {
    let place = place("north.contended");
    let writers = (0..8).map(|_| {
        let (store, place) = (Arc::clone(&store), place.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while written < 10 {
                let (revision, old) = store.read(&place).await.unwrap();
                let new = Ledger { epoch: old.epoch + 1, loans: Vec::new() };
                if let Swap::Done(newer) = store.swap(&place, revision, &new).await.unwrap() {
                    assert!(revision < newer);
                    written += 1;
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(store.read(&place).await.unwrap().1.epoch, 80);
}

async fn nats(server: &Server) -> Nats {
    Nats::connect(NatsOptions {
        urls: vec![server.url()],
        bucket: "headgate-test".to_owned(),
        replicas: 1,
        token: None,
        ca: None,
        client: None,
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conforms(Arc::new(Embedded::open(&directory.path().join("loans.redb")).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_store_conforms() {
    match Server::start() {
        Ok(server) => conforms(Arc::new(nats(&server).await)).await,
        Err(why) => skipped("the_nats_store_conforms", &why),
    }
}

#[tokio::test]
async fn a_second_daemon_on_one_file_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loans.redb");
    let _first = Embedded::open(&path).unwrap();
    let error = Embedded::open(&path).unwrap_err().to_string();
    assert!(error.contains("another daemon has it open"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_of_the_operation_and_comes_back() {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(why) => return skipped("a_server_that_is_away", &why),
    };
    let store = nats(&server).await;
    let place = place("north.n1");
    let revision = done(store.swap(&place, Revision(0), &ledger(1, 3)).await.unwrap());
    server.kill().unwrap();
    assert!(store.swap(&place, revision, &ledger(2, 0)).await.is_err());
    server.restart().unwrap();
    // The swap whose answer was lost may have been carried out or not, but nothing else may have.
    let (now, content) = read_again(&store, &place).await;
    assert!((now, &content) == (revision, &ledger(1, 3)) || (revision < now && content == ledger(2, 0)));
}

/// Confirmed writes of a process that is killed at a random point, as it printed them: epoch by epoch.
fn confirmed(mut writer: Command, kill_after: usize) -> u64 {
    use std::io::BufRead as _;
    let mut child = writer.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut last = 0;
    // The test runner prints lines of its own.
    let mut confirmed = |line: String| line.strip_prefix("confirmed ").and_then(|text| text.parse().ok());
    last = lines.by_ref().filter_map(&mut confirmed).take(kill_after).last().unwrap_or(last);
    child.kill().unwrap();
    last = lines.filter_map(confirmed).last().unwrap_or(last);
    child.wait().unwrap();
    last
}

/// Run by the test below in a process of its own: writes until it is killed.
#[tokio::test]
async fn writer_for_the_kill_test() {
    let Some(path) = std::env::var_os("HEADGATE_TEST_STORE") else { return };
    let store = Embedded::open(path.as_ref()).unwrap();
    let place = place("north.n1");
    loop {
        let (revision, old) = store.read(&place).await.unwrap();
        done(store.swap(&place, revision, &ledger(old.epoch + 1, old.epoch % 64)).await.unwrap());
        use std::io::Write as _;
        let mut out = std::io::stdout();
        writeln!(out, "confirmed {}", old.epoch + 1).unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn a_killed_daemon_loses_nothing_that_was_confirmed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loans.redb");
    let mut last = 0;
    for round in 1..=12 {
        let mut writer = Command::new(std::env::current_exe().unwrap());
        writer.args(["--exact", "writer_for_the_kill_test", "--nocapture"]);
        writer.env("HEADGATE_TEST_STORE", &path);
        let confirmed = confirmed(writer, 1 + round * 7 % 11);
        assert!(last < confirmed, "round {round}: nothing was written");
        let store = Embedded::open(&path).unwrap();
        let (_, found) = store.read(&place("north.n1")).await.unwrap();
        // One more may have been written than was told.
        assert!(
            found.epoch == confirmed || found.epoch == confirmed + 1,
            "round {round}: {} of {confirmed}",
            found.epoch
        );
        assert_eq!(found, ledger(found.epoch, (found.epoch - 1) % 64), "a whole ledger or none");
        last = found.epoch;
    }
}

/// Reads until the store answers: a client that reconnects needs a moment.
async fn read_again(store: &Nats, place: &Place) -> (Revision, Ledger) {
    for _ in 0..50 {
        if let Ok(found) = store.read(place).await {
            return found;
        }
    }
    panic!("the store did not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_server_loses_nothing_that_was_confirmed() {
    let mut server = match Server::start() {
        Ok(server) => server,
        Err(why) => return skipped("a_killed_nats_server_loses_nothing", &why),
    };
    let store = Arc::new(nats(&server).await);
    let place = place("north.n1");
    for round in 0..5u64 {
        read_again(&store, &place).await;
        let writes = Arc::new(AtomicU64::new(0));
        let writer = {
            let (store, place, writes) = (Arc::clone(&store), place.clone(), Arc::clone(&writes));
            tokio::spawn(async move {
                let (mut confirmed, mut tried) = (None, 0);
                loop {
                    let Ok((revision, old)) = store.read(&place).await else { break (confirmed, tried) };
                    tried = old.epoch + 1;
                    match store.swap(&place, revision, &ledger(tried, tried % 64)).await {
                        Ok(swap) => confirmed = Some((done(swap), tried)),
                        Err(_) => break (confirmed, tried),
                    }
                    writes.fetch_add(1, Relaxed);
                }
            })
        };
        tokio::task::block_in_place(|| {
            eventually("writes", Duration::from_secs(20), || {
                (1 + round * 13 < writes.load(Relaxed)).then_some(())
            });
        });
        server.kill().unwrap();
        let (confirmed, tried) = writer.await.unwrap();
        let (revision, epoch) = confirmed.unwrap();
        server.restart().unwrap();
        let (now, content) = read_again(&store, &place).await;
        assert!(revision <= now && (epoch..=tried).contains(&content.epoch), "{} of {epoch}", content.epoch);
        assert_eq!(content, ledger(content.epoch, content.epoch % 64), "a whole ledger or none");
    }
}
