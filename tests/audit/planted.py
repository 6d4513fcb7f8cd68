"""Faults planted into clean photos, and a note of where each is."""

import io
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

CLASSES = ("ant", "bee", "cat")
TURNED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}  # EXIF orientation -> how it is stored


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def resized(image: Image.Image, times: float) -> Image.Image:
    return image.resize((max(1, round(image.width * times)), max(1, round(image.height * times))), Image.Resampling.BICUBIC)


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


NEAR: dict[str, Callable[[Image.Image], bytes]] = {  # what makes a near copy
    "JPEG q70": lambda x: encoded(x, quality=70),
    "JPEG q40": lambda x: encoded(x, quality=40),
    "half the size": lambda x: encoded(resized(x, 0.5), "PNG"),
    "0.7 of the size, JPEG q70": lambda x: encoded(resized(x, 0.7), quality=70),
    "1.5 times the size": lambda x: encoded(resized(x, 1.5), "PNG"),
    "mirrored": lambda x: encoded(mirrored(x), "PNG"),
    "mirrored, half the size, JPEG q70": lambda x: encoded(resized(mirrored(x), 0.5), quality=70),
    "10 % brighter": lambda x: encoded(ImageEnhance.Brightness(x).enhance(1.1), "PNG"),
    "10 % darker": lambda x: encoded(ImageEnhance.Brightness(x).enhance(0.9), "PNG"),
    "grey": lambda x: encoded(x.convert("L"), "PNG"),
}


@dataclass
class Planted:
    """A data set, and for every kind of finding the images that must be found (`pairs`: with their original)."""

    root: Path
    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    pairs: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    clean: set[str] = field(default_factory=set)

    def write(self, kind: str, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists()
        path.write_bytes(content)
        self.names[kind].add(name)


def plant(root: Path, photos: Sequence[Path]) -> Planted:
    """ROOT/train and ROOT/test with three classes of photos, and every kind of fault in some of them."""
    planted = Planted(root)
    for i, photo in enumerate(photos):
        name = f"{'test' if i % 4 == 3 else 'train'}/{CLASSES[i % 3]}/{i:04}.jpg"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, root / name)
        planted.clean.add(name)
    of = sorted(planted.clean)
    pictures = [Image.open(root / name).convert("RGB") for name in of[:60]]
    _plant_broken(planted, of)
    _plant_odd(planted, pictures)
    _plant_copies(planted, of)
    return planted


