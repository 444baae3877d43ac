//! Who should not be listened to, against a real daemon over real sockets: refused, counted on the metrics page, and
//! logged once however often they come back. And what a lender refuses although its peer is who it says.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use headgate_harness::{Node, NodeOptions, TenantSpec, eventually};
use headgate_loans::certs::{self, Files};
use headgate_loans::identity::Identity;
use headgate_loans::refused::{Reason, Refusals};
use headgate_loans::tls::{Purpose, Tls, TlsFiles};
use headgate_loans::wire::{Body, Frame, WireAmount, WireAsk, WireHeld, WireNode, WireRenew, WireSummary};
use headgate_quota::loan::District;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};

const DAY: Duration = Duration::from_secs(24 * 3_600);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often each stranger comes back.
const TIMES: u64 = 3;

#[expect(clippy::disallowed_methods, reason = "certificates are valid in real time")]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// A lender's node in the district `north` that trusts `north` and `south`, and the authorities of a few districts.
struct Scene {
    node: Node,
    certificates: TempDir,
    address: String,
    runtime: Runtime,
}

impl Scene {
    fn new() -> Self {
        let certificates = tempfile::tempdir().unwrap();
        for district in ["north", "south", "west"] {
            let authority = certs::authority(district, DAY, wall()).unwrap();
            Files::of_authority(certificates.path(), district).write(&authority, true).unwrap();
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let files = certificates.path().display();
        let spec = format!(
            "loans:\n  peers:\n    listen: {address}\n    certificate: {files}/north.node.pem\n    key: {files}/north.node.key\n    \
             authorities: {{north: {files}/north-ca.pem, south: {files}/south-ca.pem}}\n  lending: {{idleFor: 1s}}"
        );
        let quota = "quota: {\"*\": {sm: 70%, memory: 8Gi, lendingLimit: {sm: 60%, memory: 4Gi}}}";
        let mut options =
            NodeOptions::simulated(vec![TenantSpec::new("cases").district("north").with(quota)]);
        options.spec = spec.lines().map(str::to_owned).collect();
        options.identity = Some(("node".to_owned(), "north".to_owned()));
        let own = Identity::new("north", "node").unwrap();
        issue(&certificates, "north", &own, wall());
        let node = Node::start(options).unwrap_or_else(|error| panic!("{error:#}"));
        Self { node, certificates, address, runtime: Runtime::new().unwrap() }
    }

    /// A way to the lender with a certificate that says `claims`, signed by the authority of `district` at `when`.
    fn dial(&self, district: &str, claims: &Identity, when: SystemTime) -> Channel {
        let files = issue(&self.certificates, district, claims, when);
        let authorities = ["north", claims.district().as_str()].map(|district| {
            let file = Files::of_authority(self.certificates.path(), district).certificate;
            (District::new(district).unwrap(), file)
        });
        let files = TlsFiles { authorities: BTreeMap::from(authorities), ..files };
        let tls = Tls::load(&files, claims, Arc::new(Refusals::default())).unwrap();
        let tls =
            TlsConnector::from(tls.client(&Identity::new("north", "node").unwrap(), Purpose::Loans).unwrap());
        let address = self.address.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                let name = ServerName::try_from("headgate.internal").map_err(io::Error::other)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let _inside = self.runtime.enter();
        Endpoint::from_static("http://peer").connect_with_connector_lazy(connector)
    }

    /// A borrower's stream that says these frames. What came back, to the stream's end or the first `answers` of it.
    fn says(&self, channel: &Channel, frames: Vec<Frame>, answers: usize) -> Vec<Frame> {
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            if grpc.ready().await.is_err() {
                return Vec::new();
            }
            let codec = tonic_prost::ProstCodec::<Frame, Frame>::default();
            let path = http::uri::PathAndQuery::from_static("/headgate.peer.v1.Peer/Converse");
            // The stream stays open while an answer is waited for.
            let open = futures_util::stream::pending();
            let said = futures_util::stream::iter(frames);
            let said = futures_util::StreamExt::chain(
                said,
                if answers == 0 {
                    futures_util::future::Either::Left(futures_util::stream::empty())
                } else {
                    futures_util::future::Either::Right(open)
                },
            );
            let mut heard = Vec::new();
            if let Ok(stream) = grpc.streaming(tonic::Request::new(said), path, codec).await {
                let mut stream = stream.into_inner();
                while heard.len() < answers.max(1)
                    && let Ok(Ok(Some(frame))) = tokio::time::timeout(PATIENCE, stream.message()).await
                {
                    heard.push(frame);
                }
            }
            heard
        })
    }

    /// Sends a load summary; whether it was answered.
    fn summary(&self, channel: &Channel, summary: WireSummary) -> bool {
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            if grpc.ready().await.is_err() {
                return false;
            }
            let codec = tonic_prost::ProstCodec::<WireSummary, WireSummary>::default();
            let path = http::uri::PathAndQuery::from_static("/headgate.peer.v1.Peer/Exchange");
            grpc.unary(tonic::Request::new(summary), path, codec).await.is_ok()
        })
    }

    fn refused(&self, reason: Reason) -> u64 {
        let page = self.node.metrics().unwrap();
        let label = format!("reason=\"{}\"", reason.word());
        let count = page.value("headgate_loans_peers_refused_total", &[&label]).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        {
            count as u64
        }
    }

    /// Counted every time, logged for each peer and reason once.
    #[track_caller]
    fn counted_and_logged_once(&self, reason: Reason, times: u64, who: &str) {
        eventually(&format!("{reason:?} counted {times} times"), PATIENCE, || {
            let counted = self.refused(reason);
            assert!(counted <= times, "{reason:?} counted {counted} times, not {times}");
            (counted == times).then_some(())
        });
        let log = self.node.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| {
                line.contains("a peer was refused") && line.contains(reason.word()) && line.contains(who)
            })
            .collect();
        assert_eq!(lines.len(), 1, "{reason:?} of {who}: {lines:#?}");
    }
}

