//! Strings in the code of RFC 7541 (§5.2, appendix B).
//!
//! The code is canonical: among codes of one length, symbols are in order. So the lengths say all, and the tables are
//! computed from them when this is compiled.

use bytes::{BufMut as _, BytesMut};

use super::Stop;

/// Bits of the code of each byte, and of the end of a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The code of each byte, in its lowest bits, and how many these are.
static CODES: [(u32, u8); 256] = codes();
/// For what a string goes on with, eight bits at a time: a symbol and how many of these bits it takes, or the table for
/// the next eight.
static STEPS: [[Step; 256]; TABLES] = steps();

/// Tables of [`STEPS`]: one for the beginning, and one for each eight bits that no code ends in.
const TABLES: usize = 15;
/// The end of a string, which never is in one.
const END: usize = 256;

/// A table's entry: a symbol in the lower byte and its bits in the upper one, or a table with [`NEXT`], or [`NONE`].
type Step = u16;
const NEXT: Step = 0x8000;
/// What only the code of the end leads to.
const NONE: Step = 0;

/// The code of a symbol among all, from the lengths.
const fn code(symbol: usize) -> u32 {
    // Counts what is before it, in the order of lengths.
    let mut code = 0_u64;
    let mut index = 0;
    while index < LENGTHS.len() {
        let before =
            LENGTHS[index] < LENGTHS[symbol] || (LENGTHS[index] == LENGTHS[symbol] && index < symbol);
        if before {
            code += 1 << (32 - LENGTHS[index]);
        }
        index += 1;
    }
    (code >> (32 - LENGTHS[symbol])) as u32
}

const fn codes() -> [(u32, u8); 256] {
    let mut codes = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < codes.len() {
        codes[symbol] = (code(symbol), LENGTHS[symbol]);
        symbol += 1;
    }
    codes
}

const fn steps() -> [[Step; 256]; TABLES] {
    let mut steps = [[NONE; 256]; TABLES];
    let mut tables = 1;
    let mut symbol = 0;
    while symbol < END {
        let (code, mut left) = (code(symbol), LENGTHS[symbol]);
        let mut table = 0;
        while left > 8 {
            let byte = (code >> (left - 8)) as usize & 0xff;
            if steps[table][byte] == NONE {
                steps[table][byte] = NEXT | tables as Step;
                tables += 1;
            }
            table = (steps[table][byte] & !NEXT) as usize;
            left -= 8;
        }
        // Whatever follows the last bits.
        let first = ((code << (8 - left)) & 0xff) as usize;
        let mut byte = first;
        while byte < first + (1 << (8 - left)) {
            steps[table][byte] = (left as Step) << 8 | symbol as Step;
            byte += 1;
        }
        symbol += 1;
    }
    assert!(tables == TABLES);
    steps
}

/// Bytes that a string takes when it is encoded.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends a string, encoded.
pub(super) fn encode(out: &mut BytesMut, text: &[u8]) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for byte in text {
        let (code, length) = CODES[usize::from(*byte)];
        bits = bits << length | u64::from(code);
        count += u32::from(length);
        while count >= 8 {
            count -= 8;
            out.put_u8((bits >> count) as u8);
        }
    }
    if count > 0 {
        // §5.2: filled up with the beginning of the end's code.
        out.put_u8((bits << (8 - count)) as u8 | 0xff >> count);
    }
}

/// Appends a string, decoded; says whether all of it has been. Once it is longer than `most`, the rest is not looked at.
///
/// # Errors
///
/// The code of the end, or a string that is filled up with anything but the beginning of that, or with a whole byte.
pub(super) fn decode(out: &mut BytesMut, text: &[u8], most: usize) -> Result<bool, Stop> {
    let begin = out.len();
    // No code is shorter than five bits.
    out.resize(begin + (text.len() * 8 / 5).min(most), 0);
    let (length, whole) = decode_into(&mut out[begin..], text)?;
    out.truncate(begin + length);
    Ok(whole)
}

