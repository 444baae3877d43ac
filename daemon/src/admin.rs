//! The admin socket: JSON lines between the command line and the daemon.
//!
//! ```text
//! -> {"op":"status"}                    <- {"ok":true,"version":..,"tenants":[..],..}
//! -> {"op":"place","tenant":"alerts"}   <- {"ok":true,"tenant":..,"identity":..,"cgroup":..,"note":..,"socket":..,"hook":..}
//! -> {"op":"audit-ioctls","millis":60000}   <- {"ok":true,"seconds":..,"tenants":{..},"numbers":{..}}, when it is over
//! -> {"op":"loans"}                     <- {"ok":true,"node":..,"lent":[..],"borrowed":[..],"peers":[..],..}
//! -> {"op":"event-start","name":"fire","tenants":["review"],"class":"express","span_ms":..}   <- {"ok":true,"events":[..]}
//! -> {"op":"event-end","name":"fire"}, {"op":"event-list"}   <- the same
//!                                       <- {"ok":false,"error":"..."}
//! ```
//!
//! Who asks is known from the kernel: `place` moves the process at the other end, no other. The socket is open to
//! the daemon's own user only.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headgate_loans::desk::DeskHandle;
use headgate_quota::Micros;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::control::listener::Socket;
use crate::identity::peer;
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_LINE_BYTES_MAX, ADMIN_WAIT, AUDIT_SPAN_MAX};
use crate::node::State;
use crate::remote::RemotePlace;
use crate::run::{Input, Inputs, Question};

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The whole status.
    Status,
    /// Watch the GPU driver's ioctls for a while, then tell what was seen.
    #[serde(rename = "audit-ioctls")]
    AuditIoctls {
        /// For how long.
        millis: u64,
    },
    /// How loans and peers stand.
    Loans,
    /// Raise tenants' classes for a while, in every district that hears of it.
    #[serde(rename = "event-start")]
    EventStart(StartEvent),
    /// End that before its time.
    #[serde(rename = "event-end")]
    EventEnd {
        /// Its name.
        name: String,
    },
    /// Events under way.
    #[serde(rename = "event-list")]
    EventList,
    /// Move me into this tenant.
    Place {
        /// The tenant's name.
        tenant: String,
        /// Of several devices that are shared by space, the one to be on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<String>,
    },
}

/// An event to be started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartEvent {
    /// Its name; one of the same name and district that is under way gives way to it.
    pub name: String,
    /// Whom it raises: `NAME` of a tenant of this node, or `DISTRICT/NAME` of any.
    pub tenants: Vec<String>,
    /// Into which class.
    pub class: String,
    /// For how long.
    pub span_ms: u64,
    /// Whether what these tenants have lent is called back at once.
    #[serde(default)]
    pub reclaim: bool,
}

/// Events under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventsDocument {
    /// In the order they were heard of.
    pub events: Vec<EventView>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Its name: `NAME` of this district's, `DISTRICT/NAME` of another's.
    pub name: String,
    /// Whom it raises: `DISTRICT/NAME` of each.
    pub tenants: Vec<String>,
    /// Into which class.
    pub class: String,
    /// Whether what these tenants have lent is called back at once.
    pub reclaim: bool,
    /// How long it will still last.
    pub left_ms: u64,
}

impl EventsDocument {
    /// Those that hold at `now`, in time since boot.
    #[must_use]
    pub fn of(state: &State, now: Micros) -> Self {
        let holding = state.incidents.told(now).filter(|(_, ended)| !ended);
        let events = holding.map(|(incident, _)| EventView {
            name: state.told_name(&incident),
            tenants: incident.tenants.iter().map(ToString::to_string).collect(),
            class: incident.class.word().to_owned(),
            reclaim: incident.reclaim,
            left_ms: incident.duration.0 / 1_000,
        });
        Self { events: events.collect() }
    }
}

/// An answer: whether it was done, and either what was asked for or why not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Response<T> {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// What was asked for.
    #[serde(flatten)]
    pub content: Option<T>,
}

/// Where a process was placed, and what it needs to start a program there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The tenant.
    pub tenant: String,
    /// `cgroup` or `process-tree`.
    pub identity: String,
    /// The cgroup, when it is that.
    pub cgroup: Option<String>,
    /// Why it is not that, where it was wanted.
    pub note: Option<String>,
    /// The control socket, for `HEADGATE_SOCKET`.
    pub socket: PathBuf,
    /// The hook library the daemon is configured with, or found beside its own binary.
    pub hook: Option<PathBuf>,
    /// What a program needs whose device is elsewhere.
    #[serde(default)]
    pub remote: Option<RemotePlace>,
    /// What its environment must be for a device that is shared by space, or why it cannot start there.
    #[serde(default)]
    pub space: SpacePlace,
}

