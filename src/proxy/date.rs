//! The `Date` of answers (RFC 9110 §6.6.1), written once a second.

use std::{
    cell::RefCell,
    time::{Duration, UNIX_EPOCH},
};

use http::HeaderValue;

use crate::clock;

thread_local! {
    /// The second that was written last, and how.
    static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
}

/// The time now as a field value.
pub(super) fn date() -> HeaderValue {
    let second = clock::unix_ms() / 1000;
    WRITTEN.with_borrow_mut(|(written, value)| {
        if *written != second {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *value = HeaderValue::try_from(text).expect("a date is a field value");
            *written = second;
        }
        value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_now() {
        let text = date();
        let time = httpdate::parse_http_date(text.to_str().unwrap()).unwrap();
        assert!(clock::wall().duration_since(time).unwrap_or_default() < Duration::from_mins(1), "{text:?}");
    }
}
