"""Runs real applications behind homing and prints a table: application, phase, users who kept their session."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from apps import APPLICATIONS  # noqa: E402
from homing import BINARY  # noqa: E402
from phases import LONGEST, PHASES, Run  # noqa: E402
from processes import Failed, Started  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(prog="tests/applications/run", description=__doc__)
    parser.add_argument("--list", action="store_true", help="the applications")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this one; repeat for more")
    parser.add_argument("--users", type=int, default=20, help="users at once (default: 20; browsers: 6 at most)")
    parser.add_argument("--keep", action="store_true", help="keep the logs even if nothing is wrong")
    return parser.parse_args()


def row(cells):
    widths = (28, 8, 8, 8, 10, 8, 22, 7)
    return " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths)).rstrip()


def too_long(*_):
    raise Failed(f"not through after {LONGEST} s")


def main():
    options = arguments()
    if options.list:
        for name, application in APPLICATIONS.items():
            print(f"{name:<12} {application.title}")
        return 0
    names = options.only or list(APPLICATIONS)
    unknown = [name for name in names if name not in APPLICATIONS]
    if unknown or options.users < 1:
        print(f"unknown: {', '.join(unknown)} (see --list)" if unknown else "at least one user", file=sys.stderr)
        return 2
    if not BINARY.exists():
        print(f"{BINARY} is missing: cargo build --release, or set HOMING_BIN", file=sys.stderr)
        return 2
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="homing-applications-"))
    rows, faults = [], {}
    started = Started()
    try:
        for name in names:
            folder = work / name
            folder.mkdir()
            began = time.monotonic()
            run = Run(APPLICATIONS[name](), started, folder, options.users)
            try:
                run.go()
            finally:
                signal.alarm(0)
                started.end()
            cells = [run.application.title, *(run.cells.get(phase, "-") for phase in PHASES),
                     f"{time.monotonic() - began:.0f} s"]
            rows.append(cells)
            print(row(cells), flush=True)
            if run.faults:
                faults[name] = run.faults
                for fault in run.faults[:8]:
                    print(f"    {fault}", flush=True)
                if len(run.faults) > 8:
                    print(f"    and {len(run.faults) - 8} more", flush=True)
    finally:
        started.end()
        if not options.keep and len(rows) == len(names) and not faults:
            shutil.rmtree(work, ignore_errors=True)
    print("\nusers who kept their session / users\n")
    print(row(["application", *PHASES, "took"]))
    for cells in rows:
        print(row(cells))
    if faults:
        print(f"\n{sum(map(len, faults.values()))} faults in {', '.join(faults)}; logs are in {work}")
        return 1
    print("\nnothing was lost")
    return 0


sys.exit(main())
