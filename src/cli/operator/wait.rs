//! `homing drain --wait`.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    client::Client,
    find::Found,
    screen::{Interrupts, Screen, is_terminal, print_lines},
    show::print_json,
    table::{bar, count, human, human_seconds},
    trouble::Trouble,
};
use crate::{
    admin::api::{DrainEnd, DrainProgress},
    clock,
};

/// What there is to see of a wait.
struct View {
    name: String,
    /// The most live sessions seen, of which the bar tells.
    most: u64,
    begun: Instant,
    end: Option<Instant>,
    /// None where lines are printed.
    screen: Option<Screen>,
    json: bool,
    /// What was last printed.
    last: Option<DrainProgress>,
}

/// How often the picture is renewed; the proxy answers sooner when the drain is done.
const LOOK: Duration = Duration::from_secs(1);
/// Looks that may fail in a row: the proxy may be busy, not gone.
const FAILURES: u32 = 5;
const BAR: usize = 30;

/// Waits until a backend has no live session, no open stream and no request left.
pub(super) async fn wait(
    client: &Client,
    found: &Found,
    limit: Option<Duration>,
    json: bool,
) -> Result<(), Trouble> {
    let begun = clock::now();
    let mut view = View {
        name: found.name(),
        most: 0,
        begun,
        end: limit.map(|limit| begun + limit),
        screen: (!json && is_terminal()).then(Screen::inline),
        json,
        last: None,
    };
    let mut interrupts = Interrupts::new()?;
    let mut failures = 0;
    let mut pause = Duration::ZERO;
    loop {
        let path = format!("{}?wait_seconds={}", found.path("drain"), pause.as_secs_f64());
        match interrupts.or(client.wait::<DrainProgress>(&path, pause)).await? {
            Ok(progress) => {
                failures = 0;
                view.show(&progress)?;
                if let Some(end) = view.end_of(&progress) {
                    return end;
                }
            }
            Err(Trouble::NotFound(_)) => {
                return match &view.last {
                    Some(last) if !is_empty(last) => Err(Trouble::SessionsLeft(format!(
                        "{} has left the configuration with {}",
                        view.name,
                        left(last)
                    ))),
                    _ => view.say("has left the configuration"),
                };
            }
            Err(trouble) => {
                failures += 1;
                if failures == FAILURES {
                    return Err(trouble);
                }
                interrupts.sleep(LOOK).await?;
            }
        }
        let now = clock::now();
        if let Some(end) = view.end
            && now >= end
        {
            let left = view.last.as_ref().map_or_else(String::new, left);
            let name = &view.name;
            return Err(Trouble::SessionsLeft(format!(
                "{name} still has {left} after {}",
                human(now - begun)
            )));
        }
        pause = view.end.map_or(LOOK, |end| end.saturating_duration_since(now).min(LOOK));
    }
}

// === impl View ===

impl View {
    /// How the wait ends, if it does.
    fn end_of(&self, progress: &DrainProgress) -> Option<Result<(), Trouble>> {
        let name = &self.name;
        let sessions = count(progress.moved, "live session");
        let why = match progress.ended? {
            DrainEnd::Drained => {
                return Some(self.say(&format!("is drained ({} retained)", progress.retained)));
            }
            DrainEnd::Undrained => {
                return Some(Err(Trouble::Failed(format!(
                    "{name} does not drain any more: an operator ended the drain, or homing has restarted"
                ))));
            }
            DrainEnd::Deadline => {
                format!("the deadline of the drain of {name} came with {}, which move", cut(progress))
            }
            DrainEnd::Maintenance => {
                format!("{name} was put into maintenance with {}, which move", cut(progress))
            }
            DrainEnd::Restarted => format!("{name} restarted during its drain: {sessions} ended"),
            DrainEnd::Down => format!("{name} was down during its drain: {sessions} moved"),
            DrainEnd::Removed => {
                format!("{name} has left the configuration with {}, which move", cut(progress))
            }
        };
        Some(Err(Trouble::SessionsLeft(why)))
    }

