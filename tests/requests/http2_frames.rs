//! Frames of HTTP/2 that are no request, or belong to none.

use crate::{
    case2::{Case2, Expect2::*, case2, torn},
    support::frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE,
    },
};

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 0x20;
/// The end of a head, and of its stream.
const END: u8 = END_HEADERS | END_STREAM;
/// GET https://a/ in HPACK.
const GET: &[u8] = b"\x82\x87\x84\x01\x01a";
/// POST https://a/ in HPACK.
const POST: &[u8] = b"\x83\x87\x84\x01\x01a";
/// As many zeros as a frame cannot hold.
const TOO_LONG: &[u8] = &[0; 16 * 1024 + 1];

#[rustfmt::skip]
pub(crate) const CASES: &[Case2] = &[
    // What is plain passes.
    case2("one frame", "9113 §6.2", torn(&[(HEADERS, END, 1, GET)]), Arrives("GET /", &["host: a"], "")),
    case2("a head in three frames", "9113 §6.10", torn(&[(HEADERS, END_STREAM, 1, b"\x82\x87"), (CONTINUATION, 0, 1, b""), (CONTINUATION, END_HEADERS, 1, b"\x84\x01\x01a")]), Arrives("GET /", &["host: a"], "")),
    case2("padding of a head", "9113 §6.2", torn(&[(HEADERS, END | PADDED, 1, b"\x03\x82\x87\x84\x01\x01a\0\0\0")]), Arrives("GET /", &["host: a"], "")),
    case2("padding of a body", "9113 §6.1", torn(&[(HEADERS, END_HEADERS, 1, POST), (DATA, END_STREAM | PADDED, 1, b"\x03hello\0\0\0")]), Arrives("POST /", &[], "hello")),
    case2("a priority", "9113 §5.3.2", torn(&[(PRIORITY, 0, 1, b"\0\0\0\x03\x10"), (HEADERS, END | PRIORITIZED, 1, b"\0\0\0\0\x10\x82\x87\x84\x01\x01a")]), Arrives("GET /", &["host: a"], "")),
    case2("an unknown frame", "9113 §5.5", torn(&[(0xfe, 0xff, 0, b"what?"), (HEADERS, END, 1, GET)]), Arrives("GET /", &["host: a"], "")),
    case2("an unknown setting", "9113 §6.5.2", torn(&[(SETTINGS, 0, 0, b"\x12\x34\0\0\0\x01"), (HEADERS, END, 1, GET)]), Arrives("GET /", &["host: a"], "")),
    case2("a length for each frame", "9113 §6.1", torn(&[(HEADERS, END_HEADERS, 1, POST), (DATA, 0, 1, b"he"), (DATA, 0, 1, b"llo"), (DATA, END_STREAM, 1, b"")]), Arrives("POST /", &[], "hello")),
    // Heads that are torn.
    case2("another frame within a head", "9113 §6.10", torn(&[(HEADERS, END_STREAM, 1, b"\x82\x87"), (PING, 0, 0, b"12345678"), (CONTINUATION, END_HEADERS, 1, b"\x84\x01\x01a")]), Closed),
    case2("data within a head", "9113 §6.10", torn(&[(HEADERS, 0, 1, POST), (DATA, END_STREAM, 1, b"hello")]), Closed),
    case2("another stream's head within a head", "9113 §6.10", torn(&[(HEADERS, END_STREAM, 1, b"\x82\x87"), (HEADERS, END, 3, GET)]), Closed),
    case2("a continuation of another stream", "9113 §6.10", torn(&[(HEADERS, END_STREAM, 1, b"\x82\x87"), (CONTINUATION, END_HEADERS, 3, b"\x84\x01\x01a")]), Closed),
    case2("a continuation of nothing", "9113 §6.10", torn(&[(CONTINUATION, END_HEADERS, 1, GET)]), Closed),
    case2("a continuation after the end", "9113 §6.10", torn(&[(HEADERS, END_HEADERS, 1, POST), (CONTINUATION, END_HEADERS, 1, b"\x84")]), Broken),
    case2("an unknown frame within a head", "9113 §5.5", torn(&[(HEADERS, END_STREAM, 1, b"\x82\x87"), (0xfe, 0, 1, b""), (CONTINUATION, END_HEADERS, 1, b"\x84\x01\x01a")]), Closed),
    case2("a second head that ends nothing", "9113 §8.1", torn(&[(HEADERS, END_HEADERS, 1, POST), (HEADERS, END_HEADERS, 1, b"\0\x01x\x01y"), (DATA, END_STREAM, 1, b"hello")]), Broken),
    // Streams.
    case2("a head of stream 0", "9113 §6.2", torn(&[(HEADERS, END, 0, GET)]), Closed),
    case2("a head of an even stream", "9113 §5.1.1", torn(&[(HEADERS, END, 2, GET)]), Closed),
    case2("data of stream 0", "9113 §6.1", torn(&[(DATA, END_STREAM, 0, b"hello")]), Closed),
    case2("data of an idle stream", "9113 §5.1", torn(&[(DATA, END_STREAM, 1, b"hello")]), Closed),
    case2("a reset of an idle stream", "9113 §6.4", torn(&[(RST_STREAM, 0, 1, b"\0\0\0\x08")]), Closed),
    case2("a reset of stream 0", "9113 §6.4", torn(&[(RST_STREAM, 0, 0, b"\0\0\0\x08")]), Closed),
    case2("a reset of another length", "9113 §6.4", torn(&[(HEADERS, END_HEADERS, 1, POST), (RST_STREAM, 0, 1, b"\0\0\x08")]), Broken),
    case2("a stream that is its own parent", "9113 §5.3.1", torn(&[(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0\0\x01\x10\x83\x87\x84\x01\x01a")]), Malformed),
    case2("a promise by a client", "9113 §8.4", torn(&[(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82\x87\x84\x01\x01a")]), Closed),
    // Sizes.
    case2("a head that is too long", "9113 §4.2", torn(&[(HEADERS, END, 1, TOO_LONG)]), Closed),
    case2("data that is too long", "9113 §4.2", torn(&[(HEADERS, END_HEADERS, 1, POST), (DATA, END_STREAM, 1, TOO_LONG)]), Broken),
    case2("more padding than head", "9113 §6.2", torn(&[(HEADERS, END | PADDED, 1, b"\xff\x82\x87\x84\x01\x01a")]), Closed),
    case2("more padding than body", "9113 §6.1", torn(&[(HEADERS, END_HEADERS, 1, POST), (DATA, END_STREAM | PADDED, 1, b"\x06hello")]), Broken),
    case2("a ping of another length", "9113 §6.7", torn(&[(PING, 0, 0, b"1234567")]), Closed),
    case2("a ping of a stream", "9113 §6.7", torn(&[(PING, 0, 1, b"12345678")]), Closed),
    case2("settings of another length", "9113 §6.5", torn(&[(SETTINGS, 0, 0, b"\0\x04\0\0\0")]), Closed),
    case2("settings of a stream", "9113 §6.5", torn(&[(SETTINGS, 0, 1, b"\0\x04\0\0\0\x01")]), Closed),
    case2("settings that are acknowledged and sent", "9113 §6.5", torn(&[(SETTINGS, ACK, 0, b"\0\x04\0\0\0\x01")]), Closed),
    case2("a window beyond the largest", "9113 §6.5.2", torn(&[(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0")]), Closed),
    case2("frames smaller than the smallest", "9113 §6.5.2", torn(&[(SETTINGS, 0, 0, b"\0\x05\0\0\0\x01")]), Closed),
    case2("a push that is neither", "9113 §6.5.2", torn(&[(SETTINGS, 0, 0, b"\0\x02\0\0\0\x02")]), Closed),
    case2("a window that grows by nothing", "9113 §6.9", torn(&[(WINDOW_UPDATE, 0, 0, b"\0\0\0\0")]), Closed),
    case2("a window that grows too large", "9113 §6.9.1", torn(&[(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")]), Closed),
    case2("a window of another length", "9113 §6.9", torn(&[(WINDOW_UPDATE, 0, 0, b"\0\0\x01")]), Closed),
    // Compression.
    case2("an index of nothing", "7541 §6.1", torn(&[(HEADERS, END, 1, b"\x80")]), Closed),
    case2("an index that is not there", "7541 §2.3.3", torn(&[(HEADERS, END, 1, b"\x82\x87\x84\xbe")]), Closed),
    case2("an index without end", "7541 §5.1", torn(&[(HEADERS, END, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")]), Closed),
    case2("a text that breaks off", "7541 §5.2", torn(&[(HEADERS, END, 1, b"\x82\x87\x84\x01\x05a")]), Closed),
    case2("a text longer than any", "7541 §5.2", torn(&[(HEADERS, END, 1, b"\x82\x87\x84\x01\x7f\xff\xff\xff\xff\x07a")]), Closed),
    case2("an end within a text", "7541 §5.2", torn(&[(HEADERS, END, 1, b"\x82\x87\x84\x01\x84\xff\xff\xff\xff")]), Closed),
    case2("a table larger than allowed", "7541 §6.3", torn(&[(HEADERS, END, 1, b"\x3f\xe1\xff\x3f\x82\x87\x84\x01\x01a")]), Closed),
    case2("a table's size within a head", "7541 §4.2", torn(&[(HEADERS, END, 1, b"\x82\x20\x87\x84\x01\x01a")]), Closed),
];
