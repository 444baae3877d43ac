//! The dialling side.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use headgate_quota::loan::ToLender;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};

use super::service::{CONVERSE, EXCHANGE};
use super::{Kind, Shared, locked};
use crate::identity::Identity;
use crate::limits::{
    DIAL_WAIT, FRAME_BYTES_MAX, KEEPALIVE_PERIOD, KEEPALIVE_WAIT, LINKS_MAX, OUTBOX_MAX, REDIAL_PAUSE,
    SUMMARY_BYTES_MAX,
};
use crate::refused::{Reason, Refusals};
use crate::tls::Purpose;
use crate::wire::{Frame, WireSummary};

/// The channel to a node: one connection, dialled when it is first used, and again after it broke.
pub(super) fn channel(shared: &Arc<Shared>, to: &Identity, address: &str) -> Option<Channel> {
    let mut channels = locked(&shared.channels);
    if let Some((known, channel)) = channels.get(to.node())
        && known == address
    {
        return Some(channel.clone());
    }
    if LINKS_MAX <= channels.len() && !channels.contains_key(to.node()) {
        shared.refusals.count(Reason::Crowded, &to.to_string());
        return None;
    }
    let tls = match shared.tls.client(to, Purpose::Loans) {
        Ok(tls) => TlsConnector::from(tls),
        Err(error) => {
            tracing::error!(peer = %to, %error, "cannot dial");
            return None;
        }
    };
    // Not `shared` itself, which holds the channel.
    let (target, who, refusals) = (address.to_owned(), to.to_string(), Arc::clone(&shared.refusals));
    let unsent_bytes_max = shared.unsent_bytes_max;
    let connector = tower::service_fn(move |_: Uri| {
        let (target, tls, who, refusals) = (target.clone(), tls.clone(), who.clone(), Arc::clone(&refusals));
        async move { connect(tls, &target, &who, unsent_bytes_max, &refusals).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://peer")
        .connect_timeout(DIAL_WAIT)
        .http2_keep_alive_interval(KEEPALIVE_PERIOD)
        .keep_alive_timeout(KEEPALIVE_WAIT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector);
    channels.insert(to.node().clone(), (address.to_owned(), channel.clone()));
    Some(channel)
}

/// A connection of its own to a node, for one remote session.
pub(super) async fn dial(
    shared: &Shared,
    to: &Identity,
    address: &str,
    purpose: Purpose,
) -> io::Result<TlsStream<TcpStream>> {
    let tls = shared.tls.client(to, purpose).map_err(io::Error::other)?;
    connect(TlsConnector::from(tls), address, &to.to_string(), shared.unsent_bytes_max, &shared.refusals)
        .await
}

async fn connect(
    tls: TlsConnector,
    target: &str,
    who: &str,
    unsent_bytes_max: u32,
    refusals: &Refusals,
) -> io::Result<TlsStream<TcpStream>> {
    let dial = async {
        let stream = TcpStream::connect(target).await?;
        super::tune(&stream, unsent_bytes_max)?;
        // Not sent, and not looked at: the certificate says who answers.
        let name = ServerName::try_from("headgate.internal").map_err(io::Error::other)?;
        let connected = tls.connect(name, stream).await;
        if let Err(error) = &connected
            && super::service::is_uncounted(error)
        {
            refusals.count(Reason::Handshake, who);
        }
        connected
    };
    tokio::time::timeout(DIAL_WAIT, dial).await.map_err(io::Error::other)?
}

/// Asks for a summary.
pub(super) async fn exchange(channel: Channel, summary: WireSummary) -> Option<WireSummary> {
    let mut grpc = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(SUMMARY_BYTES_MAX)
        .max_encoding_message_size(SUMMARY_BYTES_MAX);
    grpc.ready().await.ok()?;
    let codec = tonic_prost::ProstCodec::<WireSummary, WireSummary>::default();
    let path = http::uri::PathAndQuery::from_static(EXCHANGE);
    match grpc.unary(tonic::Request::new(summary), path, codec).await {
        Ok(reply) => Some(reply.into_inner()),
        Err(status) => {
            tracing::debug!(%status, "a peer did not answer a summary");
            None
        }
    }
}

/// Talks to one lender for as long as somebody may have something to say.
pub(super) async fn run(
    shared: Arc<Shared>,
    to: Identity,
    address: String,
    mut inbox: mpsc::Receiver<ToLender>,
    up: watch::Sender<bool>,
) {
    while let Some(first) = inbox.recv().await {
        let Some(channel) = channel(&shared, &to, &address) else { continue };
        if let Err(status) = converse(&shared, &to, channel, first, &mut inbox, &up).await {
            if status.code() == tonic::Code::OutOfRange {
                shared.refusals.count(Reason::Oversized, &to.to_string());
            }
            tracing::debug!(peer = %to, %status, "the stream to a lender broke");
        }
        up.send_replace(false);
        pause(REDIAL_PAUSE).await;
        // What was said meanwhile is old by now, and will be said again.
        while inbox.try_recv().is_ok() {}
    }
}

async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}

async fn converse(
    shared: &Arc<Shared>,
    to: &Identity,
    channel: Channel,
    first: ToLender,
    inbox: &mut mpsc::Receiver<ToLender>,
    up: &watch::Sender<bool>,
) -> Result<(), tonic::Status> {
    let (outbox, frames) = mpsc::channel::<Frame>(OUTBOX_MAX);
    let said = futures_util::stream::unfold(frames, |mut frames| async move {
        let frame = frames.recv().await?;
        Some((frame, frames))
    });
    let mut grpc = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    tokio::time::timeout(DIAL_WAIT, grpc.ready())
        .await
        .map_err(|_| tonic::Status::unavailable("no connection in time"))?
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let _room = outbox.try_send(shared.frame(first.into()));
    let codec = tonic_prost::ProstCodec::<Frame, Frame>::default();
    let path = http::uri::PathAndQuery::from_static(CONVERSE);
    let mut answers = grpc.streaming(tonic::Request::new(said), path, codec).await?.into_inner();
    up.send_replace(true);
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Some(message) => {
                    // A peer that reads nothing loses what is said; a broken stream ends below.
                    let _lost = outbox.try_send(shared.frame(message.into()));
                }
                None => return Ok(()),
            },
            answer = answers.message() => match answer? {
                Some(frame) => {
                    if let Some(said) = shared.admit(Kind::ToBorrower, to, frame) {
                        shared.hand_on(to, said);
                    }
                }
                None => return Ok(()),
            },
        }
    }
}
