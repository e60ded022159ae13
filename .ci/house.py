"""Draw the plan of the house from the code's own imports, as nbs/house.svg.

`--check` writes nothing; it fails when the picture is not that of the code, or when an import runs against the reading
order.
"""

import ast
import html
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, PICTURE = ROOT / "har_ls", ROOT / "nbs" / "house.svg"
CHAPTERS = {  # folder of notebooks -> the modules that it exports, by the first part of their names
    "01_loss": ("loss",),
    "02_data": ("data",),
    "03_models": ("models",),
    "04_training": ("predictions", "recipes", "training", "search"),
    "05_metrics": ("metrics",),
    "06_runs": ("runs",),
    "07_evidence": ("evidence",),
    "08_paper": ("paper",),
}
TOP = ("cli", "bench", "reading_speed")  # these stand on everything
WIDTH, GAP, LINE, TITLE = 128, 12, 15, 24


def modules() -> dict:
    "Name without the package -> path, in alphabetical order."
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if not path.name.startswith("_"):
            found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports(name: str, path: Path, known) -> set:
    "The modules of the package that a module names in its imports, at its top or inside a function."
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            asked = [alias.name.removeprefix("har_ls.") for alias in node.names if alias.name.startswith("har_ls.")]
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            if not node.level and not f"{node.module}.".startswith("har_ls."):
                continue
            stem = ".".join([*base, *filter(None, [(node.module or "").removeprefix("har_ls").removeprefix(".")])])
            asked = [stem, *(f"{stem}.{alias.name}".lstrip(".") for alias in node.names)]
        else:
            continue
        found |= {one for one in asked if one in known and one != name}
    return found


def chapter(name: str) -> str:
    "The chapter of a module."
    first = name.partition(".")[0]
    return next(
        (folder for folder, roots in CHAPTERS.items() if first in roots), "on top" if first in TOP else "09_underneath"
    )


def rank(folder: str) -> int:
    "Where a chapter stands: what is underneath first, then the chapters as they are read, then what is on top."
    return ["09_underneath", *CHAPTERS, "on top"].index(folder)


def against(known: dict) -> list:
    "Pairs of modules of which the first imports the second although the second stands further to the right."
    pairs = ((name, other) for name, path in known.items() for other in sorted(imports(name, path, known)))
    return [(a, b) for a, b in pairs if rank(chapter(b)) > rank(chapter(a))]


def text(x, y, words, kind="room"):
    return f'<text x="{x}" y="{y}" class="{kind}">{html.escape(words)}</text>'


def box(x, y, title, rooms, width=WIDTH, across=1):
    "A chapter: a frame with its title and its rooms."
    rows = -(-len(rooms) // across)
    height = TITLE + 8 + rows * LINE
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" class="frame"/>',
        text(x + 8, y + 17, title, "title"),
    ]
    parts += [
        text(x + 8 + (i % across) * width // across, y + TITLE + 12 + i // across * LINE, room)
        for i, room in enumerate(rooms)
    ]
    return height, parts


def arc(a, b, n, top, wrong):
    "An arrow from the chapter that imports to the one it imports, as wide as there are imports."
    rise = 18 + 13 * abs(a - b) / (WIDTH + GAP)
    kind = "wrong" if wrong else "arc"
    path, wide = f"M{a} {top} C{a} {top - rise} {b} {top - rise} {b} {top}", min(1 + n / 6, 6)
    return f'<path d="{path}" class="{kind}" stroke-width="{wide:.1f}"/>'


def draw() -> str:
    "The picture."
    known = modules()
    rooms = {folder: [] for folder in [*CHAPTERS, "09_underneath", "on top"]}
    for name in known:
        rooms[chapter(name)].append(name.partition(".")[2] or name)
    arrows = Counter()
    for name, path in known.items():
        for other in imports(name, path, known):
            if chapter(other) != chapter(name):
                arrows[chapter(name), chapter(other)] += 1
    order = list(CHAPTERS)
    total = len(order) * (WIDTH + GAP) - GAP
    place = {folder: 10 + i * (WIDTH + GAP) for i, folder in enumerate(order)}
    roof, parts = box(10, 10, "on top: the command and the bench", rooms["on top"], total, 8)
    top, lowest = roof + 100, 0
    for folder in order:
        height, drawn = box(place[folder], top, folder, rooms[folder])
        lowest, parts = max(lowest, height), parts + drawn
    between = [
        (order.index(b) > order.index(a), place[a] + WIDTH / 2, place[b] + WIDTH / 2, n)
        for (a, b), n in arrows.items()
        if {a, b} <= place.keys()
    ]
    parts += [
        arc(a, b, n, top, wrong) for wrong, a, b, n in sorted(between)
    ]  # what runs the wrong way is drawn last, and red
    ground, drawn = box(
        10, top + lowest + 24, "09_underneath: what everything stands on", rooms["09_underneath"], total, 8
    )
    parts += drawn
    style = (
        """.frame{fill:#f6f8fa;stroke:#57606a}.title{font-weight:600}text{font-family:system-ui,sans-serif;font-
        size:12px;fill:#1f2328}"""
        ".room{font-size:11px}.arc{fill:none;stroke:#0969da;opacity:.45}.wrong{fill:none;stroke:#cf222e}"
    )
    height = top + lowest + ground + 34
    size = f'viewBox="0 0 {total + 20} {height}" width="{total + 20}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return (
        "\n".join(
            [
                head,
                f"<style>{style}</style>",
                f'<rect width="{total + 20}" height="{height}" fill="#ffffff"/>',
                *parts,
                "</svg>",
            ]
        )
        + "\n"
    )


def main() -> int:
    picture = draw()
    if "--check" not in sys.argv:
        PICTURE.write_text(picture, encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture:
        print(f"{PICTURE.relative_to(ROOT)} is not what the code's imports say: run `make export`", file=sys.stderr)
        return 1
    wrong = against(modules())
    for a, b in wrong:
        print(
            f"har_ls.{a} ({chapter(a)}) imports har_ls.{b} ({chapter(b)}), which is read later: move what it needs",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
