"""Images for a server: good ones, and what people and attackers send instead of them."""

import io
import struct
import zipfile
import zlib

import numpy as np
import PIL.Image


def picture(seed: int, *, size: tuple[int, int] = (12, 12), format: str = "PNG") -> bytes:
    """Noise, height and width as in `size`, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return encoded(PIL.Image.fromarray(pixels), format)


def encoded(image: PIL.Image.Image, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A whole, valid PNG of a few megabytes at most that says side x side pixels: black lines, deflated."""
    deflate = zlib.compressobj(9)
    lines = b"".join(deflate.compress(bytes(1 + side // 8)) for _ in range(side)) + deflate.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def polyglots() -> dict[str, bytes]:
    """Files that are an image and something else, or look like one and are not."""
    jpeg, png = picture(1, format="JPEG"), picture(1)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("run.sh", "echo")
        z.comment = b"a comment behind the end"
    return {
        "image and archive": jpeg + archive.getvalue(),
        "image and PDF": jpeg[:2] + b"\xff\xfe\x00\x20%PDF-1.4\n1 0 obj<<>>endobj    " + jpeg[2:],
        "image and page": jpeg[:2] + b"\xff\xfe\x00\x20<script>alert(1)</script>      " + jpeg[2:],
        "GIF and script": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)",
        "header alone": png[:8],
        "vector picture": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "pickled array": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128)
        + b"cos\nsystem\n(S'id'\ntR.",
    }


def truncated() -> dict[str, bytes]:
    """Files cut in the middle, per format."""
    return {f: whole[: len(whole) // 2] for f in ("PNG", "JPEG", "WEBP", "TIFF", "BMP") if (whole := picture(2, size=(40, 40), format=f))}
