"""What all measurements share: the machine's cores, a temporary folder, what is running, and measuring itself."""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import proxies
from loads import learn
from processes import Backend, Failed, Process


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    rounds: int = 5
    seconds: int = 3
    sessions: int = 10_000
    many_sessions: int = 1_000_000
    held: int = 5_000
    many_backends: int = 300


# The same works, so small that their numbers mean nothing.
CHECK = Scale(rounds=1, seconds=1, sessions=1_000, many_sessions=20_000, held=200, many_backends=30)


@dataclass(frozen=True)
class Sample:
    """One round of one proxy."""

    # CPU of the proxy, seconds a request.
    cpu: float
    # Requests a second.
    rate: float
    # How much of a core the proxy took.
    busy: float
    # How much of its core somebody else took.
    others: float


class Bench:
    """Ends all that it started when it is left, however that is."""

    # Numbers of sessions that no load uses.
    UNUSED = 80_000_000
    # Loads begin before they are measured, and end after.
    LEAD, TAIL = 0.8, 0.2

    def __init__(self, homing, tool, scale):
        self.programs = {"homing": homing, "nginx": which("nginx"), "HAProxy": which("haproxy")}
        self.tool, self.scale = tool, scale
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise Failed("this takes two cores: one for the proxy, one for load and backends")
        self.cpus = cpus
        self.proxy_cpus, self.load_cpus = {cpus[0]}, set(cpus[1:])
        # Whoever measures must not disturb the proxy.
        os.sched_setaffinity(0, self.load_cpus)
        self.running = []
        self.folders = 0

    def __enter__(self):
        self.temporary = Path(tempfile.mkdtemp(prefix="homing-bench."))
        self.temporary.chmod(0o755)
        try:
            proxies.make_certificate(self.temporary)
        except BaseException:
            shutil.rmtree(self.temporary, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_):
        self.end_all()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def end_all(self):
        """Ends everything that runs, and takes its files along."""
        while self.running:
            self.running.pop().end()
        for folder in self.temporary.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)

    def folder(self, name):
        self.folders += 1
        folder = self.temporary / f"{self.folders}-{name}"
        folder.mkdir(mode=0o755)
        return folder

    # --- what runs

    def backend(self, count=3, prompt=False):
        backend = Backend(self.tool, count, self.load_cpus, self.folder("backend") / "log", prompt)
        self.running.append(backend)
        return backend

    def proxy(self, kind, backend, name=None, program=None, sessions=None, **options):
        """A proxy that serves, has been looked at, and knows the sessions."""
        proxy = proxies.Proxy(kind, program or self.programs[kind], self, backend.ports, name, **options)
        self.running.append(proxy)
        proxy.wait()
        proxy.check(self)
        # nginx hashes, and knows nobody.
        if kind != "nginx":
            self.learn(proxy, self.scale.sessions if sessions is None else sessions)
        return proxy

    def learn(self, proxy, count, first=0):
        """Makes sessions known, and sees to it that they are."""
        learn(self, proxy.port, count, first)
        if proxy.kind == "homing" and (known := proxy.known()) < first + count:
            raise Failed(f"{proxy.name} knows {known} sessions of {first + count}")

    def relay(self, backend):
        relay = proxies.Relay(self, backend.ports[0])
        self.running.append(relay)
        return relay

    def load(self, command, prompt=False):
        process = Process(command, self.load_cpus, self.folder("load") / "log", pipe=True, prompt=prompt)
        self.running.append(process)
        return process

    def run_load(self, command, patience, prompt=False):
        process = self.load(command, prompt)
        printed = process.finish(patience)
        self.running.remove(process)
        return printed

    # --- measuring

    def measure(self, proxy, load, backend, seconds=None):
        """CPU of the proxy over the requests that backends answered meanwhile, in the middle of a load."""
        seconds = seconds or self.scale.seconds
        answered = backend.answered()
        running = load.start(self, proxy.port, seconds + round(self.LEAD + self.TAIL), plain=proxy.kind == "floor")
        time.sleep(self.LEAD)
        requests, usage = backend.answered(), Usage(self, proxy)
        time.sleep(seconds)
        requests = backend.answered() - requests
        passed, cpu, others = usage.since()
        succeeded = running.finish()
        for process in running.processes:
            self.running.remove(process)
        answered = backend.answered() - answered
        # What was under way at the end was answered, or was not.
        if abs(answered - succeeded) > 2 * load.under_way + answered / 100:
            raise Failed(f"{proxy.name}: backends answered {answered} requests, the load counted {succeeded}")
        if not requests:
            raise Failed(f"{proxy.name} answered nothing within {seconds} s")
        return Sample(cpu / requests, requests / passed, cpu / passed, others)


class Usage:
    """What a proxy takes from now on, and what others take of its core."""

    def __init__(self, bench, proxy):
        self.bench, self.proxy = bench, proxy
        self.began, self.cpu, self.core = time.monotonic(), proxy.cpu(), busy(bench.proxy_cpus)

    def since(self):
        """Seconds that have passed, the proxy's CPU time, and the share of its core that others took."""
        cpu, core, passed = self.proxy.cpu() - self.cpu, busy(self.bench.proxy_cpus) - self.core, time.monotonic() - self.began
        return passed, cpu, max(0.0, core - cpu) / passed


def busy(cpus):
    """Seconds for which these cores were not idle, in the kernel's ticks."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name[3:].isdigit() and int(name[3:]) in cpus:
            # user, nice, system, (idle, iowait,) irq, softirq, steal
            ticks += sum(int(times[at]) for at in (0, 1, 2, 5, 6, 7))
    return ticks / os.sysconf("SC_CLK_TCK")


def which(program):
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found:
        raise Failed(f"{program} is missing: bench/run installs it")
    return found
