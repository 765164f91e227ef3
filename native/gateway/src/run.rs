//! Serving connections until told to stop.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at one time, if there are descriptors for them; further ones wait to be accepted.
const CONNECTIONS: u64 = 4096;

/// Descriptors that connections leave for log, index, state and spool.
const OWN_DESCRIPTORS: u64 = 64;

/// A request's headers must be here within this time; an idle connection is closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that are being answered may take this long to end.
const DRAIN: Duration = Duration::from_secs(5);

/// The sockets of one port: IPv4 always, IPv6 where it could be had too.
pub struct Listeners {
    v4: StdListener,
    v6: Option<StdListener>,
}

impl Listeners {
    pub fn bind(port: u16) -> io::Result<Self> {
        let v4 = StdListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let v6 = StdListener::bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port())).ok();
        for listener in [Some(&v4), v6.as_ref()].into_iter().flatten() {
            listener.set_nonblocking(true)?;
        }
        Ok(Self { v4, v6 })
    }

    pub fn port(&self) -> io::Result<u16> {
        self.v4.local_addr().map(|address| address.port())
    }
}

fn places() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors.saturating_sub(OWN_DESCRIPTORS).clamp(OWN_DESCRIPTORS, CONNECTIONS)).unwrap_or(1)
}

async fn accept(v4: &TcpListener, v6: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match v6 {
        None => v4.accept().await,
        Some(v6) => tokio::select! {
            accepted = v4.accept() => accepted,
            accepted = v6.accept() => accepted,
        },
    }
}

/// Serves until `shutdown`, then lets what is being answered end.
pub async fn run(listeners: Listeners, app: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let v4 = TcpListener::from_std(listeners.v4)?;
    let v6 = listeners.v6.map(TcpListener::from_std).transpose()?;
    let service = TowerToHyperService::new(app);
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(places())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(64 << 10);
    tokio::pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            accept(&v4, v6.as_ref()).await.map(|(stream, _)| (stream, place))
        };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let _ = stream.set_nodelay(true);
                let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
                tokio::spawn(async move {
                    let _ = connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // No descriptors left, most likely: others must end first.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop((v4, v6));
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still being answered after {} s", DRAIN.as_secs());
    }
    Ok(())
}
