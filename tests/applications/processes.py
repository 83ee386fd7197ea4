"""Processes of ours: started with a log, ended by their ids."""

import os
import signal
import socket
import subprocess
import time


class Failed(Exception):
    """Something did not work that has nothing to do with sessions."""


def free_port():
    """A port that is free now, on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, seconds, what):
    """Polls until `condition` gives a true value, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


class Process:
    """A process in a group of its own, whose output goes to the file `log`."""

    def __init__(self, command, log, env=None, cwd=None, stdin=None, stdout=None):
        self.log = log
        with open(log, "ab") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or output,
                stderr=output,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self.child.pid

    def running(self):
        return self.child.poll() is None

    def said(self, text):
        """Whether the log has `text`; fails if the process has ended without it."""
        with open(self.log, errors="replace") as log:
            found = text in log.read()
        if not found and not self.running():
            raise Failed(f"ended with {self.child.returncode}, see {self.log}")
        return found

    def signal(self, number):
        if self.running():
            os.killpg(self.pid, number)

    def kill(self):
        """Ends it and its children at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    def stop(self, seconds=5):
        """Ends it gently, then at once."""
        self.signal(signal.SIGTERM)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        self.kill()


class Started:
    """Everything that was started, so that nothing outlives the run."""

    def __init__(self):
        self.processes = []

    def start(self, *arguments, **options):
        process = Process(*arguments, **options)
        self.processes.append(process)
        return process

    def end(self):
        for process in reversed(self.processes):
            if process.running():
                process.signal(signal.SIGTERM)
        for process in reversed(self.processes):
            process.stop(2)
        self.processes = []
