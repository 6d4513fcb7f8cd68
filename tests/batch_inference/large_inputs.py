"""Folders, shards and tables of small images for the tests of batch prediction."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tiny_run import write_folder, write_image

BROKEN = b"no image at all"


def encoded(folder: Path, seed: int) -> bytes:
    """A PNG of noise."""
    return write_image(folder / ".made" / f"{seed}.png", seed).read_bytes()


def write_shard(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_table(path: Path, images: Sequence[bytes | None], names: Sequence[str] | None = None, *, group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": pa.array(images, pa.binary())} | ({"id": pa.array(names)} if names else {})
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def write_everything(root: Path) -> list[str]:
    """Single images, two shards and a table, with a broken image in each; the names that their rows have, in order."""
    write_folder(root / "photos", {"ant": 14, "bee": 9})
    (root / "photos/ant/broken.png").write_bytes(BROKEN)
    single = sorted(str(p) for p in (root / "photos").rglob("*.png"))
    shards, names = root / "shards", []
    for s in range(2):
        members: list[tuple[str, bytes]] = []
        for i in range(8):
            image = BROKEN if i == 5 else encoded(root, 100 * s + i)
            suffix = ("png", "jpg", "PNG")[i % 3]  # of whatever form the bytes are
            members += [(f"deep/{i:03d}.cls", b"1"), (f"deep/{i:03d}.{suffix}", image), (f"deep/{i:03d}.seg.png", encoded(root, 1))]
            names.append(f"{shards}/{s}.tar/deep/{i:03d}.{suffix}")
        write_shard(shards / f"{s}.tar", members)
    cells = [None if i == 3 else encoded(root, 300 + i) for i in range(10)]
    write_table(root / "table.parquet", cells, [f"row {i}" for i in range(10)], group=4)
    return [*(f"row {i}" for i in range(10)), *single, *names]
