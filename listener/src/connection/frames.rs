//! Whether an HTTP/2 client owes the rest of a frame or of a header block.
//!
//! HTTP/2 has no event for the first byte of a request's head, so frames are followed by their nine-byte headers (RFC
//! 9113 section 4.1). Nothing is interpreted beyond that: what is wrong with a frame, the HTTP/2 library says.

/// The bytes that an HTTP/2 client sends first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER_LENGTH: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames that a client sends after its preface.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The part of a frame's header that has come.
    header: [u8; HEADER_LENGTH],
    length: usize,
    /// Bytes of the current frame's payload that are still to come.
    payload: usize,
    is_data: bool,
    /// Whether a header block has begun whose last frame has not come.
    in_block: bool,
}

impl Frames {
    /// Bytes came.
    pub(super) fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let taken = self.payload.min(bytes.len());
                self.payload -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            let taken = (HEADER_LENGTH - self.length).min(bytes.len());
            let (come, rest) = bytes.split_at(taken);
            for (to, from) in self.header.iter_mut().skip(self.length).zip(come) {
                *to = *from;
            }
            self.length += taken;
            bytes = rest;
            if self.length == HEADER_LENGTH {
                self.length = 0;
                self.begin();
            }
        }
    }

    /// A frame's header is whole.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.is_data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = flags & END_HEADERS == 0;
        }
    }

    /// Whether a frame or a header block is there in part. Bodies have time-outs of their own.
    pub(super) fn is_incomplete(&self) -> bool {
        self.length > 0 || self.in_block || (self.payload > 0 && !self.is_data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_LENGTH + payload, 7);
        frame
    }

    /// Whether something is owed after each byte.
    fn owed(bytes: &[u8]) -> Vec<bool> {
        let mut frames = Frames::default();
        bytes
            .iter()
            .map(|byte| {
                frames.observe(&[*byte]);
                frames.is_incomplete()
            })
            .collect()
    }

    #[test]
    fn a_head_is_owed_from_its_first_byte_to_its_last() {
        for bytes in [frame(HEADERS, END_HEADERS, 30), frame(4, 0, 0), frame(6, 1, 8)] {
            let (last, before) = owed(&bytes).split_last().map(|(last, before)| (*last, before.to_vec())).unwrap();
            assert!(!last && before.iter().all(|owed| *owed));
        }
    }

    #[test]
    fn a_header_block_in_pieces_is_owed_until_its_end() {
        let bytes = [frame(HEADERS, 0, 5), frame(CONTINUATION, 0, 5), frame(CONTINUATION, END_HEADERS, 5)].concat();
        let owed = owed(&bytes);
        assert!(owed[..owed.len() - 1].iter().all(|owed| *owed) && !owed[owed.len() - 1]);
    }

    #[test]
    fn a_body_is_not_a_head() {
        let owed = owed(&frame(DATA, 0, 20));
        assert!(owed[..HEADER_LENGTH - 1].iter().all(|owed| *owed));
        assert!(owed[HEADER_LENGTH - 1..].iter().all(|owed| !owed));
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut() {
        let bytes =
            [frame(4, 0, 12), frame(HEADERS, 0, 100), frame(CONTINUATION, END_HEADERS, 3), frame(DATA, 1, 9)].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            bytes.chunks(size).for_each(|part| frames.observe(part));
            assert!(!frames.is_incomplete(), "{size}");
        }
    }
}
