"""Shards behind URLs: the same data as from a disk, whole shards or single images, and nothing secret in sight."""

from base64 import b64encode
from pathlib import Path

import fsspec
import pytest
from served import Web, all_of, rows, serving, the_one
from written import NAMES, Item, content, expected, write_shards

from convmix.config import Data
from convmix.data.remote import shard_cache
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()
SPLITS = "{train,val,test}-000000.tar"
pytestmark = pytest.mark.usefixtures("own_cache", "cache")


@pytest.fixture
def split_shards(tmp_path: Path, items: list[Item]) -> Path:
    write_shards(tmp_path / "set", items, lambda c: ("cls", str(c).encode()))
    (tmp_path / "set" / "classes.txt").write_text("\n".join(NAMES))
    return tmp_path / "set"


# The same data


@pytest.mark.parametrize("ranges", [True, False])
def test_the_data_of_shards_on_a_web_server_is_that_of_the_same_shards_here(split_shards: Path, items: list[Item], ranges: bool) -> None:
    here = open_source(f"{split_shards}/{SPLITS}", DATA)
    with serving(split_shards, ranges=ranges) as web:
        there = open_source(f"{web.url}/{SPLITS}", DATA)
        assert rows(there) == rows(here)
    assert content(there) == content(here) == expected(items)
    assert there.classes == NAMES
    assert [e.shards.tolist() for e in there.splits.values()] == [e.shards.tolist() for e in here.splits.values()]


def test_class_names_are_not_lost_to_a_server_that_fails(split_shards: Path) -> None:
    with serving(split_shards, broken="classes.txt") as web:
        with pytest.raises(DataError, match=r"classes.txt: the server answers 503"):
            open_source(f"{web.url}/{SPLITS}", DATA)
        (split_shards / "classes.txt").unlink()
        web.broken = ""
        assert open_source(f"{web.url}/{SPLITS}", DATA).classes == ("0", "1", "2")


@pytest.mark.parametrize("pattern", ["", "/", "/*.tar", f"/{SPLITS}", "/[tv]*.tar"])
def test_object_stores_take_folders_and_patterns(split_shards: Path, items: list[Item], pattern: str) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(split_shards), "/bucket/set", recursive=True)
    try:
        assert content(open_source(f"memory://bucket/set{pattern}", DATA)) == expected(items)
    finally:
        store.rm("/bucket", recursive=True)


def test_a_shard_cut_short_where_it_lies_gives_what_is_whole_as_here(many: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.tar").write_bytes((many / "part-000.tar").read_bytes()[:9000])
    here = open_source(tmp_path / "set" / "a.tar", DATA)
    with serving(tmp_path / "set") as web:
        there = open_source(f"{web.url}/a.tar", DATA)
        assert rows(there) == rows(here)
    assert there.dropped == here.dropped
    assert "cannot be read to its end" in there.dropped[0][1]


# Image by image


def test_random_access_to_more_than_the_cache_holds_asks_for_images(
    many: Path, web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = the_one(open_source(all_of(web), DATA))
    monkeypatch.setenv(shard_cache.LIMIT, str(1.5 * max(path.stat().st_size for path in many.iterdir()) / 1e9))
    _, slow = shards.mixing(window=1, batch_size=1, hosts=2)
    assert slow != []  # two shards are more than one and a half
    alone, notes = shards.mixing(window=0, batch_size=1, hosts=1)
    assert notes[0].startswith("6 shards are read at once")
    for path in cache.glob("*.tar"):
        path.unlink()
    web.asked.clear()
    here = the_one(open_source(many, DATA))
    assert [alone.source(i) for i in range(len(here))] == [here.source(i) for i in range(len(here))]
    assert len(web.asked) == len(here)
    assert web.sent == sum(len(here.source(i)) for i in range(len(here)))
    web.ranges = False
    without = the_one(open_source(all_of(web), DATA))
    with pytest.raises(DataError, match="its server gives no parts of files"):
        without.mixing(window=0, batch_size=1, hosts=1)


def test_a_few_images_of_every_shard_are_asked_for_by_themselves(many: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = the_one(open_source(all_of(web), DATA))
    few = whole.select(range(0, len(whole), 5))
    assert [few.in_order().remote.by_image, whole.in_order().remote.by_image] == [False, False]  # the cache holds all of them
    monkeypatch.setenv(shard_cache.LIMIT, str(2.5 * max(path.stat().st_size for path in many.iterdir()) / 1e9))
    assert [few.in_order().remote.by_image, whole.in_order().remote.by_image] == [True, False]
    assert the_one(open_source(many, DATA)).in_order().remote is None


def test_shards_that_fit_are_fetched_whole(web: Web) -> None:
    examples = the_one(open_source(all_of(web), DATA))
    same, notes = examples.mixing(window=0, batch_size=8, hosts=1)
    assert notes == []
    assert same.remote is not None and not same.remote.by_image


# Secrets


@pytest.mark.parametrize("given", ["url", "netrc"])
def test_a_password_opens_the_door_and_is_written_nowhere(
    many: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    login = f"Basic {b64encode(b'ann:s3cret@').decode()}"
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(many, login=login) as web:
        with pytest.raises(DataError, match=r"access is denied \(401 Unauthorized\)"):
            open_source(f"{web.url}/part-000.tar", DATA)
        if given == "netrc":
            (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password s3cret@\n")
            (tmp_path / ".netrc").chmod(0o600)
        prefix = "http://ann:s3cret%40@" if given == "url" else "http://"
        source = open_source(f"{web.url}/part-000.tar".replace("http://", prefix), DATA)
        assert rows(source) == rows(open_source(many / "part-000.tar", DATA))
    assert not [path for path in cache.iterdir() if b"s3cret" in path.read_bytes()]
    assert "s3cret" not in repr(source.splits["all"].rows[0])


def test_a_signature_goes_with_every_request_and_into_no_message(many: Path, cache: Path) -> None:
    with serving(many) as web:
        open_source(f"{web.url}/part-000.tar?signature=hush", DATA)
        assert web.query == "signature=hush"
        for path in cache.iterdir():
            path.unlink()
        web.status = 403
        with pytest.raises(DataError, match="access is denied") as error:
            open_source(f"{web.url}/part-000.tar?signature=hush", DATA)
    assert "hush" not in str(error.value)


def test_dense_tasks_are_refused_without_the_signature(web: Web) -> None:
    with pytest.raises(DataError, match="are read from local folders") as error:
        open_source(f"{all_of(web)}?signature=hush", Data(task="detect"))
    assert "hush" not in str(error.value)
