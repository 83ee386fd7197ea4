//! `websocket_close`: how a WebSocket is told that it has to go.

use toml::de::DeValue;

use super::section::kind;

/// Code of a close frame that a server may send (RFC 6455 §7.4, and the registry of the IANA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

// === impl CloseCode ===

impl CloseCode {
    /// Clients may connect again at once. After 1001, "going away", some never do.
    pub const SERVICE_RESTART: Self = Self(1012);

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }

    fn new(number: i64) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        // 1005, 1006 and 1015 are never sent, 1010 only by clients; those between are about a message.
        matches!(number, 1000 | 1001 | 1008 | 1011..=1014 | 3000..=4999).then_some(Self(number))
    }
}

/// Reads `websocket_close`.
pub(super) fn close_code(value: &DeValue<'_>) -> Result<Option<CloseCode>, String> {
    match value {
        DeValue::String(text) if text.eq_ignore_ascii_case("none") => Ok(None),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .and_then(CloseCode::new)
            .map(Some)
            .ok_or_else(|| {
                "a server may close by 1000, 1001, 1008, 1011 to 1014, or 3000 to 4999".to_owned()
            }),
        DeValue::String(_) => Err("use a code such as 1012, or \"none\"".to_owned()),
        other => Err(format!("expected a code such as 1012, or \"none\", found {}", kind(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_a_server_may_send_are_codes() {
        for good in [1000, 1001, 1012, 1013, 3000, 4999] {
            assert_eq!(CloseCode::new(good).map(CloseCode::get), u16::try_from(good).ok());
        }
        for bad in [-1, 0, 999, 1002, 1005, 1006, 1010, 1015, 2000, 5000, 70_000] {
            assert_eq!(CloseCode::new(bad), None, "{bad}");
        }
    }
}
