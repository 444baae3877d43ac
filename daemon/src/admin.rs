//! The admin socket: JSON lines between the command line and the daemon.
//!
//! ```text
//! -> {"op":"status"}                    <- {"ok":true,"version":..,"tenants":[..],..}
//! -> {"op":"place","tenant":"alerts"}   <- {"ok":true,"tenant":..,"identity":..,"cgroup":..,"note":..,"socket":..,"hook":..}
//! -> {"op":"audit-ioctls","millis":60000}   <- {"ok":true,"seconds":..,"tenants":{..},"numbers":{..}}, when it is over
//! -> {"op":"loans"}                     <- {"ok":true,"node":..,"lent":[..],"borrowed":[..],"peers":[..],..}
//! -> {"op":"declare","tenants":["north/alerts"],"class":"express","seconds":600,"reclaim":true}   <- {"ok":true,"number":..}
//!                                       <- {"ok":false,"error":"..."}
//! ```
//!
//! Who asks is known from the kernel: `place` moves the process at the other end, no other. The socket is open to
//! the daemon's own user only.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headgate_loans::desk::{DeskHandle, Input as DeskInput};
use headgate_quota::Micros;
use headgate_quota::loan::names::NotAName;
use headgate_quota::loan::{District, Incident};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::control::listener::Socket;
use crate::identity::peer;
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_LINE_BYTES_MAX, ADMIN_WAIT, AUDIT_SPAN_MAX};
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
    /// Raise tenants' classes in every district for a while.
    Declare {
        /// `DISTRICT/TENANT` of each.
        tenants: Vec<String>,
        /// The class they are raised to.
        class: String,
        /// For how long.
        seconds: u64,
        /// Whether what they have lent is called back at once.
        reclaim: bool,
    },
    /// End what was declared, by its number.
    End {
        /// The number.
        number: u64,
    },
    /// Move me into this tenant.
    Place {
        /// The tenant's name.
        tenant: String,
    },
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
        Request::Declare { tenants, class, seconds, reclaim } => {
            match declare(inputs, &tenants, &class, seconds, reclaim).await {
                Ok(number) => done(Declared { number }),
                Err(error) => failed(error),
            }
        }
        Request::End { number } => match desk(inputs).await {
            Ok(desk) => {
                desk.give(DeskInput::End(number)).await;
                done(Declared { number })
            }
            Err(error) => failed(error),
        },
        Request::Place { tenant } => {
            let caller = match peer::hold(stream.as_fd()) {
                Ok(held) => held.process,
                Err(error) => return failed(format!("cannot tell who asks: {error}")),
            };
            match ask(inputs, |reply| Question::Place { caller, tenant, reply }).await {
                Ok(Ok(place)) => done(place),
                Ok(Err(error)) | Err(error) => failed(error),
            }
        }
    }
}

/// An incident, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Declared {
    /// The number.
    pub number: u64,
}

async fn desk(inputs: &Inputs) -> Result<DeskHandle, String> {
    ask(inputs, Question::Desk)
        .await?
        .ok_or_else(|| "this node neither lends nor borrows; add spec.loans to its configuration".to_owned())
}

async fn declare(
    inputs: &Inputs,
    tenants: &[String],
    class: &str,
    seconds: u64,
    reclaim: bool,
) -> Result<u64, String> {
    let desk = desk(inputs).await?;
    let named: Result<Vec<_>, _> = tenants.iter().map(|text| text.parse()).collect();
    let incident = Incident {
        // The desk puts its own district and the next number in.
        issuer: District::new("unknown").ok_or("no district")?,
        number: 0,
        tenants: named.map_err(|error: NotAName| error.to_string())?,
        class: class.parse().map_err(|error: headgate_quota::tenant::UnknownWord| error.to_string())?,
        duration: Micros::from_secs(seconds),
        reclaim,
    };
    let (reply, answer) = oneshot::channel();
    desk.give(DeskInput::Declare(incident, reply)).await;
    answer.await.map_err(|_| "the desk is closed; the daemon is shutting down".to_owned())?
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
