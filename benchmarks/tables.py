"""Writes the tables of README.md and docs/benchmarks.md from the stored results, worst rows first.

    ./run bench tables

A table stands between `<!-- NAME -->` and `<!-- end -->`. One whose results are missing stays.
"""

import re
from collections.abc import Callable, Iterable, Iterator

import results
from results import Row

PAGES = ("README.md", "docs/benchmarks.md")
SHOWN = 12  # rows of a table in the README
LABELS = {"h100": "H100", "v5e": "v5e", "cpu": "CPU"}
TARGETS = {
    "ids": "ids",
    "masked": "ids, mask",
    "smoothed": "ids, smoothing",
    "dense": "same shape",
    "half": "in bfloat16",
}


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """Markdown, or nothing where there are no rows."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines]) if lines else ""


# Compiled programs

Programs = dict[tuple[str, ...], dict[str, Row]]


def compiled(chosen: Callable[[Row], bool]) -> Programs:
    """Rows by loss, form, classes and layout, then by device; the worst ratio first."""
    found: Programs = {}
    for row in filter(chosen, results.load("compiled")):
        key = (row["loss"], row["form"], row["classes"], row["layout"])
        found.setdefault(key, {})[row["device"]] = row
    return found


def cells(devices: dict[str, Row], columns: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Numbers of a program, `-` where there are none."""
    for device, names in columns.items():
        row = devices.get(device, {})
        for name in names:
            number = row.get(name) or ""
            yield f"{float(number):.2f}" if number and name != "kernels" else number or "-"


NUMBERS = {
    "h100": ("kernels", "bytes", "floor", "ratio", "temporary", "seconds"),
    "v5e": ("bytes", "ratio", "temporary", "seconds"),
    "cpu": ("temporary", "seconds"),
}
HEAD = (
    "H100 kernels | bytes/L | floor/L | ratio | temporary/L | compile s "
    "| v5e bytes/L | ratio | temporary/L | compile s | CPU temporary/L | compile s"
)


def compiled_usual(shown: int | None = None) -> str:
    """The usual losses, with few classes and many, and Optax."""
    from programs import HEADS

    def chosen(row: Row) -> bool:
        peer = row["form"] == "Optax" or row["loss"] in HEADS and row["form"] in TARGETS
        return peer and row["layout"] == "last" and row["classes"] in ("2", "21")

    columns = {"h100": NUMBERS["h100"][1:5], "v5e": ("bytes", "ratio"), "cpu": ("temporary",)}
    found = compiled(chosen)
    rows = (
        [loss, TARGETS.get(form, form), classes, *cells(devices, columns)]
        for (loss, form, classes, _), devices in list(found.items())[:shown]
    )
    head = "value and gradient | target | classes | H100 bytes/L | floor/L | ratio | temporary/L"
    text = table(f"{head} | v5e bytes/L | ratio | CPU temporary/L", rows)
    if not text:
        return text
    ratios = sorted(
        float(row["ratio"])
        for devices in found.values()
        for row in devices.values()
        if row["device"] == "h100" and row["form"] != "Optax"
    )
    said = f"In the median of {len(ratios)} programs of ours an H100 moves "
    said += f"{ratios[len(ratios) // 2]:.2f} times the floor"
    return f"{said}{'; the worst of them and of Optax' if shown else ''}:\n\n{text}"


def compiled_all() -> str:
    """Every loss in its usual form."""
    usual: dict[str, str] = {}
    for loss, form, classes, layout in compiled(lambda row: row["form"] in TARGETS):
        order = list(TARGETS)
        if (classes, layout) in (("21", "last"), ("0", "")):
            usual[loss] = min(usual.get(loss, form), form, key=order.index)

    def chosen(row: Row) -> bool:
        return usual.get(row["loss"]) == row["form"] and row["classes"] in ("0", "21")

    rows = (
        [loss, TARGETS[form], *cells(devices, NUMBERS)]
        for (loss, form, _, layout), devices in compiled(chosen).items()
        if layout != "first"
    )
    return table(f"value and gradient | target | {HEAD}", rows)


