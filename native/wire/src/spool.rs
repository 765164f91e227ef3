//! Spool segments: frames with length and checksum, read without trust.

use std::io::{self, Read};

use prost::Message;

use crate::v1::{Record, SegmentHeader};

/// The first bytes of a segment.
pub const MAGIC: &[u8; 8] = b"AASMSP1\n";

/// A longer frame ends the segment; a record without arguments is far below.
pub const MAX_FRAME: usize = 1 << 20;

/// A segment longer than this is not ours.
pub const MAX_SEGMENT: u64 = 1 << 30;

/// Why the reading of a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The file ended after a whole frame, or its preallocated zeros began.
    Clean,
    /// A frame is cut or its checksum does not fit: what came before it is whole.
    Torn,
}

/// Why a segment cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("it does not begin as a spool segment does")]
    NotASegment,
    #[error("its header is cut or damaged")]
    NoHeader,
    #[error("its format {0} is newer than this program")]
    UnknownFormat(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the records of one segment, front to back; after `next` gave `None`, `end` says why.
pub struct SegmentReader<R> {
    source: R,
    header: SegmentHeader,
    end: Option<End>,
}

impl<R: Read> SegmentReader<R> {
    pub fn open(mut source: R) -> Result<Self, SegmentError> {
        let mut magic = [0; 8];
        match source.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => return Err(SegmentError::NotASegment),
        }
        let payload = read_frame(&mut source)?.map_err(|_| SegmentError::NoHeader)?;
        let header = SegmentHeader::decode(payload.as_slice()).map_err(|_| SegmentError::NoHeader)?;
        if header.format != 1 {
            return Err(SegmentError::UnknownFormat(header.format));
        }
        Ok(Self { source, header, end: None })
    }

    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Why the reading ended; `None` while there may be more.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next record; `None` at the segment's end.
    pub fn read(&mut self) -> io::Result<Option<Record>> {
        if self.end.is_some() {
            return Ok(None);
        }
        match read_frame(&mut self.source)? {
            Ok(payload) => match Record::decode(payload.as_slice()) {
                Ok(record) => return Ok(Some(record)),
                Err(_) => self.end = Some(End::Torn),
            },
            Err(end) => self.end = Some(end),
        }
        Ok(None)
    }
}

fn read_frame(source: &mut impl Read) -> io::Result<Result<Vec<u8>, End>> {
    let mut head = Vec::with_capacity(8);
    source.take(8).read_to_end(&mut head)?;
    let (Some(length), checksum) = (little_endian(&head, 0), little_endian(&head, 4)) else {
        return Ok(Err(if head.iter().all(|byte| *byte == 0) { End::Clean } else { End::Torn }));
    };
    let length = length as usize;
    if length == 0 {
        // A checksum without a length is the front of a frame whose writing was cut.
        return Ok(Err(if checksum.unwrap_or(0) == 0 { End::Clean } else { End::Torn }));
    }
    if length > MAX_FRAME {
        return Ok(Err(End::Torn));
    }
    let mut payload = Vec::new();
    source.take(length as u64).read_to_end(&mut payload)?;
    let whole = payload.len() == length && Some(crc32fast::hash(&payload)) == checksum;
    Ok(if whole { Ok(payload) } else { Err(End::Torn) })
}

fn little_endian(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
}

/// One frame as the writer of a segment lays it down.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(records: usize) -> Vec<u8> {
        let header = SegmentHeader { format: 1, instance_id: "ab".repeat(16), ..SegmentHeader::default() };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(frame(&header.encode_to_vec()));
        for lost in 1..=records as u64 {
            bytes.extend(frame(&Record { lost, ..Record::default() }.encode_to_vec()));
        }
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<u64>, Option<End>) {
        let mut reader = SegmentReader::open(bytes).unwrap();
        let mut lost = Vec::new();
        while let Some(record) = reader.read().unwrap() {
            lost.push(record.lost);
        }
        (lost, reader.end())
    }

    /// Preallocated zeros after the last frame end the segment cleanly.
    #[test]
    fn zeros_end_it() {
        let mut bytes = segment(3);
        bytes.extend([0; 100]);
        assert_eq!(read(&bytes), (vec![1, 2, 3], Some(End::Clean)));
        assert_eq!(read(&segment(0)), (vec![], Some(End::Clean)));
    }

    /// Wherever a segment is cut, the whole frames before the cut are read.
    #[test]
    fn every_cut() {
        let (whole, one) = (segment(3), segment(2).len());
        for cut in one + 1..whole.len() {
            assert_eq!(read(&whole[..cut]), (vec![1, 2], Some(End::Torn)), "cut at {cut}");
        }
    }

    /// A flipped bit ends the segment before the damaged frame.
    #[test]
    fn every_flip() {
        let (whole, one) = (segment(3), segment(2).len());
        for at in one..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(read(&bytes), (vec![1, 2], Some(End::Torn)), "flip at {at}");
        }
    }

    proptest! {
        /// No bytes make the reader panic or hold more than one bounded frame.
        #[test]
        fn arbitrary_bytes(tail in proptest::collection::vec(any::<u8>(), 0..4096), valid in any::<bool>()) {
            let mut bytes = if valid { segment(1) } else { MAGIC.to_vec() };
            bytes.extend(tail);
            if let Ok(mut reader) = SegmentReader::open(bytes.as_slice()) {
                while reader.read().unwrap().is_some() {}
                prop_assert!(reader.end().is_some());
            }
        }
    }
}
