//! Logging: to standard error, to files or to NATS, as text or JSON.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Zoned;
use nex_bus::denials::LOG_TARGET;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt as _};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::args::{LogLevel, LogTarget, LoggingArgs, TimeFormat};
use crate::log_feed::{self, LogFeed};

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging, once per process. Returns a feed for [`LogTarget::Nats`], which a node publishes.
pub(crate) fn start(args: &LoggingArgs, default: Level) -> anyhow::Result<Option<LogFeed>> {
    let Some(level) = level_of(args.loglevel, default) else { return Ok(None) };
    // The NATS client logs connection events at info; nex logs them itself.
    let others = if level == Level::DEBUG { "info" } else { "warn" };
    // What a command ends with says why it has no connection and what it may not do; it is not logged as well unless that is asked for.
    let is_told_anyway = args.loglevel.is_none() && default == Level::WARN;
    let told = if is_told_anyway { format!(",async_nats=off,{LOG_TARGET}=off") } else { ",async_nats=warn".to_owned() };
    let filter = || EnvFilter::new(format!("{others},{}{told}", ours(level)));
    let mut layers: Vec<BoxedLayer> = Vec::new();
    if args.logger.contains(&LogTarget::Std) {
        let color = args.logcolor || (!args.logjson && io::stderr().is_terminal());
        layers.push(layer(args, color, BoxMakeWriter::new(io::stderr)).with_filter(filter()).boxed());
    }
    if args.logger.contains(&LogTarget::File) {
        let open = |path: &str| File::create(path).with_context(|| format!("cannot write the log file {path}"));
        let (all, errors) = (Arc::new(open("nex.log")?), Arc::new(open("nex.err")?));
        layers.push(layer(args, false, BoxMakeWriter::new(all)).with_filter(filter()).boxed());
        layers.push(layer(args, false, BoxMakeWriter::new(errors.with_max_level(Level::ERROR))).with_filter(filter()).boxed());
    }
    let mut feed = None;
    if args.logger.contains(&LogTarget::Nats) {
        let (writer, lines) = log_feed::feed();
        layers.push(layer(args, false, writer).with_filter(filter()).boxed());
        feed = Some(lines);
    }
    tracing_subscriber::registry().with(layers).try_init().context("logging was started already")?;
    Ok(feed)
}

fn level_of(asked: Option<LogLevel>, default: Level) -> Option<Level> {
    match asked {
        None => Some(default),
        Some(LogLevel::None) => None,
        Some(LogLevel::Error) => Some(Level::ERROR),
        Some(LogLevel::Warn) => Some(Level::WARN),
        Some(LogLevel::Info) => Some(Level::INFO),
        Some(LogLevel::Debug) => Some(Level::DEBUG),
    }
}

fn ours(level: Level) -> String {
    let crates = ["nex", "nex_bus", "nex_client", "nex_host", "nex_node", "nex_process", "nex_sandbox"];
    crates.map(|name| format!("{name}={level}")).join(",")
}

fn layer<W>(args: &LoggingArgs, color: bool, writer: W) -> BoxedLayer
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_target(false).with_timer(Clock(args.timeformat)).with_ansi(color);
    if args.logjson { layer.json().with_writer(writer).boxed() } else { layer.with_writer(writer).boxed() }
}

/// Local time in the selected format.
struct Clock(TimeFormat);

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&shown(&Zoned::now(), self.0))
    }
}

fn shown(time: &Zoned, format: TimeFormat) -> String {
    let format = match format {
        TimeFormat::DateOnly => "%Y-%m-%d",
        TimeFormat::DateTime => "%Y-%m-%d %H:%M:%S",
        TimeFormat::Stamp => "%b %e %H:%M:%S",
        TimeFormat::Rfc822 => "%d %b %y %H:%M %Z",
        TimeFormat::Rfc3339 => "%Y-%m-%dT%H:%M:%S%:z",
    };
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_formats_are_those_of_go() {
        let time: Zoned = "2026-02-03T04:05:06+00:00[UTC]".parse().unwrap();
        for (format, expected) in [
            (TimeFormat::DateOnly, "2026-02-03"),
            (TimeFormat::DateTime, "2026-02-03 04:05:06"),
            (TimeFormat::Stamp, "Feb  3 04:05:06"),
            (TimeFormat::Rfc822, "03 Feb 26 04:05 UTC"),
            (TimeFormat::Rfc3339, "2026-02-03T04:05:06+00:00"),
        ] {
            assert_eq!(shown(&time, format), expected);
        }
    }
}
