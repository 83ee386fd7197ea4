//! What the program says about itself, and changing that while it runs.

use std::{io::IsTerminal as _, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// Why a filter is not used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be read.
    #[error("{0} is not a filter such as `info`, `debug`, or `info,homing=debug`")]
    Unreadable(String),
    /// The program was started without a log that can be changed.
    #[error("the log cannot be changed")]
    Fixed,
}

/// The one filter of the process, as tracing's subscriber is the one of the process.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// Characters of a filter.
const MAX_FILTER: usize = 1024;

/// Logs to standard error, what `HOMING_LOG` says, `info` by default.
pub fn start() {
    let filter = EnvFilter::try_from_env("HOMING_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
    // Set once: `init` panics the second time.
    let _ = FILTER.set(handle);
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
    let unreadable = || FilterError::Unreadable(format!("`{}`", text.escape_debug()));
    if text.len() > MAX_FILTER {
        return Err(FilterError::Unreadable("this".to_owned()));
    }
    // A misspelt level would pass as the name of a module of which everything is logged.
    let fits = |directive: &str| match directive.rsplit_once('=') {
        Some((_, level)) => is_level(level),
        None => is_level(directive),
    };
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    if !directives.iter().all(|directive| fits(directive)) {
        return Err(unreadable());
    }
    EnvFilter::try_new(directives.join(",")).map_err(|_| unreadable())
}

fn is_level(text: &str) -> bool {
    ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| text.eq_ignore_ascii_case(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_levels_of_modules_are_filters() {
        for text in ["info", "DEBUG", "info,homing=debug", "warn, homing::control=trace", "off"] {
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
}
