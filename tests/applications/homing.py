"""The proxy under test: its configuration, and what an operator does to it."""

import base64
import json
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path

from processes import Failed, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("HOMING_BIN", ROOT / "target/release/homing")).resolve()
# Short, so that a drain comes to its end within the run; the ttl keeps the idle ones.
SESSION_TIMEOUT = 15
# What the process before a take-over has for what is under way, tunnels excepted.
DRAIN = 4

CONFIG = """\
workers = 2
access_log = "access.log"

[listen]
https = "127.0.0.1:{port}"
admin = false

[admin]
socket = "admin.sock"

[state]
handover = "handover.sock"

[timeouts]
drain = "{drain}s"

[[certificate]]
cert = "cert.pem"
key = "key.pem"

[[pool]]
name = "app"
slow_start = "0s"

[pool.affinity]
{affinity}
session_timeout = "{timeout}s"
ttl = "30m"

[pool.health]
path = "{health}"
interval = "1s"
"""


class Homing:
    def __init__(self, started, folder):
        self.started = started
        self.folder = folder
        self.port = free_port()
        self.processes = []
        self.reloads = 0
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem",
             "-out", folder / "cert.pem"],
            check=True, capture_output=True)
        keys = folder / "issue.keys"
        keys.touch(mode=0o600)
        keys.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
        self.tls = ssl.create_default_context(cafile=str(folder / "cert.pem"))

    def configure(self, affinity, health, backends):
        text = CONFIG.format(port=self.port, drain=DRAIN, affinity=affinity, timeout=SESSION_TIMEOUT, health=health)
        for name, port in backends.items():
            text += f'\n[[pool.backend]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}"\n'
        (self.folder / "homing.toml").write_text(text)
        check = subprocess.run([BINARY, "check", "--config", self.folder / "homing.toml"], capture_output=True, text=True)
        if check.returncode:
            raise Failed(f"homing check: {(check.stderr + check.stdout).strip()}")

    def start(self, *arguments):
        log = self.folder / f"homing-{len(self.processes)}.log"
        process = self.started.start([BINARY, "serve", "--config", "homing.toml", *arguments], log, cwd=self.folder)
        wait_until(lambda: process.said(": ready with"), 30, "homing")
        self.processes.append(process)

    @property
    def pid(self):
        return self.processes[-1].pid

    def reload(self):
        """SIGHUP after a change of the file; returns when the log says that it was taken."""
        file = self.folder / "homing.toml"
        self.reloads += 1
        file.write_text(file.read_text().replace('interval = "1s"', f'interval = "{1000 + self.reloads}ms"'))
        os.kill(self.pid, signal.SIGHUP)
        before = self.status()["config"]["loaded_at"]
        # The signal may have been faster than the question; then the second one tells.
        deadline = time.monotonic() + 5
        while self.status()["config"]["loaded_at"] == before and time.monotonic() < deadline:
            time.sleep(0.05)

    def take_over(self):
        """A new process takes over; returns the one before, which drains."""
        before = self.processes[-1]
        self.start("--takeover")
        return before

    def operate(self, *command, timeout=60):
        """An operator's command: its exit code and its output."""
        done = subprocess.run([BINARY, *command, "--admin", f"unix:{self.folder}/admin.sock"], capture_output=True,
                              text=True, timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def status(self):
        code, text = self.operate("status", "--json")
        if code:
            raise Failed(f"homing status: {text.strip()}")
        return json.loads(text)

    def backend(self, name):
        return next(backend for backend in self.status()["pools"][0]["backends"] if backend["name"] == name)
