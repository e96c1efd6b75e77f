//! A progress bar on standard error, where there is a terminal and nobody asked for JSON.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// A bar for an upload; hidden where nobody would see it (indicatif draws only on a terminal).
pub(crate) fn upload_bar(output: &Output) -> ProgressBar {
    let target = if output.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}");
    let bar = ProgressBar::with_draw_target(Some(0), target).with_message("Uploading");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
