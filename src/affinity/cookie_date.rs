//! Dates as cookies carry them.

/// Seconds since 1970 of a cookie date, by the algorithm of RFC 6265 §5.1.1; `None` where that fails.
///
/// It takes tokens in any order between any delimiters, and thereby every format that servers send:
/// that of RFC 9110, those of RFC 850 with years of two digits, asctime, and mixtures of them. A
/// time zone is ignored: the date is always UTC.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|&byte| is_delimiter(byte)).filter(|token| !token.is_empty()) {
        // Each part is taken from the first token that can be it, and a token is only one part.
        if time.is_none() {
            time = time_of_day(token);
            if time.is_some() {
                continue;
            }
        }
        if day.is_none() {
            day = number(token, 1, 2);
            if day.is_some() {
                continue;
            }
        }
        if month.is_none() {
            month = month_of_year(token);
            if month.is_some() {
                continue;
            }
        }
        if year.is_none() {
            year = number(token, 2, 4);
        }
    }
    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let exists = year >= 1601
        && (1..=days_in(month, year)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 59;
    exists.then(|| days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// `hms-time`: three numbers between colons, then anything that does not go on with a digit.
fn time_of_day(token: &[u8]) -> Option<(i64, i64, i64)> {
    let mut parts = token.splitn(3, |&byte| byte == b':');
    let hour = whole_number(parts.next()?)?;
    let minute = whole_number(parts.next()?)?;
    let second = number(parts.next()?, 1, 2)?;
    Some((hour, minute, second))
}

/// One or two digits and nothing else.
fn whole_number(text: &[u8]) -> Option<i64> {
    number(text, 1, 2).filter(|_| text.iter().all(u8::is_ascii_digit))
}

/// The number of `min` to `max` digits with which the text begins; what follows is no digit.
fn number(text: &[u8], min: usize, max: usize) -> Option<i64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (min..=max)
        .contains(&digits)
        .then(|| text[..digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// 1 to 12, of a token that begins with the name's first three letters.
fn month_of_year(token: &[u8]) -> Option<i64> {
    let name = token.first_chunk::<3>()?;
    MONTHS.iter().zip(1..).find(|(month, _)| name.eq_ignore_ascii_case(month)).map(|(_, number)| number)
}

fn days_in(month: i64, year: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years begin in March here, so that a leap day is
/// the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - DAYS_BEFORE_1970
}

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{OffsetDateTime, macros::format_description};

    use super::*;

    #[test]
    fn every_format_that_servers_send_is_read() {
        let table = [
            // RFC 9110 IMF-fixdate, RFC 850, asctime: its own three examples of one moment
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            // Netscape's, with a year of four digits; how most frameworks delete a cookie
            ("Thu, 01-Jan-1970 00:00:10 GMT", 10),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Thu, 01-Jan-70 00:00:01 GMT", 1),
            ("Mon, 01-Jan-1601 00:00:00 GMT", -11_644_473_600),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
            // the window of two-digit years
            ("Wed, 31-Dec-69 00:00:00 GMT", 3_155_673_600),
            ("31 Dec 99 23:59:59", 946_684_799),
            ("1 Jan 00 00:00:00", 946_684_800),
            // leap days
            ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            // whatever the algorithm allows
            ("\"Sun, 06 Nov 1994 08:49:37 GMT\"", 784_111_777),
            ("sUN, 06 nOVEMBER 1994 8:49:37 gmt", 784_111_777),
            ("Sun, 06 Nov 1994 08:49:37.123 GMT", 784_111_777),
            ("Sun, 06 Nov 1994 08:49:37 +0200", 784_111_777),
            ("08:49:37 1994 Nov 6th", 784_111_777),
        ];
        for (text, seconds) in table {
            assert_eq!(parse(text.as_bytes()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        let table = [
            "",
            "0",
            "-1",
            "session",
            "Thu, 01 Jan 1970",
            "Thu, 01 1970 00:00:00 GMT",
            "Jan 1970 00:00:00 GMT",
            "Thu, 01 Jan 00:00:00 GMT",
            "Thu, 01 Jan 1600 00:00:00 GMT",
            "Thu, 01 Jan 100 00:00:00 GMT",
            "Thu, 01 Jan 19700 00:00:00 GMT",
            "Thu, 00 Jan 1970 00:00:00 GMT",
            "Thu, 32 Jan 1970 00:00:00 GMT",
            "Thu, 31 Apr 1970 00:00:00 GMT",
            "Thu, 29 Feb 2023 00:00:00 GMT",
            "Thu, 29 Feb 2100 00:00:00 GMT",
            "Thu, 01 Jan 1970 24:00:00 GMT",
            "Thu, 01 Jan 1970 00:60:00 GMT",
            "Thu, 01 Jan 1970 00:00:60 GMT",
            "Thu, 01 Jan 1970 00:00 GMT",
            "Thu, 01 Jan 1970 000:00:00 GMT",
            "Thu, 01 Jan 1970 00:00:000 GMT",
            "Thu, 01 Jan 1970 00:0x:00 GMT",
            "99999999999999999999999 Jan 1970 00:00:00",
        ];
        for text in table {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_of_the_calendar_is_counted(seconds in -11_644_473_600_i64..=253_402_300_799) {
            let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let format = format_description!(
                "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
            );
            prop_assert_eq!(parse(date.format(format).unwrap().as_bytes()), Some(seconds));
        }

        #[test]
        fn no_bytes_make_it_panic(
            noise in prop::collection::vec(any::<u8>(), 0..60),
            likely in "([0-9:]{1,9}|Jan|Feb|[ ,-]){0,12}",
        ) {
            parse(&noise);
            parse(likely.as_bytes());
        }
    }
}
