//! Requests that are malformed, or that two readers could read in two ways, sent through the real proxy to a
//! backend that records what arrives.
//!
//! The cases are tables, one line a case with the section of the RFC that it is about. After each case the same
//! connection is asked for `/after`, which must not be served when the case was refused, and another connection
//! for `/well`, which always must be. What arrives at the backend is always held to the narrowest reading of
//! RFC 9112 (see `recorder`), whatever the case expects of it.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

#[path = "requests/case.rs"]
mod case;
#[path = "requests/case2.rs"]
mod case2;
#[path = "requests/chunks.rs"]
mod chunks;
#[path = "requests/fields.rs"]
mod fields;
#[path = "requests/framing.rs"]
mod framing;
#[path = "requests/hosts.rs"]
mod hosts;
#[path = "requests/http2.rs"]
mod http2;
#[path = "requests/http2_frames.rs"]
mod http2_frames;
#[path = "requests/lines.rs"]
mod lines;
#[path = "requests/recorder.rs"]
mod recorder;

use self::{
    case::{Bench, Case},
    case2::Case2,
};

#[tokio::test]
async fn lengths_and_codings_are_read_in_one_way() {
    run(framing::CASES).await;
}

#[tokio::test]
async fn chunks_and_trailers_are_read_in_one_way() {
    run(chunks::CASES).await;
}

#[tokio::test]
async fn fields_are_read_in_one_way() {
    run(fields::CASES).await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    run(hosts::CASES).await;
}

#[tokio::test]
async fn request_lines_are_read_in_one_way() {
    run(lines::CASES).await;
}

#[tokio::test]
async fn http2_requests_are_read_in_one_way() {
    run2(http2::CASES).await;
}

#[tokio::test]
async fn http2_frames_are_read_in_one_way() {
    run2(http2_frames::CASES).await;
}

#[test]
fn the_tables_are_as_long_as_they_are_said_to_be() {
    let http1 = [framing::CASES, chunks::CASES, fields::CASES, hosts::CASES, lines::CASES];
    let http1: usize = http1.iter().map(|cases| cases.len()).sum();
    let http2 = http2::CASES.len() + http2_frames::CASES.len();
    assert!(http1 >= 200 && http2 >= 80, "{http1} cases of HTTP/1, {http2} of HTTP/2");
}

/// Sends every case of a table; all that fail are told at once.
async fn run(cases: &[Case]) {
    let bench = Bench::start().await;
    let mut failed = Vec::new();
    for case in cases {
        if let Err(why) = bench.try_case(case).await {
            failed.push(format!("{case}\n    {why}"));
        }
    }
    // Else all that the program said would be told as well.
    drop(bench);
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// Likewise over HTTP/2.
async fn run2(cases: &[Case2]) {
    let bench = Bench::start().await;
    let mut failed = Vec::new();
    for case in cases {
        if let Err(why) = bench.try_case2(case).await {
            failed.push(format!("{case}\n    {why}"));
        }
    }
    // Else all that the program said would be told as well.
    drop(bench);
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
