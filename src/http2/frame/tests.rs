use proptest::prelude::*;

use super::{
    super::{MAX_STREAM, write},
    *,
};

/// A frame of this type, flags, stream and payload.
fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn read(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    let (mut reader, mut buffer) = (Reader::default(), BytesMut::from(bytes));
    let mut frames = Vec::new();
    while let Some(frame) = reader.next(&mut buffer)? {
        frames.push(frame);
    }
    assert!(buffer.is_empty(), "{buffer:x?} is left");
    Ok(frames)
}

fn one(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
    read(&bytes(kind, flags, stream, payload)).expect("a frame").remove(0)
}

fn error(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Error {
    read(&bytes(kind, flags, stream, payload)).expect_err("an error")
}

/// The code of an error of the connection.
fn ends(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Code {
    match error(kind, flags, stream, payload) {
        Error::Connection(code, _) => code,
        error => panic!("{error:?}"),
    }
}

#[test]
fn frames_are_taken_out_one_by_one() {
    let both = [bytes(kind::PING, 0, 0, b"12345678"), bytes(kind::DATA, flag::END_STREAM, 1, b"ab")].concat();
    let mut buffer = BytesMut::from(&[&both, &b"\0\0"[..]].concat()[..]);
    let mut reader = Reader::default();
    let ping = Frame::Ping { ack: false, payload: *b"12345678" };
    assert_eq!(reader.next(&mut buffer), Ok(Some(ping)));
    let data = Frame::Data { stream: 1, data: Bytes::from_static(b"ab"), flow: 2, end_stream: true };
    assert_eq!(reader.next(&mut buffer), Ok(Some(data)));
    assert_eq!((reader.next(&mut buffer), &buffer[..]), (Ok(None), &b"\0\0"[..]));
}

#[test]
fn padding_counts_for_the_window_and_is_nothing_else() {
    let frame = one(kind::DATA, flag::PADDED, 1, b"\x03hello\x01\x02\x03");
    let data = Bytes::from_static(b"hello");
    assert_eq!(frame, Frame::Data { stream: 1, data, flow: 9, end_stream: false });
    let frame = one(kind::DATA, flag::PADDED, 1, b"\x02\0\0");
    assert_eq!(frame, Frame::Data { stream: 1, data: Bytes::new(), flow: 3, end_stream: false });
    let frame = one(
        kind::HEADERS,
        flag::PADDED | flag::PRIORITY | flag::END_HEADERS,
        3,
        b"\x01\x80\0\0\x01\x10head\0",
    );
    let fragment = Bytes::from_static(b"head");
    let expected = Frame::Headers {
        stream: 3,
        fragment,
        end_stream: false,
        end_headers: true,
        depends_on_itself: false,
    };
    assert_eq!(frame, expected);
}

#[test]
fn more_padding_than_there_is_ends_the_connection() {
    assert_eq!(ends(kind::DATA, flag::PADDED, 1, b"\x06hello"), Code::PROTOCOL_ERROR);
    assert_eq!(ends(kind::DATA, flag::PADDED, 1, b"\x01"), Code::PROTOCOL_ERROR);
    assert_eq!(ends(kind::DATA, flag::PADDED, 1, b""), Code::FRAME_SIZE_ERROR);
    assert_eq!(ends(kind::HEADERS, flag::PADDED, 1, b"\xff\x82"), Code::PROTOCOL_ERROR);
    assert_eq!(
        ends(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, b"\x01\0\0\0\0\0"),
        Code::PROTOCOL_ERROR
    );
}

#[test]
fn a_stream_that_is_its_own_parent_is_told() {
    let frame = one(kind::HEADERS, flag::PRIORITY | flag::END_HEADERS, 5, b"\x80\0\0\x05\x10head");
    assert!(matches!(frame, Frame::Headers { depends_on_itself: true, .. }), "{frame:?}");
    assert_eq!(ends(kind::HEADERS, flag::PRIORITY, 5, b"\0\0\0\x03"), Code::FRAME_SIZE_ERROR);
}

#[test]
fn frames_belong_to_a_stream_or_to_the_connection() {
    for kind in [kind::DATA, kind::HEADERS, kind::PRIORITY, kind::RST_STREAM] {
        assert_eq!(ends(kind, 0, 0, &[0; 4]), Code::PROTOCOL_ERROR, "{kind}");
    }
    for kind in [kind::SETTINGS, kind::PING, kind::GOAWAY] {
        assert_eq!(ends(kind, 0, 1, &[0; 8]), Code::PROTOCOL_ERROR, "{kind}");
    }
    let update = [0, 0, 0, 7];
    for stream in [0, 1] {
        assert_eq!(
            one(kind::WINDOW_UPDATE, 0, stream, &update),
            Frame::WindowUpdate { stream, increment: 7 }
        );
    }
}

#[test]
fn frames_have_the_sizes_that_they_must_have() {
    for (kind, flags, stream, length) in [
        (kind::RST_STREAM, 0, 1, 3),
        (kind::RST_STREAM, 0, 1, 5),
        (kind::SETTINGS, 0, 0, 5),
        (kind::SETTINGS, flag::ACK, 0, 6),
        (kind::PING, 0, 0, 7),
        (kind::PING, 0, 0, 9),
        (kind::GOAWAY, 0, 0, 7),
        (kind::WINDOW_UPDATE, 0, 1, 3),
        (kind::WINDOW_UPDATE, 0, 0, 5),
        (kind::DATA, 0, 1, MAX_FRAME + 1),
        (kind::HEADERS, 0, 1, MAX_FRAME + 1),
        (0xfe, 0, 1, MAX_FRAME + 1),
    ] {
        assert_eq!(ends(kind, flags, stream, &vec![0; length]), Code::FRAME_SIZE_ERROR, "{kind}: {length}");
    }
    assert!(matches!(one(kind::DATA, 0, 1, &[0; MAX_FRAME]), Frame::Data { .. }));
    assert!(matches!(error(kind::PRIORITY, 0, 3, &[0; 4]), Error::Stream(3, Code::FRAME_SIZE_ERROR, _)));
}

#[test]
fn a_frame_that_cannot_be_right_is_not_waited_for() {
    for head in [bytes(kind::PUSH_PROMISE, 0, 1, &[0; 9]), bytes(kind::DATA, 0, 1, &[0; MAX_FRAME + 1])] {
        let mut buffer = BytesMut::from(&head[..FRAME_HEAD]);
        assert!(Reader::default().next(&mut buffer).is_err());
    }
}

#[test]
fn what_follows_an_error_of_a_stream_can_be_read() {
    let frames = [bytes(kind::WINDOW_UPDATE, 0, 3, &[0; 4]), bytes(kind::PRIORITY, 0, 3, &[0; 5])].concat();
    let (mut reader, mut buffer) = (Reader::default(), BytesMut::from(&frames[..]));
    assert!(matches!(reader.next(&mut buffer), Err(Error::Stream(3, Code::PROTOCOL_ERROR, _))));
    assert_eq!(reader.next(&mut buffer), Ok(Some(Frame::Priority { stream: 3 })));
    assert_eq!(ends(kind::WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 0]), Code::PROTOCOL_ERROR);
}

#[test]
fn nothing_comes_between_the_parts_of_a_head() {
    let begun = bytes(kind::HEADERS, 0, 1, b"a");
    let part = bytes(kind::CONTINUATION, 0, 1, b"");
    let end = bytes(kind::CONTINUATION, flag::END_HEADERS, 1, b"c");
    let whole = [&begun[..], &part, &end, &bytes(kind::PING, 0, 0, &[0; 8])].concat();
    assert_eq!(read(&whole).unwrap().len(), 4);
    for between in [
        bytes(kind::DATA, 0, 1, b""),
        bytes(kind::HEADERS, 0, 3, b""),
        bytes(kind::HEADERS, 0, 1, b""),
        bytes(kind::PING, 0, 0, &[0; 8]),
        bytes(kind::SETTINGS, 0, 0, b""),
        bytes(0xfe, 0, 1, b""),
        bytes(kind::CONTINUATION, flag::END_HEADERS, 3, b""),
        bytes(kind::CONTINUATION, flag::END_HEADERS, 0, b""),
    ] {
        let torn = [&begun[..], &part, &between, &end].concat();
        assert!(matches!(read(&torn), Err(Error::Connection(Code::PROTOCOL_ERROR, _))), "{between:x?}");
    }
    assert_eq!(ends(kind::CONTINUATION, flag::END_HEADERS, 1, b""), Code::PROTOCOL_ERROR);
    let after = [&begun[..], &end, &end].concat();
    assert!(read(&after).is_err());
}

#[test]
fn settings_have_values_that_fit() {
    let set =
        |id: u8, value: u32| bytes(kind::SETTINGS, 0, 0, &[&[0, id], &value.to_be_bytes()[..]].concat());
    for (id, value, code) in [
        (2, 2, Code::PROTOCOL_ERROR),
        (4, 0x8000_0000, Code::FLOW_CONTROL_ERROR),
        (5, 0x3fff, Code::PROTOCOL_ERROR),
        (5, 0x100_0000, Code::PROTOCOL_ERROR),
        (8, 2, Code::PROTOCOL_ERROR),
        (9, 2, Code::PROTOCOL_ERROR),
    ] {
        let error = read(&set(id, value)).unwrap_err();
        assert!(matches!(error, Error::Connection(found, _) if found == code), "{id}: {value:#x}");
    }
    for (id, value) in
        [(1, u32::MAX), (2, 1), (3, 0), (4, 0x7fff_ffff), (5, 0x4000), (5, 0xff_ffff), (6, 0), (7, 9)]
    {
        assert!(read(&set(id, value)).is_ok(), "{id}: {value:#x}");
    }
    let twice = one(kind::SETTINGS, 0, 0, b"\0\x03\0\0\0\x01\x12\x34\0\0\0\0\0\x03\0\0\0\x02");
    let Frame::Settings(settings) = twice else { panic!("{twice:?}") };
    assert_eq!(settings, Settings { max_concurrent_streams: Some(2), ..Settings::default() });
}

#[test]
fn what_is_written_is_read() {
    let settings = Settings {
        header_table_size: Some(4096),
        enable_push: Some(false),
        max_concurrent_streams: Some(100),
        initial_window_size: Some(1 << 18),
        max_frame_size: Some(1 << 14),
        max_header_list_size: Some(1 << 17),
        enable_connect_protocol: Some(true),
        no_rfc7540_priorities: Some(true),
    };
    let mut out = BytesMut::new();
    write::settings(&mut out, &settings);
    write::settings(&mut out, &Settings::default());
    write::settings_ack(&mut out);
    write::ping(&mut out, *b"abcdefgh");
    write::ping_ack(&mut out, *b"12345678");
    write::goaway(&mut out, MAX_STREAM, Code::ENHANCE_YOUR_CALM, "why");
    write::reset(&mut out, 5, Code(0x1234_5678));
    write::window_update(&mut out, 0, 1);
    write::window_update(&mut out, MAX_STREAM, 0x7fff_ffff);
    out.extend_from_slice(&write::data_head(7, 4, true));
    out.extend_from_slice(b"data");
    let expected = [
        Frame::Settings(settings),
        Frame::Settings(Settings::default()),
        Frame::SettingsAck,
        Frame::Ping { ack: false, payload: *b"abcdefgh" },
        Frame::Ping { ack: true, payload: *b"12345678" },
        Frame::GoAway { last: MAX_STREAM, code: Code::ENHANCE_YOUR_CALM },
        Frame::Reset { stream: 5, code: Code(0x1234_5678) },
        Frame::WindowUpdate { stream: 0, increment: 1 },
        Frame::WindowUpdate { stream: MAX_STREAM, increment: 0x7fff_ffff },
        Frame::Data { stream: 7, data: Bytes::from_static(b"data"), flow: 4, end_stream: true },
    ];
    assert_eq!(read(&out).unwrap(), expected);
}

#[test]
fn a_head_goes_into_as_many_frames_as_it_needs() {
    for (length, count) in [(0, 1), (1, 1), (MAX_FRAME, 1), (MAX_FRAME + 1, 2), (3 * MAX_FRAME, 3)] {
        let block: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let mut out = BytesMut::from(&bytes(kind::PING, 0, 0, &[0; 8])[..]);
        write::headers(&mut out, 9, true, |out| out.extend_from_slice(&block));
        let frames = read(&out).unwrap();
        let mut joined = Vec::new();
        for (index, frame) in frames[1..].iter().enumerate() {
            let (part, end) = match frame {
                Frame::Headers { stream: 9, fragment, end_stream: true, end_headers, .. } if index == 0 => {
                    (fragment, end_headers)
                }
                Frame::Continuation { stream: 9, fragment, end_headers } if index > 0 => {
                    (fragment, end_headers)
                }
                frame => panic!("{frame:?}"),
            };
            joined.extend_from_slice(part);
            assert_eq!(*end, index + 2 == frames.len());
        }
        assert_eq!((joined, frames.len() - 1), (block, count));
    }
}

proptest! {
    #[test]
    fn the_cut_of_the_bytes_makes_no_difference(
        frames in proptest::collection::vec(
            (0..11_u8, any::<u8>(), 0..4_u32, proptest::collection::vec(any::<u8>(), 0..20)), 0..6,
        ),
        piece in 1..20_usize,
    ) {
        let stream: Vec<u8> =
            frames.iter().flat_map(|(kind, flags, stream, payload)| bytes(*kind, *flags, *stream, payload)).collect();
        let collect = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut reader, mut buffer, mut found) = (Reader::default(), BytesMut::new(), Vec::new());
            for piece in pieces {
                buffer.extend_from_slice(piece);
                loop {
                    match reader.next(&mut buffer) {
                        Ok(None) => break,
                        Ok(Some(frame)) => found.push(format!("{frame:?}")),
                        Err(error @ Error::Stream(..)) => found.push(format!("{error:?}")),
                        Err(error) => {
                            found.push(format!("{error:?}"));
                            return found;
                        }
                    }
                }
            }
            found
        };
        let whole = collect(&mut std::iter::once(&stream[..]));
        prop_assert_eq!(whole, collect(&mut stream.chunks(piece)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let (mut reader, mut buffer) = (Reader::default(), BytesMut::from(&bytes[..]));
        while let Ok(Some(_)) | Err(Error::Stream(..)) = reader.next(&mut buffer) {}
    }
}