fn issue(directory: &TempDir, district: &str, claims: &Identity, when: SystemTime) -> TlsFiles {
    let key = std::fs::read_to_string(Files::of_authority(directory.path(), district).key).unwrap();
    let issued = certs::node(district, &key, claims, DAY, when).unwrap();
    let files = Files::of_node(directory.path(), claims);
    files.write(&issued, false).unwrap();
    TlsFiles { certificate: files.certificate, key: files.key, authorities: BTreeMap::new() }
}

fn frame(sequence: u64, body: Body) -> Frame {
    Frame { start: 5, sequence, body: Some(body) }
}

fn renew(number: u64) -> Body {
    let loan = format!("south.n2/1/{number}");
    Body::Renew(WireRenew { loan, incarnation: 1, attempt: 1, class: "standard".to_owned() })
}

fn ask(number: u64, attempt: u64, place: &str, data: &str) -> Body {
    Body::Ask(WireAsk {
        loan: format!("south.n2/1/{number}"),
        attempt,
        place: place.to_owned(),
        guest: "south/review".to_owned(),
        class: "standard".to_owned(),
        data: data.to_owned(),
        amount: WireAmount { sm_ppm: 100_000, memory_bytes: 0 },
    })
}

#[test]
fn certificates_that_are_wrong_expired_or_of_another_district_are_refused_counted_and_logged_once() {
    let scene = Scene::new();
    let long_ago = wall() - 3 * DAY;
    let of = |district, node| Identity::new(district, node).unwrap();
    for (reason, district, claims, when) in [
        (Reason::Expired, "south", of("south", "old"), long_ago),
        // The administrator of south makes itself a node of north.
        (Reason::UntrustedIssuer, "south", of("north", "spy"), wall()),
        (Reason::UnknownDistrict, "west", of("west", "n3"), wall()),
    ] {
        for _ in 0..TIMES {
            // A connection each time.
            let channel = scene.dial(district, &claims, when);
            let answers = scene.says(&channel, vec![frame(1, renew(1))], 1);
            assert!(answers.is_empty(), "{reason:?}: {answers:?}");
        }
        scene.counted_and_logged_once(reason, TIMES, claims.node().as_str());
    }
    // A district may call a node of its own what it likes, and is believed.
    let channel = scene.dial("south", &of("south", "n2"), wall());
    let answers = scene.says(&channel, vec![frame(1, renew(1))], 1);
    assert!(matches!(answers[0].body, Some(Body::Over(_))), "a loan nobody knows is over: {answers:?}");
}

