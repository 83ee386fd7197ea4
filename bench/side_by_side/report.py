"""What a run found, and on what."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from statistics import median

from proxies import version
from results import main_table, summary, table

ROOT = Path(__file__).resolve().parents[2]


class Report:
    def __init__(self):
        self.rows, self.latencies, self._throughput = [], [], []
        self._others = 0.0

    def disturbed(self, others):
        """Others took this share of the proxy's core in a round."""
        self._others = max(self._others, others)

    def throughput(self, work, samples):
        for name, each in samples.items():
            per_second, busy = median(one.rate for one in each), median(one.busy for one in each)
            self.disturbed(max(one.others for one in each))
            self._throughput.append([f"`{work}`", name, f"{per_second:,.0f}", f"{busy:.0%}"])

    def text(self):
        """The tables as Markdown."""
        parts = []
        if self.rows:
            parts.append(main_table(self.rows))
            parts.append(summary(self.rows))
        if self._others > 0.1:
            parts.append(f"The machine had other work: in one round it took {self._others:.0%} of the proxy's core.")
        parts += [note for row in self.rows for note in row.notes]
        if self._throughput:
            parts.append("Throughput in the same rounds. Where a proxy is not busy all the time, load and backends, which share what cores are left, are what limits it.")
            parts.append(table(["work", "proxy", "requests/s", "of a core"], self._throughput))
        if self.latencies:
            parts.append("Latency in µs from the moment at which a request was due. In 99 of 100 cases the load began it within what the last column says.")
            parts.append(table(["work", "proxy", "requests/s", "p50", "p99", "p99.9", "load's p99"], self.latencies))
        return "\n\n".join(part for part in parts if part)


def header(bench):
    """The machine, the versions, the date, the revision, and how much was measured."""
    scale = bench.scale
    programs = ", ".join(f"{kind} {version(program, kind)}" for kind, program in bench.programs.items())
    homing = bench.programs["homing"]
    # Only of the program that bench/run builds is known what it was made from.
    ours = f"homing at {revision()}" if homing == ROOT / "target/release/homing" else f"homing as {homing}"
    lines = [
        f"- {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {ours}",
        f"- {processor()}, {len(bench.cpus)} cores, Linux {platform.release()}",
        f"- {programs}; {loads()}",
        f"- medians of {scale.rounds} rounds of {scale.seconds} s that visit every proxy in turn; each proxy has one worker on a core of its own",
    ]
    return "\n".join(lines)


def revision():
    git = lambda *arguments: subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False).stdout.strip()
    found = git("rev-parse", "--short=12", "HEAD") or "an unknown revision"
    # What is measured is the program, and what measures it.
    changed = git("status", "--porcelain", "--", "src", "bench", "Cargo.toml", "Cargo.lock", ":!bench/RESULTS.md")
    return found + (" with changes that are not committed" if changed else "")


def processor():
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def loads():
    wrk = re.search(r"wrk (?:debian/)?([\w.+-]+)", _output("wrk", "-v"))
    h2load = re.search(r"nghttp2/([\w.]+)", _output("h2load", "--version"))
    return f"wrk {wrk[1] if wrk else '?'}, h2load {h2load[1] if h2load else '?'}"


def _output(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.stdout + done.stderr



