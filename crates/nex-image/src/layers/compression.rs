//! Decompresses archives: gzip, zstd or neither, detected by their first bytes, not by their names.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// Returns a reader of the decompressed bytes.
pub(crate) fn decompress<'a>(mut from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let head = head(&mut from)?;
    let all = Cursor::new(head.clone()).chain(from);
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(all)),
        [_, b'*', b'M', 0x18] | [0x28, 0xb5, 0x2f, 0xfd] => Box::new(Zstd::BetweenFrames(Box::new(BufReader::new(all)))),
        _ => Box::new(all),
    })
}

/// The first four bytes, or fewer at the end.
fn head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(4);
    from.take(4).read_to_end(&mut head)?;
    Ok(head)
}

type Plain<'a> = Box<dyn Read + 'a>;
type Frame<'a> = StreamingDecoder<io::Chain<Cursor<Vec<u8>>, Plain<'a>>, ruzstd::decoding::FrameDecoder>;

/// Reads consecutive zstd frames and skips skippable ones.
enum Zstd<'a> {
    BetweenFrames(Plain<'a>),
    InFrame(Box<Frame<'a>>),
    End,
}

impl Read for Zstd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            *self = match std::mem::replace(self, Self::End) {
                Self::End => return Ok(0),
                Self::InFrame(mut frame) => {
                    let count = frame.read(buffer)?;
                    if count > 0 {
                        *self = Self::InFrame(frame);
                        return Ok(count);
                    }
                    Self::BetweenFrames(frame.into_inner().into_inner().1)
                }
                Self::BetweenFrames(mut source) => match head(&mut source)?.as_slice() {
                    [] => Self::End,
                    [low, b'*', b'M', 0x18] if low & 0xf0 == 0x50 => {
                        let mut len = [0; 4];
                        source.read_exact(&mut len)?;
                        io::copy(&mut (&mut source).take(u32::from_le_bytes(len).into()), &mut io::sink())?;
                        Self::BetweenFrames(source)
                    }
                    other => {
                        let frame = StreamingDecoder::new(Cursor::new(other.to_vec()).chain(source));
                        Self::InFrame(Box::new(frame.map_err(io::Error::other)?))
                    }
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        decompress(bytes).unwrap().read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn what_is_compressed_is_told_by_its_bytes() {
        assert_eq!((plain(b""), plain(b"abc"), plain(b"some text")), (vec![], b"abc".to_vec(), b"some text".to_vec()));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"gzipped").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(plain(&[gzip.clone(), gzip].concat()), b"gzippedgzipped");
        let frame = ruzstd::encoding::compress_to_vec(&b"zstd"[..], ruzstd::encoding::CompressionLevel::Fastest);
        let skipped = b"\x50*M\x18\x03\0\0\0xyz".to_vec();
        assert_eq!(plain(&[frame.clone(), skipped.clone(), frame.clone()].concat()), b"zstdzstd");
        assert_eq!(plain(&[skipped, frame].concat()), b"zstd");
    }
}
