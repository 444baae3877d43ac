//! Real sockets, real TLS, real certificates: who gets in, what is heard, what is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use headgate_quota::Class;
use headgate_quota::loan::{District, LoanId};
use tempfile::TempDir;

use super::*;
use crate::certs::{self, Files};
use crate::tls::TlsFiles;

const DAY: Duration = Duration::from_secs(24 * 3_600);
const PATIENCE: Duration = Duration::from_secs(10);
/// No kernel's own choice.
const UNSENT_BYTES_MAX: u32 = 77 << 10;

/// Authorities of two districts, in a directory.
struct City {
    directory: TempDir,
}

impl City {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for district in ["north", "south", "west"] {
            let authority = certs::authority(district, DAY, wall()).unwrap();
            Files::of_authority(directory.path(), district).write(&authority, true).unwrap();
        }
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A certificate of `identity` from the authority of `district`.
    fn issue(&self, district: &str, identity: &Identity, at: SystemTime) -> TlsFiles {
        let key = std::fs::read_to_string(Files::of_authority(self.path(), district).key).unwrap();
        let issued = certs::node(district, &key, identity, DAY, at).unwrap();
        let files = Files::of_node(self.path(), identity);
        files.write(&issued, false).unwrap();
        let trusted = |district: &str| {
            let file = Files::of_authority(self.path(), district).certificate;
            (District::new(district).unwrap(), file)
        };
        TlsFiles {
            certificate: files.certificate,
            key: files.key,
            authorities: BTreeMap::from(["north", "south"].map(trusted)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid in real time")]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn north() -> Identity {
    Identity::new("north", "n1").unwrap()
}

fn south() -> Identity {
    Identity::new("south", "n2").unwrap()
}

struct End {
    peers: Peers,
    heard: mpsc::Receiver<Heard>,
    refusals: Arc<Refusals>,
    address: String,
}

/// A node that listens.
async fn end(identity: &Identity, files: &TlsFiles, start: u64) -> End {
    let refusals = Arc::new(Refusals::default());
    let tls = Tls::load(files, identity, Arc::clone(&refusals)).unwrap();
    let (sender, heard) = mpsc::channel(64);
    let peers = Peers::new(tls, start, UNSENT_BYTES_MAX, sender, Arc::clone(&refusals));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = peers.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    End { peers, heard, refusals, address }
}

fn loan(number: u64) -> LoanId {
    LoanId { node: south().node().clone(), incarnation: 7, number }
}

fn renew(number: u64) -> ToLender {
    ToLender::Renew { loan: loan(number), incarnation: 7, attempt: 1, class: Class::Express }
}

async fn hears(end: &mut End) -> (Identity, Said) {
    match tokio::time::timeout(PATIENCE, end.heard.recv()).await {
        Ok(Some(Heard::Said { from, said })) => (from, said),
        other => panic!("heard {other:?}"),
    }
}

/// Waits until a count is reached.
async fn refused(refusals: &Refusals, reason: Reason, least: u64) {
    let counted = async {
        while refusals.of(reason) < least {
            tokio::task::yield_now().await;
        }
    };
    let within = tokio::time::timeout(PATIENCE, counted).await;
    assert!(within.is_ok(), "{reason:?} counted {} times: {refusals:?}", refusals.of(reason));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_borrower_and_a_lender_talk_and_know_each_other() {
    let city = City::new();
    let mut lender = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let mut borrower = end(&south(), &city.issue("south", &south(), wall()), 1).await;
    borrower.peers.tell_lender(&north(), &lender.address, renew(1));
    assert_eq!(hears(&mut lender).await, (south(), Said::ToLender(renew(1))));
    let closed = ToBorrower::Closed { loan: loan(1) };
    lender.peers.tell_borrower(south().node(), closed.clone());
    assert_eq!(hears(&mut borrower).await, (north(), Said::ToBorrower(closed)));
    assert!(borrower.peers.links().iter().any(|link| link.up && link.direction == "dialled"));
    assert!(lender.peers.links().iter().any(|link| link.up && link.direction == "accepted"));
    assert!(lender.refusals.counts().all(|(_, count)| count == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_session_say_at_once_what_they_are_given_and_hold_little_of_it() {
    let city = City::new();
    let lender = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let borrower = end(&south(), &city.issue("south", &south(), wall()), 1).await;
    let mut arrivals = lender.peers.sessions().unwrap();
    let dialled = borrower.peers.dial(&north(), &lender.address, Purpose::Session).await.unwrap();
    let accepted = tokio::time::timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
    assert_eq!(accepted.from, south());
    for (end, stream) in [("dialled", dialled.get_ref().0), ("accepted", accepted.stream.get_ref().0)] {
        assert_eq!(SockRef::from(stream).tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX, "{end}");
        assert!(stream.nodelay().unwrap(), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_answered_with_one() {
    let city = City::new();
    let mut lead = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let node = end(&south(), &city.issue("south", &south(), wall()), 1).await;
    let answering = tokio::spawn(async move {
        let Some(Heard::Summary { from, reply, .. }) = lead.heard.recv().await else { panic!("no summary") };
        reply.send(lead.peers.numbered(WireSummary::default())).unwrap();
        from
    });
    let answer = node.peers.exchange(&north(), &lead.address, WireSummary::default(), PATIENCE).await;
    assert!(answer.is_some());
    assert_eq!(answering.await.unwrap(), south());
}

/// Dials `north` with a certificate that should not get in.
async fn dials_in_vain(city: &City, files: &TlsFiles, claims: &Identity, reason: Reason) {
    let mut lender = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    // Its own files do not matter to the one who is to refuse it.
    let mut trusting = files.clone();
    let own = Files::of_authority(city.path(), claims.district().as_str()).certificate;
    trusting.authorities.insert(claims.district().clone(), own);
    let stranger = end(claims, &trusting, 1).await;
    stranger.peers.tell_lender(&north(), &lender.address, renew(1));
    refused(&lender.refusals, reason, 1).await;
    assert!(lender.heard.try_recv().is_err(), "nothing of it was heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused() {
    let city = City::new();
    let long_ago = wall() - 3 * DAY;
    let files = city.issue("south", &south(), long_ago);
    dials_in_vain(&city, &files, &south(), Reason::Expired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_cannot_vouch_for_another_district() {
    let city = City::new();
    // The administrator of south makes itself a node of north.
    let claims = Identity::new("north", "spy").unwrap();
    let files = city.issue("south", &claims, wall());
    dials_in_vain(&city, &files, &claims, Reason::UntrustedIssuer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_district_without_authority_here_is_refused() {
    let city = City::new();
    let claims = Identity::new("west", "n3").unwrap();
    let files = city.issue("west", &claims, wall());
    dials_in_vain(&city, &files, &claims, Reason::UnknownDistrict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_behind_the_address_is_refused_by_who_dialled() {
    let city = City::new();
    let mut other = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let borrower = end(&south(), &city.issue("south", &south(), wall()), 1).await;
    let meant = Identity::new("north", "n9").unwrap();
    borrower.peers.tell_lender(&meant, &other.address, renew(1));
    refused(&borrower.refusals, Reason::WrongPeer, 1).await;
    assert!(other.heard.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_is_counted() {
    let city = City::new();
    let lender = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let mut stream = TcpStream::connect(&lender.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    refused(&lender.refusals, Reason::Handshake, 1).await;
}

/// A stream that says whatever it is told, with the right certificate.
async fn says(from: &End, to: &End, frames: Vec<Frame>) {
    let channel = link::channel(&from.peers.0, &north(), &to.address).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Frame, Frame>::default();
    let path = http::uri::PathAndQuery::from_static(service::CONVERSE);
    let said = futures_util::stream::iter(frames);
    let answers = grpc.streaming(tonic::Request::new(said), path, codec).await;
    if let Ok(answers) = answers {
        let mut answers = answers.into_inner();
        // To its end, whatever that is.
        while let Ok(Some(_)) = answers.message().await {}
    }
}

fn frame(start: u64, sequence: u64, body: Body) -> Frame {
    Frame { start, sequence, body: Some(body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_repeated_overtaken_too_long_or_garbled_is_refused_and_counted() {
    let city = City::new();
    let mut lender = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let stranger = end(&south(), &city.issue("south", &south(), wall()), 1).await;
    let renewal = |number| Body::from(renew(number));
    let frames = vec![
        frame(5, 1, renewal(1)),
        frame(5, 3, renewal(3)),
        frame(5, 3, renewal(3)),
        frame(5, 2, renewal(2)),
        frame(4, 9, renewal(9)),
    ];
    says(&stranger, &lender, frames).await;
    refused(&lender.refusals, Reason::Replayed, 3).await;
    assert_eq!(hears(&mut lender).await.1, Said::ToLender(renew(1)));
    assert_eq!(hears(&mut lender).await.1, Said::ToLender(renew(3)));
    assert!(lender.heard.try_recv().is_err(), "nothing was heard twice");

    // A later stream that repeats an earlier one's frames word for word.
    says(&stranger, &lender, vec![frame(5, 3, renewal(3))]).await;
    refused(&lender.refusals, Reason::Replayed, 4).await;

    let mut endless = crate::wire::WireHeld { loan: "x".repeat(8 << 10), incarnation: 1 };
    says(&stranger, &lender, vec![frame(5, 10, Body::Release(endless.clone()))]).await;
    refused(&lender.refusals, Reason::Oversized, 1).await;

    endless.loan = "south.n2/1/x".to_owned();
    says(&stranger, &lender, vec![frame(5, 11, Body::Release(endless))]).await;
    // What only a lender may say, on a borrower's stream.
    let closed = Body::from(ToBorrower::Closed { loan: loan(1) });
    says(&stranger, &lender, vec![frame(5, 12, closed)]).await;
    says(&stranger, &lender, vec![Frame { start: 5, sequence: 13, body: None }]).await;
    refused(&lender.refusals, Reason::Malformed, 3).await;
    assert!(lender.heard.try_recv().is_err());
}

/// What two ends of a connection agreed upon that is dialled for a purpose.
async fn agreed(from: &End, to: &End, purpose: Purpose) -> (Purpose, bool) {
    let dialled = from.peers.dial(&north(), &to.address, purpose).await.unwrap();
    let mut arrivals = to.peers.sessions().unwrap();
    let arrived = tokio::time::timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
    *locked(&to.peers.0.arrivals) = Some(arrivals);
    assert_eq!(arrived.from, south());
    (Purpose::of(dialled.get_ref().1.alpn_protocol()), arrived.bundled)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_in_chunks_where_both_ends_know_them_and_without_where_one_does_not() {
    let city = City::new();
    let lender = end(&north(), &city.issue("north", &north(), wall()), 1).await;
    let borrower = end(&south(), &city.issue("south", &south(), wall()), 1).await;
    assert_eq!(agreed(&borrower, &lender, Purpose::Bundled).await, (Purpose::Bundled, true));
    assert_eq!(agreed(&borrower, &lender, Purpose::Session).await, (Purpose::Session, false), "none wanted");
    // A lender of a release that knows no chunks.
    let mut knows_none = tokio_rustls::rustls::ServerConfig::clone(&lender.peers.0.tls.server());
    knows_none.alpn_protocols.retain(|protocol| Purpose::of(Some(protocol)) != Purpose::Bundled);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(knows_none));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let to = north();
    let dialling = borrower.peers.dial(&to, &address, Purpose::Bundled);
    let (accepted, dialled) = tokio::join!(accepting, dialling);
    for protocol in [accepted.get_ref().1.alpn_protocol(), dialled.unwrap().get_ref().1.alpn_protocol()] {
        assert_eq!(Purpose::of(protocol), Purpose::Session);
    }
}

#[test]
fn files_that_are_not_this_nodes_are_told_apart() {
    let city = City::new();
    let files = city.issue("south", &south(), wall());
    let refusals = Arc::new(Refusals::default());
    let error = Tls::load(&files, &north(), Arc::clone(&refusals)).unwrap_err().to_string();
    assert!(error.contains("says south.n2") && error.contains("north.n1"), "{error}");
    let mut alone = files;
    alone.authorities.remove(&District::new("south").unwrap());
    let error = Tls::load(&alone, &south(), refusals).unwrap_err().to_string();
    assert!(error.contains("no authority for the node's own district south"), "{error}");
}
