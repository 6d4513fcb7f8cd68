"""Images of every format, damaged: twenty at a time among good ones, through everything that reads images.

What is looked for beside tracebacks: a good image that gets another answer than alone, and a row that is missing.
"""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

import convmix
from convmix.artifacts.artifact import load_artifact
from convmix.data.decode import MODES, read_file
from convmix.serving.messages import ImageMessage
from convmix.serving.worker import RequestAnswerer
from tests.campaign.mutation import mutated
from tests.tiny_run import LABELS, make_run, write_image

AT_ONCE = 20
_FORMATS = (
    ("png", "PNG", "RGB"), ("png", "PNG", "P"), ("png", "PNG", "I;16"), ("png", "PNG", "RGBA"), ("png", "PNG", "1"), ("jpg", "JPEG", "RGB"),
    ("jpg", "JPEG", "CMYK"), ("jpg", "JPEG", "L"), ("webp", "WEBP", "RGBA"), ("gif", "GIF", "P"), ("tif", "TIFF", "RGB"),
    ("tif", "TIFF", "I;16"), ("bmp", "BMP", "RGB"), ("ppm", "PPM", "RGB"), ("jp2", "JPEG2000", "RGB"), ("tga", "TGA", "RGBA"),
    ("avif", "AVIF", "RGB"), ("qoi", "QOI", "RGB"), ("dds", "DDS", "RGBA"), ("sgi", "SGI", "RGB"), ("pcx", "PCX", "RGB"),
)  # fmt: skip


def seeds() -> Iterator[tuple[str, bytes]]:
    """(suffix, encoded) of a small picture in every format that this Pillow writes."""
    rng = np.random.default_rng(0)
    for suffix, kind, mode in _FORMATS:
        pixels = rng.integers(0, 256, (24, 31, 3), np.uint8)
        if mode == "I;16":
            image = PIL.Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
        else:
            image = PIL.Image.fromarray(pixels).convert(mode)
        file = io.BytesIO()
        try:
            image.save(file, kind)
        except (OSError, KeyError, ValueError):  # a format of another build of Pillow
            continue
        yield suffix, file.getvalue()
    file = io.BytesIO()
    np.save(file, rng.random((24, 31, 3)).astype(np.float32))
    yield "npy", file.getvalue()


def attack(folder: Path, rng: random.Random) -> tuple[str, str, int]:
    """What became of AT_ONCE damaged images: outcome, words, cases."""
    run = make_run(folder / "run").path
    some = list(seeds())
    data = folder / "data"
    good = [write_image(data / label / f"good_{i}.png", 100 * k + i, size=(16, 16)) for k, label in enumerate(LABELS) for i in range(12)]
    alone = {row.name: (row.label, row.probability) for row in convmix.load(run).predict([str(path) for path in good])}
    for i in range(AT_ONCE):
        suffix, content = rng.choice(some)
        (data / rng.choice(LABELS) / f"bad_{i}.{suffix}").write_bytes(mutated(content, rng))
    files = sorted(str(path) for path in data.rglob("*.*"))
    rows = {row.name: row for row in convmix.load(run).predict(files)}
    if rows.keys() != set(files):
        return "lost", f"{len(rows)} rows for {len(files)} files", AT_ONCE
    changed = [name for name, (label, share) in alone.items() if rows[name].label != label or abs(rows[name].probability - share) > 1e-5]
    if changed:
        return "differs", f"{changed[0]} has another answer beside damaged images", AT_ONCE
    without_reason = [name for name, row in rows.items() if row.label is None and not row.error]
    if without_reason:
        return "lost", f"{without_reason[0]} has neither a label nor a reason", AT_ONCE
    _serve(run, [Path(name) for name in files])
    convmix.doctor(data, output=folder / "doctor", workers=0)
    trained = convmix.train(
        data, out=folder / "out", model="convmixer_8_1_k3_p4", epochs=1, size=16, batch_size=8, workers=0, quiet=True, tune="never",
        precision="fp32",
    )  # fmt: skip
    bad = (folder / "out" / "bad_images.csv").read_text().count("\n") - 1
    failed = sum(row.error is not None for row in rows.values())
    if bad < failed - AT_ONCE // 2 or not trained.path.is_dir():  # copies and doubles are left out beside the broken ones
        return "lost", f"predict found {failed} broken images, training {bad}", AT_ONCE
    return "answered", "", AT_ONCE


def _serve(run: Path, files: list[Path]) -> None:
    from convmix.inference.predictor import Predictor

    artifact = load_artifact(run)
    assert artifact.preprocess.in_chans in MODES
    answer = RequestAnswerer(Predictor(artifact, images=1, batch_size=8, device="cpu", optimize="never"), pixels=10**6)
    replies = answer([ImageMessage(read_file(path), path.name, 1, None) for path in files if path.stat().st_size])
    assert len(replies) == sum(path.stat().st_size > 0 for path in files)
