"""Jupyter: a password, a kernel, and its variables over a WebSocket."""

import json
import subprocess
import time
import uuid

import websockets.exceptions

import install
from application import Application, Browser, Lost, Unserved, User

PASSWORD = "the same everywhere"
STATE = """import json as _json, os as _os
count = globals().get("count", 0) + 1
print(_json.dumps({"instance": _os.environ["INSTANCE"], "user": globals().get("user"), "count": count}))"""


class Notebook(User):
    """Logs in, starts a kernel and works in it, as JupyterLab does."""

    def __init__(self, homing, number):
        super().__init__(homing, number)
        self.browser = Browser(homing)
        self.socket, self.session = None, uuid.uuid4().hex

    def login(self):
        self.count = 0
        self.browser.page("/login")
        self.browser.page("/login?next=%2Fapi", "POST", {"password": PASSWORD, "_xsrf": self.browser.cookie("_xsrf")})
        answer = self.browser.post("/api/kernels", json.dumps({"name": "python3"}), headers=self.fields())
        if answer.status != 201:
            raise Lost(f"no kernel: {answer.status} {answer.text[:120]!r}")
        self.kernel = answer.json()["id"]
        self.connect()
        page = self.execute(f"user = {self.name!r}\ncount = -1\n{STATE}")
        self.instance = page["instance"]

    def fields(self):
        return {"Content-Type": "application/json", "X-XSRFToken": self.browser.cookie("_xsrf")}

    def connect(self):
        # As often as JupyterLab tries.
        for attempt in range(7):
            try:
                self.socket = self.browser.websocket(f"/api/kernels/{self.kernel}/channels?session_id={self.session}")
                return
            except Unserved as error:
                if "HTTP 404" in str(error) or "HTTP 403" in str(error):
                    raise Lost(f"kernel of {self.instance} is unknown: {error}") from None
                last = error
                time.sleep(0.3 * 2 ** attempt)
        raise last

    def execute(self, code):
        number = uuid.uuid4().hex
        message = {"header": {"msg_id": number, "username": self.name, "session": self.session, "date": "",
                              "msg_type": "execute_request", "version": "5.3"},
                   "parent_header": {}, "metadata": {}, "channel": "shell", "buffers": [],
                   "content": {"code": code, "silent": False, "store_history": False, "user_expressions": {},
                               "allow_stdin": False, "stop_on_error": True}}
        self.socket.send(json.dumps(message))
        output, deadline = "", time.monotonic() + 60
        while True:
            try:
                found = json.loads(self.socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            except TimeoutError:
                raise Unserved("the kernel does not answer") from None
            if found["parent_header"].get("msg_id") != number:
                continue
            if found["msg_type"] == "stream":
                output += found["content"]["text"]
            if found["msg_type"] == "status" and found["content"]["execution_state"] == "idle":
                try:
                    return json.loads(output)
                except ValueError:
                    raise Lost(f"the kernel says {output[:100]!r}") from None

    def use(self):
        if self.random.random() < 0.3:
            answer = self.browser.get(f"/api/kernels/{self.kernel}", headers=self.fields())
            if answer.status != 200:
                raise Lost(f"GET of the kernel: {answer.status}, home is {self.instance}")
        for attempt in range(2):
            try:
                if not self.socket:
                    self.connect()
                return self.check(self.execute(STATE))
            except websockets.exceptions.ConnectionClosed as closed:
                self.socket = None
                code = closed.rcvd.code if closed.rcvd else "none"
                if code == 1001:
                    raise Lost("the WebSocket ended with 1001, after which JupyterLab does not connect again") from None
                # What was sent may have been executed.
                self.unsure += 1
                if attempt:
                    raise Unserved(f"the WebSocket ended again: {closed}") from None

    def leave(self):
        if self.socket:
            self.socket.close()
            self.socket = None
        self.browser.close()


class App(Application):
    name, title = "jupyter", "Jupyter, kernels"
    health = "/api"
    streams = True
    # Each has a kernel, a process.
    most_users = 8

    def affinity(self):
        # Jupyter's cookie is named after the address in the browser.
        return f'key = "cookie:username-localhost-{self.port}"'

    def install(self):
        self.python = install.python("jupyter", "jupyter-server==2.21.*", "ipykernel==7.4.*")

    def start(self, started, instance, port, folder):
        if not hasattr(self, "hashed"):
            self.hashed = subprocess.run(
                [self.python, "-c", f"from jupyter_server.auth import passwd; print(passwd({PASSWORD!r}, 'sha256'))"],
                check=True, capture_output=True, text=True).stdout.strip()
        (folder / "work").mkdir()
        settings = {"ServerApp": {
            "ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": False, "allow_root": True,
            "root_dir": str(folder / "work"), "trust_xheaders": True},
            "PasswordIdentityProvider": {"hashed_password": self.hashed}}
        (folder / "jupyter_server_config.json").write_text(json.dumps(settings))
        environment = {"INSTANCE": instance, "JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_DATA_DIR": str(folder / "data"),
                       "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "IPYTHONDIR": str(folder / "ipython")}
        return started.start([self.python, "-B", "-m", "jupyter_server"], folder / "log", env=environment, cwd=folder)

    def user(self, homing, number):
        return Notebook(homing, number)


APPS = (App,)
