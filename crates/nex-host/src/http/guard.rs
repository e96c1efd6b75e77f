//! The resolver that lets through only addresses a function may reach.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::address::refusal;

/// Why an address may not be reached; nothing if it may.
type Rule = dyn Fn(&SocketAddr) -> Option<&'static str> + Send + Sync;

/// Asked for every hop of every call.
pub(super) struct Guard {
    names: DefaultResolver,
    rule: Arc<Rule>,
}

/// A host that is not called.
#[derive(Debug)]
pub(super) struct Denied {
    host: String,
    kind: &'static str,
}

impl Guard {
    /// Every address passes.
    pub(super) fn open() -> Self {
        Self::by(|_| None)
    }

    /// Only public addresses pass.
    pub(super) fn public_only() -> Self {
        Self::by(|address| refusal(address.ip()))
    }

    pub(super) fn by(rule: impl Fn(&SocketAddr) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        Self { names: DefaultResolver::default(), rule: Arc::new(rule) }
    }
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        // A redirect may bring user and password with it.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Error::BadUri("redirected to a url with user or password in it".to_owned()));
        }
        let mut passed = self.empty();
        let mut denied = None;
        for address in &*self.names.resolve(uri, config, timeout)? {
            match (self.rule)(address) {
                None => passed.push(*address),
                Some(kind) => denied = Some(kind),
            }
        }
        match denied {
            // One name, one judgement: a host with an inner and an outer address is an inner host.
            Some(kind) => Err(Error::Other(Box::new(Denied { host: uri.host().unwrap_or_default().to_owned(), kind }))),
            None => Ok(passed),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, kind } = self;
        write!(f, "{host} is at a {kind} address, which functions on this node may not call; ")?;
        f.write_str("to permit it set host_services.services.http.config.allow_private to true")
    }
}

impl std::error::Error for Denied {}
