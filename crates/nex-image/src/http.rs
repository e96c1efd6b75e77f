//! The HTTP client of downloads and registries.

use std::time::Duration;

use ureq::Agent;

/// Timeout of connecting, and of waiting for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a whole download.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// An HTTP client.
pub(crate) fn agent(https_only: bool) -> Agent {
    let config = Agent::config_builder().https_only(https_only).user_agent(concat!("nex/", env!("CARGO_PKG_VERSION")));
    let config = config
        .timeout_connect(Some(RESPONSE_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .timeout_global(Some(DOWNLOAD_TIMEOUT));
    config.accept_encoding("identity").build().into()
}
