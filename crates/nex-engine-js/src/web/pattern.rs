//! URL patterns, as the standard has them: parsed here into regular expressions that the script's own engine runs, within the call's time.

use serde::Deserialize;
use serde_json::json;
use urlpattern::UrlPatternOptions;
use urlpattern::quirks::{self, EcmaRegexp, StringOrInit, UrlPatternComponent};

use super::text;
use crate::value::{Fresh, Scope, Thrown, Value};

/// Longest pattern, and longest URL that is matched, with what stands beside them, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What a pattern is made of, or matched with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given<'a> {
    #[serde(borrow)]
    input: StringOrInit<'a>,
    base: Option<String>,
    #[serde(default)]
    ignore_case: bool,
}

/// `(JSON of what is given)`; the parts as JSON, or undefined where it is no pattern.
pub(crate) fn parse<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let parts = parsed(&text(scope, given, 0)?);
    parts.map_or_else(|| Ok(scope.undefined()), |parts| scope.text(&parts))
}

/// The same; the parts of a URL, or undefined where it is none.
pub(crate) fn input<'a>(scope: Scope<'a>, given: &[Value<'a>]) -> Result<Fresh<'a>, Thrown> {
    let parts = matched(&text(scope, given, 0)?);
    parts.map_or_else(|| Ok(scope.undefined()), |parts| scope.text(&parts))
}

fn read(json: &str) -> Option<Given<'_>> {
    if json.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn parsed(json: &str) -> Option<String> {
    let Given { input, base, ignore_case } = read(json)?;
    let init = quirks::process_construct_pattern_input(input, base.as_deref()).ok()?;
    let options = UrlPatternOptions { ignore_case, ..UrlPatternOptions::default() };
    let pattern = quirks::parse_pattern::<EcmaRegexp>(init, options).ok()?;
    let part = |part: UrlPatternComponent| json!([part.pattern_string, part.regexp_string, part.group_name_list]);
    let parts = json!({
        "protocol": part(pattern.protocol), "username": part(pattern.username), "password": part(pattern.password),
        "hostname": part(pattern.hostname), "port": part(pattern.port), "pathname": part(pattern.pathname),
        "search": part(pattern.search), "hash": part(pattern.hash), "hasRegExpGroups": pattern.has_regexp_groups,
    });
    Some(parts.to_string())
}

fn matched(json: &str) -> Option<String> {
    let Given { input, base, .. } = read(json)?;
    let (input, _) = quirks::process_match_input(input, base.as_deref()).ok()??;
    serde_json::to_string(&quirks::parse_match_input(input)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_given_is_a_pattern_or_none(
            input in r#"[a-z:/*{}()?+\\.\[\]#@é-]{0,40}"#, member in "pathname|hostname|port|protocol|search", base in proptest::option::of("https?://[a-z.]{1,9}/"),
        ) {
            for input in [json!(input), json!({member.clone(): input})] {
                let given = json!({"input": input, "base": base}).to_string();
                parsed(&given);
                matched(&given);
            }
        }
    }
}
