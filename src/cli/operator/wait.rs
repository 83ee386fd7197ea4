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
use crate::{admin::api::DrainProgress, clock};

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

/// Waits until a backend has no live session and no open stream left.
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
                return view.say("has left the configuration, and its sessions with it");
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
        if progress.done {
            return Some(self.say(&format!("is drained ({} retained)", progress.retained)));
        }
        match &*progress.state {
            "up" => Some(Err(Trouble::Failed(format!(
                "{} does not drain any more: somebody ended it, or homing has restarted",
                self.name
            )))),
            "maintenance" => Some(Err(Trouble::SessionsLeft(format!(
                "{} is in maintenance, the deadline of its drain has passed: {} to move",
                self.name,
                left(progress)
            )))),
            _ => None,
        }
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
        let key = |progress: &DrainProgress| (progress.live, progress.streams, progress.state.clone());
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
        format!(
            "  {} of {most} left, {}{}",
            left(progress),
            count(progress.in_flight, "request") + " under way",
            eta(progress)
        ),
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
    format!("{}, {}", count(progress.live, "live session"), count(progress.streams, "open stream"))
}

fn eta(progress: &DrainProgress) -> String {
    match progress.eta_seconds {
        Some(eta) if eta > 0.0 => format!(", none in {} if nobody uses them", human_seconds(eta)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(live: u64, streams: u64) -> DrainProgress {
        DrainProgress {
            done: live == 0 && streams == 0,
            state: "draining".to_owned(),
            live,
            retained: 2,
            streams,
            in_flight: 0,
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
                "  1 live session, 1 open stream of 4 left, 0 requests under way, none in 1m 30s if nobody uses them",
                "  waiting for 5s, at most 55s more; deadline in 1h, the rest is moved then",
            ]
        );
    }
}
