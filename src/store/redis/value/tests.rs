//! What is written, and that nothing else is taken in.

use super::*;
use crate::store::testing;

const NOW: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;

fn settings() -> Settings {
    testing::snapshot(&["app-1"]).pools[0].settings.clone()
}

fn session() -> Session {
    Session {
        home: "app-1".into(),
        instance: 0xfedc_ba98_7654_3210,
        from: Some("app-2".into()),
        created: NOW - 3 * MINUTE,
        placed: NOW - 2 * MINUTE,
        seen: NOW - MINUTE,
        ttl: None,
        unlearned: false,
        scope: Scope::from_bits(7),
    }
}

fn written(entry: &Entry) -> String {
    encode(entry, &settings(), NOW).expect("there is something to write").0
}

#[test]
fn a_session_is_json_that_people_can_read() {
    assert_eq!(
        written(&Entry::Session(session())),
        r#"{"home":"app-1","instance":"fedcba9876543210","from":"app-2","created":1799999820000,"placed":1799999880000,"seen":1799999940000,"scope":7}"#
    );
}

#[test]
fn what_is_written_comes_back() {
    let until = NOW + 5_000;
    let entries = [
        Entry::Session(session()),
        Entry::Session(Session {
            instance: 0,
            from: None,
            ttl: Some(Duration::from_secs(7 * 86_400)),
            unlearned: true,
            ..session()
        }),
        Entry::Renamed { to: testing::key(7), until },
        Entry::Ended { home: "app \"one\"".into(), until },
    ];
    for entry in entries {
        assert_eq!(decode(written(&entry).as_bytes(), NOW), Some(entry));
    }
}

#[test]
fn redis_keeps_it_for_the_time_that_is_left_and_a_bit() {
    let settings = settings();
    let life = |entry: &Entry| encode(entry, &settings, NOW).map(|(_, life)| life);
    let slack = settings.ttl / 8 + SLACK;
    assert_eq!(life(&Entry::Session(session())), Some(settings.ttl - Duration::from_millis(MINUTE) + slack));
    let own = Session { ttl: Some(settings.ttl * 3), ..session() };
    assert_eq!(life(&Entry::Session(own)), Some(settings.ttl * 3 - Duration::from_millis(MINUTE) + slack));
    let over = Session { seen: NOW - millis(settings.ttl), ..session() };
    assert_eq!(life(&Entry::Session(over)), None);
    assert_eq!(life(&Entry::Ended { home: "a".into(), until: NOW + 7 }), Some(Duration::from_millis(7)));
    assert_eq!(life(&Entry::Ended { home: "a".into(), until: NOW }), None);
    assert_eq!(life(&Entry::Gone), None);
}

#[test]
fn a_session_does_not_outlive_its_greatest_age() {
    let settings = Settings { max_age: Some(Duration::from_millis(5 * MINUTE)), ..settings() };
    let (_, life) = encode(&Entry::Session(session()), &settings, NOW).expect("young enough");
    assert_eq!(life, Duration::from_millis(2 * MINUTE) + settings.ttl / 8 + SLACK);
}

#[test]
fn what_is_not_ours_is_refused() {
    let long = format!(r#"{{"home":"{}","created":1,"placed":1,"seen":1}}"#, "a".repeat(300));
    let padded = format!("{}{}", written(&Entry::Session(session())), " ".repeat(MAX_VALUE));
    let cases = [
        "",
        "app-1",
        "null",
        "[]",
        "{}",
        r#"{"home":"app-1"}"#,
        r#"{"home":"","created":1,"placed":1,"seen":1}"#,
        r#"{"home":7,"created":1,"placed":1,"seen":1}"#,
        "{\"home\":\"a\\u0007b\",\"created\":1,\"placed\":1,\"seen\":1}",
        r#"{"home":"a","created":-1,"placed":1,"seen":1}"#,
        r#"{"home":"a","created":1.5,"placed":1,"seen":1}"#,
        r#"{"home":"a","created":1,"placed":1,"seen":1e999}"#,
        r#"{"home":"a","instance":"12","created":1,"placed":1,"seen":1}"#,
        r#"{"home":"a","instance":"+123456789abcdef","created":1,"placed":1,"seen":1}"#,
        r#"{"home":"a","ended":"a","until":1,"created":1,"placed":1,"seen":1}"#,
        r#"{"renamed":"00","until":1}"#,
        r#"{"renamed":"0000000000000000000000000000000g","until":1}"#,
        r#"{"renamed":"00000000000000000000000000000000"}"#,
        r#"{"ended":"a"}"#,
        &long,
        &padded,
    ];
    for text in cases {
        assert_eq!(decode(text.as_bytes(), NOW), None, "{text}");
    }
    assert_eq!(decode(b"{\"ended\":\"\xff\",\"until\":1}", NOW), None);
}

#[test]
fn a_clock_that_is_ahead_does_not_win_for_ever() {
    let text = r#"{"home":"a","created":9999999999999,"placed":9999999999999,"seen":9999999999999}"#;
    let Some(Entry::Session(session)) = decode(text.as_bytes(), NOW) else { panic!("a session") };
    assert_eq!((session.created, session.placed, session.seen), (NOW + MINUTE, NOW + MINUTE, NOW + MINUTE));
}

#[test]
fn an_announcement_is_what_the_script_makes_of_its_parts() {
    let entry = Entry::Session(session());
    let head = |home| announcement_head("0123456789abcdef", "a \"b\"", testing::key(9), home);
    for home in [Some("\"c"), None] {
        let text = format!("{}{}}}", head(home), written(&entry));
        let announcement = Announcement {
            by: "0123456789abcdef".into(),
            pool: "a \"b\"".into(),
            key: testing::key(9),
            home: home.map(Into::into),
            entry: entry.clone(),
        };
        assert_eq!(decode_announcement(text.as_bytes(), NOW), Some(announcement));
    }
    let text = format!("{}{}}}", head(None), written(&entry));
    for wrong in [&text[..text.len() - 1], "", "{}", &text.replace("0123456789abcdef", "")] {
        assert_eq!(decode_announcement(wrong.as_bytes(), NOW), None, "{wrong}");
    }
}
