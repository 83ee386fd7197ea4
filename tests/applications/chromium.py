"""Headless Chromium, for applications whose clients are pages: each user has cookies of their own."""

import itertools
import json
import shutil
import threading
import time
import urllib.request

import websockets.exceptions
import websockets.sync.client

import install
from application import Lost, Unserved, User
from processes import Failed, wait_until

# The text of the page, shadow roots included, and its first button.
WALK = """
(() => {
  const texts = [], buttons = [];
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) texts.push(node.data);
    if (["STYLE", "SCRIPT", "NOSCRIPT"].includes(node.nodeName)) return;
    if (node.nodeName === "BUTTON" && /count/.test(node.textContent)) buttons.push(node);
    if (node.shadowRoot) walk(node.shadowRoot);
    for (const child of node.childNodes) walk(child);
  };
  if (document.body) walk(document.body);
  const text = texts.join("");
  %s
})()
"""
READ = WALK % 'const found = text.match(/\\{"instance"[^}]*\\}/); return found && buttons.length ? found[0] : null;'
CLICK = WALK % "buttons[0].click(); return true;"
TEXT = WALK % "return text.replace(/\\s+/g, ' ').slice(0, 300);"


class Tools:
    """One connection of the DevTools protocol."""

    def __init__(self, url):
        self.socket = websockets.sync.client.connect(url, max_size=None, proxy=None, open_timeout=30, close_timeout=1)
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()

    def call(self, method, timeout=30, **parameters):
        with self.lock:
            number = next(self.numbers)
            self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
            deadline = time.monotonic() + timeout
            while True:
                try:
                    answer = json.loads(self.socket.recv(timeout=max(0.1, deadline - time.monotonic())))
                except (TimeoutError, websockets.exceptions.WebSocketException) as error:
                    raise Failed(f"Chromium, {method}: {error!r}") from None
                if answer.get("id") == number:
                    if "error" in answer:
                        raise Failed(f"Chromium, {method}: {answer['error']}")
                    return answer["result"]


class Chromium:
    def __init__(self, started, folder):
        profile = folder / "chromium"
        program = shutil.which("chromium") or shutil.which("google-chrome") or install.program("chromium", "chromium")
        started.start(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-extensions", "--disable-background-networking", "--disable-background-timer-throttling",
             "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
             "--ignore-certificate-errors", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"], folder / "chromium.log",
            env={"HOME": str(folder)})
        port = profile / "DevToolsActivePort"
        wait_until(lambda: port.exists() and port.read_text().count("\n"), 60, "Chromium")
        number, path = port.read_text().split("\n")[:2]
        self.address = f"127.0.0.1:{number}"
        self.tools = Tools(f"ws://{self.address}{path}")

    def context(self):
        return self.tools.call("Target.createBrowserContext")["browserContextId"]

    def open(self, context, url):
        target = self.tools.call("Target.createTarget", url=url, browserContextId=context)["targetId"]
        return Page(self, target)


class Page:
    def __init__(self, chromium, target):
        self.chromium, self.target = chromium, target
        self.tools = Tools(f"ws://{chromium.address}/devtools/page/{target}")

    def evaluate(self, script):
        result = self.tools.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            return None
        return result["result"].get("value")

    def close(self):
        try:
            self.chromium.tools.call("Target.closeTarget", targetId=self.target)
            self.tools.socket.close()
        except Failed:
            pass


class PageUser(User):
    """Opens a page that shows {"instance", "user", "count"}, and presses its button."""

    path = "/"

    def __init__(self, homing, number, chromium):
        super().__init__(homing, number)
        self.chromium, self.context, self.page = chromium, None, None

    def state(self):
        text = self.page.evaluate(READ)
        return json.loads(text) if text else None

    def await_state(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.state()
            if state and condition(state):
                return state
            time.sleep(0.2)
        return None

    def lost(self):
        return Lost(f"the page shows {self.state()}, and in all: {self.page.evaluate(TEXT)!r}; home is {self.instance}")

    def login(self):
        self.count = 0
        self.context = self.context or self.chromium.context()
        self.page = self.chromium.open(self.context, f"https://localhost:{self.homing.port}{self.path}?user={self.name}")
        state = self.await_state(lambda state: state["user"] == self.name and state["count"] == 0, 120)
        if not state:
            raise self.lost()
        self.instance = state["instance"]

    def use(self):
        if not self.page:
            raise Unserved("no page is open")
        # A page that is connecting again may take no notice; then its user presses again.
        for _ in range(3):
            self.page.evaluate(CLICK)
            state = self.await_state(
                lambda state: state["count"] not in (self.count, None) or state["instance"] != self.instance, 12)
            if state:
                return self.check(state)
            self.unsure += 1
        raise self.lost()

    def leave(self):
        if self.page:
            self.page.close()
            self.page = None

    def close(self):
        self.leave()
