//! What Redis, or whatever is there instead, says when something is wrong: one line, for the log.

use redis::{ErrorKind, RedisError};

/// Characters of one message; what is there is not trusted to be brief.
const MAX: usize = 300;

/// An error in its own words.
pub(super) fn said(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            "what answers there does not speak as redis does".into()
        }
        _ => match (error.code(), error.detail()) {
            // Scripts add where in them it happened.
            (Some(code), Some(detail)) => {
                one_line(&format!("{code} {}", detail.split(" script: ").next().unwrap_or(detail)))
            }
            _ => one_line(&error.to_string()),
        },
    }
}

/// Why there is no connection, or nothing to hear, for a login as `user`.
pub(super) fn why_not(error: &RedisError, user: Option<&str>) -> String {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            format!("redis refuses the password of `{}`", user.unwrap_or("default"))
        }
        (_, Some("NOAUTH")) => "redis wants a password: see `redis_password_file`".into(),
        _ => said(error),
    }
}

fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &[u8]) -> RedisError {
        match redis::parse_redis_value(answer).and_then(redis::Value::extract_error) {
            Err(error) => error,
            Ok(value) => panic!("{value:?} is no error"),
        }
    }

    #[test]
    fn a_refusal_is_one_line_with_its_code() {
        let cases: [(&[u8], &str); 3] = [
            (
                b"-OOM command not allowed when used memory > 'maxmemory'. script: 0e7f, on @user_script:58.\r\n",
                "OOM command not allowed when used memory > 'maxmemory'.",
            ),
            (
                b"-NOPERM No permissions to access a channel\r\n",
                "NOPERM No permissions to access a channel",
            ),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there does not speak as redis does"),
        ];
        for (answer, words) in cases {
            assert_eq!(said(&parsed(answer)), words);
        }
        assert_eq!(one_line("a\r\n  b\u{1b}[1m\tc"), "a b [1m c");
        assert_eq!(one_line(&"x".repeat(9 * MAX)).len(), MAX);
    }

    #[test]
    fn a_wrong_password_is_told_by_its_user() {
        let wrong = parsed(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n");
        assert_eq!(why_not(&wrong, Some("homing")), "redis refuses the password of `homing`");
        assert_eq!(why_not(&wrong, None), "redis refuses the password of `default`");
        let none = parsed(b"-NOAUTH Authentication required.\r\n");
        assert!(why_not(&none, None).contains("wants a password"));
    }
}
