use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::{super::Encoder, *};

const NO_LIMIT: usize = usize::MAX;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// What a field is, as a line.
fn line(field: &Field) -> String {
    match field {
        Field::Pseudo(name, value) => format!("{}: {}", name.as_str(), String::from_utf8_lossy(value)),
        Field::Regular(name, value) => format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())),
        Field::Malformed(_, rule) => (*rule).to_owned(),
    }
}

fn read(decoder: &mut Decoder, block: &[u8], limit: usize) -> Result<(Vec<String>, Section), Error> {
    let (mut lines, mut section) = (Vec::new(), Section::new(limit));
    let length = decoder.decode(block, true, &mut section, |field| lines.push(line(&field)))?;
    assert_eq!(length, block.len());
    Ok((lines, section))
}

fn lines(decoder: &mut Decoder, block: &[u8]) -> Vec<String> {
    read(decoder, block, NO_LIMIT).unwrap().0
}

fn rule(block: &[u8]) -> &'static str {
    match read(&mut Decoder::new(), block, NO_LIMIT) {
        Err(Error::Connection(Code::COMPRESSION_ERROR, rule)) => rule,
        other => panic!("{block:x?}: {other:?}"),
    }
}

/// Decodes blocks of one connection, with a table of so many bytes, and compares what the table holds after each with what the RFC says.
fn example(table: usize, blocks: &[(&str, &[&str], &[&str], usize)]) {
    let mut decoder = Decoder::new();
    decoder.table.resize(table);
    for (block, fields, table, size) in blocks {
        assert_eq!(lines(&mut decoder, &hex(block)), *fields);
        let held: Vec<_> = (62..).map_while(|index| Some(line(decoder.table.get(index)?.field))).collect();
        assert_eq!((held, decoder.table.size()), (table.iter().map(ToString::to_string).collect(), *size));
    }
}

#[test]
fn fields_one_by_one_as_in_the_rfc() {
    // RFC 7541 appendix C.2.
    let first = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    example(DEFAULT, &[(first, &["custom-key: custom-header"], &["custom-key: custom-header"], 55)]);
    example(DEFAULT, &[("040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"], &[], 0)]);
    example(DEFAULT, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &["password: secret"], &[], 0)]);
    example(DEFAULT, &[("82", &[":method: GET"], &[], 0)]);
}

#[test]
fn requests_as_in_the_rfc() {
    // RFC 7541 appendices C.3 and C.4: the same, without and with Huffman.
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let (authority, cache, custom) =
        (":authority: www.example.com", "cache-control: no-cache", "custom-key: custom-value");
    for [one, two, three] in [plain, huffman] {
        example(
            DEFAULT,
            &[
                (one, &[":method: GET", ":scheme: http", ":path: /", authority], &[authority], 57),
                (
                    two,
                    &[":method: GET", ":scheme: http", ":path: /", authority, cache],
                    &[cache, authority],
                    110,
                ),
                (
                    three,
                    &[":method: GET", ":scheme: https", ":path: /index.html", authority, custom],
                    &[custom, cache, authority],
                    164,
                ),
            ],
        );
    }
}

#[test]
fn answers_as_in_the_rfc() {
    // RFC 7541 appendices C.5 and C.6: a table of 256 bytes, from which fields have to go.
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 \
         474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 \
         666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 \
         3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 \
         63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
         b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let (found, moved) = (":status: 302", ":status: 307");
    let private = "cache-control: private";
    let (date, later) = ("date: Mon, 21 Oct 2013 20:13:21 GMT", "date: Mon, 21 Oct 2013 20:13:22 GMT");
    let location = "location: https://www.example.com";
    let (gzip, cookie) =
        ("content-encoding: gzip", "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    for [one, two, three] in [plain, huffman] {
        example(
            256,
            &[
                (one, &[found, private, date, location], &[location, date, private, found], 222),
                (two, &[moved, private, date, location], &[moved, location, date, private], 222),
                (
                    three,
                    &[":status: 200", private, later, location, gzip, cookie],
                    &[cookie, gzip, later],
                    215,
                ),
            ],
        );
    }
}

