"""Loads: wrk for HTTP/1.1, h2load for HTTP/2, bench/tool for what they cannot do.

A load is an object with `start(bench, port, seconds)`, which gives running processes, and `finish`, which gives how
many requests succeeded, and fails if any did not.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from processes import Failed, Process

# As bench/tool/src/requests.rs and wrk.lua write them.
PREFIX = "b7f3a1c09e5d4286a1f07c3e"


def session(number):
    return f"{PREFIX}{10_000_000 + number}"


class Running:
    """Processes of one load, and how to read what they print."""

    def __init__(self, processes, read, seconds):
        self.processes, self.read, self.seconds = processes, read, seconds

    def finish(self):
        return sum(self.read(process.finish(self.seconds + 20)) for process in self.processes)

    def end(self):
        for process in self.processes:
            process.end()


@dataclass(frozen=True)
class Wrk:
    """HTTP/1.1 with keep-alive, each request with the cookie of a random session."""

    connections: int
    path: str = "/1k"
    upload: int = 0
    # None: as many as everybody knows.
    sessions: int | None = None
    threads: int = 1

    @property
    def under_way(self):
        return self.connections

    def start(self, bench, port, seconds, plain=False):
        script = Path(__file__).parent / "wrk.lua"
        url = f"{'http' if plain else 'https'}://127.0.0.1:{port}"
        command = ["wrk", f"-t{self.threads}", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url]
        command += ["--", self.path, self.sessions or bench.scale.sessions, self.upload]
        return Running([bench.load(command)], self.read, seconds)

    @staticmethod
    def read(printed):
        if bad := re.search(r"(Socket errors|Non-2xx).*", printed):
            raise Failed(f"wrk met errors: {bad[0]}")
        return int(re.search(r"(\d+) requests in", printed)[1])


@dataclass(frozen=True)
class H2load:
    """HTTP/2. h2load sends the same fields with each request, so there are several, each with a session."""

    path: str = "/1k"
    processes: int = 4
    connections: int = 4
    streams: int = 16

    @property
    def under_way(self):
        return self.processes * self.connections * self.streams

    def start(self, bench, port, seconds, plain=False):
        assert not plain
        running = []
        for number in range(self.processes):
            command = ["h2load", "-t1", f"-c{self.connections}", f"-m{self.streams}", f"-D{seconds}", "--npn-list=h2"]
            command += ["-H", f"cookie: session={session(number)}", f"https://127.0.0.1:{port}{self.path}"]
            running.append(bench.load(command))
        return Running(running, self.read, seconds)

    @staticmethod
    def read(printed):
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", printed)
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", printed)
        if not counts or not codes:
            raise Failed(f"h2load printed:\n{printed}")
        if any(map(int, counts.groups()[1:])) or any(map(int, codes.groups()[1:])):
            raise Failed(f"h2load met errors: {counts[0]}; {codes[0]}")
        return int(counts[1])


@dataclass(frozen=True)
class Handshakes:
    """Connections of one request each."""

    resume: bool
    concurrent: int = 16

    @property
    def under_way(self):
        return self.concurrent

    def start(self, bench, port, seconds, plain=False):
        assert not plain
        command = [bench.tool, "handshakes", "--to", f"127.0.0.1:{port}", "--sessions", bench.scale.sessions]
        command += ["--concurrent", self.concurrent, "--seconds", seconds, *(["--resume"] if self.resume else [])]
        return Running([bench.load(command)], self.read, seconds)

    def read(self, printed):
        said = json.loads(printed)
        succeeded, resumed = said["succeeded"], said["resumed"]
        if not self.resume and resumed:
            raise Failed(f"{resumed} of {succeeded} handshakes were resumed unasked")
        if self.resume and resumed < 0.98 * succeeded - self.concurrent:
            raise Failed(f"only {resumed} of {succeeded} handshakes were resumed")
        return succeeded


def rate(bench, port, protocol, per_second, warm_up, seconds):
    """Latencies in microseconds of an open loop."""
    command = [bench.tool, "rate", "--to", f"127.0.0.1:{port}", "--protocol", protocol, "--rate", per_second]
    command += ["--connections", 64 if protocol == "h1" else 16, "--warm-up", warm_up, "--seconds", seconds]
    said = json.loads(bench.run_load([*command, "--sessions", bench.scale.sessions], warm_up + seconds + 20, prompt=True))
    if said["errors"]:
        raise Failed(f"{said['errors']} requests were not answered")
    return said


def learn(bench, port, count, first):
    command = [bench.tool, "learn", "--to", f"127.0.0.1:{port}", "--first", first, "--count", count]
    bench.run_load(command, 60 + count / 4000)


class Hold:
    """Idle connections, until `end`."""

    def __init__(self, bench, port, protocol, count):
        command = [bench.tool, "hold", "--to", f"127.0.0.1:{port}", "--protocol", protocol, "--count", count]
        self.process: Process = bench.load(command)
        held = self.process.tell()["held"]
        if held != count:
            raise Failed(f"{held} connections instead of {count}")

    def end(self):
        self.process.end()