/// What a program needs on a device that is shared by space.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpacePlace {
    /// Nothing: its devices are shared by time.
    #[default]
    None,
    /// These variables, and none of the others that say the like.
    Environment(BTreeMap<String, String>),
    /// It has no place yet.
    Missing(String),
}

fn done<T: Serialize>(content: T) -> serde_json::Result<String> {
    serde_json::to_string(&Response { ok: true, error: None, content: Some(content) })
}

fn failed(error: impl Into<String>) -> serde_json::Result<String> {
    serde_json::to_string(&Response::<()> { ok: false, error: Some(error.into()), content: None })
}

/// Accepts for as long as the task lives.
pub async fn listen(socket: Socket, inputs: Inputs) {
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot accept on the admin socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Beyond the bound the caller waits in the kernel's queue.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let inputs = inputs.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &inputs).await {
                tracing::debug!(%error, "an admin connection broke");
            }
            drop(permit);
        });
    }
}

async fn serve(stream: UnixStream, inputs: &Inputs) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = (&mut stream).take(ADMIN_LINE_BYTES_MAX as u64).read_line(&mut line).await?;
        if read == 0 {
            return Ok(());
        }
        let answered = if line.ends_with('\n') {
            answer(&line, stream.get_ref(), inputs).await
        } else {
            failed(format!("a request is one line of at most {ADMIN_LINE_BYTES_MAX} bytes"))
        };
        let mut text = answered.map_err(std::io::Error::other)?;
        text.push('\n');
        timeout(ADMIN_WAIT, stream.get_mut().write_all(text.as_bytes())).await??;
        if !line.ends_with('\n') {
            return Ok(());
        }
    }
}

async fn answer(line: &str, stream: &UnixStream, inputs: &Inputs) -> serde_json::Result<String> {
    let request = match serde_json::from_str::<Request>(line) {
        Ok(request) => request,
        Err(error) => {
            return failed(format!(
                "not a request: {error}; ask {{\"op\":\"status\"}} or {{\"op\":\"place\",\"tenant\":\"NAME\"}}"
            ));
        }
    };
    match request {
        Request::Status => match ask(inputs, Question::Status).await {
            Ok(status) => done(status),
            Err(error) => failed(error),
        },
        Request::AuditIoctls { millis } => {
            let span = Duration::from_millis(millis);
            if AUDIT_SPAN_MAX < span {
                return failed(format!("an audit takes at most {} s", AUDIT_SPAN_MAX.as_secs()));
            }
            match ask_for(inputs, span, |reply| Question::AuditIoctls { span, reply }).await {
                Ok(Ok(document)) => done(document),
                Ok(Err(error)) | Err(error) => failed(error),
            }
        }
        Request::Loans => match desk(inputs).await {
            Ok(desk) => match desk.show().await {
                Some(view) => done(*view),
                None => failed("the desk is closed; the daemon is shutting down"),
            },
            Err(error) => failed(error),
        },
        Request::EventStart(asked) => {
            match ask(inputs, |reply| Question::StartEvent { asked, reply }).await {
                Ok(Ok(events)) => done(events),
                Ok(Err(error)) | Err(error) => failed(error),
            }
        }
        Request::EventEnd { name } => match ask(inputs, |reply| Question::EndEvent { name, reply }).await {
            Ok(Ok(events)) => done(events),
            Ok(Err(error)) | Err(error) => failed(error),
        },
        Request::EventList => match ask(inputs, Question::Events).await {
            Ok(events) => done(events),
            Err(error) => failed(error),
        },
        Request::Place { tenant, gpu } => {
            let caller = match peer::hold(stream.as_fd()) {
                Ok(held) => held.process,
                Err(error) => return failed(format!("cannot tell who asks: {error}")),
            };
            match ask(inputs, |reply| Question::Place { caller, tenant, gpu, reply }).await {
                Ok(Ok(place)) => done(place),
                Ok(Err(error)) | Err(error) => failed(error),
            }
        }
    }
}

async fn desk(inputs: &Inputs) -> Result<DeskHandle, String> {
    ask(inputs, Question::Desk)
        .await?
        .ok_or_else(|| "this node neither lends nor borrows; add spec.loans to its configuration".to_owned())
}

async fn ask<T>(inputs: &Inputs, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, String> {
    ask_for(inputs, Duration::ZERO, question).await
}

/// Asks something whose answer takes a while by its nature.
async fn ask_for<T>(
    inputs: &Inputs,
    span: Duration,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    let gone = || "the daemon is shutting down".to_owned();
    inputs.send(Input::Asked(question(reply))).await.map_err(|_| gone())?;
    match timeout(span + ADMIN_WAIT, answer).await {
        Ok(answer) => answer.map_err(|_| gone()),
        Err(_) => {
            Err(format!("the daemon did not answer within {} s; look at its log", ADMIN_WAIT.as_secs()))
        }
    }
}
