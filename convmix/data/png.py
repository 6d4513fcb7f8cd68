"""Whether a PNG holds all of its pixels: Pillow leaves black what a stream that ends early, though in good order, does not say.

file -> chunks: IHDR, IDAT ... -> bytes that come out of the stream < those of all rows
"""

import zlib
from collections.abc import Iterator

import numpy as np
import PIL.Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
_PASSES = (
    (0, 8, 0, 8),
    (0, 8, 4, 8),
    (4, 8, 0, 4),
    (0, 4, 2, 4),
    (2, 4, 0, 2),
    (0, 2, 1, 2),
    (1, 2, 0, 1),
)  # first row, step, first column, step
_AT_ONCE = 2**20


def ends_early(data: bytes, decoded: PIL.Image.Image) -> bool:
    """Whether rows of the picture `decoded` from `data` are missing; only one that ends in black, as it then must, is looked into."""
    is_interlaced = data[28:29] == b"\1"
    last_row = decoded.crop((0, decoded.height - 1, decoded.width, decoded.height))
    return (is_interlaced or not np.asarray(last_row).any()) and _falls_short(data, _bytes_of_all_rows(data, interlaced=is_interlaced))


def _bytes_of_all_rows(data: bytes, *, interlaced: bool) -> int:
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    bits = data[24] * _CHANNELS.get(data[25], 1)
    if not interlaced:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for row, rows, column, columns in _PASSES:
        across, down = -(-(width - column) // columns), -(-(height - row) // rows)
        if across > 0 and down > 0:
            total += down * (1 + (across * bits + 7) // 8)
    return total


def _falls_short(data: bytes, wanted: int) -> bool:
    stream, came = zlib.decompressobj(), 0
    try:
        for part in _compressed(data):
            while part and came < wanted:
                came += len(stream.decompress(part, _AT_ONCE))
                part = stream.unconsumed_tail
    except zlib.error:
        return True
    return came < wanted


def _compressed(data: bytes) -> Iterator[bytes]:
    """The stream's parts."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        elif kind == b"IEND":
            return
        at += 12 + length
