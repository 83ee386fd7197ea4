//! Queries and forms: `application/x-www-form-urlencoded`.

use std::{borrow::Cow, str::FromStr};

/// Why a query or form cannot be used; the text goes to the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    #[error("broken percent-encoding")]
    Encoding,
    #[error("{name} is not a number from {min} to {max}")]
    Number { name: &'static str, min: u64, max: u64 },
}

/// The first value of `name`, decoded.
pub(crate) fn value<'a>(form: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, FormError> {
    for pair in form.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key)? == name {
            return decode(value).map(Some);
        }
    }
    Ok(None)
}

/// The first value of `name` as a number between `min` and `max`.
pub(crate) fn number(form: &str, name: &'static str, min: u64, max: u64) -> Result<Option<u64>, FormError> {
    let Some(text) = value(form, name)? else {
        return Ok(None);
    };
    match u64::from_str(&text) {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => Err(FormError::Number { name, min, max }),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, FormError> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match (rest.next().and_then(hex_digit), rest.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(FormError::Encoding),
            },
            other => other,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| FormError::Encoding)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_decoded() {
        assert_eq!(value("a=1&user=Ada+L%C3%B6v%65&user=x", "user"), Ok(Some("Ada Löve".into())));
        assert_eq!(value("user", "user"), Ok(Some("".into())));
        assert_eq!(value("", "user"), Ok(None));
    }

    #[test]
    fn broken_encoding_is_an_error() {
        for form in ["user=%", "user=%4", "user=%zz", "user=%ff", "%=1", "user=%+1"] {
            assert_eq!(value(form, "user"), Err(FormError::Encoding), "{form}");
        }
    }

    #[test]
    fn a_number_has_bounds() {
        assert_eq!(number("n=10", "n", 1, 10), Ok(Some(10)));
        assert_eq!(number("", "n", 1, 10), Ok(None));
        for form in ["n=0", "n=11", "n=-1", "n=", "n=1e3", "n=99999999999999999999999"] {
            assert!(number(form, "n", 1, 10).is_err(), "{form}");
        }
    }
}
