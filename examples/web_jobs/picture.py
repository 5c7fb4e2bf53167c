"""Pictures of the Mandelbrot set: rows of palette indices, and PNG files of them. Standard library only.

A picture is 1.6 times as wide as it is high, and made of `COLUMNS` by `ROWS` square tiles.

>>> rows = [bytes(row) for row in tile_rows(WHOLE, width=16, detail=50, number=0)]
>>> len(rows), len(rows[0])
(2, 2)
>>> png(rows)[:8]
b'\\x89PNG\\r\\n\\x1a\\n'
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

COLUMNS: Final = 8
ROWS: Final = 5
TILES: Final = COLUMNS * ROWS


class Place(NamedTuple):
    """A part of the plane: its middle, and how wide it is."""

    title: str
    x: float
    y: float
    width: float


WHOLE: Final = Place("The whole set", -0.65, 0.0, 3.6)
PLACES: Final = {
    "whole": WHOLE,
    "seahorses": Place("Seahorse valley", -0.7453, 0.1127, 0.0065),
    "elephants": Place("Elephant valley", 0.2925, 0.0149, 0.0252),
    "spirals": Place("Triple spirals", -0.0880, 0.6540, 0.0250),
    "island": Place("An island", -1.7560, 0.0, 0.0800),
}


def tile_rows(place: Place, width: int, detail: int, number: int) -> Iterator[bytearray]:
    """The rows of one tile, in a picture that is so many pixels wide; a palette index for each pixel."""
    side = width // COLUMNS
    step = place.width / width
    row, column = divmod(number, COLUMNS)
    left = place.x + (column * side - width / 2 + 0.5) * step
    top = place.y - (row * side - side * ROWS / 2 + 0.5) * step
    for line in range(side):
        y = top - line * step
        yield bytearray(colour(complex(left + pixel * step, y), detail) for pixel in range(side))


def colour(point: complex, detail: int) -> int:
    """0 for a point of the set; else 1 to 255, by how soon it escapes. `detail`: after how many steps to give up."""
    x, y = point.real, point.imag
    quarter = (x - 0.25) ** 2 + y * y
    if quarter * (quarter + x - 0.25) <= y * y / 4 or (x + 1) ** 2 + y * y <= 0.0625:
        return 0  # in the heart or the disc left of it, where one would count to the end
    z = point
    for count in range(detail):
        z = z * z + point
        if z.real * z.real + z.imag * z.imag > 256:
            smooth = count + 1 - math.log2(math.log2(abs(z)))
            return 1 + int(32 * math.log2(max(smooth, 1.0))) % 255
    return 0


def palette() -> bytes:
    """Red, green and blue of each index: black for the set, and a circle of colours."""
    colours = bytearray(3)
    for index in range(255):
        turn = 2 * math.pi * index / 255
        for shift, low, high in ((3.5, 8, 255), (2.9, 12, 226), (2.0, 60, 214)):
            share = 0.5 + 0.5 * math.cos(turn + shift)
            colours.append(round(low + (high - low) * share))
    return bytes(colours)


def png(rows: Sequence[bytes]) -> bytes:
    """A PNG file of these rows of palette indices."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    lines = b"".join(b"\0" + row for row in rows)  # 0: the row is not filtered
    parts = [(b"IHDR", header), (b"PLTE", palette()), (b"IDAT", zlib.compress(lines, 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def stitched(tiles: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The rows of the whole picture, of those of its tiles in order."""
    rows = []
    for first in range(0, len(tiles), COLUMNS):
        rows += [b"".join(line) for line in zip(*tiles[first : first + COLUMNS], strict=True)]
    return rows
