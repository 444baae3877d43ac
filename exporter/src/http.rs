//! `/metrics`, `/healthz`, `/readyz`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use headgate_quota::Micros;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::page::{CONTENT_TYPE, page};
use crate::snapshot::Snapshot;

/// Requests answered at once; a scraper needs one, and a page costs the node's own time.
pub const REQUESTS_MAX: usize = 8;
/// Longest the endpoint waits for the node.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Where the values come from.
pub trait Source: Send + Sync + 'static {
    /// Everything on the page. `None` when the node does not answer any more.
    fn snapshot(&self) -> impl Future<Output = Option<Snapshot>> + Send;

    /// Why the node is not ready for tenants; empty when it is. `None` when it does not answer any more.
    fn unready(&self) -> impl Future<Output = Option<Vec<String>>> + Send;
}

struct Shared<S> {
    source: S,
    permits: Semaphore,
    previous_us: AtomicU64,
}

/// Serves until `stop` completes.
pub async fn serve<S: Source>(
    listener: TcpListener,
    source: S,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(source)).with_graceful_shutdown(stop).await
}

fn router<S: Source>(source: S) -> Router {
    let permits = Semaphore::new(REQUESTS_MAX);
    let shared = Arc::new(Shared { source, permits, previous_us: AtomicU64::new(0) });
    Router::new()
        .route("/metrics", get(metrics::<S>))
        .route("/healthz", get(healthz::<S>))
        .route("/livez", get(healthz::<S>))
        .route("/readyz", get(readyz::<S>))
        .with_state(shared)
}

async fn metrics<S: Source>(State(shared): State<Arc<Shared<S>>>) -> Response {
    let Ok(_permit) = shared.permits.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n").into_response();
    };
    let begun = Instant::now();
    let Ok(Some(snapshot)) = timeout(ANSWER_WAIT, shared.source.snapshot()).await else {
        return stuck();
    };
    let previous = Micros(shared.previous_us.load(Relaxed));
    match page(snapshot, previous) {
        Ok(text) => {
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            shared.previous_us.store(took, Relaxed);
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a metric family does not fit its type; this is a bug of Headgate");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n").into_response()
        }
    }
}

async fn healthz<S: Source>(State(shared): State<Arc<Shared<S>>>) -> Response {
    match timeout(ANSWER_WAIT, shared.source.unready()).await {
        Ok(Some(_)) => "ok\n".into_response(),
        _ => stuck(),
    }
}

async fn readyz<S: Source>(State(shared): State<Arc<Shared<S>>>) -> Response {
    match timeout(ANSWER_WAIT, shared.source.unready()).await {
        Ok(Some(reasons)) if reasons.is_empty() => "ready\n".into_response(),
        Ok(Some(reasons)) => {
            let text = reasons.iter().map(|reason| format!("not ready: {reason}\n")).collect::<String>();
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
        _ => stuck(),
    }
}

fn stuck() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer\n").into_response()
}
