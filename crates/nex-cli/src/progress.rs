//! Progress bars on standard error, unless JSON was requested.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use nex_image::progress::Progress;

use crate::output::Output;

/// A progress bar for an upload; indicatif draws only on a terminal.
pub(crate) fn upload_bar(output: &Output) -> ProgressBar {
    let target = if output.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}");
    let bar = ProgressBar::with_draw_target(Some(0), target).with_message("Uploading");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A progress bar for several steps with names and sizes; steps without a size show the bytes done.
pub(crate) fn steps_bar(output: &Output) -> impl FnMut(Progress<'_>) + use<> {
    let target = if output.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    let sized = ProgressStyle::with_template("{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}").ok();
    let open = ProgressStyle::with_template("{msg} {spinner} {binary_bytes}").ok();
    move |progress| match progress {
        Progress::Begin { what, bytes } => {
            if let Some(style) = if bytes.is_some() { &sized } else { &open } {
                bar.set_style(style.clone());
            }
            bar.reset();
            bar.set_message(what.to_owned());
            match bytes {
                Some(bytes) => bar.set_length(bytes),
                None => bar.unset_length(),
            }
            bar.tick();
        }
        Progress::Advance(bytes) => bar.inc(bytes),
    }
}
