"""Makes the pictures of docs/how_to/detect.md and segment.md: two runs on drawn scenes, which may be shown.

    python benchmarks/dense_pictures.py        about five minutes on two cores

The photographs behind RESULTS.md may not be copied, so the pages show coloured shapes (tests/dense_scenes.py) instead.
"""

import shutil
import subprocess
import sys

import show
import tables
from PIL import Image

sys.path.insert(0, str(tables.ROOT))
from tests.dense_scenes import write_coco, write_maps

COUNTS = {"train": 96, "val": 16, "test": 16}
HEAD_PX, SHOWN = 58, 2 / 8  # above the rows; the share of the eight rows that a page shows
SETTINGS = "--model convmixer_96_4_k5_p4 --pyramid-channels 48 --budget 2m --tune never"


def main() -> int:
    place = show.PLACE / "scenes"
    shutil.rmtree(place, ignore_errors=True)
    for task in ("detect", "segment"):
        data, out = place / task, place / f"{task}-run"
        if task == "segment":
            write_maps(data, COUNTS, side=96, objects=4)
        else:
            write_coco(data, COUNTS, masks=False, side=96, objects=4)
        command = [sys.executable, "-m", "convmix", "train", str(data), "--out", str(out), *SETTINGS.split()]
        if (code := subprocess.run(command, stdin=subprocess.DEVNULL).returncode) != 0:
            return code
        with Image.open(out / "predictions.png") as whole:
            rows = whole.crop((0, 0, whole.width, round(HEAD_PX + (whole.height - HEAD_PX) * SHOWN)))
            rows.convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE).save(show.IMAGES / f"{task}_predictions.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