/// Fills `out`; gives the bytes that it takes, and whether these are all.
fn decode_into(out: &mut [u8], text: &[u8]) -> Result<(usize, bool), Stop> {
    const BROKEN: Stop = Stop::Broken("a string that is not of the Huffman code");
    let mut bytes = text.iter();
    let (mut bits, mut count) = (0_u64, 0_u32);
    let (mut table, mut length) = (0, 0);
    loop {
        while count <= 56
            && let Some(byte) = bytes.next()
        {
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        if count < 8 {
            break;
        }
        while count >= 8 {
            let step = STEPS[table][usize::from((bits >> (count - 8)) as u8)];
            if step & NEXT != 0 {
                table = usize::from(step & !NEXT);
                count -= 8;
                continue;
            }
            if step == NONE {
                return Err(BROKEN);
            }
            let Some(place) = out.get_mut(length) else { return Ok((length, false)) };
            *place = step as u8;
            length += 1;
            count -= u32::from(step >> 8);
            table = 0;
        }
    }
    // Less than a byte is left: the end of a code, or what the string is filled up with, or both.
    loop {
        let left = (bits << (8 - count)) as u8;
        let step = STEPS[table][usize::from(left)];
        let ends = step & NEXT == 0 && step != NONE && u32::from(step >> 8) <= count;
        if !ends {
            let filled = left == !(0xff_u8 >> count);
            return if table == 0 && filled { Ok((length, true)) } else { Err(BROKEN) };
        }
        let Some(place) = out.get_mut(length) else { return Ok((length, false)) };
        *place = step as u8;
        length += 1;
        count -= u32::from(step >> 8);
        table = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&mut out, text);
        assert_eq!(out.len(), encoded_len(text));
        out
    }

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Stop> {
        let mut out = BytesMut::from("before");
        assert!(decode(&mut out, text, usize::MAX / 16)?);
        Ok(out["before".len()..].to_vec())
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 appendix C.4 and C.6.
        for (text, bytes) in [
            ("www.example.com", &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]),
            ("no-cache", b"\xa8\xeb\x10\x64\x9c\xbf"),
            ("custom-value", b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"),
            ("302", b"\x64\x02"),
            ("gzip", b"\x9b\xd9\xab"),
        ] {
            assert_eq!(encoded(text.as_bytes()), bytes, "{text}");
            assert_eq!(decoded(bytes).unwrap(), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 7541 appendix B, from the shortest to the longest.
        for (symbol, code, bits) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b':', 0x5c, 7),
            (b'X', 0xfc, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (b'\\', 0x7_fff0, 19),
            (0, 0x1ff8, 13),
            (1, 0x7f_ffd8, 23),
            (0xf9, 0xfff_fffe, 28),
            (0xff, 0x3ff_ffee, 26),
            (b'\n', 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
        ] {
            assert_eq!(CODES[usize::from(symbol)], (code, bits), "{symbol:#x}");
        }
    }

    #[test]
    fn a_string_is_filled_up_with_less_than_a_byte_of_ones() {
        // '0' has five zeros.
        assert_eq!(decoded(b"\x07").unwrap(), b"0");
        for text in [&b"\x00"[..], b"\x06", b"\x03", b"\x07\xff", b"\xff", b"\xff\xff", b"\x07\xff\xff"] {
            assert!(decoded(text).is_err(), "{text:x?}");
        }
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn the_code_of_the_end_is_refused() {
        assert!(decoded(b"\xff\xff\xff\xff").is_err());
        assert!(decoded(b"\xff\xff\xff\xfc").is_err());
        assert!(decoded(b"\x07\xff\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn no_more_is_built_than_asked_for() {
        let text = encoded(&[b'0'; 1000]);
        for most in [0, 1, 999] {
            let mut out = BytesMut::new();
            assert_eq!(decode(&mut out, &text, most), Ok(false));
            assert_eq!(out.len(), most);
        }
        assert_eq!(decode(&mut BytesMut::new(), &text, 1000), Ok(true));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decoded(&encoded(&text)).unwrap(), text);
        }

        #[test]
        fn what_is_decoded_is_encoded_the_same(text in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(plain) = decoded(&text) {
                prop_assert_eq!(&encoded(&plain)[..], &text[..]);
            }
        }
    }
}
