"""The works: what is asked of the proxies, and what is promised of it."""

import sys
from dataclasses import dataclass
from statistics import median

from bench import Usage
from loads import H2load, Handshakes, Hold, Wrk, rate
from processes import Failed
from results import PEERS, Row, against_peers, at_most, ratio

PROXIES = ("homing", *PEERS)
MICRO = 1e6
# What others may take of the proxy's core without a word.
DISTURBED = 0.05
# Beyond this, how long a proxy takes says more about the others.
TOO_DISTURBED = 0.2


@dataclass(frozen=True)
class Cost:
    """CPU per request, of every proxy in turn."""

    name: str
    title: str
    load: object
    target: float | None
    floor: bool = False
    # MiB that may be resident at most, if that was promised.
    peak: int | None = None

    def run(self, bench, report):
        backend = bench.backend()
        turns = [bench.proxy(kind, backend) for kind in PROXIES]
        if self.floor:
            turns.append(bench.relay(backend))
        samples = in_turn(bench, {proxy: backend for proxy in turns}, self.load, self.name)
        report.rows.append(against_peers(self.name, self.title, "µs", cpu_of(samples), self.target, "{:.1f}", MICRO))
        report.throughput(self.name, samples)
        if self.peak:
            peaks = {proxy.name: [proxy.memory("VmHWM") / 2**20] for proxy in turns}
            row = against_peers(f"{self.name}", f"{self.title}: most memory", "MiB", peaks, None, "{:.0f}")
            row.target, row.reached = f"< {self.peak} MiB", peaks["homing"][0] < self.peak
            report.rows.append(row)


@dataclass(frozen=True)
class Floor:
    """The kernel floor alone."""

    name: str
    title: str
    load: object

    def run(self, bench, report):
        backend = bench.backend()
        samples = in_turn(bench, {bench.relay(backend): backend}, self.load, self.name)
        report.rows.append(against_peers(self.name, self.title, "µs", cpu_of(samples), None, "{:.1f}", MICRO))
        report.throughput(self.name, samples)


@dataclass(frozen=True)
class ManySessions:
    """Our own cost among many known sessions, and among few."""

    name: str
    title: str
    target: float

    def run(self, bench, report):
        backend = bench.backend()
        few, many = bench.scale.sessions, bench.scale.many_sessions
        proxies = [bench.proxy("homing", backend, f"homing-{count}", sessions=count) for count in (few, many)]
        loads = [Wrk(64, sessions=few), Wrk(64, sessions=many)]
        own_ratio(self, bench, report, [backend, backend], proxies, loads, (f"{few:,}", f"{many:,}"))


@dataclass(frozen=True)
class ManyBackends:
    """Our own cost with many backends, and with few."""

    name: str
    title: str
    target: float

    def run(self, bench, report):
        counts = (3, bench.scale.many_backends)
        backends = [bench.backend(count) for count in counts]
        proxies = [bench.proxy("homing", backend, f"homing-{len(backend.ports)}") for backend in backends]
        own_ratio(self, bench, report, backends, proxies, [Wrk(64), Wrk(64)], counts)


@dataclass(frozen=True)
class Workers:
    """What a second worker costs: twice the throughput at most, less what a request costs more."""

    name: str
    title: str
    target: float

    def run(self, bench, report):
        spare = len(bench.cpus) >= 4
        if spare:
            both, bench.load_cpus = set(bench.cpus[:2]), set(bench.cpus[2:])
            load = Wrk(128, threads=2)
        else:
            both, load = set(bench.cpus[:2]), Wrk(64)
        backend = bench.backend()
        one = bench.proxy("homing", backend, "homing-1")
        two = bench.proxy("homing", backend, "homing-2", workers=2, cpus=both)
        samples = in_turn(bench, {one: backend, two: backend}, load, self.name)
        costs = cpu_of(samples)
        gain = ratio([2 * cost for cost in costs["homing-1"]], costs["homing-2"])
        shown = " / ".join(f"{median(costs[name]) * MICRO:.1f}" for name in ("homing-1", "homing-2"))
        row = Row(self.name, self.title, "µs", {"homing": shown}, f"{gain} x", f"≥ {self.target} x")
        if spare:
            row.reached = round(gain.value, 2) >= self.target
        else:
            row.target += ", not measurable here"
            row.notes.append(
                f"`{self.name}`: {len(bench.cpus)} cores leave none for load and backends beside two workers, so what "
                "is shown is what a request costs while the load takes turns with the second worker; it says nothing "
                "about the target."
            )
        report.rows.append(row)
        report.throughput(self.name, samples)


