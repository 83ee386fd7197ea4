"""Processes that are pinned, watched and ended by their ids."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path


class Failed(Exception):
    """What went wrong, for people."""


def raise_limits():
    """As many descriptors as the system gives; whatever we start inherits that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (65536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return
        except (ValueError, OSError):
            continue


class Process:
    """A process of ours. Its messages go to `log`, its standard output to a pipe if `pipe`.

    With `prompt` it runs before everything else on its cores whenever it can, if that is allowed."""

    def __init__(self, command, cpus, log, pipe=False, prompt=False):
        self.name, self.log = Path(command[0]).name, Path(log)
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if pipe else file,
                stderr=file,
                # A Ctrl-C is for us; we end what we started. Not a session of its own, which Linux would schedule
                # apart from the others.
                process_group=0,
                preexec_fn=lambda: _placed(cpus, prompt),
            )

    def alive(self):
        return self.process.poll() is None

    def tree(self):
        """The process and its descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path(f"/proc/{entry}/stat").read_text()
                except OSError:
                    continue
                parents.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry))
        found = [self.process.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found

    def cpu(self):
        """Seconds of user and system time of the whole tree, by the scheduler's own nanoseconds."""
        total = 0
        for pid in self.tree():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self, field="VmRSS"):
        """Bytes of the whole tree: resident now, or (`VmHWM`) at most so far."""
        total = 0
        for pid in self.tree():
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024
        return total

    def settled_memory(self):
        """Resident memory when it has stopped changing."""
        last = self.memory()
        for _ in range(20):
            time.sleep(0.5)
            now = self.memory()
            if abs(now - last) < 65536:
                break
            last = now
        return now

    def tell(self):
        """What the program says next, as a line of JSON."""
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended:\n{self.messages()}")
        return json.loads(line)

    def ask(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.tell()

    def finish(self, patience):
        """Waits for the end of a program that ends by itself; what it printed."""
        try:
            # Standard input stays open: some programs end with it.
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.end()
            raise Failed(f"{self.name} did not end within {patience:.0f} s:\n{self.messages()}") from None
        printed = self.process.stdout.read().decode()
        self.process.stdin.close()
        self.process.stdout.close()
        if self.process.returncode:
            raise Failed(f"{self.name} failed with {self.process.returncode}:\n{printed}{self.messages()}")
        return printed

    def messages(self):
        return self.log.read_text(errors="replace")[-4000:]

    def end(self):
        """Ends the process, and what it leaves of its descendants."""
        if not self.alive():
            return
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            # Its children, too.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def _placed(cpus, prompt):
    os.sched_setaffinity(0, cpus)
    if prompt:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


class Tool(Process):
    """bench/tool that serves until it is told to end."""

    def __init__(self, program, arguments, cpus, log, prompt=False):
        super().__init__([program, *arguments], cpus, log, pipe=True, prompt=prompt)
        self.said = self.tell()

    def end(self):
        if self.alive():
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()


class Backend(Tool):
    def __init__(self, program, count, cpus, log, prompt=False):
        super().__init__(program, ["backend", "--count", count], cpus, log, prompt)
        self.ports = self.said["ports"]

    def answered(self):
        return self.ask()["answered"]
