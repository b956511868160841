#!/usr/bin/env python3
"""Draws the picture of results in README.md from the first table of docs/results-libgc.md.

    python3 ci/picture.py            writes docs/images/results.svg
    python3 ci/picture.py --check    fails if the picture is not that of the table
"""

import pathlib
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs/results-libgc.md"
PICTURE = ROOT / "docs/images/results.svg"

BAR, GAP, LEFT, SCALE, TOP = 9, 12, 190, 330, 46


def rows():
    """Program, CPU ratio, memory ratio."""
    found = []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 13 and cells[0] not in ("program", "---"):
            found.append((cells[0], float(cells[3]), float(cells[10])))
    if not found:
        sys.exit(f"{TABLE}: there is no table of programs")
    return found


def picture():
    table = rows()
    step = 2 * BAR + GAP
    height = TOP + step * len(table) + 26
    width = LEFT + round(SCALE * 1.15) + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" rx="6" fill="#f6f7f9"/>',
        '<g fill="#1c2733">',
        f'<text x="{LEFT}" y="18" font-weight="bold">Ours, where the system\'s libgc takes 1</text>',
        f'<rect x="{LEFT}" y="26" width="10" height="10" fill="#2f6fde"/><text x="{LEFT + 15}" y="35">CPU time</text>',
        f'<rect x="{LEFT + 90}" y="26" width="10" height="10" fill="#e07b39"/><text x="{LEFT + 105}" y="35">peak memory</text>',
    ]
    for at in (0.25, 0.5, 0.75, 1.0):
        x = LEFT + round(SCALE * at)
        colour = "#1c2733" if at == 1.0 else "#c4ccd4"
        out.append(f'<line x1="{x}" y1="{TOP - 4}" x2="{x}" y2="{height - 22}" stroke="{colour}"/>')
        out.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#63707d">{at}</text>')
    for index, (name, cpu, memory) in enumerate(table):
        y = TOP + step * index
        out.append(f'<text x="{LEFT - 8}" y="{y + BAR + 4}" text-anchor="end">{escape(name)}</text>')
        for value, colour, top in ((cpu, "#2f6fde", y), (memory, "#e07b39", y + BAR)):
            long = round(SCALE * value)
            out.append(f'<rect x="{LEFT}" y="{top}" width="{long}" height="{BAR - 1}" fill="{colour}"/>')
            out.append(f'<text x="{LEFT + long + 4}" y="{top + 8}" font-size="9">{value:.2f}</text>')
    out += ["</g>", "</svg>"]
    return "\n".join(out) + "\n"


def main():
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    drawn = picture()
    if arguments:
        if not PICTURE.exists() or PICTURE.read_text() != drawn:
            sys.exit(f"{PICTURE.relative_to(ROOT)} is not the picture of the table: run python3 ci/picture.py")
        print(f"ok: {len(rows())} programs")
        return
    PICTURE.write_text(drawn)


main()
