//! The accepting side: TLS first, then gRPC.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Back, Heard, Kind, Shared, locked};
use crate::identity::Identity;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, FAREWELL_WAIT, FRAME_BYTES_MAX, HANDSHAKE_WAIT, HEADER_BYTES_MAX,
    KEEPALIVE_PERIOD, KEEPALIVE_WAIT, OUTBOX_MAX, STREAMS_MAX, SUMMARY_BYTES_MAX, SUMMARY_WAIT,
};
use crate::refused::Reason;
use crate::tls::{Purpose, identity_in};
use crate::wire::{Frame, WireSummary};

pub(super) const CONVERSE: &str = "/headgate.peer.v1.Peer/Converse";
pub(super) const EXCHANGE: &str = "/headgate.peer.v1.Peer/Exchange";

/// Whether a handshake failed for a reason that the verifier of certificates has not counted.
pub(super) fn is_uncounted(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    !matches!(inner, Some(rustls::Error::General(_)))
}

/// A connection whose other end is known.
#[derive(Debug)]
struct Known {
    stream: TlsStream<TcpStream>,
    who: Who,
    _permit: OwnedSemaphorePermit,
}

/// Counts a connection as one for as long as this lives.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

/// A connection for a remote session, whose other end is known.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Who is at the other end, as its certificate says.
    pub from: Identity,
    /// Where it came from.
    pub address: SocketAddr,
    /// Whether what comes over it is cut into chunks, as the handshake agreed.
    pub bundled: bool,
    /// To be kept as long as the connection.
    pub permit: Permit,
}

/// Who is at the other end, as its certificate says.
#[derive(Clone, Debug)]
struct Who {
    identity: Identity,
    address: SocketAddr,
}

impl Connected for Known {
    type ConnectInfo = Who;

    fn connect_info(&self) -> Who {
        self.who.clone()
    }
}

impl AsyncRead for Known {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Known {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let (known, arrivals) = mpsc::channel::<Result<Known, io::Error>>(STREAMS_MAX);
    let accepting = tokio::spawn(accept(Arc::clone(&shared), listener, known));
    let arrivals = futures_util::stream::unfold(arrivals, |mut arrivals| async move {
        let arrival = arrivals.recv().await?;
        Some((arrival, arrivals))
    });
    let streams = u32::try_from(STREAMS_MAX).unwrap_or(u32::MAX);
    let (end, ending) = oneshot::channel::<()>();
    let service = Service { shared: Arc::clone(&shared), streams: Arc::default() };
    let serving = Server::builder()
        .max_concurrent_streams(streams)
        .http2_keepalive_interval(Some(KEEPALIVE_PERIOD))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .serve_with_incoming_shutdown(service, arrivals, async move {
            // Dropped or sent, it means the same.
            let _either = ending.await;
        });
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the peers' listener ended");
            }
        }
        () = stop => {
            // Streams last as long as loans do, so they are ended from here; who does not notice is left behind.
            locked(&shared.back).clear();
            drop(end);
            let _late = tokio::time::timeout(FAREWELL_WAIT, serving).await;
        }
    }
    accepting.abort();
    // Waited for, so that the address is free again.
    let _aborted = accepting.await;
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, known: mpsc::Sender<Result<Known, io::Error>>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let acceptor = TlsAcceptor::from(shared.tls.server());
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "cannot accept peers");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            shared.refusals.count(Reason::Crowded, &address.ip().to_string());
            continue;
        };
        let (shared, acceptor, known) = (Arc::clone(&shared), acceptor.clone(), known.clone());
        tokio::spawn(async move {
            let shaken = async {
                super::tune(&stream, shared.unsent_bytes_max)?;
                acceptor.accept(stream).await
            };
            match tokio::time::timeout(HANDSHAKE_WAIT, shaken).await {
                Ok(Ok(stream)) => {
                    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    // The verifier has read it already, and would not have let through what names nobody.
                    let Some(Ok(identity)) = certificate.map(identity_in) else { return };
                    let purpose = Purpose::of(stream.get_ref().1.alpn_protocol());
                    if purpose != Purpose::Loans {
                        let bundled = purpose == Purpose::Bundled;
                        let permit = Permit { _permit: permit };
                        let session = Session { stream, from: identity, address, bundled, permit };
                        if let Err(refused) = shared.sessions.try_send(session) {
                            let who = refused.into_inner().from;
                            shared.refusals.count(Reason::Crowded, &who.to_string());
                        }
                        return;
                    }
                    let arrived = Known { stream, who: Who { identity, address }, _permit: permit };
                    // The server may be shutting down.
                    let _gone = known.send(Ok(arrived)).await;
                }
                Ok(Err(error)) if is_uncounted(&error) => {
                    shared.refusals.count(Reason::Handshake, &address.ip().to_string());
                }
                Ok(Err(_)) => {}
                Err(_) => shared.refusals.count(Reason::Handshake, &address.ip().to_string()),
            }
        });
    }
}

