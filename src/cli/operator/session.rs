//! `homing explain`, `homing forget`, `homing move`.

use std::{
    io::{self, IsTerminal as _, Read as _},
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};

use super::{
    args::{Move, Session},
    client::Client,
    screen::{print, print_lines},
    show::text,
    table::human_seconds,
    trouble::Trouble,
};
use crate::admin::api::{Explained, ExplainedKnown, Forgotten, Moved};

/// Bytes of an id: more than a header may have.
const MAX_ID: u64 = 8 * 1024;

/// Says where a session lives.
pub(super) async fn explain(args: &Session) -> Result<(), Trouble> {
    let client = Client::new(&args.connect)?;
    let question = question(args)?;
    let answer = client.send(Method::POST, "/api/v1/explain", Some(&question), Duration::ZERO).await?;
    let explained: Explained = serde_json::from_slice(&answer)
        .map_err(|error| Trouble::Failed(format!("the answer cannot be understood: {error}")))?;
    if args.connect.json {
        print(&text(&answer))?;
    }
    match explained {
        Explained::Known(_) if args.connect.json => Ok(()),
        Explained::Known(known) => print_lines(described(&known)),
        Explained::Unknown { pool, fingerprint, would_go_to, placed, .. } => {
            let next = match would_go_to {
                None if placed => "a request with it would be placed like one without an id".to_owned(),
                Some(backend) => format!("a request with it would go to {backend}"),
                None => "no backend takes new sessions".to_owned(),
            };
            Err(Trouble::NotFound(format!("session {fingerprint} is not known in pool {pool}; {next}")))
        }
    }
}

/// Ends a session.
pub(super) async fn forget(args: &Session) -> Result<(), Trouble> {
    let client = Client::new(&args.connect)?;
    let answer: Forgotten = client.post("/api/v1/sessions/forget", &question(args)?).await?;
    if args.connect.json {
        super::show::print_json(&answer)?;
    }
    match answer.forgotten {
        false => Err(unknown()),
        true if args.connect.json => Ok(()),
        true => print_lines(["forgotten: its next request is placed afresh"]),
    }
}

/// Makes a session live on another backend.
pub(super) async fn move_to(args: &Move) -> Result<(), Trouble> {
    let connect = &args.session.connect;
    let client = Client::new(connect)?;
    let mut wish = question(&args.session)?;
    // As everywhere, POOL/NAME is a backend, too.
    let to = match args.to.split_once('/') {
        Some((pool, backend)) => {
            wish["pool"] = json!(pool);
            backend
        }
        None => &args.to,
    };
    wish["to"] = json!(to);
    let answer: Moved = client.post("/api/v1/sessions/move", &wish).await?;
    if connect.json {
        super::show::print_json(&answer)?;
    }
    match answer {
        Moved { known: false, .. } => Err(unknown()),
        _ if connect.json => Ok(()),
        Moved { moved: true, .. } => print_lines([format!("moved to {to}")]),
        Moved { moved: false, .. } => print_lines([format!("it lives on {to} already")]),
    }
}

fn unknown() -> Trouble {
    Trouble::NotFound("there is no such session".to_owned())
}

/// The question that carries the id. It goes in a body: addresses end up in logs.
fn question(args: &Session) -> Result<Value, Trouble> {
    let id = match args.id.as_deref() {
        Some(id) if id != "-" => id.to_owned(),
        _ => read_id()?,
    };
    let mut question = json!({ "id": id });
    if let Some(pool) = &args.connect.pool {
        question["pool"] = json!(pool);
    }
    Ok(question)
}

/// Reads the id from standard input, without the end of its line.
fn read_id() -> Result<String, Trouble> {
    let stdin = io::stdin();
    let mut id = String::new();
    let read = if stdin.is_terminal() {
        eprint!("session id: ");
        stdin.read_line(&mut id)
    } else {
        stdin.lock().take(MAX_ID).read_to_string(&mut id)
    };
    read.map_err(|error| Trouble::Usage(format!("cannot read the session id from standard input: {error}")))?;
    match id.trim() {
        "" => Err(Trouble::Usage("no session id on standard input".to_owned())),
        id => Ok(id.to_owned()),
    }
}

fn described(known: &ExplainedKnown) -> Vec<String> {
    let state = match &*known.state {
        "stale" => "stale: its home restarted or left, so its next request is placed afresh",
        state => state,
    };
    let kept = known.left_seconds.map_or_else(
        || "for as long as a stream holds it".to_owned(),
        |left| format!("for {} more, if nobody uses it", human_seconds(left)),
    );
    let mut lines = vec![
        format!("session {} of pool {}", known.fingerprint, known.pool),
        format!("  home     {} ({state})", known.home),
        format!("  bound    {} ago", human_seconds(known.age_seconds)),
        format!("  idle     {}", human_seconds(known.idle_seconds)),
        format!("  kept     {kept}"),
        format!("  streams  {}", known.streams),
    ];
    if known.unlearned {
        lines.push("  note     a backend accepted this id, but none was seen to set it".to_owned());
    }
    if known.moves.is_empty() {
        lines.push("  moves    none".to_owned());
    }
    for (index, step) in known.moves.iter().enumerate() {
        let label = if index == 0 { "moves" } else { "" };
        let ago = human_seconds(step.seconds_ago);
        lines.push(format!("  {label:<7}  {} -> {}, {ago} ago: {}", step.from, step.to, step.reason));
    }
    lines
}