#[test]
fn what_breaks_a_rule_is_an_error_of_the_connection() {
    for (block, what) in [
        (&b"\x80"[..], "an index of nothing"),
        (b"\xbe", "an index of nothing"),
        (b"\xff\x80\xff\xff\xff\x0f", "an index of nothing"),
        (b"\x7e\x01a", "an index of nothing"),
        (b"\x0f\x80\x01\x01a", "an index of nothing"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "an integer larger than any that is meant"),
        (b"\x82\xff", "fields that break off"),
        (b"\x01\x05a", "fields that break off"),
        (b"\x01\x7f\xff\xff\xff\xff\x07a", "fields that break off"),
        (b"\x40\x01a", "fields that break off"),
        (b"\x3f", "fields that break off"),
        (b"\x01\x84\xff\xff\xff\xff", "a string that is not of the Huffman code"),
        (b"\x01\x81\x00", "a string that is not of the Huffman code"),
        (b"\x3f\xe2\x1f", "a table is larger than allowed"),
        (b"\x82\x20", "a table is resized between fields"),
    ] {
        assert_eq!(rule(block), what, "{block:x?}");
    }
    assert!(lines(&mut Decoder::new(), b"\x3f\xe1\x1f\x20\x82").len() == 1, "4096, and then 0");
}

#[test]
fn a_table_may_be_emptied_and_be_used_again() {
    let mut decoder = Decoder::new();
    assert_eq!(lines(&mut decoder, b"\x40\x01a\x01b"), ["a: b"]);
    assert_eq!(lines(&mut decoder, b"\xbe"), ["a: b"]);
    assert!(lines(&mut decoder, b"\x20").is_empty());
    assert!(read(&mut decoder, b"\xbe", NO_LIMIT).is_err());
    assert_eq!(lines(&mut decoder, b"\x3f\xe1\x1f\x40\x01c\x01d\xbe"), ["c: d", "c: d"]);
}

#[test]
fn a_table_of_none_remembers_nothing() {
    let mut decoder = Decoder::new();
    assert_eq!(lines(&mut decoder, b"\x20\x40\x01a\x01b"), ["a: b"]);
    assert!(read(&mut decoder, b"\xbe", NO_LIMIT).is_err());
}

#[test]
fn no_more_is_given_out_than_allowed_and_all_is_remembered() {
    let mut decoder = Decoder::new();
    // Each counts for 34.
    let block = b"\x40\x01a\x01b\x40\x01c\x01d\xbe\xbf\x82";
    let (given, section) = read(&mut decoder, block, 68).unwrap();
    assert_eq!((given, section.is_too_large()), (vec!["a: b".to_owned(), "c: d".to_owned()], true));
    let (given, section) = read(&mut decoder, b"\xbe\xbf", 68).unwrap();
    assert_eq!((given.len(), section.is_too_large()), (2, false));
    let (given, section) = read(&mut decoder, b"\xbe", 0).unwrap();
    assert!(given.is_empty() && section.is_too_large());
}

#[test]
fn a_bomb_is_built_only_as_far_as_allowed() {
    let mut decoder = Decoder::new();
    let mut bomb = b"\x40\x01x\x7f\xa1\x1e".to_vec();
    bomb.extend_from_slice(&[b'a'; 4000]);
    bomb.resize(16_000, 0xbe);
    let (given, section) = read(&mut decoder, &bomb, 10_000).unwrap();
    assert_eq!((given.len(), section.is_too_large()), (2, true));
}

#[test]
fn a_text_beyond_every_limit_is_not_built() {
    let large = 1 << 20;
    let mut huffman = BytesMut::new();
    huffman::encode(&mut huffman, &vec![b'0'; large]);
    for (pattern, flag, text) in [
        (0x40, 0x80, &huffman[..]),
        (0, 0x80, &huffman),
        (0x40, 0, &vec![b'0'; large]),
        (0, 0, &vec![b'0'; large]),
    ] {
        for in_name in [true, false] {
            let mut block = BytesMut::from(&b"\x40\x01a\x01b"[..]);
            block.extend_from_slice(&[pattern]);
            let long = |block: &mut BytesMut| {
                integer::write(block, text.len(), 7, flag);
                block.extend_from_slice(text);
            };
            if in_name {
                long(&mut block);
                block.extend_from_slice(b"\x01x");
            } else {
                block.extend_from_slice(b"\x01x");
                long(&mut block);
            }
            let mut decoder = Decoder::new();
            let (given, section) = read(&mut decoder, &block, 100).unwrap();
            assert_eq!((given, section.is_too_large()), (vec!["a: b".to_owned()], true));
            assert!(section.text.capacity() <= 2 * DEFAULT, "{}", section.text.capacity());
            // To be remembered, it empties the table.
            assert_eq!(decoder.table.get(62).is_some(), pattern == 0);
        }
    }
}