/// The gRPC service, routed by hand: two methods need no generated code.
#[derive(Clone, Debug)]
struct Service {
    shared: Arc<Shared>,
    streams: Arc<AtomicU64>,
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            Ok(match path.as_str() {
                CONVERSE => {
                    let limit = Some(FRAME_BYTES_MAX);
                    let codec = ProstCodec::<Frame, Frame>::default();
                    let mut grpc = Grpc::new(codec).apply_max_message_size_config(limit, limit);
                    grpc.streaming(Converse(this), request).await
                }
                EXCHANGE => {
                    let limit = Some(SUMMARY_BYTES_MAX);
                    let codec = ProstCodec::<WireSummary, WireSummary>::default();
                    let mut grpc = Grpc::new(codec).apply_max_message_size_config(limit, limit);
                    let who = request.extensions().get::<Who>().cloned();
                    let answered = grpc.unary(Exchange(this.clone()), request).await;
                    // The decoder refuses before the method is called, so the count is taken from the answer.
                    if let (Some(who), Some(status)) = (who, Status::from_header_map(answered.headers()))
                        && status.code() == tonic::Code::OutOfRange
                    {
                        this.shared.refusals.count(Reason::Oversized, &who.identity.to_string());
                    }
                    answered
                }
                _ => Status::unimplemented("no such method; is it another version?").into_http(),
            })
        })
    }
}

fn who<T>(request: &Request<T>) -> Result<Who, Status> {
    // Put there by the connection, for every request on it.
    request.extensions().get::<Who>().cloned().ok_or_else(|| Status::unauthenticated("no identity"))
}

struct Converse(Service);

impl StreamingService<Frame> for Converse {
    type Response = Frame;
    type ResponseStream = BoxStream<'static, Result<Frame, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        let Service { shared, streams } = self.0.clone();
        Box::pin(async move {
            let Who { identity, address } = who(&request)?;
            let stream = streams.fetch_add(1, Relaxed);
            let (outbox, answers) = mpsc::channel(OUTBOX_MAX);
            let node = identity.node().clone();
            locked(&shared.back).insert(node, Back { stream, from: address, outbox });
            tokio::spawn(listen(shared, identity, stream, request.into_inner()));
            let answers = futures_util::stream::unfold(answers, |mut answers| async move {
                let answer = answers.recv().await?;
                Some((answer, answers))
            });
            Ok(Response::new(answers.boxed()))
        })
    }
}

/// Reads one borrower's stream to its end.
async fn listen(shared: Arc<Shared>, from: Identity, stream: u64, mut frames: Streaming<Frame>) {
    loop {
        match frames.message().await {
            Ok(Some(frame)) => {
                if let Some(said) = shared.admit(Kind::ToLender, &from, frame) {
                    shared.hand_on(&from, said);
                }
            }
            Ok(None) => break,
            Err(status) => {
                let reason = match status.code() {
                    tonic::Code::OutOfRange => Some(Reason::Oversized),
                    tonic::Code::Internal => Some(Reason::Malformed),
                    _ => None,
                };
                if let Some(reason) = reason {
                    shared.refusals.count(reason, &from.to_string());
                }
                break;
            }
        }
    }
    let mut back = locked(&shared.back);
    // A newer stream of the same node may have taken the place.
    if back.get(from.node()).is_some_and(|back| back.stream == stream) {
        back.remove(from.node());
    }
}

struct Exchange(Service);

impl UnaryService<WireSummary> for Exchange {
    type Response = WireSummary;
    type Future = BoxFuture<'static, Result<Response<WireSummary>, Status>>;

    fn call(&mut self, request: Request<WireSummary>) -> Self::Future {
        let shared = Arc::clone(&self.0.shared);
        Box::pin(async move {
            let from = who(&request)?.identity;
            let summary = request.into_inner();
            if !locked(&shared.order).admits(Kind::Summary, from.node(), summary.start, summary.sequence) {
                shared.refusals.count(Reason::Replayed, &from.to_string());
                return Err(Status::already_exists("this summary was heard before"));
            }
            let (reply, answer) = oneshot::channel();
            if shared.heard.try_send(Heard::Summary { from, summary, reply }).is_err() {
                return Err(Status::resource_exhausted("busy; send the next one when it is due"));
            }
            match tokio::time::timeout(SUMMARY_WAIT, answer).await {
                Ok(Ok(answer)) => Ok(Response::new(answer)),
                _ => Err(Status::unavailable("busy; send the next one when it is due")),
            }
        })
    }
}
