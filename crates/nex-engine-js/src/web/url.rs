//! URLs and their queries, as the URL standard has them.

use serde_json::json;
use url::{Url, form_urlencoded, quirks};

use super::text;
use crate::value::{Fresh, Scope, Thrown, Value};

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 1 << 20;

/// `(url, base)`; gives the parts as JSON, or undefined.
pub(crate) fn parse<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let base = match given.get(1) {
        Some(base) if !base.is_undefined() => Some(scope.to_text(*base)?),
        _ => None,
    };
    let url = text(scope, given, 0)?;
    if url.len() > MAX_URL_BYTES || base.as_ref().is_some_and(|base| base.len() > MAX_URL_BYTES) {
        return Ok(scope.undefined());
    }
    let parsed = match base {
        Some(base) => Url::parse(&base).and_then(|base| base.join(&url)),
        None => Url::parse(&url),
    };
    parsed.map_or_else(|_invalid| Ok(scope.undefined()), |url| parts(scope, &url))
}

/// `(url, part, value)`; gives the parts as they are then. A value that is not allowed changes nothing.
pub(crate) fn set<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let (url, part, value) = (text(scope, given, 0)?, text(scope, given, 1)?, text(scope, given, 2)?);
    let Ok(mut url) = Url::parse(&url) else { return Ok(scope.undefined()) };
    let _refused: Result<(), ()> = match part.as_str() {
        "protocol" => quirks::set_protocol(&mut url, &value),
        "username" => quirks::set_username(&mut url, &value),
        "password" => quirks::set_password(&mut url, &value),
        "host" => quirks::set_host(&mut url, &value),
        "hostname" => quirks::set_hostname(&mut url, &value),
        "port" => quirks::set_port(&mut url, &value),
        "pathname" => {
            quirks::set_pathname(&mut url, &value);
            Ok(())
        }
        "search" => {
            quirks::set_search(&mut url, &value);
            Ok(())
        }
        "hash" => {
            quirks::set_hash(&mut url, &value);
            Ok(())
        }
        _ => Ok(()),
    };
    parts(scope, &url)
}

/// `(query)`; gives its names and values as JSON pairs.
pub(crate) fn parse_query<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let query = text(scope, given, 0)?;
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    scope.text(&serde_json::to_string(&pairs).unwrap_or_default())
}

/// `(pairs)`; the opposite of [`parse_query`].
pub(crate) fn write_query<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let pairs: Vec<(String, String)> = serde_json::from_str(&text(scope, given, 0)?).unwrap_or_default();
    scope.text(&form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn parts<'a>(scope: Scope<'a>, url: &Url) -> Result<Fresh<'a>, Thrown> {
    let parts = json!({
        "href": quirks::href(url), "origin": quirks::origin(url), "protocol": quirks::protocol(url),
        "username": quirks::username(url), "password": quirks::password(url), "host": quirks::host(url),
        "hostname": quirks::hostname(url), "port": quirks::port(url), "pathname": quirks::pathname(url),
        "search": quirks::search(url), "hash": quirks::hash(url),
    });
    scope.text(&parts.to_string())
}
