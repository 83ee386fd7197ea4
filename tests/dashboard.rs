//! The dashboard, in a real browser against the real program.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;
use tempfile::TempDir;

use self::support::{
    app,
    backend::Backend,
    client::Client,
    eventually,
    port::Port,
    process::{Homing, Process},
    setup::Setup,
    webdriver::Browser,
};

/// Names a file beside the configuration.
const TOKEN_FILE: &str = "[admin]\ntoken_file = \"token\"";
const TOKEN: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn the_page_loads_without_a_word_on_the_console() {
    let (apps, homing) = open_to_changes(2).await;
    let browser = dashboard(&homing).await;
    for app in &apps {
        let badge = format!("[data-backend={}] .state-name", app.name);
        eventually("its backends are shown", async || browser.text(&badge).await == "up").await;
    }
    eventually("statuses come by the event stream", async || browser.text("#feed").await == "Live").await;
    assert!(
        browser.text("#problems").await.contains("No session yet"),
        "nothing shows yet that the key is right"
    );
    app::login(&Client::h1(&homing), "ada").await;
    eventually("all is well", async || browser.text("#problems").await.contains("All is well")).await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_asks_nobody_but_homing() {
    let (_apps, homing) = open_to_changes(1).await;
    let browser = dashboard(&homing).await;
    let loaded = browser
        .script("return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)")
        .await;
    let loaded = loaded.as_array().expect("a list");
    assert!(loaded.len() > 5, "{loaded:?}");
    assert!(loaded.iter().all(|origin| *origin == json!(format!("http://{}", homing.admin()))), "{loaded:?}");
}

#[tokio::test]
async fn bars_follow_logins() {
    let (_apps, homing) = open_to_changes(2).await;
    let browser = dashboard(&homing).await;
    eventually("empty bars", async || bar(&browser, "app-1").await == Some(0.0)).await;
    let client = Client::h1(&homing);
    app::login_all(&client, 6).await;
    for name in ["app-1", "app-2"] {
        let sessions = format!("[data-backend={name}] .sessions");
        eventually("three sessions each", async || browser.text(&sessions).await == "3 live · 0 retained")
            .await;
        eventually("both bars are full", async || bar(&browser, name).await == Some(1.0)).await;
    }
    let known = client.get("/whoami").cookie("session", "secret-app-1-1").send().await;
    assert_eq!(known.header("x-backend"), "app-1");
    let home = "[data-verdict=home] td:last-child";
    eventually("the verdict is counted", async || browser.text(home).await == "1").await;
}

#[tokio::test]
async fn a_backend_is_drained_and_undrained_by_keyboard() {
    let (_apps, homing) = open_to_changes(2).await;
    let browser = dashboard(&homing).await;
    focus(&browser, "[data-backend=app-1] [data-action=drain]").await;
    browser.press(ENTER).await;
    eventually("it asks first", async || browser.text("dialog h2").await == "Drain app-1?").await;
    assert!(browser.script("return document.querySelector('#token').offsetParent").await.is_null());
    focus(&browser, "dialog .primary").await;
    browser.press(ENTER).await;
    homing.wait_for_metric("homing_backend_draining", &[("backend", "app-1")], 1.0).await;
    let badge = "[data-backend=app-1] .state-name";
    eventually("the page shows it", async || browser.text(badge).await == "draining").await;
    let text = "[data-backend=app-1] .drain p";
    eventually("nobody lives there", async || browser.text(text).await == "Drained, safe to stop").await;
    browser.click("[data-backend=app-1] [data-action=undrain]").await;
    browser.click("dialog .primary").await;
    homing.wait_for_metric("homing_backend_draining", &[("backend", "app-1")], 0.0).await;
}

#[tokio::test]
async fn changing_asks_for_the_token_and_keeps_it_in_memory_only() {
    let apps = app::several(2);
    let (directory, file) = Setup::new(&apps).section(TOKEN_FILE).write();
    put_token(directory.path());
    let homing = serve(&file, directory).await;
    let browser = dashboard(&homing).await;
    browser.click("[data-backend=app-2] [data-action=maintenance]").await;
    browser.type_into("#token", "not-the-token-that-it-is").await;
    browser.click("dialog .primary").await;
    eventually("it is refused in words", async || {
        browser.text("dialog .error").await.starts_with("The token was refused")
    })
    .await;
    assert_eq!(homing.metric("homing_backend_draining", &[("backend", "app-2")]).await, 0.0);
    browser.type_into("#token", TOKEN).await;
    browser.click("dialog .primary").await;
    homing.wait_for_metric("homing_backend_draining", &[("backend", "app-2")], 1.0).await;
    // The second time it is there already; after a reload it is not.
    browser.click("[data-backend=app-2] [data-action=undrain]").await;
    browser.click("dialog .primary").await;
    homing.wait_for_metric("homing_backend_draining", &[("backend", "app-2")], 0.0).await;
    let kept = "return [localStorage.length, sessionStorage.length, document.cookie, location.href]";
    assert_eq!(browser.script(kept).await, json!([0, 0, "", url(&homing)]));
    browser.open(&url(&homing)).await;
    browser.click("[data-backend=app-2] [data-action=drain]").await;
    eventually("it asks again", async || {
        !browser.script("return document.querySelector('#token').offsetParent").await.is_null()
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_wants_a_token_for_reading_gets_it_from_the_page() {
    let apps = app::several(1);
    let (directory, file) = Setup::new(&apps).section(TOKEN_FILE).write();
    // On another address than loopback reading is not free.
    let text = fs::read_to_string(&file).expect("just written");
    fs::write(&file, text.replace("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:0\"")).expect("a file");
    put_token(directory.path());
    let homing = serve(&file, directory).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://127.0.0.1:{}/", homing.admin().port())).await;
    eventually("it is locked", async || browser.text("#feed").await == "Locked").await;
    assert_eq!(browser.text("#pools").await, "");
    browser.type_into("#token", TOKEN).await;
    browser.press(ENTER).await;
    eventually("it shows the pool", async || browser.text("[data-pool=app] h2").await == "app").await;
    browser.click("#forget").await;
    eventually("it is locked again", async || browser.text("#feed").await == "Locked").await;
}

#[tokio::test]
async fn where_changes_are_refused_the_page_says_so() {
    let apps = app::several(1);
    let homing = Setup::new(&apps).start().await;
    let browser = dashboard(&homing).await;
    eventually("it says so", async || browser.text("#changes-note").await.contains("refuses changes")).await;
    let disabled = "return document.querySelector('[data-action=drain]').disabled";
    assert_eq!(browser.script(disabled).await, json!(true));
}

#[tokio::test]
async fn the_explain_box_tells_a_home_and_keeps_the_id_to_itself() {
    let (_apps, homing) = open_to_changes(2).await;
    let client = Client::h1(&homing);
    let (jar, home) = app::login(&client, "anna").await;
    let id = jar.value("session").expect("a session");
    let browser = dashboard(&homing).await;
    browser.type_into("#session-id", id).await;
    browser.press(ENTER).await;
    eventually("it tells the home", async || {
        browser.text(".result").await.contains(&format!("Lives on {home}"))
    })
    .await;
    assert!(browser.text(".result").await.contains("It has never moved."));
    assert_eq!(browser.script("return document.querySelector('#session-id').value").await, json!(""));
    let traces = "return [location.href, document.documentElement.outerHTML, \
                  ...performance.getEntriesByType('resource').map((entry) => entry.name)].join(' ')";
    let traces = browser.script(traces).await;
    assert!(!traces.as_str().expect("a string").contains(id));
    browser.type_into("#session-id", "an-id-that-nobody-has-set").await;
    browser.click(".explain .primary").await;
    eventually("it is not known", async || browser.text(".result").await.starts_with("Not known.")).await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_dead_backend_is_the_first_thing_that_is_said() {
    let mut apps = app::several(2);
    let homing = Setup::new(&apps).checked().start().await;
    let browser = dashboard(&homing).await;
    apps[1].stop().await;
    let first = "#problems li:first-child";
    eventually("it is said", async || browser.text(first).await.contains("app-2 is down since")).await;
    eventually("and counted", async || browser.script("return document.title").await == "(1) homing").await;
    browser.click("[data-backend=app-2] .fold").await;
    let history = browser.text("[data-backend=app-2] .health").await;
    assert!(history.contains("down by"), "{history}");
}

#[tokio::test]
async fn a_page_that_lost_its_program_says_so_and_finds_it_again() {
    let apps = app::several(1);
    let admin = Port::reserve();
    let (directory, file) = Setup::new(&apps).write();
    let text = fs::read_to_string(&file).expect("just written");
    let text = text.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{}\"", admin.address));
    fs::write(&file, text).expect("a file");
    let homing = serve(&file, directory).await;
    let browser = dashboard(&homing).await;
    homing.process.kill();
    eventually("it says so", async || {
        browser.text("#feed").await == "Not connected"
            && browser.text("#banner").await.contains("Trying again")
    })
    .await;
    let (_again, file) = (homing.directory().to_owned(), file);
    let process = Process::spawn(["serve".as_ref(), "--config".as_ref(), file.as_os_str()]);
    eventually("it is back", async || browser.text("#feed").await == "Live").await;
    assert_eq!(browser.text("#banner").await, "");
    drop(process);
}

#[tokio::test]
async fn nothing_sticks_out_at_any_width() {
    let (_apps, homing) = open_to_changes(3).await;
    let browser = dashboard(&homing).await;
    for dark in [false, true] {
        for width in [400, 700, 1000, 1600] {
            browser.resize(width, dark).await;
            let sizes = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]";
            let sizes = browser.script(sizes).await;
            assert_eq!(sizes[0], sizes[1], "at {width}, dark: {dark}");
        }
    }
}

#[tokio::test]
async fn every_control_has_a_name_and_text_has_contrast() {
    let (_apps, homing) = open_to_changes(2).await;
    let browser = dashboard(&homing).await;
    browser.click("[data-backend=app-1] .fold").await;
    browser.click("[data-backend=app-1] [data-action=drain]").await;
    for dark in [false, true] {
        browser.resize(1600, dark).await;
        let faults = browser.script(include_str!("support/accessible.js")).await;
        assert_eq!(faults, json!([]), "dark: {dark}");
    }
}

/// A program with that many copies of the application, which the page may change.
async fn open_to_changes(count: usize) -> (Vec<Backend>, Homing) {
    let apps = app::several(count);
    let homing = Setup::new(&apps).section("[admin]\nallow_changes = true").start().await;
    (apps, homing)
}

fn put_token(directory: &Path) {
    let file = directory.join("token");
    fs::write(&file, TOKEN).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our file");
}

/// A program that has this configuration.
async fn serve(file: &Path, directory: TempDir) -> Homing {
    let process = Process::spawn(["serve".as_ref(), "--config".as_ref(), file.as_os_str()]);
    Homing::ready(process, false, directory).await
}

/// A browser that shows the program's first status.
async fn dashboard(homing: &Homing) -> Browser {
    let browser = Browser::start().await;
    browser.open(&url(homing)).await;
    eventually("the page shows a pool", async || !browser.text("[data-pool=app] h2").await.is_empty()).await;
    browser
}

fn url(homing: &Homing) -> String {
    format!("http://{}/", homing.admin())
}

/// How full the bar of a backend's live sessions is, of what it can be.
async fn bar(browser: &Browser, backend: &str) -> Option<f64> {
    let script = format!(
        "const bar = document.querySelector('[data-backend={backend}] .bar');\n\
         return bar && bar.querySelector('.live').getBoundingClientRect().width / bar.getBoundingClientRect().width"
    );
    browser.script(&script).await.as_f64().map(|part| (part * 1000.0).round() / 1000.0)
}

async fn focus(browser: &Browser, css: &str) {
    let css = json!(css);
    let focused = format!(
        "const node = document.querySelector({css}); node?.focus(); return document.activeElement === node"
    );
    eventually("it takes the focus", async || browser.script(&focused).await == true).await;
}

const ENTER: &str = "\u{e007}";
