//! What the node's configuration says about the host services: defaults, checks, all problems at once.

use std::ops::RangeInclusive;
use std::time::Duration;

use nex_protocol::host::Service;
use serde_json::{Map, Value};

use crate::template::Template;

/// Bounds of the time-outs, in milliseconds.
const TIMEOUT_MS: RangeInclusive<i64> = 1..=60_000;
/// Largest response of `http` that still fits, in base64, into one message of the internal bus.
const MAX_RESPONSE: i64 = 5 * 1024 * 1024;

/// The host services of a node, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub(crate) kv: BucketConfig,
    pub(crate) objects: BucketConfig,
    pub(crate) messaging: MessagingConfig,
    pub(crate) http: HttpConfig,
}

/// A service that keeps things in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketConfig {
    pub(crate) enabled: bool,
    pub(crate) bucket_name: Template,
    /// Size of a bucket made here; -1 for no limit.
    pub(crate) max_bytes: i64,
    /// Whether a bucket that is not there is made at the first use.
    pub(crate) jit_provision: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessagingConfig {
    pub(crate) enabled: bool,
    pub(crate) request_timeout: Duration,
    pub(crate) request_many_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    pub(crate) enabled: bool,
    /// Whether functions reach the host's own network.
    pub(crate) allow_private: bool,
    pub(crate) timeout: Duration,
    pub(crate) max_response_bytes: usize,
}

impl BucketConfig {
    fn with_suffix(suffix: &str) -> Self {
        Self { enabled: true, bucket_name: Template::per_workload(suffix), max_bytes: 524_288, jit_provision: true }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kv: BucketConfig::with_suffix("kv"),
            objects: BucketConfig::with_suffix("obj"),
            messaging: MessagingConfig {
                enabled: true,
                request_timeout: Duration::from_millis(750),
                request_many_timeout: Duration::from_secs(3),
            },
            http: HttpConfig {
                enabled: true,
                allow_private: false,
                timeout: Duration::from_millis(2500),
                max_response_bytes: 1024 * 1024,
            },
        }
    }
}

impl Config {
    /// Reads `host_services.services`: name, `enabled` and `config` of each. A service that is named is as its entry says,
    /// with the defaults for what the entry leaves out of `config`; one that is not named keeps its default.
    ///
    /// # Errors
    /// All problems, each with the path of what is wrong and what was expected.
    pub fn new(services: impl IntoIterator<Item = (String, bool, Value)>) -> Result<Self, Vec<String>> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for (name, enabled, value) in services {
            let Ok(service) = name.parse::<Service>() else {
                let text = "is unknown: expected kv, objectstore, messaging or http";
                problems.push(format!("host_services.services.{name} {text}"));
                continue;
            };
            let Some(mut fields) = Fields::new(service, value, &mut problems) else { continue };
            match service {
                Service::KeyValue => config.kv = bucket(&mut fields, enabled, "kv"),
                Service::ObjectStore => config.objects = bucket(&mut fields, enabled, "obj"),
                Service::Messaging => config.messaging = messaging(&mut fields, enabled),
                Service::Http => config.http = http(&mut fields, enabled),
            }
            fields.finish();
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

fn bucket(fields: &mut Fields<'_>, enabled: bool, suffix: &str) -> BucketConfig {
    let mut config = BucketConfig { enabled, ..BucketConfig::with_suffix(suffix) };
    if let Some(template) = fields.text("bucket_name") {
        match Template::parse(&template) {
            Ok(template) => config.bucket_name = template,
            Err(why) => fields.problem("bucket_name", &why),
        }
    }
    if let Some(max_bytes) = fields.number("max_bytes", -1..=i64::MAX) {
        config.max_bytes = max_bytes;
        if max_bytes == 0 {
            fields.problem("max_bytes", "is 0, in which nothing fits: expected a number of bytes, or -1 for no limit");
        }
    }
    if let Some(jit) = fields.flag("jit_provision") {
        config.jit_provision = jit;
    }
    config
}

fn messaging(fields: &mut Fields<'_>, enabled: bool) -> MessagingConfig {
    let mut config = MessagingConfig { enabled, ..Config::default().messaging };
    if let Some(timeout) = fields.milliseconds("request_timeout_ms") {
        config.request_timeout = timeout;
    }
    if let Some(timeout) = fields.milliseconds("request_many_timeout_ms") {
        config.request_many_timeout = timeout;
    }
    config
}

fn http(fields: &mut Fields<'_>, enabled: bool) -> HttpConfig {
    let mut config = HttpConfig { enabled, ..Config::default().http };
    if let Some(allow) = fields.flag("allow_private") {
        config.allow_private = allow;
    }
    if let Some(timeout) = fields.milliseconds("timeout_ms") {
        config.timeout = timeout;
    }
    if let Some(bytes) = fields.number("max_response_bytes", 1..=MAX_RESPONSE) {
        config.max_response_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config
}

/// The `config` object of one service. What is read is taken out; what is left is unknown.
struct Fields<'p> {
    path: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'p mut Vec<String>,
}

impl<'p> Fields<'p> {
    fn new(service: Service, value: Value, problems: &'p mut Vec<String>) -> Option<Self> {
        let path = format!("host_services.services.{service}.config");
        let left = match value {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            other => {
                problems.push(format!("{path} is {}: expected an object", shown(&other)));
                return None;
            }
        };
        Some(Self { path, left, known: Vec::new(), problems })
    }

    /// A value, `null` being the same as nothing.
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.left.remove(key).filter(|value| !value.is_null())
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => self.wrong(key, &other, "a text"),
        }
    }

    fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(key, &other, "true or false"),
        }
    }

    fn number(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.take(key)?;
        match value.as_i64().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None if *range.end() == i64::MAX => self.wrong(key, &value, &format!("a whole number from {}", range.start())),
            None => self.wrong(key, &value, &format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    fn milliseconds(&mut self, key: &'static str) -> Option<Duration> {
        self.number(key, TIMEOUT_MS).and_then(|number| u64::try_from(number).ok()).map(Duration::from_millis)
    }

    fn wrong<T>(&mut self, key: &str, value: &Value, expected: &str) -> Option<T> {
        self.problem(key, &format!("is {}: expected {expected}", shown(value)));
        None
    }

    fn problem(&mut self, key: &str, text: &str) {
        self.problems.push(format!("{}.{key} {text}", self.path));
    }

    fn finish(self) {
        let known = if self.known.is_empty() { "nothing".to_owned() } else { self.known.join(", ") };
        for key in self.left.keys() {
            self.problems.push(format!("{}.{key} is unknown: expected {known}", self.path));
        }
    }
}

/// A value as it stands in the file, shortened.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, enabled: bool, config: Value) -> Result<Config, Vec<String>> {
        Config::new([(name.to_owned(), enabled, config)])
    }

    #[test]
    fn nothing_said_means_the_defaults_and_a_named_service_is_as_its_entry_says() {
        assert_eq!(Config::new([]), Ok(Config::default()));
        assert_eq!(read("kv", true, Value::Null), Ok(Config::default()));
        let config = read("kv", false, json!({"max_bytes": -1, "bucket_name": null})).unwrap();
        assert!(!config.kv.enabled);
        assert_eq!(config.kv.max_bytes, -1);
        assert_eq!(config.kv.bucket_name, Config::default().kv.bucket_name);
        assert_eq!(config.objects, Config::default().objects);
    }

    #[test]
    fn time_outs_are_milliseconds() {
        let config = read("messaging", true, json!({"request_timeout_ms": 20, "request_many_timeout_ms": 40})).unwrap();
        assert_eq!(config.messaging.request_timeout, Duration::from_millis(20));
        assert_eq!(config.messaging.request_many_timeout, Duration::from_millis(40));
        let http = read("http", true, json!({"timeout_ms": 100, "allow_private": true, "max_response_bytes": 10})).unwrap().http;
        assert_eq!((http.timeout, http.allow_private, http.max_response_bytes), (Duration::from_millis(100), true, 10));
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        let services = [
            ("kv", json!({"bucket": "x", "bucket_name": "a.b", "max_bytes": 0})),
            ("objectstore", json!({"jit_provision": "yes", "max_bytes": -2})),
            ("messaging", json!({"request_timeout_ms": 0.5})),
            ("http", json!([])),
            ("sql", json!({})),
        ];
        let problems = Config::new(services.map(|(name, config)| (name.to_owned(), true, config))).unwrap_err();
        let expected = [
            "host_services.services.kv.config.bucket_name 'a.b' is not a bucket name: expected letters, digits, '-' and '_'",
            "host_services.services.kv.config.max_bytes is 0, in which nothing fits: expected a number of bytes, or -1 for no limit",
            "host_services.services.kv.config.bucket is unknown: expected bucket_name, max_bytes, jit_provision",
            "host_services.services.objectstore.config.max_bytes is -2: expected a whole number from -1",
            "host_services.services.objectstore.config.jit_provision is \"yes\": expected true or false",
            "host_services.services.messaging.config.request_timeout_ms is 0.5: expected a whole number from 1 to 60000",
            "host_services.services.http.config is []: expected an object",
            "host_services.services.sql is unknown: expected kv, objectstore, messaging or http",
        ];
        assert_eq!(problems, expected);
    }
}