def compiled_by_classes(device: str) -> str:
    """Bytes over the floor against the number of classes, both layouts."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in results.load("compiled"):
        if row["device"] == device and row["form"] in TARGETS and row["layout"]:
            key = (row["loss"], TARGETS[row["form"]], row["layout"])
            lines.setdefault(key, {})[row["classes"]] = f"{float(row['ratio']):.2f}"
    counts = sorted({int(c) for line in lines.values() for c in line})
    swept = {key: line for key, line in lines.items() if len(line) > 1}
    head = f"{LABELS[device]}, bytes over the floor | target | class axis | "
    rows = ([*key, *(line.get(str(c), "-") for c in counts)] for key, line in swept.items())
    return table(head + " | ".join(f"{c} classes" for c in counts), rows)


def compiled_maps() -> str:
    """Temporary memory of the distance maps, over a float32 map."""
    columns = dict.fromkeys(LABELS, ("temporary",))
    found = compiled(lambda row: row["form"] == "map")
    rows = ([loss, *cells(devices, columns)] for (loss, *_), devices in found.items())
    return table("distance map | temporary, in maps: H100 | v5e | CPU", rows)


# Times


def speed(shown: int | None = None, name: str = "speed_newest") -> str:
    """The fastest peer of each contest beside us."""
    fastest: dict[tuple[str, str, str], Row] = {}
    for row in results.load(name):  # the smallest ratio first
        fastest.setdefault((row["shape"], row["loss"], row["classes"]), row)
    rows = (
        [loss, shape, classes, row["ours"], f"{row['peer']} {row['theirs']}", row["ratio"]]
        for (shape, loss, classes), row in list(fastest.items())[:shown]
    )
    head = "value and gradient | shape | classes | jaxloss, ms | fastest peer, ms | over ours"
    text = table(head, rows)
    behind = sum(float(row["ratio"]) < 1 for row in fastest.values())
    count = f"A peer is faster in {behind} of {len(fastest)} rows"
    return text and f"{count}{', of which the first are' if shown else ''}:\n\n{text}"


def speed_peers(name: str = "speed_newest") -> str:
    """How each peer stands over all rows that it is in."""
    ratios: dict[str, list[float]] = {}
    for row in results.load(name):
        ratios.setdefault(row["peer"], []).append(float(row["ratio"]))
    rows = (
        [peer, len(all_), sum(x < 1 for x in all_), f"{all_[0]:.2f}", f"{all_[len(all_) // 2]:.2f}"]
        for peer, all_ in ratios.items()
    )
    return table("peer | rows | faster in | its best, over ours | its median, over ours", rows)


TABLES = {
    "compiled": lambda: compiled_usual(SHOWN),
    "compiled: usual losses": compiled_usual,
    "compiled: every loss": compiled_all,
    "compiled: classes, H100": lambda: compiled_by_classes("h100"),
    "compiled: classes, v5e": lambda: compiled_by_classes("v5e"),
    "compiled: maps": compiled_maps,
    "speed": lambda: speed(SHOWN),
    "speed: every row": speed,
    "speed: peers": speed_peers,
    "speed: JAX 0.10": lambda: speed(SHOWN, "speed"),
    "speed: JAX 0.10, peers": lambda: speed_peers("speed"),
}


def filled(page: str) -> str:
    """A page with its tables as the results have them."""

    def fill(match: re.Match[str]) -> str:
        made = TABLES[match[1]]()
        return f"<!-- {match[1]} -->\n\n{made}\n\n<!-- end -->" if made else match[0]

    names = "|".join(map(re.escape, TABLES))
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main() -> None:
    """Writes the pages."""
    for name in PAGES:
        path = results.ROOT / name
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