@dataclass(frozen=True)
class Idle:
    """Resident memory for each connection that is idle after a request."""

    name: str
    title: str
    protocol: str
    target: int

    def run(self, bench, report):
        each = {}
        count = bench.scale.held
        for kind in PROXIES:
            backend = bench.backend()
            proxy = bench.proxy(kind, backend)
            # What the first connections make anybody allocate belongs to no connection.
            Hold(bench, proxy.port, self.protocol, 20).end()
            before = proxy.settled_memory()
            held = Hold(bench, proxy.port, self.protocol, count)
            each[kind] = [(proxy.settled_memory() - before) / count / 1024]
            held.end()
            bench.end_all()
            said(f"{self.name}: {kind} {each[kind][0]:.1f} KiB")
        row = against_peers(self.name, self.title, "KiB", each, None, "{:.1f}")
        row.target, row.reached = f"≤ {self.target} KiB", round(each["homing"][0], 1) <= self.target
        report.rows.append(row)


@dataclass(frozen=True)
class SessionMemory:
    """Resident memory for each session that is known. nginx, which hashes, knows none."""

    name: str
    title: str

    def run(self, bench, report):
        each = {}
        count = bench.scale.many_sessions
        for kind in ("homing", "HAProxy"):
            backend = bench.backend()
            proxy = bench.proxy(kind, backend, sessions=1_000)
            before = proxy.settled_memory()
            bench.learn(proxy, count, first=1_000)
            each[kind] = [(proxy.settled_memory() - before) / count]
            bench.end_all()
            said(f"{self.name}: {kind} {each[kind][0]:.0f} B")
        row = against_peers(self.name, self.title, "B", each, None, "{:.0f}")
        row.values["nginx"] = "-"
        report.rows.append(row)


@dataclass(frozen=True)
class Latency:
    """Percentiles in an open loop: when each proxy's core is half busy, and at one rate for all."""

    name: str
    title: str
    protocol: str
    load: object
    target: float

    def run(self, bench, report):
        idle = bench.backend()
        proxies = [bench.proxy(kind, idle) for kind in PROXIES]
        # A proxy is saturated when its core is; whether the load got it there does not matter for that.
        half = {}
        for proxy in proxies:
            half[proxy.name] = 0.5 / bench.measure(proxy, self.load, idle).cpu
            said(f"{self.name}: {proxy.name} is half busy at {half[proxy.name]:,.0f}/s")
        bench.end_all()
        # What waits for the load or for backends must not look like the proxy's doing.
        backend = bench.backend(prompt=True)
        proxies = [bench.proxy(kind, backend) for kind in PROXIES]
        common = min(half.values())
        own, same = ({proxy.name: [] for proxy in proxies} for _ in range(2))
        others = 0.0
        for number in range(bench.scale.rounds):
            for proxy in proxies:
                for found, per_second in ((own, half[proxy.name]), (same, common)):
                    usage = Usage(bench, proxy)
                    one = rate(bench, proxy.port, self.protocol, per_second, 0.5, bench.scale.seconds)
                    found[proxy.name].append(one)
                    others = max(others, usage.since()[2])
                    said(
                        f"{self.name}: round {number + 1}, {proxy.name}, {per_second:,.0f}/s: p50 {one['p50']:.0f} µs, "
                        f"p99 {one['p99']:.0f} µs; the load was late by {one['late']:.0f} µs"
                    )
        tails = {name: [each["p99"] for each in rounds] for name, rounds in own.items()}
        row = against_peers(self.name, self.title, "µs", tails, self.target, "{:.0f}")
        late = [name for name, rounds in own.items() if median(one["late"] / one["p99"] for one in rounds) > 0.5]
        if late:
            row.reached = None
            row.target += ", not measurable here"
            row.notes.append(
                f"`{self.name}`: at half of what {' and '.join(late)} can do, the load itself was late, on the cores that it "
                "shares with the backends; more cores would tell."
            )
        report.disturbed(others)
        if others > TOO_DISTURBED:
            # Ratios of CPU outlast that; waits for the core do not.
            row.reached = None
            row.target += ", not while the machine has other work"
        report.rows.append(row)
        for what, rounds, rates in (("own rate", own, half), ("one rate", same, dict.fromkeys(half, common))):
            for name, each in rounds.items():
                cells = [f"{median(one[key] for one in each):,.0f}" for key in ("p50", "p99", "p999", "late")]
                report.latencies.append([f"`{self.name}`, {what}", name, f"{rates[name]:,.0f}", *cells])


