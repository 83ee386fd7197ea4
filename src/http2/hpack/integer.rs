//! Integers with a prefix (RFC 7541 §5.1).

use bytes::{BufMut as _, BytesMut};

use super::Stop;

/// Bytes of an integer after its prefix: enough for any that a frame or a table could be large enough for.
const LONGEST: usize = 5;

/// Reads an integer whose prefix is the lowest `bits` of the first byte; gives it and the bytes that it takes.
pub(super) fn read(bytes: &[u8], bits: u32) -> Result<(usize, usize), Stop> {
    let mask = (1_u8 << bits) - 1;
    let (&first, rest) = bytes.split_first().ok_or(Stop::Short)?;
    if first & mask != mask {
        return Ok((usize::from(first & mask), 1));
    }
    let mut value = u64::from(mask);
    for (index, &byte) in rest.iter().enumerate().take(LONGEST) {
        value += u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // 32 bits are more than any string or table has.
            let value = u32::try_from(value).map_err(|_| TOO_LARGE)?;
            return Ok((value as usize, index + 2));
        }
    }
    if rest.len() < LONGEST { Err(Stop::Short) } else { Err(TOO_LARGE) }
}

const TOO_LARGE: Stop = Stop::Broken("an integer larger than any that is meant");

/// Appends an integer with a prefix of `bits`; `pattern` is what the first byte begins with.
pub(super) fn write(out: &mut BytesMut, value: usize, bits: u32, pattern: u8) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.put_u8(pattern | low(value));
        return;
    }
    out.put_u8(pattern | low(mask));
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(low(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.put_u8(low(rest));
}

#[expect(clippy::cast_possible_truncation, reason = "the callers leave no more than a byte")]
const fn low(value: usize) -> u8 {
    debug_assert!(value < 0x100);
    value as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 appendix C.1.
        for (value, bits, bytes) in
            [(10, 5, &b"\x0a"[..]), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a"), (31, 5, b"\x1f\0")]
        {
            let mut out = BytesMut::new();
            if bits < 8 {
                write(&mut out, value, bits, 0);
                assert_eq!(out, bytes);
                assert_eq!(read(bytes, bits), Ok((value, bytes.len())));
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_waited_for_and_what_is_too_large_is_not() {
        assert_eq!(read(b"", 7), Err(Stop::Short));
        assert_eq!(read(b"\xff", 7), Err(Stop::Short));
        assert_eq!(read(b"\xff\x80\x80\x80\x80", 7), Err(Stop::Short));
        assert_eq!(read(b"\xff\x80\x80\x80\x80\x80", 7), Err(TOO_LARGE));
        assert_eq!(read(b"\xff\xff\xff\xff\xff\x7f", 7), Err(TOO_LARGE));
        // 2^32 - 1, and one more.
        assert_eq!(read(b"\xff\x80\xff\xff\xff\x0f", 7), Ok((u32::MAX as usize, 6)));
        assert_eq!(read(b"\xff\x81\xff\xff\xff\x0f", 7), Err(TOO_LARGE));
        // Zeros at the end are odd, but allowed.
        assert_eq!(read(b"\xff\x80\x00", 7), Ok((127, 3)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=u32::MAX as usize, bits in 4..8_u32) {
            let mut out = BytesMut::new();
            write(&mut out, value, bits, 0);
            prop_assert_eq!(read(&out, bits), Ok((value, out.len())));
            for end in 0..out.len() {
                prop_assert_eq!(read(&out[..end], bits), Err(Stop::Short));
            }
        }
    }
}
