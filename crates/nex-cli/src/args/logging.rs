//! Flags about what is logged, for every command.

use clap::{Args, ValueEnum};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    None,
    Error,
    Warn,
    Info,
    Debug,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogTarget {
    /// Standard error
    Std,
    /// `./nex.log`, and errors to `./nex.err` too
    File,
    /// `$NEX.logs.system.<node>.stdout` and `.stderr`; for nodes
    Nats,
}

/// How times are written in log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeFormat {
    #[value(name = "DateOnly")]
    DateOnly,
    #[value(name = "DateTime")]
    DateTime,
    #[value(name = "Stamp")]
    Stamp,
    #[value(name = "RFC822")]
    Rfc822,
    #[value(name = "RFC3339")]
    Rfc3339,
}

/// What is logged, where and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LoggingArgs {
    /// How much is logged [default: warn; info for nodes]
    #[arg(long, global = true, value_name = "LEVEL", env = "NEX_LOGLEVEL", hide_env_values = true, ignore_case = true)]
    pub(crate) loglevel: Option<LogLevel>,
    /// Where to; repeatable
    #[arg(
        long,
        global = true,
        value_name = "TARGET",
        env = "NEX_LOGGER",
        hide_env_values = true,
        default_value = "std",
        value_delimiter = ','
    )]
    pub(crate) logger: Vec<LogTarget>,
    /// Log lines as JSON
    #[arg(long, global = true, env = "NEX_LOGJSON", hide_env_values = true)]
    pub(crate) logjson: bool,
    /// Log lines in colour
    #[arg(long, global = true, env = "NEX_LOG_COLORIZED", hide_env_values = true)]
    pub(crate) logcolor: bool,
    /// How times are written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "NEX_LOG_TIMEFORMAT",
        hide_env_values = true,
        default_value = "DateTime",
        ignore_case = true
    )]
    pub(crate) timeformat: TimeFormat,
}
