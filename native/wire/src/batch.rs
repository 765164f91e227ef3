//! A batch from bytes that a stranger sent.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::v1::Batch;

/// A batch holds at most this many records: an empty one takes two bytes on the wire and a few hundred in memory.
pub const MAX_RECORDS: usize = 16_384;

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("the batch holds more than {MAX_RECORDS} records; send smaller batches")]
    TooMany,
    #[error("the body is not a batch of records: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Decodes a batch after its records were counted.
pub fn decode(body: &[u8]) -> Result<Batch, BatchError> {
    let mut rest = body;
    let mut records = 0;
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        if tag == 1 && wire_type == WireType::LengthDelimited {
            records += 1;
            if records > MAX_RECORDS {
                return Err(BatchError::TooMany);
            }
            let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
            rest = rest.get(length..).unwrap_or_default();
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        }
    }
    Ok(Batch::decode(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Record;
    use proptest::prelude::*;

    /// A batch comes back as it was sent; one record too many is refused before it is built.
    #[test]
    fn counts_before_building() {
        let batch = Batch { records: vec![Record { lost: 3, ..Record::default() }; 5], adopted: true };
        assert_eq!(decode(&batch.encode_to_vec()).unwrap(), batch);
        assert!(matches!(decode(&[0x0a, 0].repeat(MAX_RECORDS + 1)), Err(BatchError::TooMany)));
    }

    proptest! {
        /// No bytes make the decoder panic.
        #[test]
        fn arbitrary_bytes(body in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = decode(&body);
        }
    }
}
