"""Measures homing beside nginx and HAProxy; bench/run and bench/compare build and install what it takes."""

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path

import works
from bench import CHECK, Bench, Scale
from processes import Failed, raise_limits
from report import Report, header

INTRODUCTION = """\
# Side by side

Written by `bench/run`; do not edit. [README.md](README.md) says what is measured, and how.
"""


def main():
    arguments = parse()
    # Ended like by Ctrl-C: what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.list:
        for work in works.WORKS:
            print(f"{work.name:18} {work.title.format('few', 'many')}")
        return
    chosen = works.chosen(arguments.works)
    if arguments.compare or arguments.old:
        chosen = [works.comparable(chosen)]
    if arguments.parse_only:
        return
    if not arguments.tool or not arguments.homing:
        raise Failed("start this by bench/run or bench/compare")
    raise_limits()
    scale = CHECK if arguments.check else Scale()
    if arguments.rounds:
        scale = replace(scale, rounds=arguments.rounds)
    if arguments.seconds:
        scale = replace(scale, seconds=arguments.seconds)
    with Bench(arguments.homing, arguments.tool, scale) as bench:
        if arguments.old:
            compare(bench, chosen, arguments)
        else:
            measure(bench, chosen, arguments)


def measure(bench, chosen, arguments):
    report = Report()
    head = header(bench)
    for work in chosen:
        try:
            work.run(bench, report)
        except Failed as error:
            raise Failed(f"{work.name}: {error}") from None
        finally:
            bench.end_all()
    text = f"{head}\n\n{report.text()}\n"
    print(text)
    if arguments.results:
        arguments.results.write_text(f"{INTRODUCTION}\n{text}")


def compare(bench, chosen, arguments):
    costs, found = works.compare(bench, chosen[0], arguments.old, arguments.homing)
    for name in ("old", "new"):
        each = ", ".join(f"{cost * works.MICRO:.2f}" for cost in costs[name])
        print(f"{name}: {each} µs a request")
    print(f"{chosen[0].name}: {found} of {arguments.old_name}")
    if arguments.max and found.value > arguments.max:
        raise Failed(f"{found.value:.3f} is above {arguments.max}")


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description="Measures homing beside nginx and HAProxy.")
    parser.add_argument("works", nargs="*", metavar="WORK", help="only these lines of the table; RESULTS.md stays as it is")
    parser.add_argument("--list", action="store_true", help="list the works")
    parser.add_argument("--rounds", type=at_least_one, help="rounds of each work (5)")
    parser.add_argument("--seconds", type=at_least_one, help="seconds of each round (3)")
    parser.add_argument("--check", action="store_true", help="everything for a moment, to see that it works; the numbers mean nothing")
    parser.add_argument("--homing", type=program, metavar="PATH", help="another program than target/release/homing")
    # Those of bench/run and bench/compare.
    parser.add_argument("--tool", type=program, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--old", type=program, help=argparse.SUPPRESS)
    parser.add_argument("--old-name", help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parse-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--max", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def at_least_one(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def program(text):
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no program {text}")
    return path


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
