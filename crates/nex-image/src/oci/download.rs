//! Downloads the blobs of an image from a registry: some at once, each resumed where its connection broke, each verified.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::blobs::Region;
use super::document::Descriptor;
use super::error::{OciError, RegistryError};
use super::registry::Client;
use super::verify::Verifying;
use crate::progress::{Progress, Report};

/// Blobs downloaded at once.
const WORKERS: usize = 4;
/// Connections in a row that bring hardly anything: a registry that breaks each after a byte is not asked for ever.
const MAX_IDLE: u32 = 5;
/// Bytes that a connection has to bring so as not to be one of them.
const PROGRESS: u64 = 64 * 1024;
/// Reports that wait to be shown.
const REPORTS: usize = 64;

/// Downloads each blob into its region.
///
/// # Errors
/// The first failure; the other downloads end with it.
pub(super) fn all(client: &Client<'_>, blobs: Vec<(&Descriptor, Region<'_>)>, report: &mut Report<'_>) -> Result<(), OciError> {
    let bytes = blobs.iter().map(|(blob, _)| blob.size).fold(0, u64::saturating_add);
    report(Progress::Begin { what: "Pulling the image", bytes: Some(bytes) });
    let workers = blobs.len().min(WORKERS);
    let (queue, failed) = (Mutex::new(blobs.into_iter()), AtomicBool::new(false));
    let (tell, told) = sync_channel(REPORTS);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                let (mut client, meter) = (client.clone(), Meter { tell: tell.clone(), failed: &failed });
                let queue = &queue;
                scope.spawn(move || {
                    while !meter.failed.load(Ordering::Relaxed) {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((blob, region)) = next else { break };
                        one(&mut client, blob, region, &meter).inspect_err(|_| meter.failed.store(true, Ordering::Relaxed))?;
                    }
                    Ok(())
                })
            })
            .collect();
        drop(tell);
        for bytes in told {
            report(Progress::Advance(bytes));
        }
        let ends: Vec<_> =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        // What the others were told to stop for comes first.
        let is_cause = |end: &Result<(), OciError>| end.as_ref().is_err_and(|error| !is_cancelled(error));
        let (causes, others): (Vec<_>, Vec<_>) = ends.into_iter().partition(is_cause);
        causes.into_iter().chain(others).collect()
    })
}

fn one(client: &mut Client<'_>, blob: &Descriptor, mut region: Region<'_>, meter: &Meter<'_>) -> Result<(), OciError> {
    let failed = |source| OciError::Blob { digest: blob.digest.clone(), source };
    let download = Download { reader: Box::new(client.rest(blob, 0)?.1), client, blob, seen: 0, resumed_at: 0, idle: 0 };
    let mut verifying = Verifying::new(Metered { download, meter }, blob);
    io::copy(&mut verifying, &mut region).map_err(failed)?;
    verifying.finish().map_err(failed)
}

/// Tells how much is done, and is told when it is all in vain.
struct Meter<'a> {
    tell: SyncSender<u64>,
    failed: &'a AtomicBool,
}

/// Another download has failed.
#[derive(Debug, thiserror::Error)]
#[error("another part of the image could not be pulled")]
struct Cancelled;

fn is_cancelled(error: &OciError) -> bool {
    let OciError::Blob { source, .. } = error else { return false };
    source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Cancelled>)
}

struct Metered<'a, 'b, 'c> {
    download: Download<'a, 'b>,
    meter: &'a Meter<'c>,
}

impl Read for Metered<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.meter.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other(Cancelled));
        }
        let count = self.download.read(buffer)?;
        // Whoever listened may have given up.
        self.meter.tell.send(count as u64).ok();
        Ok(count)
    }
}

/// A blob, over as many connections as it takes.
struct Download<'a, 'b> {
    client: &'a mut Client<'b>,
    blob: &'a Descriptor,
    reader: Box<dyn Read>,
    /// Bytes read so far.
    seen: u64,
    /// Where the present connection began.
    resumed_at: u64,
    /// Connections in a row that brought hardly anything.
    idle: u32,
}

impl Download<'_, '_> {
    /// Goes on where the last connection broke.
    fn resume(&mut self) -> Result<(), RegistryError> {
        self.resumed_at = self.seen;
        let (start, reader) = self.client.rest(self.blob, self.seen)?;
        // A registry without parts begins anew, and what is known already is passed over.
        let mut reader = Box::new(reader);
        let passed = io::copy(&mut reader.by_ref().take(self.seen - start), &mut io::sink());
        self.reader = match passed {
            Ok(_) => reader,
            // The next read is told so and tries again.
            Err(_) => Box::new(io::empty()),
        };
        Ok(())
    }
}

impl Read for Download<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let broken = match self.reader.read(buffer) {
                Ok(0) if self.seen < self.blob.size && !buffer.is_empty() => None,
                Ok(count) => {
                    self.seen += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => Some(error),
            };
            self.idle = if self.seen - self.resumed_at < PROGRESS { self.idle + 1 } else { 0 };
            if self.idle == MAX_IDLE {
                let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "the registry ends it too early, each time");
                return Err(broken.unwrap_or_else(ended));
            }
            self.resume().map_err(io::Error::other)?;
        }
    }
}
