//! Settings into a client, or an error that says why not. A connection that stood and is lost is made again, without limit.

use std::future::{Ready, ready};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject as _;
use async_nats::rustls::{AlertDescription, ClientConfig, Error as TlsError, RootCertStore};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};

use crate::authenticate::authenticate;
pub use crate::connect_error::ConnectError;
use crate::denials::{Denial, Denials, LOG_TARGET, is_fence};
use crate::greeting::{self, Greeting};
use crate::settings::ConnectionSettings;

/// Longest wait for one address of one server.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest pause between two attempts.
const MAX_BACK_OFF: Duration = Duration::from_secs(4);

/// Connects.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(settings: &ConnectionSettings) -> Result<Client, ConnectError> {
    connect_with(settings, &Denials::default()).await
}

/// Connects, and remembers there what the server does not permit.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_with(settings: &ConnectionSettings, denials: &Denials) -> Result<Client, ConnectError> {
    let servers = settings.servers.iter().map(|url| parse_server(url)).collect::<Result<Vec<_>, _>>()?;
    let options = ConnectOptions::new()
        .connection_timeout(ADDRESS_TIMEOUT)
        .max_reconnects(None)
        .reconnect_delay_callback(back_off)
        .event_callback(reporter(denials.clone()));
    let mut options = authenticate(tls(options, settings)?, settings, &servers)?;
    if let Some(name) = &settings.name {
        options = options.name(name);
    }
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(inbox_prefix(prefix)?);
    }
    // Boxed: the handshake's future is large, and callers' futures need not be.
    match Box::pin(options.connect(servers.clone())).await {
        Ok(client) => Ok(client),
        Err(source) => Err(look_closer(explain(settings, source), settings, &servers).await),
    }
}

/// Tells apart who was not reached: nobody, somebody who waits for TLS, somebody who is no NATS server.
async fn look_closer(error: ConnectError, settings: &ConnectionSettings, servers: &[ServerAddr]) -> ConnectError {
    let (ConnectError::Unreachable { servers: shown, source } | ConnectError::Tls { servers: shown, source }) = error else {
        return error;
    };
    if let Some(alert) = alert(&source) {
        return of_alert(alert, settings, shown, source);
    }
    let is_tls = matches!(source.kind(), ConnectErrorKind::Tls) || is_of_tls(&source);
    let told = match servers {
        // A word first is what NATS over TCP does, without TLS and without WebSockets before it.
        [server] if !settings.tls_first && !server.is_websocket() => greeting::of(server).await,
        _ => Greeting::Nobody,
    };
    match told {
        Greeting::Silence => ConnectError::Silent { servers: shown, source },
        Greeting::Other(said) => ConnectError::NotNats { servers: shown, said, source },
        Greeting::Nobody | Greeting::Nats if is_tls => ConnectError::Tls { servers: shown, source },
        Greeting::Nobody | Greeting::Nats => ConnectError::Unreachable { servers: shown, source },
    }
}

fn explain(settings: &ConnectionSettings, source: async_nats::ConnectError) -> ConnectError {
    let servers = settings.shown_servers();
    match source.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => ConnectError::Refused { servers, source },
        ConnectErrorKind::Tls => ConnectError::Tls { servers, source },
        ConnectErrorKind::Io if is_of_tls(&source) => ConnectError::Tls { servers, source },
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable { servers, source },
    }
}

/// What the server says of the handshake, if it was the one to give it up.
fn alert(error: &async_nats::ConnectError) -> Option<AlertDescription> {
    let mut parts = std::iter::successors(std::error::Error::source(error), |part| part.source());
    parts.find_map(|part| {
        let inner = part.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let told = inner.and_then(|inner| inner.downcast_ref::<TlsError>()).or_else(|| part.downcast_ref::<TlsError>());
        match told {
            Some(TlsError::AlertReceived(alert)) => Some(*alert),
            _ => None,
        }
    })
}

/// Alerts are about what we have shown, and that is a certificate at most.
fn of_alert(
    alert: AlertDescription,
    settings: &ConnectionSettings,
    servers: String,
    source: async_nats::ConnectError,
) -> ConnectError {
    let is_of_certificates = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    );
    match &settings.tls_cert {
        Some(certificate) if is_of_certificates => {
            ConnectError::CertificateRefused { servers, certificate: certificate.clone(), source }
        }
        None if is_of_certificates => ConnectError::CertificateWanted { servers, source },
        Some(_) | None => ConnectError::Tls { servers, source },
    }
}

/// A failed handshake reaches us as invalid data, which plain connections do not meet.
fn is_of_tls(error: &async_nats::ConnectError) -> bool {
    let mut parts = std::iter::successors(std::error::Error::source(error), |part| part.source());
    parts.any(|part| part.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData))
}

fn parse_server(url: &str) -> Result<ServerAddr, ConnectError> {
    url.parse().map_err(|source: std::io::Error| ConnectError::Settings {
        what: format!("the server URL '{}'", ConnectionSettings::to_servers(url).shown_servers()),
        why: format!("cannot be used: {source}"),
        next: "write it as nats://host:port or tls://host:port",
    })
}

fn inbox_prefix(prefix: &str) -> Result<&str, ConnectError> {
    if nex_protocol::subject::is_valid_pattern(prefix) && !prefix.contains(['*', '>']) {
        return Ok(prefix);
    }
    Err(ConnectError::Settings {
        what: "the inbox prefix".into(),
        why: format!("'{prefix}' is no subject"),
        next: "give tokens joined by dots, without wildcards or white space",
    })
}

