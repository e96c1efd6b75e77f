//! The listener: accepts connections, a bounded number at once, and serves each until it is told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nex_process::TaskScope;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::config::HttpConfig;
use crate::exchange::Exchange;
use crate::tls;

/// Connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Longest time until the head of a request has arrived, and until a client has shaken hands.
const HEAD: Duration = Duration::from_secs(10);
/// Most headers of a request, and most bytes of its head.
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 32 * 1024;
/// Time to tell those who answer that their clients are gone.
const GONE: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted: most likely there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// There is no listener.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is taken, or not this host's.
    #[error("cannot listen for HTTP on {address}; next: choose another with --http or \"http\": {{\"listen\": …}}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificate or key.
    #[error("the certificate for HTTP cannot be used; next: check the files of \"http\": {{\"tls\": …}}")]
    Tls(#[source] io::Error),
}

/// A running listener. Dropped, it ends at once.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    scope: TaskScope,
}

impl Gateway {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`GatewayError`]
    pub async fn start(nats: Client, config: HttpConfig) -> Result<Self, GatewayError> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose().map_err(GatewayError::Tls)?;
        let failed = |source| GatewayError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let scope = TaskScope::new("http");
        let connections = scope.child("http connections");
        let stop = scope.cancel_token();
        let exchange = Arc::new(Exchange { nats, config, pieces: scope.child("responses") });
        let accept = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accept(&listener, tls, &exchange, &connections) => {}
            }
            drop(listener);
            // Requests under way are answered; the caller bounds the time.
            connections.shutdown(exchange.config.timeout).await;
            // Their clients are gone; whoever answers is told so.
            exchange.pieces.shutdown(GONE).await;
        };
        scope.spawn("accept", accept);
        Ok(Self { address, scope })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and waits this long for the answers of those under way.
    pub async fn stop(&self, grace: Duration) {
        self.scope.shutdown(grace).await;
    }
}

async fn accept(listener: &TcpListener, tls: Option<TlsAcceptor>, exchange: &Arc<Exchange>, connections: &TaskScope) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection for HTTP was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Replies are small and whole.
        stream.set_nodelay(true).ok();
        let (tls, exchange, stop) = (tls.clone(), Arc::clone(exchange), connections.cancel_token());
        connections.spawn("connection", async move {
            match tls {
                None => serve(stream, client, exchange, stop).await,
                Some(tls) => shake_hands(tls, stream, client, exchange, stop).await,
            }
            drop(place);
        });
    }
}

type Stop = tokio_util::sync::CancellationToken;

async fn shake_hands(tls: TlsAcceptor, stream: TcpStream, client: SocketAddr, exchange: Arc<Exchange>, stop: Stop) {
    match tokio::time::timeout(HEAD, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, client, exchange, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, %client, "no TLS"),
        Err(_elapsed) => tracing::debug!(%client, "no TLS in time"),
    }
}

async fn serve<S>(stream: S, client: SocketAddr, exchange: Arc<Exchange>, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let exchange = Arc::clone(&exchange);
        async move { Ok::<_, Infallible>(exchange.answer(request, client).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %client, "a connection for HTTP ended");
    }
}
