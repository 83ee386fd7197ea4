//! The script that decides which of two words about a session holds, at a real Redis.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use self::support::{redis::RedisServer, within};

const MERGE: &str = include_str!("../src/store/redis/merge.lua");

/// A session that came to a home at some time.
fn session(home: &str, placed: u64) -> Value {
    json!({"home": home, "created": 1, "placed": placed, "seen": placed})
}

fn unlearned(home: &str, placed: u64) -> Value {
    json!({"home": home, "created": 1, "placed": placed, "seen": placed, "unlearned": true})
}

fn moved(home: &str, placed: u64, from: &str) -> Value {
    json!({"home": home, "created": 1, "placed": placed, "seen": placed, "from": from})
}

fn ended(at: u64) -> Value {
    json!({"ended": "a", "at": at, "until": at + 5000})
}

fn renamed(at: u64) -> Value {
    json!({"renamed": "00000000000000000000000000000001", "at": at, "until": at + 5000})
}

/// What stands after one value was written over another, and whether the writer was told of the former.
async fn merge(redis: &RedisServer, was: &str, mode: &str, new: &Value, from: &str) -> (String, bool) {
    let () = redis.query(redis::cmd("SET").arg("k").arg(was)).await.expect("set");
    let answer = eval(redis, mode, new, from, 0).await;
    let stands: String = redis.query(redis::cmd("GET").arg("k")).await.expect("get");
    (stands, !answer.is_empty())
}

async fn eval(redis: &RedisServer, mode: &str, new: &Value, from: &str, announce: u8) -> String {
    let mut command = redis::cmd("EVAL");
    command.arg(MERGE).arg(1).arg("k").arg(mode).arg(new.to_string()).arg(60_000).arg(from);
    command.arg("channel").arg("{\"value\":").arg(announce);
    redis.query(&command).await.expect("the script runs")
}

#[tokio::test]
async fn the_right_word_holds_in_every_case() {
    let redis = RedisServer::start().await;
    const LONG: u64 = 100_000;
    let cases: &[(&str, Value, Value, &str, bool)] = &[
        // mode, what was there, what is written, the home that it left, whether it wins
        ("set", session("a", 2 * LONG), session("b", LONG), "", true),
        ("set", ended(2 * LONG), session("b", LONG), "", true),
        ("new", session("a", LONG), session("b", 2 * LONG), "", false),
        ("new", ended(LONG), session("b", 2 * LONG), "", false),
        ("new", renamed(LONG), session("b", 2 * LONG), "", false),
        ("move", session("a", LONG), moved("b", 2 * LONG, "a"), "a", true),
        ("move", session("c", LONG), moved("b", 2 * LONG, "a"), "a", false),
        ("move", ended(LONG), moved("b", 2 * LONG, "a"), "a", false),
        ("merge", session("a", LONG), session("b", 2 * LONG), "", true),
        ("merge", session("a", 2 * LONG), session("b", LONG), "", false),
        ("merge", session("a", LONG), session("b", LONG), "", false),
        ("merge", unlearned("a", 2 * LONG), session("b", LONG), "", true),
        ("merge", session("a", LONG), unlearned("b", 2 * LONG), "", false),
        ("merge", unlearned("a", LONG), unlearned("b", 2 * LONG), "", false),
        ("merge", session("a", LONG + 50), moved("b", LONG, "a"), "", true),
        ("merge", moved("a", LONG, "b"), session("b", LONG + 50), "", false),
        ("merge", session("a", 2 * LONG), moved("b", LONG, "a"), "", false),
        ("merge", ended(LONG), session("a", 2 * LONG), "", true),
        ("merge", ended(2 * LONG), session("a", LONG), "", false),
        ("merge", session("a", LONG), ended(2 * LONG), "", true),
        ("merge", session("a", LONG), renamed(2 * LONG), "", true),
    ];
    for (mode, was, new, from, wins) in cases {
        let (stands, told) = merge(&redis, &was.to_string(), mode, new, from).await;
        let right = if *wins { new } else { was };
        assert_eq!(stands, right.to_string(), "{mode}: {new} over {was}");
        assert_eq!(told, !wins, "{mode}: {new} over {was}");
    }
}

#[tokio::test]
async fn two_words_of_the_same_home_do_not_contradict() {
    let redis = RedisServer::start().await;
    let used = |seen: u64| json!({"home": "a", "created": 1, "placed": 1, "seen": seen});
    for mode in ["new", "move", "merge"] {
        for (was, new, stands) in [(5, 9, 9), (9, 5, 9)] {
            let found = merge(&redis, &used(was).to_string(), mode, &used(new), "x").await;
            assert_eq!(found, (used(stands).to_string(), false), "{mode}");
        }
    }
}

#[tokio::test]
async fn a_use_counts_though_the_clocks_of_two_replicas_differ() {
    let redis = RedisServer::start().await;
    let used = |placed: u64, seen: u64| json!({"home": "a", "created": 1, "placed": placed, "seen": seen});
    let (was, new) = (used(5_000, 5_000), used(4_999, 9_000));
    let (found, _) = merge(&redis, &was.to_string(), "merge", &new, "").await;
    assert_eq!(found.parse::<Value>().expect("JSON"), used(5_000, 9_000));
}

#[tokio::test]
async fn that_an_application_set_the_id_is_not_forgotten_by_its_use() {
    let redis = RedisServer::start().await;
    const NOW: u64 = 1_795_190_615_549;
    let (was, new) = (session("a", NOW), unlearned("a", NOW + 1_000));
    let (found, announced) = merge(&redis, &was.to_string(), "merge", &new, "").await;
    assert_eq!((found.parse::<Value>().expect("JSON"), announced), (session("a", NOW + 1_000), false));
}

#[tokio::test]
async fn what_is_not_ours_is_replaced() {
    let redis = RedisServer::start().await;
    for was in ["x", "7", "[1]", "\"text\"", "{}", "{\"home\":7}", &"[".repeat(2000), &"y".repeat(5000)] {
        let new = session("b", 1);
        assert_eq!(merge(&redis, was, "merge", &new, "").await, (new.to_string(), false), "{was:.10}");
    }
    let _: i64 = redis.query(redis::cmd("DEL").arg("k")).await.expect("gone");
    let _: i64 = redis.query(redis::cmd("RPUSH").arg("k").arg("x")).await.expect("a list");
    assert_eq!(eval(&redis, "merge", &session("b", 1), "", 0).await, "");
    let left: i64 = redis.query(redis::cmd("PTTL").arg("k")).await.expect("a time");
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn only_what_others_may_know_differently_is_announced() {
    let redis = RedisServer::start().await;
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut heard = client.get_async_pubsub().await.expect("redis answers");
    heard.subscribe("channel").await.expect("subscribed");
    eval(&redis, "set", &session("a", 1), "", 0).await; // nothing was there
    eval(&redis, "merge", &session("a", 2), "", 0).await; // the same home
    eval(&redis, "new", &session("b", 3), "", 0).await; // does not hold
    eval(&redis, "set", &session("b", 4), "", 0).await;
    eval(&redis, "merge", &ended(5), "", 1).await;
    let mut messages = heard.on_message();
    for wanted in [session("b", 4), ended(5)] {
        let message = within("an announcement", messages.next()).await.expect("open");
        let text: Value = serde_json::from_slice(message.get_payload_bytes()).expect("JSON");
        assert_eq!(text["value"], wanted);
    }
}