def _plant_broken(p: Planted, of: list[str]) -> None:
    jpeg = (p.root / of[0]).read_bytes()
    png = encoded(Image.open(p.root / of[1]).convert("RGB"), "PNG")
    for percent in (20, 40, 60, 80, 95):
        p.write("truncated", f"train/ant/cut_{percent}.jpg", jpeg[: len(jpeg) * percent // 100])
        p.write("truncated", f"train/bee/cut_{percent}.png", png[: len(png) * percent // 100])
    p.write("unreadable", "train/ant/empty.jpg", b"")
    p.write("unreadable", "test/cat/empty.png", b"")
    p.write("unreadable", "train/cat/text.jpg", b"this was never a photo\n")
    p.write("unreadable", "train/cat/zeros.png", bytes(500))
    p.write("no example", "train/cat/paper.pdf", b"%PDF-1.7 ...")


def _plant_odd(p: Planted, pictures: list[Image.Image]) -> None:
    """Every fault in pictures of its own, so that none is a copy of another."""
    left = iter(pictures[10:])
    for orientation, stored in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = shifted(next(left), orientation)
        p.write("EXIF rotation", f"train/ant/turned_{orientation}.jpg", encoded(picture.transpose(stored), exif=exif, quality=95))
        p.write("EXIF rotation", f"test/bee/turned_{orientation}.png", encoded(shifted(next(left), 9).transpose(stored), "PNG", exif=exif))
    for mode, kind in (("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("1", "PNG"), ("I;16", "PNG")):
        picture = shifted(next(left), 17)
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        suffix = "jpg" if kind == "JPEG" else "png"
        p.write(
            "odd mode",
            f"train/bee/mode_{mode.replace(';', '')}.{suffix}",
            encoded(picture if mode == "I;16" else picture.convert(mode), kind),
        )
    p.write("wrong extension", "train/ant/really_png.jpg", encoded(shifted(next(left), 21), "PNG"))
    p.write("wrong extension", "train/bee/really_jpeg.png", encoded(shifted(next(left), 21), "JPEG"))
    p.write("wrong extension", "test/cat/really_webp.JPG", encoded(shifted(next(left), 21), "WEBP"))
    p.write("tiny", "train/cat/tiny.png", encoded(shifted(next(left), 25).resize((12, 10)), "PNG"))
    p.write("tiny", "test/cat/one_pixel_high.png", encoded(shifted(next(left), 25).resize((3, 2)), "PNG"))
    p.write("extreme aspect", "train/cat/long.png", encoded(shifted(next(left), 29).resize((1600, 80)), "PNG"))
    p.write("extreme aspect", "train/cat/high.png", encoded(shifted(next(left), 29).resize((90, 900)), "PNG"))
    p.write("constant", "train/ant/black.png", encoded(Image.new("RGB", (100, 100)), "PNG"))
    p.write("constant", "test/ant/teal.jpg", encoded(Image.new("RGB", (90, 120), (0, 128, 128))))
    noise = np.random.default_rng(0).normal(120, 1.5, (100, 120, 3)).clip(0, 255).astype(np.uint8)
    p.write("near-constant", "train/ant/fog.png", encoded(Image.fromarray(noise), "PNG"))
    ramp = np.linspace(30, 38, 140)[None, :, None].repeat(100, 0).repeat(3, 2).astype(np.uint8)
    p.write("near-constant", "train/bee/ramp.png", encoded(Image.fromarray(ramp), "PNG"))


def shifted(image: Image.Image, seed: int) -> Image.Image:
    """Another picture made of the same photo: its quarters in another order and upside down."""
    x = np.asarray(image)
    h, w = x.shape[0] // 2, x.shape[1] // 2
    quarters = [x[:h, :w], x[:h, w : 2 * w], x[h : 2 * h, :w], x[h : 2 * h, w : 2 * w]]
    a, b, c, d = (quarters[i][::-1] for i in np.random.default_rng(seed).permutation(4))
    return Image.fromarray(np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)]))


def _plant_copies(p: Planted, of: list[str]) -> None:
    train = [name for name in of if name.startswith("train")][60:]
    take = iter(train)
    for i in range(4):
        original = next(take)
        label = Path(original).parts[1]
        p.write("duplicate", f"train/{label}/same_bytes_{i}.jpg", (p.root / original).read_bytes())
        p.pairs["duplicate"].add((f"train/{label}/same_bytes_{i}.jpg", original))
        original = next(take)
        label = Path(original).parts[1]
        p.write("duplicate", f"train/{label}/same_pixels_{i}.png", encoded(Image.open(p.root / original).convert("RGB"), "PNG"))
        p.pairs["duplicate"].add((f"train/{label}/same_pixels_{i}.png", original))
        original = next(take)
        p.write("leak", f"test/{Path(original).parts[1]}/leaked_{i}.jpg", (p.root / original).read_bytes())
        p.pairs["leak"].add((f"test/{Path(original).parts[1]}/leaked_{i}.jpg", original))
        original = next(take)
        other = CLASSES[(CLASSES.index(Path(original).parts[1]) + 1) % 3]
        p.write("label conflict", f"train/{other}/conflict_{i}.jpg", (p.root / original).read_bytes())
        p.pairs["label conflict"].add((f"train/{other}/conflict_{i}.jpg", original))
    for i, (how, copy) in enumerate(NEAR.items()):
        for kind, split in (("near duplicate", "train"), ("near leak", "test")):
            original = next(take)
            name = f"{split}/{Path(original).parts[1]}/near_{i}.{'jpg' if 'JPEG' in how else 'png'}"
            p.write(kind, name, copy(Image.open(p.root / original).convert("RGB")))
            p.pairs[kind].add((name, original))
