use proptest::prelude::*;

use super::*;

/// Where only `/public` is served, and where `/admin` is another application.
fn served(path: &str) -> Result<bool, Disagree> {
    Path::of(path).decide(|path| path == "/public" || path.starts_with("/public/"), || None)
}

fn normal(path: &str) -> String {
    Path::of(path).normal.into_owned()
}

#[test]
fn most_paths_are_their_own_normal_form_and_are_not_copied() {
    for path in ["/", "/a", "/a/b.css", "/a.b/c..d/", "*", "/a@b/c:d,e", "/.well-known/x", "/...", "/a/..b"] {
        let read = Path::of(path);
        assert_eq!((&*read.normal, &read.other), (path, &Other::None));
        assert!(matches!(read.normal, Cow::Borrowed(_)), "{path}");
    }
}

#[test]
fn spellings_that_rfc_3986_calls_equal_are_one_path() {
    for (path, wanted) in [
        ("/%70ublic", "/public"),
        ("/%7Euser/%2d", "/~user/-"),
        ("/a/../public", "/public"),
        ("/./a/%2e/b/.%2E/c", "/a/c"),
        ("/../../a", "/a"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a//b///c", "/a/b/c"),
        ("/a%2fb%c3%bc", "/a%2Fb%C3%BC"),
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/%40scope", "/@scope"),
        ("/shop;jsessionid=1/x;y", "/shop/x"),
        ("/a%zz/100%", "/a%zz/100%"),
    ] {
        assert_eq!(normal(path), wanted, "{path}");
    }
}

#[test]
fn what_is_under_a_path_in_every_reading_is_served() {
    for path in [
        "/public",
        "/%70ublic/x",
        "/x/../public",
        "/public/a%2fb",
        "/public/a%5cb",
        "/public/x;v=1.2/y",
        "/public;jsessionid=1",
        "/public/what%3f.pdf",
        "/public/100%25",
        "/public/%252f",
        "/public//x",
        "/public/a..b/...",
        "/public/caf%e9",
    ] {
        assert_eq!(served(path), Ok(true), "{path}");
    }
}

#[test]
fn no_reading_leads_out_of_what_is_served() {
    for path in [
        "/public/../internal",
        "/public/%2e%2e/internal",
        "/public/.%2E/internal",
        "/public/x/../../internal",
        "/public/..%2finternal",
        "/public/..%2Finternal",
        "/public%2f..%2finternal",
        "/public/./../internal",
        "/public/..%5cinternal",
        "/public/..\\internal",
        "/public\\..\\internal",
        "/public/..;/internal",
        "/public/..;x=1/internal",
        "/public/%2e%2e;/internal",
        "/public/..%3b/internal",
        "/public/%252e%252e/internal",
        "/public/%25252e%25252e%25252finternal",
        "/public/..%00/internal",
        "/public/..%00x/../internal",
        "/public/%c0%ae%c0%ae/internal",
        "/public/%e0%80%ae./internal",
        "/public/..%c0%afinternal",
        "/public/%f0%80%80%ae./internal",
        "/public/..%20/internal",
        "/public//../internal",
        "/public/x//../../internal",
        "//public/internal",
        "/\\public/internal",
        "/%2fpublic/internal",
        "/internal%3f/../public",
        "/internal%00/../public",
        "/internal%23/../public",
        "/public/..%2finternal/..;/public/x",
        "/internal",
        "/publicx",
        "/public%2finternal",
        "/public%00internal",
        "/public%3finternal",
        "/",
        "*",
    ] {
        assert_ne!(served(path), Ok(true), "{path}");
    }
}

#[test]
fn what_can_be_read_as_anything_is_decided_only_where_that_makes_no_difference() {
    let path = Path::of("/a/..%2fb");
    assert_eq!(path.decide(|_| 1, || None), Err(Disagree));
    assert_eq!(path.decide(|_| 1, || Some(2)), Ok(2));
}

#[test]
fn what_may_begin_with_a_host_is_read_with_and_without_it() {
    for (path, wanted) in [
        ("//public/public/x", Ok(true)),
        ("//public//public", Ok(true)),
        ("//internal/public", Err(Disagree)),
        ("///public/internal", Err(Disagree)),
        ("/\\public/public", Err(Disagree)),
        ("//index.php", Ok(false)),
        ("/\\index.php", Ok(false)),
        ("//public/../index.php", Err(Disagree)),
        ("///", Ok(false)),
    ] {
        assert_eq!(served(path), wanted, "{path}");
    }
}

#[test]
fn only_a_plain_path_has_one_reading() {
    assert_eq!(Path::of("/%61").only_reading().as_deref(), Some("/a"));
    assert_eq!(Path::of("/a%2fb").only_reading(), None);
}

proptest! {
    #[test]
    fn a_normal_form_is_its_own(path in "(/|%2e|%2f|%25|%3b|\\.|a|;|\\\\|%c0%ae|%00|\u{fc}){0,12}") {
        let path = format!("/{path}");
        let read = Path::of(&path);
        let again = Path::of(&read.normal);
        prop_assert_eq!(&again.normal, &read.normal);
    }
}