fn tls(mut options: ConnectOptions, settings: &ConnectionSettings) -> Result<ConnectOptions, ConnectError> {
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => {
            readable("client certificate", cert)?;
            readable("client key", key)?;
            options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
        }
        (None, None) => {}
        (cert, _) => {
            let (there, missing) = if cert.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            return Err(ConnectError::Settings {
                what: format!("the TLS client {there}"),
                why: format!("comes without its {missing}"),
                next: "give both, or neither",
            });
        }
    }
    if let Some(ca) = &settings.tls_ca {
        readable("root certificates", ca)?;
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some(certificate) = &settings.server_certificate {
        // Without a word before the handshake: whoever else listens there is told nothing, and nothing of his is read.
        options = options.tls_client_config(believing_only(certificate)?).tls_first();
    }
    Ok(if settings.tls_first { options.tls_first() } else { options })
}

fn believing_only(certificate: &str) -> Result<ClientConfig, ConnectError> {
    let refused = |why: String| ConnectError::Settings {
        what: "the server's certificate".into(),
        why: format!("cannot be used: {why}"),
        next: "give one certificate in PEM",
    };
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| refused(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn readable(what: &'static str, path: &Path) -> Result<(), ConnectError> {
    match std::fs::File::open(path) {
        Ok(_file) => Ok(()),
        Err(source) => Err(ConnectError::Read { what, path: path.to_owned(), source }),
    }
}

/// Pause before an attempt: none at first, then doubling from 20 ms, each shifted by up to a quarter so that nodes that lost
/// one server together do not come back together.
fn back_off(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else { return Duration::ZERO };
    let pause = Duration::from_millis(20).saturating_mul(1 << doublings.min(16)).min(MAX_BACK_OFF);
    pause.mul_f64(1.0 - f64::from(jitter()) / 1024.0)
}

/// 0 to 255, from the clock: enough to tell two processes apart.
fn jitter() -> u8 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let [low, next, ..] = nanos.to_le_bytes();
    low ^ next
}

/// Logs what happens to a connection; its first success is logged by its maker.
fn reporter(denials: Denials) -> impl Fn(Event) -> Ready<()> + Send + Sync + 'static {
    let (stood, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    move |event| {
        if let Event::ServerError(async_nats::ServerError::Other(text)) = &event
            && let Some(denial) = Denial::parse(text)
        {
            if !is_fence(&denial) {
                tracing::warn!(target: LOG_TARGET, "{denial}");
            }
            denials.add(denial);
            return ready(());
        }
        if !is_over.load(Ordering::Relaxed) {
            report(&event, stood.load(Ordering::Relaxed));
        }
        match event {
            Event::Connected => stood.store(true, Ordering::Relaxed),
            // The owner is closing it: log nothing more of it.
            Event::Draining => is_over.store(true, Ordering::Relaxed),
            _ => {}
        }
        ready(())
    }
}

fn report(event: &Event, stood: bool) {
    match event {
        Event::Connected if stood => tracing::info!("connected to nats again"),
        Event::Connected => tracing::debug!("connected to nats"),
        Event::Disconnected => tracing::warn!("lost the connection to nats, reconnecting"),
        Event::LameDuckMode => tracing::info!("the nats server drains, moving to another"),
        Event::Draining => tracing::debug!("draining the nats connection"),
        Event::Closed => tracing::debug!("closed the nats connection"),
        Event::SlowConsumer(subscription) => tracing::warn!(subscription, "messages dropped, a subscription is read too slowly"),
        Event::ServerError(error) => tracing::warn!(%error, "the nats server reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "the nats connection reports an error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    async fn refusal(settings: ConnectionSettings) -> String {
        let settings = ConnectionSettings { servers: vec!["nats://127.0.0.1:1".into()], ..settings };
        connect(&settings).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_what_to_do() {
        let text = refusal(ConnectionSettings::default()).await;
        assert_eq!(
            text,
            "no NATS server at nats://127.0.0.1:1; next: start one (`nex up`, or `nats-server -js`), or name the right one with --server or --context"
        );
    }

    #[tokio::test]
    async fn each_wrong_setting_is_named() {
        let creds = file("nothing");
        let text = refusal(ConnectionSettings { credentials_file: Some(creds.path().into()), ..Default::default() }).await;
        assert!(text.contains("holds no user JWT"), "{text}");
        let seed = file("SUBAD\n");
        let text = refusal(ConnectionSettings { nkey_file: Some(seed.path().into()), ..Default::default() }).await;
        assert!(text.contains("is no nkey seed") && !text.contains("SUBAD"), "{text}");
        let text = refusal(ConnectionSettings { tls_cert: Some(seed.path().into()), ..Default::default() }).await;
        assert!(text.contains("comes without its key"), "{text}");
        let text = refusal(ConnectionSettings { inbox_prefix: Some("a b".into()), ..Default::default() }).await;
        assert!(text.contains("inbox prefix"), "{text}");
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(back_off(1), Duration::ZERO);
        assert!(back_off(2) <= Duration::from_millis(20));
        assert!(back_off(500) <= MAX_BACK_OFF && back_off(500) > Duration::from_secs(2));
    }
}
