//! Decodes `Transfer-Encoding: chunked` (RFC 9112 section 7.1) in place. Pure.

use thiserror::Error;

/// Longest chunk-size line with its extensions, and longest trailer line.
const MAX_LINE_BYTES: usize = 4 * 1024;
/// Extensions and trailers of one body together. Nobody needs any; without a bound they would be a body without end.
const MAX_OVERHEAD_BYTES: usize = 64 * 1024;
/// Digits of a chunk size: 2^60 bytes are more than a disk holds, and nothing overflows.
const MAX_SIZE_DIGITS: usize = 15;

/// The coding is broken: the stream can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the chunked body is malformed: {0}")]
pub struct Malformed(&'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the hex digits of a chunk size.
    Size,
    /// In the extensions after it.
    Extension,
    /// In blanks before one.
    Blank,
    /// Before the LF that ends the size line.
    SizeLf,
    /// In the data, that many bytes left.
    Data(u64),
    /// Before the CR and the LF after the data.
    DataCr,
    DataLf,
    /// In a trailer line, so many bytes into it.
    Trailer(usize),
    /// Before the LF that ends a trailer line; the empty one ends the body.
    TrailerLf(bool),
    /// All read.
    Done,
}

/// The decoder's place in one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    size: u64,
    digits: usize,
    line: usize,
    overhead: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size, size: 0, digits: 0, line: 0, overhead: 0 }
    }
}

impl Decoder {
    /// Whether the last chunk and the trailers were read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes coded bytes and moves the data among them to their front. Returns how many bytes of data there are, and
    /// where what followed the end of the body begins: the start of the next request.
    ///
    /// # Errors
    /// The coding is broken; `bytes` then holds nothing of use.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), Malformed> {
        let (mut from, mut kept) = (0, 0);
        while let Some(&byte) = bytes.get(from) {
            match self.state {
                State::Done => break,
                State::Data(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - from);
                    bytes.copy_within(from..from + count, kept);
                    (from, kept) = (from + count, kept + count);
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                }
                _ => {
                    self.step(byte)?;
                    from += 1;
                }
            }
        }
        Ok((kept, from))
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, _) if self.digits == 0 => return Err(Malformed("a chunk size is missing")),
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Blank, b';') => State::Extension,
            // Bad whitespace that RFC 9112 lets through before an extension, and nowhere else.
            (State::Size | State::Blank, b' ' | b'\t') => self.overhead(byte, State::Blank)?,
            (State::Size | State::Blank, _) => return Err(Malformed("a chunk size is no hex number")),
            (State::Extension, _) => self.overhead(byte, State::Extension)?,
            (State::SizeLf, b'\n') => self.chunk(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Trailer(length), b'\r') => State::TrailerLf(length == 0),
            (State::Trailer(length), _) => self.overhead(byte, State::Trailer(length + 1))?,
            (State::TrailerLf(true), b'\n') => State::Done,
            (State::TrailerLf(false), b'\n') => self.next_line(State::Trailer(0)),
            _ => return Err(Malformed("a line or a chunk does not end in CR LF")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, Malformed> {
        self.digits += 1;
        if self.digits > MAX_SIZE_DIGITS {
            return Err(Malformed("a chunk size is too large"));
        }
        self.size = self.size * 16 + u64::from(char::from(byte).to_digit(16).unwrap_or_default());
        Ok(State::Size)
    }

    fn chunk(&mut self) -> State {
        let size = std::mem::take(&mut self.size);
        self.digits = 0;
        self.next_line(if size == 0 { State::Trailer(0) } else { State::Data(size) })
    }

    const fn next_line(&mut self, state: State) -> State {
        self.line = 0;
        state
    }

    fn overhead(&mut self, byte: u8, next: State) -> Result<State, Malformed> {
        (self.line, self.overhead) = (self.line + 1, self.overhead + 1);
        if self.line > MAX_LINE_BYTES || self.overhead > MAX_OVERHEAD_BYTES {
            return Err(Malformed("its extensions or trailers have no end"));
        }
        if byte.is_ascii_control() && byte != b'\t' {
            Err(Malformed("a control character stands in a line"))
        } else {
            Ok(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `coded`, cut into pieces of `step` bytes: data, and what was left over after the end.
    fn decode(coded: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, bool), Malformed> {
        let mut decoder = Decoder::default();
        let (mut data, mut rest) = (Vec::new(), Vec::new());
        for piece in coded.chunks(step) {
            let mut bytes = piece.to_vec();
            let (kept, next) = decoder.decode(&mut bytes)?;
            data.extend(&bytes[..kept]);
            rest.extend(&bytes[next..]);
        }
        Ok((data, rest, decoder.is_done()))
    }

    #[test]
    fn bodies() {
        for step in [1, 2, 3, 7, 1000] {
            let whole = |coded: &str| decode(coded.as_bytes(), step);
            assert_eq!(whole("0\r\n\r\n"), Ok((vec![], vec![], true)));
            assert_eq!(
                whole("3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET"),
                Ok((b"abc0123456789".to_vec(), b"GET".to_vec(), true))
            );
            assert_eq!(whole("3\r\nab"), Ok((b"ab".to_vec(), vec![], false)));
            for bad in [
                "x\r\n",
                "\r\n",
                ";a\r\n",
                "-1\r\n",
                "+1\r\n",
                "0x1\r\n",
                " 1\r\n",
                "1\na",
                "1\r\nab",
                "1\r\na\n",
                "1\r\na\rb",
                "0\r\n\n",
                "0\r\nT: v\n",
                "1;a\0\r\n",
                "1;a\nb\r\n",
                "1;\rx",
                "1000000000000000\r\n",
                "1 x\0",
            ] {
                assert!(whole(bad).is_err(), "{bad:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn extensions_without_end_are_cut_off() {
        assert!(decode(format!("1;{}", "a".repeat(MAX_LINE_BYTES + 1)).as_bytes(), 100).is_err());
        let many = format!("1;{}\r\na\r\n", "a".repeat(4000)).repeat(20);
        assert!(decode(many.as_bytes(), 1000).is_err());
        let trailers = format!("0\r\n{}", "T: v\r\n".repeat(20_000));
        assert!(decode(trailers.as_bytes(), 1000).is_err());
    }

    proptest! {
        #[test]
        fn what_was_coded_is_decoded(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), step in 1usize..50) {
            let mut coded = Vec::new();
            for chunk in &chunks {
                coded.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                coded.extend(chunk);
                coded.extend(b"\r\n");
            }
            coded.extend(b"0\r\n\r\nnext");
            prop_assert_eq!(decode(&coded, step), Ok((chunks.concat(), b"next".to_vec(), true)));
        }

        #[test]
        fn any_bytes_are_decoded_alike_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            prop_assert_eq!(decode(&bytes, step), decode(&bytes, 1000));
        }
    }
}