const DEFAULT: usize = crate::http2::hpack::DEFAULT_TABLE;

#[test]
fn a_malformed_field_counts_like_any_and_so_does_its_name() {
    let mut decoder = Decoder::new();
    assert_eq!(lines(&mut decoder, b"\x40\x03A B\x01c"), [NAME]);
    assert_eq!(decoder.table.size(), 36);
    assert_eq!(lines(&mut decoder, b"\x7e\x02cd"), [NAME]);
    assert_eq!(decoder.table.size(), 36 + 37);
    assert_eq!(lines(&mut decoder, b"\x40\x02:x\x01c"), [UNKNOWN]);
    assert_eq!(lines(&mut decoder, b"\x40\x01x\x01\r"), [VALUE]);
    assert_eq!(lines(&mut decoder, b"\x7e\x01y\xbf\xc0"), ["x: y", VALUE, UNKNOWN]);
}

#[test]
fn fields_share_one_text_and_remembered_ones_have_their_own() {
    let mut decoder = Decoder::new();
    let mut values = Vec::new();
    let mut section = Section::new(NO_LIMIT);
    let block = b"\x00\x01a\x04aaaa\x40\x01b\x04bbbb\x00\x01c\x04cccc";
    let keep = |field| match field {
        Field::Regular(_, value) => values.push(value),
        other => panic!("{other:?}"),
    };
    decoder.decode(block, true, &mut section, keep).unwrap();
    let [a, b, c] = [0, 1, 2].map(|index| values[index].as_bytes().as_ptr() as usize);
    assert_eq!(c, a + 4);
    assert!(!(a..c + 4).contains(&b));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        heads in proptest::collection::vec(
            (
                200..600_u16,
                proptest::collection::vec(("[a-d]{1,2}|server|etag|set-cookie|vary", "[ -~]{0,4}|[ -~]{0,200}"), 0..12),
            ),
            1..12,
        ),
        sizes in proptest::collection::vec(proptest::option::of(0..5000_u32), 12),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for ((status, fields), size) in heads.into_iter().zip(sizes) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
            }
            if let Some(size) = size {
                encoder.set_max_size(size);
            }
            let mut block = BytesMut::new();
            encoder.response(&mut block, StatusCode::from_u16(status).unwrap(), &map);
            let mut expected = vec![format!(":status: {status}")];
            expected.extend(map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
            prop_assert_eq!(lines(&mut decoder, &block), expected);
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_no_cut_makes_a_difference(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        piece in 1..20_usize,
        limit in 0..400_usize,
    ) {
        let whole = read(&mut Decoder::new(), &bytes, limit).map(|(lines, section)| (lines, section.is_too_large()));
        let (mut decoder, mut section, mut torn) = (Decoder::new(), Section::new(limit), Vec::new());
        let (mut buffer, mut result) = (BytesMut::new(), Ok(0));
        let pieces = bytes.chunks(piece);
        let count = pieces.len();
        for (index, piece) in pieces.enumerate() {
            buffer.extend_from_slice(piece);
            result = decoder.decode(&buffer, index + 1 == count, &mut section, |field| torn.push(line(&field)));
            let Ok(length) = result else { break };
            let _ = buffer.split_to(length);
        }
        match (whole, result) {
            (Ok(whole), Ok(_)) => prop_assert_eq!(whole, (torn, section.is_too_large())),
            (Err(whole), Err(torn)) => prop_assert_eq!(whole, torn),
            (whole, torn) => prop_assert!(false, "{whole:?} {torn:?}"),
        }
    }
}
