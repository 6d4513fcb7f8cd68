"""A store that fails for a moment is asked again; what cannot be mended by waiting is a line that names the shard."""

import os
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from served import Web, all_of, rows, serving, the_one

from convmix.config import Data
from convmix.data.remote import shard_cache, stores
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache", "cache")


# Patience


@pytest.mark.parametrize(("ranges", "begins"), [(True, 1), (False, 2)])
def test_a_connection_that_breaks_off_is_taken_up_where_it_ended(many: Path, ranges: bool, begins: int) -> None:
    with serving(many, ranges=ranges, cut=1) as web:
        source = open_source(f"{web.url}/part-000.tar", DATA)
        assert rows(source) == rows(open_source(many / "part-000.tar", DATA))
        assert web.fetched("part-000.tar") == begins
        assert len([sent for _, _, sent in web.asked if sent]) == 2


def test_a_server_that_fails_for_a_moment_is_asked_again(many: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.refused = 2
    begun = time.monotonic()
    monkeypatch.setattr(stores, "LONG", (0.2, 0.3))
    assert rows(open_source(f"{web.url}/part-000.tar", DATA)) == rows(open_source(many / "part-000.tar", DATA))
    assert time.monotonic() - begun > 0.5


@pytest.mark.parametrize(
    ("how", "said"), [({"status": 503}, "the server answers 503 Service Unavailable"), ({"cut": 99}, "bytes too early")]
)
def test_one_that_stays_away_is_an_error_that_names_the_shard(many: Path, how: dict[str, int], said: str) -> None:
    with serving(many, **how) as web, pytest.raises(DataError) as error:
        open_source(f"{web.url}/part-000.tar", DATA)
    assert str(error.value).startswith(f"{web.url}/part-000.tar: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_is_not_there_is_said_before_long(many: Path) -> None:
    with serving(many) as web:
        pass
    with pytest.raises(DataError, match=r"part-000.tar: the server cannot be reached \(Connection refused\); tried 3 times"):
        open_source(f"{web.url}/part-000.tar", DATA)


def test_an_object_store_that_fails_is_asked_again(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(many), "/many", recursive=True)
    failures = [TimeoutError("slow down"), TimeoutError("slow down")]
    read = type(store).cat_file

    def cat_file(self: object, *args: object, **kwargs: object) -> bytes:
        if failures:
            raise failures.pop()
        return read(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    try:
        assert rows(open_source("memory://many", DATA)) == rows(open_source(many, DATA))
        failures += [TimeoutError("slow down")] * 9
        [shard] = stores.find("memory://many/part-000.tar")
        shard_cache.place(shard, ".tar").unlink()
        with pytest.raises(DataError, match=r"memory://many/part-000.tar: TimeoutError: slow down; tried 3 times"):
            shard_cache.opened(shard)
    finally:
        store.rm("/many", recursive=True)


# What cannot be mended by waiting


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("part-{000..007}.tar", r"part-006.tar: there is no such file \(404 Not Found\)"),
        ("", "a web server does not list what it has; name the shards, such as .*train-{000..009}.tar"),
        ("part-*.tar", "a web server does not list what it has"),
        ("part-000.tar.gz", "of what lies behind URLs only WebDataset shards are read"),
    ],
)
def test_urls_without_shards(web: Web, path: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_source(f"{web.url}/{path}", DATA)


@pytest.mark.parametrize("url", ["memory://nothing", "memory://nothing/*.tar"])
def test_a_listing_without_shards(url: str) -> None:
    with pytest.raises(DataError, match=r"nothing.*: has no shards; expected files whose names end in .tar"):
        open_source(url, DATA)


def test_an_object_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"memory://nothing/a.tar: there is no such file"):
        open_source("memory://nothing/a.tar", DATA)


@pytest.mark.parametrize("by_image", [True, False])
def test_a_shard_written_again_meanwhile_is_an_error(web: Web, cache: Path, by_image: bool) -> None:
    examples = the_one(open_source(all_of(web), DATA))
    assert examples.remote is not None
    for path in cache.glob("*.tar"):
        path.unlink()
    web.versions["part-000.tar"] = '"another"'
    changed = replace(examples, remote=replace(examples.remote, by_image=by_image))
    with pytest.raises(DataError, match=r"part-000.tar: has changed since it was first looked at"):
        changed.source(0)


def test_a_shard_written_again_is_fetched_again_by_the_next_run(many: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    shard = tmp_path / "set" / "a.tar"
    shard.write_bytes((many / "part-000.tar").read_bytes())
    with serving(tmp_path / "set") as web:
        open_source(f"{web.url}/a.tar", DATA)
        shard.write_bytes((many / "part-002.tar").read_bytes())
        os.utime(shard, ns=(1, 1))
        assert rows(open_source(f"{web.url}/a.tar", DATA)) == rows(open_source(shard, DATA))


def test_a_disk_that_is_full_is_said(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(part: Path, size: int) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_cache, "_took_room", full)
    with pytest.raises(DataError, match=r"cannot be stored in .* \(No space left on device\); CONVMIX_CACHE names another place"):
        open_source(all_of(web), DATA)
