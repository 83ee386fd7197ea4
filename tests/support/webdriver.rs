//! A browser, driven by chromedriver over plain WebDriver (<https://www.w3.org/TR/webdriver2/>).
//!
//! Elements are clicked and typed into as by a user: what is hidden or covered cannot be.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DEADLINE, eventually, flow::full, lines::Lines, plain};

/// A headless Chromium with one page; closed when dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    /// The path of the session.
    session: String,
    /// Where Chromium keeps what it thinks it must.
    _profile: TempDir,
}

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Nothing of these is wanted in a test: no sandbox within a container, no calls home.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

// === impl Browser ===

impl Browser {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with these flags beside the usual ones.
    pub(crate) async fn start_with(more: &[&str]) -> Self {
        let mut attempt = 0;
        let (driver, port) = loop {
            let mut command = Command::new("chromedriver");
            command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut driver = command.spawn().expect("chromedriver (Debian: chromium-driver)");
            let said = Lines::collect("chromedriver", driver.stdout.take().expect("piped"));
            let port = said
                .find("port", |line| {
                    line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok()
                })
                .await;
            if let Some(port) = port {
                break (driver, port);
            }
            // It looks for a free port and opens it later: somebody else may have got it meanwhile.
            driver.wait().expect("our child");
            attempt += 1;
            assert!(attempt < 5, "chromedriver ended: {}", said.text());
        };
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut flags: Vec<String> = FLAGS.iter().chain(more).map(|&flag| flag.to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            // The test's own authority is none of its.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.post("/session", &wanted).await;
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser
    }

    /// Loads a page.
    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// Runs a function body in the page; what it returns.
    pub(crate) async fn script(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": body, "args": [] })).await
    }

    /// The visible text of the first element that matches; empty while there is none.
    pub(crate) async fn text(&self, css: &str) -> String {
        let css = json!(css);
        let text = self.script(&format!("return document.querySelector({css})?.innerText ?? ''")).await;
        text.as_str().expect("a string").to_owned()
    }

    /// Clicks the first element that matches, as soon as there is one that can be.
    pub(crate) async fn click(&self, css: &str) {
        self.act(css, "click", &json!({})).await;
    }

    /// Types into the first element that matches, as soon as there is one that can be.
    pub(crate) async fn type_into(&self, css: &str, text: &str) {
        self.act(css, "value", &json!({ "text": text })).await;
    }

    /// Presses keys on whatever has the focus; `\u{e007}` is Enter, `\u{e004}` Tab.
    pub(crate) async fn press(&self, keys: &str) {
        let downs_and_ups = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let keyboard =
            json!({ "type": "key", "id": "keyboard", "actions": downs_and_ups.collect::<Vec<_>>() });
        self.post("/actions", &json!({ "actions": [keyboard] })).await;
    }

    /// Gives the page this width, in CSS pixels.
    pub(crate) async fn resize(&self, width: u32, dark: bool) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media).await;
    }

    /// What the console has got since the last look: errors of scripts, of loads, of the policy.
    pub(crate) async fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().expect("a list").iter();
        entries.map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    async fn devtools(&self, command: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await;
    }

    /// Acts on an element; one that is hidden, covered or replaced at the moment is tried again.
    async fn act(&self, css: &str, action: &str, parameters: &Value) {
        eventually(&format!("{action} {css}"), async || {
            let wanted = json!({ "using": "css selector", "value": css });
            let elements = self.post("/elements", &wanted).await;
            let Some(element) = elements[0][ELEMENT].as_str() else { return false };
            let path = format!("{}/element/{element}/{action}", self.session);
            self.send(&path, parameters).await.is_ok()
        })
        .await;
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        self.send(&path, body).await.unwrap_or_else(|error| panic!("{path}: {error:#}"))
    }

    /// What the driver answers, or its error.
    async fn send(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let request = Request::builder().method(Method::POST).uri(path);
        let request =
            request.header("host", self.address.to_string()).header("content-type", "application/json");
        let request = request.body(full(body.to_string())).expect("a valid request");
        let answer = plain::send(self.address, request).await.expect("chromedriver answers");
        let mut value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let value = value["value"].take();
        if answer.status == StatusCode::OK { Ok(value) } else { Err(value) }
    }
}

impl Drop for Browser {
    /// Chromium is not our child but the driver's, which ends it only when it is asked to.
    fn drop(&mut self) {
        if let Ok(mut driver) = TcpStream::connect(self.address) {
            let ask =
                format!("DELETE {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", self.session);
            let _ = driver.set_read_timeout(Some(DEADLINE));
            let _ = driver.write_all(ask.as_bytes());
            let _ = driver.read(&mut [0; 64]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
