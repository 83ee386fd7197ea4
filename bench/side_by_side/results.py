"""Medians, ratios, targets, and tables of them. Pure."""

from dataclasses import dataclass, field
from statistics import median

PEERS = ("nginx", "HAProxy")


@dataclass(frozen=True)
class Ratio:
    """A median, and between what the rounds were."""

    value: float
    least: float
    most: float

    def __str__(self):
        spread = f" ({self.least:.2f}-{self.most:.2f})" if self.most - self.least >= 0.005 else ""
        return f"{self.value:.2f}{spread}"


@dataclass
class Row:
    """One line of the table. Values are text by the name of a column."""

    work: str
    title: str
    unit: str
    values: dict
    ratio: str = ""
    target: str = ""
    # None: nothing was promised, or it cannot be measured here.
    reached: bool | None = None
    notes: list = field(default_factory=list)


def ratio(ours, theirs):
    """Of two lists with a value for each round."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))


def better_peer(rounds):
    """The one with the smaller median."""
    return min((peer for peer in PEERS if peer in rounds), key=lambda peer: median(rounds[peer]))


def against_peers(work, title, unit, rounds, target, shown, scale=1.0):
    """A row from {name: [value of each round]}, where less is better."""
    values = {name: shown.format(median(each) * scale) for name, each in rounds.items()}
    row = Row(work, title, unit, values)
    if "homing" in rounds and any(peer in rounds for peer in PEERS):
        found = ratio(rounds["homing"], rounds[better_peer(rounds)])
        row.ratio = str(found)
        if target is not None:
            row.target, row.reached = f"≤ {target:.2f}", at_most(found.value, target)
    return row


def at_most(value, target):
    """As it is shown: two places."""
    return round(value, 2) <= target


COLUMNS = ("homing", *PEERS, "floor")


def main_table(rows):
    head = ["work", "what", "unit", *COLUMNS, "ratio (rounds)", "target", "reached"]
    lines = []
    for row in rows:
        reached = {True: "yes", False: "no", None: ""}[row.reached]
        lines.append(
            [f"`{row.work}`", row.title, row.unit, *(row.values.get(column, "") for column in COLUMNS), row.ratio, row.target, reached]
        )
    return table(head, lines)


def table(head, lines):
    """Markdown, aligned for those who read it as it is."""
    widths = [max(len(str(line[at])) for line in [head, *lines]) for at in range(len(head))]
    form = lambda line: "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
    return "\n".join([form(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(form, lines)])


def summary(rows):
    judged = [row for row in rows if row.reached is not None]
    if not judged:
        return ""
    missed = [f"`{row.work}` ({row.unit})" for row in judged if not row.reached]
    end = f"; not: {', '.join(missed)}" if missed else ""
    return f"{len(judged) - len(missed)} of {len(judged)} targets reached{end}."
