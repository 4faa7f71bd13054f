"""PURE: where each job of a family stands in the picture of it."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from windlass.family import Kin

WIDE, HIGH, GAP, LINE = 210, 40, 46, 12
"""Width and height of a job in the picture, and what is between two of them; in pixels."""


class Box(Struct, frozen=True):
    """Where a job stands, and where the line to its parent begins; in pixels."""

    kin: Kin
    x: int
    y: int
    link: str


class Picture(Struct, frozen=True):
    """The jobs around one as a drawing."""

    wide: int
    high: int
    boxes: list[Box]


def picture(family: Sequence[Kin]) -> Picture:
    """Generations from left to right; each job beside the first of its children."""
    children: dict[str | None, list[Kin]] = {}
    for one in family:
        children.setdefault(one.parent, []).append(one)
    boxes: list[Box] = []
    row = place(family[0], children, 0, (0, 0), boxes)
    deepest = max(one.depth for one in family)
    return Picture(deepest * (WIDE + GAP) + WIDE + 2, row * (HIGH + LINE) - LINE + 2, boxes)


def place(
    one: Kin, children: Mapping[str | None, Sequence[Kin]], row: int, parent: tuple[int, int], boxes: list[Box]
) -> int:
    """Put a job and what is below it, from that row on; the next free row."""
    x, y = 1 + one.depth * (WIDE + GAP), 1 + row * (HIGH + LINE)
    left, top = parent
    middle = y + HIGH // 2
    link = f"M{left} {top}C{left + GAP // 2} {top} {x - GAP // 2} {middle} {x} {middle}" if one.parent else ""
    boxes.append(Box(one, x, y, link))
    below = children.get(one.id, ())
    for child in below:
        row = place(child, children, row, (x + WIDE, middle), boxes)
    return row if below else row + 1
