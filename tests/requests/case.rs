//! One case over HTTP/1, and the bench on which cases are tried.

use std::fmt;

use crate::{
    recorder::{Arrived, Recorder},
    support::{
        DEADLINE,
        client::{Client, Connection, Protocol},
        process::Homing,
        setup::Setup,
    },
};

/// Bytes that a client sends, and what must become of them.
pub(crate) struct Case {
    what: &'static str,
    /// The section of the RFC.
    rfc: &'static str,
    /// `<9>` in it stands for nine times `x`, `<9 fields>` for nine field lines.
    bytes: &'static [u8],
    expect: Expect,
}

/// What must become of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// One answer of this status, then the connection closes. Nothing reaches the backend.
    Refused(u16),
    /// The same, but for a head, and a part of a body, that the backend may have got already.
    Broken(u16),
    /// The backend gets this method and target, these fields (`name: value` once and no other value, `!name` not
    /// at all) and this body; the client its answer, and then `/after` its own.
    Arrives(&'static str, &'static [&'static str], &'static str),
    /// The same, but then the connection closes, and `/after` is not served.
    Last(&'static str, &'static [&'static str], &'static str),
}

/// One proxy, its recording backend and a client.
pub(crate) struct Bench {
    pub(crate) homing: Homing,
    pub(crate) recorder: Recorder,
    pub(crate) client: Client,
    /// Asks for what is good.
    well: Connection,
}

pub(crate) const fn case(
    what: &'static str,
    rfc: &'static str,
    bytes: &'static [u8],
    expect: Expect,
) -> Case {
    Case { what, rfc, bytes, expect }
}

/// What follows every case on its connection.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

// === impl Bench ===

impl Bench {
    pub(crate) async fn start() -> Self {
        let recorder = Recorder::start();
        let homing = Setup::new([("app-1", recorder.address())]).one_worker().start().await;
        let client = Client::new(&homing, Protocol::Http1);
        let well = client.connect().await;
        Self { homing, recorder, client, well }
    }

    /// Sends a case; what was wrong with what became of it.
    pub(crate) async fn try_case(&self, case: &Case) -> Result<(), String> {
        let mut bytes = expand(case.bytes);
        bytes.extend_from_slice(AFTER);
        let mut raw = self.client.raw().await;
        raw.write(&bytes).await;
        let (text, closed) = raw.read_within(DEADLINE / 4).await;
        let statuses = statuses(&text);
        let arrived = self.arrived().await?;
        let judged = match closed {
            true => case.expect.judge(&statuses, &arrived),
            false => Err("the connection is still open".to_owned()),
        };
        judged.map_err(|why| format!("{why}\n    answered {statuses:?}: {text:?}\n    arrived {arrived:?}"))
    }

    /// What reached the backend since the last call; asks for something good meanwhile, which must be served.
    pub(crate) async fn arrived(&self) -> Result<Vec<Arrived>, String> {
        let answer = self.well.get("/well").try_send().await.map_err(|error| format!("not well: {error}"))?;
        let mut arrived = self.recorder.take();
        let count = arrived.len();
        arrived.retain(|one| one.line != "GET /well" || !one.whole);
        match answer.text() == "ok" && arrived.len() + 1 == count {
            true => Ok(arrived),
            false => Err(format!("not well: {}, arrived {arrived:?}", answer.status)),
        }
    }
}

// === impl Expect ===

impl Expect {
    fn judge(self, statuses: &[u16], arrived: &[Arrived]) -> Result<(), String> {
        let wanted = match self {
            Self::Refused(status) | Self::Broken(status) => vec![status],
            Self::Arrives(..) => vec![200, 200],
            Self::Last(..) => vec![200],
        };
        if statuses != wanted {
            return Err(format!("answers of {wanted:?} are wanted"));
        }
        if let Some(fault) = arrived.iter().find_map(|arrived| arrived.fault.as_ref()) {
            return Err(format!("not canonical: {fault}"));
        }
        match (self, arrived) {
            (Self::Refused(_), []) => Ok(()),
            (Self::Refused(_), _) => Err("nothing should reach the backend".to_owned()),
            (Self::Broken(_), arrived) if arrived.iter().all(|arrived| !arrived.whole) => Ok(()),
            (Self::Broken(_), _) => Err("no whole request should reach the backend".to_owned()),
            (Self::Arrives(line, fields, body), [one, after]) if after.line == "GET /after" => {
                is_this(one, line, fields, body)
            }
            (Self::Last(line, fields, body), [one]) => is_this(one, line, fields, body),
            (_, arrived) => Err(format!("{} requests reached the backend", arrived.len())),
        }
    }
}

/// Judges one request.
pub(crate) fn is_this(one: &Arrived, line: &str, fields: &[&str], body: &str) -> Result<(), String> {
    if one.line != line {
        return Err(format!("{line:?} should arrive"));
    }
    for field in fields {
        if let Some(name) = field.strip_prefix('!') {
            if !one.values(name).is_empty() {
                return Err(format!("no {name} should arrive"));
            }
            continue;
        }
        let (name, value) = field.split_once(": ").expect("a name and a value");
        if one.values(name) != [value.as_bytes()] {
            return Err(format!("{field:?} should arrive"));
        }
    }
    match one.body == body.as_bytes() && one.whole {
        true => Ok(()),
        false => Err(format!("a body of {body:?} should arrive")),
    }
}

// === impl Case ===

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.escape_ascii();
        write!(f, "{} (RFC {}): {:?}: \"{bytes}\"", self.what, self.rfc, self.expect)
    }
}

/// The status of each final answer.
fn statuses(text: &str) -> Vec<u16> {
    let answers = text.split("HTTP/1.1 ").skip(1);
    // An error's text may name a version, too.
    let status = |answer: &str| answer.split_at_checked(3)?.0.parse().ok();
    answers.filter_map(status).filter(|status: &u16| *status >= 200).collect()
}

/// The bytes with every `<…>` of it filled in.
pub(crate) fn expand(bytes: &[u8]) -> Vec<u8> {
    let mut expanded = Vec::new();
    let mut rest = bytes;
    while let Some((before, count, kind, after)) = next_filling(rest) {
        expanded.extend_from_slice(before);
        match kind {
            "" => expanded.resize(expanded.len() + count, b'x'),
            "fields" => {
                (0..count).for_each(|n| expanded.extend_from_slice(format!("X-{n}: y\r\n").as_bytes()));
            }
            other => panic!("a filling of {other:?}"),
        }
        rest = after;
    }
    expanded.extend_from_slice(rest);
    expanded
}

fn next_filling(bytes: &[u8]) -> Option<(&[u8], usize, &str, &[u8])> {
    let start = bytes.windows(2).position(|pair| pair[0] == b'<' && pair[1].is_ascii_digit())?;
    let end = start + bytes[start..].iter().position(|byte| *byte == b'>')?;
    let text = std::str::from_utf8(&bytes[start + 1..end]).ok()?;
    let (count, kind) = text.split_once(' ').unwrap_or((text, ""));
    Some((&bytes[..start], count.parse().ok()?, kind, &bytes[end + 1..]))
}
