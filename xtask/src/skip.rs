//! The one way for a task to leave something out: it says so, and fails where `NEX_REQUIRE=all` demands that everything runs.

use std::fmt::Display;

use anyhow::{Result, bail};

/// Says what does not run here, and why.
pub(crate) fn skip(what: &str, why: impl Display) -> Result<()> {
    if std::env::var_os("NEX_REQUIRE").is_some_and(|required| required == "all") {
        bail!("{what} must run here (NEX_REQUIRE=all), but: {why}");
    }
    println!("SKIP {what}: {why}");
    Ok(())
}