def in_turn(bench, turns, load, work):
    """{name: [a sample of each round]}; `turns` is {proxy: its backend}, `load` one for all or one for each."""
    loads = load if isinstance(load, list) else [load] * len(turns)
    samples = {proxy.name: [] for proxy in turns}
    for number in range(bench.scale.rounds):
        for (proxy, backend), each in zip(turns.items(), loads, strict=True):
            sample = bench.measure(proxy, each, backend)
            samples[proxy.name].append(sample)
            said(
                f"{work}: round {number + 1}, {proxy.name}: {sample.cpu * MICRO:.1f} µs, {sample.rate:,.0f}/s, "
                f"{sample.busy:.0%} of a core"
                + (f", others {sample.others:.0%}" if sample.others > DISTURBED else "")
            )
    return samples


def own_ratio(work, bench, report, backends, proxies, loads, shown):
    """A row that compares us with ourselves: the second proxy with the first."""
    samples = in_turn(bench, dict(zip(proxies, backends, strict=True)), loads, work.name)
    costs = cpu_of(samples)
    first, second = (costs[proxy.name] for proxy in proxies)
    found = ratio(second, first)
    cells = f"{median(first) * MICRO:.1f} / {median(second) * MICRO:.1f}"
    title = work.title.format(*shown)
    row = Row(work.name, title, "µs", {"homing": cells}, f"{found} of our own", f"≤ {work.target:.2f}")
    row.reached = at_most(found.value, work.target)
    report.rows.append(row)
    report.throughput(work.name, samples)


def cpu_of(samples):
    return {name: [sample.cpu for sample in each] for name, each in samples.items()}


def said(line):
    """Progress, for those who wait."""
    print(line, file=sys.stderr, flush=True)


WORKS = [
    Cost("h1-1k-64", "HTTP/1.1, 1 KiB, 64 connections", Wrk(64), 0.90, floor=True),
    Cost("h1-1k-512", "HTTP/1.1, 1 KiB, 512 connections", Wrk(512), 0.90, floor=True),
    Cost("h1-64k", "HTTP/1.1, 64 KiB", Wrk(64, "/64k"), 0.80, floor=True),
    Cost("h1-1m-down", "HTTP/1.1, 1 MiB down", Wrk(16, "/1m"), 0.92, floor=True),
    Cost("h1-1m-up", "HTTP/1.1, 1 MiB up", Wrk(16, "/up", upload=1 << 20), 0.95, floor=True),
    Cost("h2-1k", "HTTP/2, 1 KiB, 16 x 16 streams", H2load(), 1.00),
    Cost("h2-1m", "HTTP/2, 1 MiB, 16 x 16 streams", H2load("/1m"), 0.85, peak=64),
    Cost("handshake-full", "full handshake, 1 request, close", Handshakes(resume=False), 0.60),
    Cost("handshake-resumed", "resumed handshake, 1 request, close", Handshakes(resume=True), 0.80),
    ManySessions("sessions-1m", "{0} / {1} sessions known", 1.05),
    ManyBackends("backends-300", "{0} / {1} backends", 1.05),
    Workers("workers-2", "1 / 2 workers, throughput at equal CPU", 1.8),
    Idle("idle-h1", "memory of an idle connection, HTTP/1.1", "h1", 14),
    Idle("idle-h2", "memory of an idle connection, HTTP/2", "h2", 24),
    SessionMemory("session-memory", "memory of a session"),
    Latency("latency-h1", "HTTP/1.1, p99 when half busy", "h1", Wrk(64), 1.00),
    Latency("latency-h2", "HTTP/2, p99 when half busy", "h2", H2load(), 1.00),
    Floor("floor", "a relay that neither parses nor encrypts, 1 KiB", Wrk(64)),
]
BY_NAME = {work.name: work for work in WORKS}


def chosen(names):
    """The works of these names, or all of them; the floor is in the others' columns."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise Failed(f"no such work: {', '.join(unknown)}. There are: {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] or [work for work in WORKS if not isinstance(work, Floor)]


def comparable(chosen):
    """The one work that two programs of ours are to do."""
    costs = [each.name for each in WORKS if isinstance(each, Cost)]
    if len(chosen) != 1 or chosen[0].name not in costs:
        raise Failed(f"one work that costs CPU per request can be compared: {', '.join(costs)}")
    return chosen[0]


def compare(bench, work, old, new):
    """The cost of one work for two programs of ours in turn: how one is to the other."""
    backend = bench.backend()
    proxies = [bench.proxy("homing", backend, name, program=program) for name, program in (("old", old), ("new", new))]
    samples = in_turn(bench, {proxy: backend for proxy in proxies}, work.load, work.name)
    costs = cpu_of(samples)
    return costs, ratio(costs["new"], costs["old"])
