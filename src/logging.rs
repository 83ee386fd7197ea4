//! What the program says about itself, and changing that while it runs.

use std::{env, io::IsTerminal as _, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// Why a filter is not used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be read.
    #[error("`{text}` is not a filter such as `info`, `debug`, or `info,homing=debug`: {why}")]
    Unreadable {
        /// The filter.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The program was started without a log that can be changed.
    #[error("the log cannot be changed")]
    Fixed,
}

/// The one filter of the process, as tracing's subscriber is the one of the process.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// What says which filter to begin with.
pub const VARIABLE: &str = "HOMING_LOG";
/// Characters of a filter.
const MAX_FILTER: usize = 1024;
/// Characters of it that are shown when it cannot be read.
const MAX_SHOWN: usize = 80;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Crates that we use and that log.
const CRATES: [&str; 10] = [
    "h2",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "hyper",
    "hyper_util",
    "redis",
    "rustls",
    "tokio",
    "tungstenite",
];
/// The modules of this crate.
const MODULES: &[&str] = &[
    "admin",
    "admission",
    "affinity",
    "app",
    "backend",
    "cli",
    "clock",
    "config",
    "control",
    "demo",
    "error",
    "handover",
    "host",
    "http1",
    "http2",
    "issue",
    "listener",
    "logging",
    "materials",
    "path",
    "proxy",
    "route",
    "secret",
    "socket",
    "store",
    "tls",
    "upstream",
    "world",
];

/// Logs to standard error, what `HOMING_LOG` says, `info` by default; with the time where what is said may
/// be read later.
///
/// # Errors
///
/// When `HOMING_LOG` cannot be read as a filter.
pub fn start(time: bool) -> Result<(), FilterError> {
    let wanted = env::var_os(VARIABLE).filter(|text| !text.is_empty());
    let filter = match &wanted {
        Some(text) => parse(&text.to_string_lossy())?,
        None => EnvFilter::new("info"),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let colours = std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    let lines = if time { lines.boxed() } else { lines.without_time().boxed() };
    tracing_subscriber::registry().with(filter).with(lines).init();
    // Set once: `init` panics the second time.
    let _ = FILTER.set(handle);
    Ok(())
}

/// The filter in use.
///
/// # Errors
///
/// When the program was started without a log that can be changed.
pub fn filter() -> Result<String, FilterError> {
    let handle = FILTER.get().ok_or(FilterError::Fixed)?;
    handle.with_current(ToString::to_string).map_err(|_| FilterError::Fixed)
}

/// Replaces the filter in use.
///
/// # Errors
///
/// When it cannot be read; the old one stays.
pub fn set_filter(text: &str) -> Result<(), FilterError> {
    let filter = parse(text)?;
    FILTER.get().ok_or(FilterError::Fixed)?.reload(filter).map_err(|_| FilterError::Fixed)
}

fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    let unreadable = |why: String| {
        let shown: String = text.chars().take(MAX_SHOWN).collect();
        FilterError::Unreadable { text: shown.escape_debug().to_string(), why }
    };
    if text.len() > MAX_FILTER {
        return Err(unreadable(format!("it has more than {MAX_FILTER} characters")));
    }
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        check(directive).map_err(unreadable)?;
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| unreadable(error.to_string()))
}

/// A misspelt level would pass as the name of a module of which everything is logged, and a module that does not
/// exist as one that has nothing to say.
fn check(directive: &str) -> Result<(), String> {
    let shown = directive.escape_debug();
    let levels = LEVELS.join(", ");
    let (target, level) = match directive.rsplit_once('=') {
        Some((target, level)) => (target, level),
        None if is_level(directive) => return Ok(()),
        None if is_target(directive) => {
            return Err(format!("say at which level, as in `{shown}=debug`"));
        }
        None => return Err(format!("`{shown}` is no level: use one of {levels}")),
    };
    if !is_level(level) {
        return Err(format!("`{}` is no level: use one of {levels}", level.escape_debug()));
    }
    if !is_target(target) {
        return Err(format!(
            "nothing logs as `{}`: use `homing`, or a module of it such as `homing::control`",
            target.escape_debug()
        ));
    }
    Ok(())
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level))
}

/// Whether something may log under this name: one of our modules, or a crate that we use.
fn is_target(target: &str) -> bool {
    let mut parts = target.split("::");
    match parts.next() {
        Some("homing") => parts.next().is_none_or(|module| MODULES.contains(&module)),
        Some(name) => CRATES.contains(&name),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_levels_of_modules_are_filters() {
        for text in
            ["info", "DEBUG", "info,homing=debug", "warn, homing::control=trace", "off", "hyper=trace"]
        {
            parse(text).unwrap();
        }
    }

    #[test]
    fn misspelt_levels_are_none() {
        for text in ["", "inof", "info,", "homing", "homing=loud", "info,[x", &"info,".repeat(400)] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("`info`"), "{error}");
        }
    }

    #[test]
    fn a_module_that_does_not_exist_is_no_target() {
        for text in ["nonsense=debug", "homng=debug", "info,homing::contrl=debug", "[span]=debug", "=debug"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("nothing logs as"), "{error}");
        }
    }

    #[test]
    fn every_module_of_the_crate_is_a_target() {
        let library = include_str!("lib.rs");
        let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let (known, mut modules) = (MODULES, modules.collect::<Vec<_>>());
        modules.sort_unstable();
        assert_eq!(modules, known);
    }
}
