"""What is looked at before an upload is decoded: its size, and whether it is something beside an image."""

import io
import zipfile

import pytest

from convmix.serving.problem import Problem
from convmix.serving.worker import checked_size
from tests.serving.pictures import picture, polyglots

LARGE = picture(3, size=(40, 60))  # noise: some 7 kB, far more than what a file's beginning is


def archive(comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("run.sh", "echo")
        z.comment = comment
    return out.getvalue()


def refused_as(data: bytes, *, pixels: int = 10_000) -> str:
    with pytest.raises(Problem) as refused:
        checked_size(data, in_chans=3, pixels=pixels)
    return refused.value.code


@pytest.mark.parametrize("comment", [b"", b"a comment", b"c" * 65_535])
@pytest.mark.parametrize("image", [picture(1), picture(1, format="JPEG"), LARGE], ids=["PNG", "JPEG", "large"])
def test_an_archive_behind_an_image_of_any_size_is_refused(image: bytes, comment: bytes) -> None:
    assert zipfile.is_zipfile(io.BytesIO(image + archive(comment)))
    assert refused_as(image + archive(comment)) == "not_only_an_image"


@pytest.mark.parametrize("name", ["image and archive", "image and PDF", "image and page", "vector picture"])
def test_what_is_an_image_and_something_else_is_refused_as_that(name: str) -> None:
    assert refused_as(polyglots()[name]) == "not_only_an_image"


def test_images_have_their_size_also_where_an_archives_mark_is_among_their_bytes() -> None:
    assert len(LARGE) > 5000
    assert checked_size(LARGE, in_chans=3, pixels=2400) == (40, 60)
    assert checked_size(LARGE + b"PK\5\6" + bytes(30), in_chans=3, pixels=2400) == (40, 60)  # no archive ends there
    assert refused_as(LARGE, pixels=2399) == "image_too_large"