    fn show(&mut self, progress: &DrainProgress) -> Result<(), Trouble> {
        self.most = self.most.max(progress.live);
        let now = clock::now();
        if let Some(screen) = &mut self.screen {
            let lines = picture(
                &self.name,
                self.most,
                progress,
                now - self.begun,
                self.end.map(|end| end.saturating_duration_since(now)),
            );
            self.last = Some(progress.clone());
            return screen.draw(&lines);
        }
        let key = |progress: &DrainProgress| {
            // Requests of live sessions come and go.
            let requests = if progress.live == 0 { requests(progress) } else { 0 };
            (progress.live, progress.streams, requests, progress.state.clone(), progress.ended)
        };
        let changed = self.last.as_ref().is_none_or(|last| key(last) != key(progress));
        self.last = Some(progress.clone());
        match (changed, self.json) {
            (false, _) => Ok(()),
            (true, true) => print_json(progress),
            (true, false) => print_lines([format!(
                "{} {}: {}, {} retained{}",
                self.name,
                progress.state,
                left(progress),
                progress.retained,
                eta(progress)
            )]),
        }
    }

    fn say(&self, what: &str) -> Result<(), Trouble> {
        if self.json { Ok(()) } else { print_lines([format!("{} {what}", self.name)]) }
    }
}

fn picture(
    name: &str,
    most: u64,
    progress: &DrainProgress,
    waited: Duration,
    left_to_wait: Option<Duration>,
) -> Vec<String> {
    let gone = if most == 0 { 1.0 } else { 1.0 - progress.live as f64 / most as f64 };
    let mut lines = vec![
        format!("{name} {}  [{}] {:.0}%", progress.state, bar(gone, BAR), gone * 100.0),
        format!("  {} left (of {}){}", left(progress), count(most, "live session"), eta(progress)),
    ];
    let mut line = format!("  waiting for {}", human(waited));
    if let Some(left) = left_to_wait {
        line.push_str(&format!(", at most {} more", human(left)));
    }
    if let Some(deadline) = progress.deadline_seconds {
        line.push_str(&format!("; deadline in {}, the rest is moved then", human_seconds(deadline)));
    }
    lines.push(line);
    lines
}

fn left(progress: &DrainProgress) -> String {
    things(progress.live, progress.streams, requests(progress))
}

/// What was left when the drain ended.
fn cut(progress: &DrainProgress) -> String {
    things(progress.moved, progress.cut_streams, progress.cut_requests.saturating_sub(progress.cut_streams))
}

fn things(sessions: u64, streams: u64, requests: u64) -> String {
    let [sessions, streams, requests] =
        [(sessions, "live session"), (streams, "open stream"), (requests, "request")]
            .map(|(number, what)| count(number, what));
    format!("{sessions}, {streams}, {requests}")
}

/// Requests that are under way or queued, beside open streams.
fn requests(progress: &DrainProgress) -> u64 {
    (progress.in_flight + progress.queued).saturating_sub(progress.streams)
}

fn is_empty(progress: &DrainProgress) -> bool {
    progress.live == 0 && progress.streams == 0 && requests(progress) == 0
}

fn eta(progress: &DrainProgress) -> String {
    match progress.eta_seconds {
        Some(eta) if eta > 0.0 => format!("; empty in {} if they stay idle", human_seconds(eta)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(live: u64, streams: u64) -> DrainProgress {
        DrainProgress {
            done: live == 0 && streams == 0,
            ended: None,
            moved: 0,
            cut_streams: 0,
            cut_requests: 0,
            state: "draining".to_owned(),
            live,
            retained: 2,
            streams,
            in_flight: streams + 2,
            queued: 0,
            eta_seconds: Some(90.0),
            deadline_seconds: Some(3600.0),
        }
    }

    #[test]
    fn the_picture_tells_progress_eta_and_deadlines() {
        let lines =
            picture("shop/app-1", 4, &progress(1, 1), Duration::from_secs(5), Some(Duration::from_secs(55)));
        assert_eq!(
            lines,
            [
                "shop/app-1 draining  [#######################.......] 75%",
                "  1 live session, 1 open stream, 2 requests left (of 4 live sessions); empty in 1m 30s if they stay idle",
                "  waiting for 5s, at most 55s more; deadline in 1h, the rest is moved then",
            ]
        );
    }
}