#[test]
fn what_is_repeated_overtaken_too_long_garbled_or_said_for_others_is_refused_counted_and_logged_once() {
    let scene = Scene::new();
    let south = Identity::new("south", "n2").unwrap();
    let channel = scene.dial("south", &south, wall());
    scene.says(&channel, vec![frame(10, renew(1)), frame(10, renew(1)), frame(9, renew(2))], 0);
    // A later stream repeats the earlier one's frames word for word.
    scene.says(&channel, vec![frame(10, renew(1))], 0);
    scene.counted_and_logged_once(Reason::Replayed, 3, "south.n2");

    for sequence in 20..20 + TIMES {
        let endless = WireHeld { loan: "x".repeat(8 << 10), incarnation: 1 };
        scene.says(&channel, vec![frame(sequence, Body::Release(endless))], 0);
    }
    scene.counted_and_logged_once(Reason::Oversized, TIMES, "south.n2");

    for sequence in 30..30 + TIMES {
        let garbled = WireHeld { loan: "south.n2/1/x".to_owned(), incarnation: 1 };
        scene.says(&channel, vec![frame(sequence, Body::Release(garbled))], 0);
    }
    scene.counted_and_logged_once(Reason::Malformed, TIMES, "south.n2");

    for sequence in 40..40 + TIMES {
        let other = WireNode { district: "north".to_owned(), node: "n9".to_owned(), ..WireNode::default() };
        let summary = WireSummary { start: 5, sequence, nodes: vec![other], incidents: Vec::new() };
        assert!(scene.summary(&channel, summary), "the rest of it counts");
    }
    scene.counted_and_logged_once(Reason::NotYours, TIMES, "south.n2");

    // Whoever says it rightly afterwards is heard.
    let answers = scene.says(&channel, vec![frame(50, renew(1))], 1);
    assert!(matches!(answers[0].body, Some(Body::Over(_))), "{answers:?}");
}

#[test]
fn a_lender_refuses_raw_data_whatever_its_borrower_thinks() {
    let scene = Scene::new();
    let view = || scene.node.ask(&serde_json::json!({"op": "loans"})).unwrap();
    let place = eventually("something idle", PATIENCE, || {
        let view = view();
        let place = &view["places"][0];
        (100_000 <= place["offer_sm_ppm"].as_u64()?).then(|| place["place"].as_str().unwrap().to_owned())
    });
    let channel = scene.dial("south", &Identity::new("south", "n2").unwrap(), wall());
    for attempt in 1..=TIMES {
        let answers = scene.says(&channel, vec![frame(attempt, ask(1, attempt, &place, "raw"))], 1);
        let Some(Body::Refuse(end)) = &answers[0].body else { panic!("raw data was let in: {answers:?}") };
        assert!(end.why.contains("raw"), "{}", end.why);
    }
    assert!(view()["lent"].as_array().unwrap().is_empty(), "{}", view());
    let log = std::fs::read_to_string(scene.node.path("state/loans/audit.log")).unwrap();
    let refusals = log.lines().filter(|line| {
        line.contains(" refused ") && line.contains("guest=south/review") && line.contains("data=raw")
    });
    assert_eq!(refusals.count(), usize::try_from(TIMES).unwrap(), "{log}");
    // The same request for what may leave its district is granted: nothing else was wrong with it.
    let answers = scene.says(&channel, vec![frame(10, ask(2, 1, &place, "derived"))], 1);
    assert!(matches!(answers[0].body, Some(Body::Promise(_))), "{answers:?}");
}
