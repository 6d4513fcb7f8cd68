"""Each shard is fetched once for all processes, and all of them take no more room than they may."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fetching import fetch
from served import Web, all_of, rows, the_one

from convmix.config import Data
from convmix.data.remote import shard_cache, stores
from convmix.data.sources import open_source
from convmix.errors import ConfigError, DataError

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache", "cache")


def test_every_shard_is_fetched_once_and_never_again(web: Web) -> None:
    first = rows(open_source(all_of(web), DATA))
    assert [web.fetched(f"part-{s:03}.tar") for s in range(6)] == [1] * 6
    sent = web.sent
    assert rows(open_source(all_of(web), DATA)) == first
    assert web.sent == sent


def test_a_kept_index_spares_a_set_larger_than_the_cache_the_second_look(web: Web, cache: Path) -> None:
    open_source(all_of(web), DATA)
    for shard in cache.glob("*.tar"):
        shard.unlink()
    sent = web.sent
    source = open_source(all_of(web), DATA)
    assert len(the_one(source)) == 51
    assert web.sent == sent


def test_an_index_is_made_anew_for_another_label_column(many: Path, web: Web) -> None:
    open_source(all_of(web), DATA)
    with pytest.raises(DataError, match="no image has a label"):
        open_source(all_of(web), Data(label_column="species"))
    assert the_one(open_source(all_of(web), DATA)).labels.tolist() == the_one(open_source(many, DATA)).labels.tolist()


def test_the_cache_never_takes_more_than_it_may(many: Path, web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = int(2.5 * max(path.stat().st_size for path in many.iterdir()))
    monkeypatch.setenv(shard_cache.LIMIT, str(bound / 1e9))
    most = 0
    in_room = shard_cache._took_room

    def watched(part: Path, size: int) -> bool:
        nonlocal most
        took = in_room(part, size)
        with shard_cache._room(cache):
            most = max(most, sum(of_one for _, of_one, _ in shard_cache._used(cache)))
        return took

    monkeypatch.setattr(shard_cache, "_took_room", watched)
    examples = the_one(open_source(all_of(web), DATA))
    here = the_one(open_source(many, DATA))
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    assert [examples.source(i) for i in order] == [here.source(i) for i in order]
    assert bound // 2 < most <= bound


def test_the_least_recently_used_shard_is_given_up(many: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 3.5 * max(path.stat().st_size for path in many.iterdir())
    monkeypatch.setenv(shard_cache.LIMIT, str(bound / 1e9))
    a, b, c, d = (stores.find(f"{web.url}/part-00{s}.tar")[0] for s in range(4))
    for age, shard in ((300, a), (200, b), (100, c)):
        shard_cache.opened(shard).close()
        copy = shard_cache.place(shard, ".tar")
        os.utime(copy, (copy.stat().st_mtime - age,) * 2)
    shard_cache.opened(a).close()  # used again
    shard_cache.opened(d).close()
    assert [shard_cache.place(shard, ".tar").exists() for shard in (a, b, c, d)] == [True, False, True, True]


def test_what_a_killed_process_left_is_cleared_away(many: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (stores.find(f"{web.url}/part-00{s}.tar")[0] for s in range(2))
    monkeypatch.setenv(shard_cache.LIMIT, str(1.5 * max(a.size, b.size) / 1e9))
    left = shard_cache.place(a, ".part")
    left.write_bytes(bytes(a.size))
    shard_cache.opened(b).close()
    assert not left.exists()


def test_processes_that_want_the_same_shard_fetch_it_once(web: Web, tmp_path: Path) -> None:
    """None has it before all of them want it."""
    [shard] = stores.find(f"{web.url}/part-003.tar")
    marks = [tmp_path / str(i) for i in range(3)]
    web.hold = lambda: not all(mark.exists() for mark in marks)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(shard, mark)) for mark in marks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert web.fetched("part-003.tar") == 1


@pytest.mark.parametrize("told", ["lots", "-1", "nan", "0"])
def test_a_bound_that_is_no_size_is_refused(web: Web, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(shard_cache.LIMIT, told)
    with pytest.raises(ConfigError, match=f"{shard_cache.LIMIT}: {told} is not a size"):
        open_source(all_of(web), DATA)


def test_a_shard_larger_than_the_cache_is_refused_by_name(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shard_cache.LIMIT, "0.00001")
    with pytest.raises(ConfigError, match=rf"{shard_cache.LIMIT}: 1e-05 GB is less than one shard has: http://.*/part-00\d.tar needs"):
        open_source(all_of(web), DATA)


def test_progress_counts_the_shards(web: Web) -> None:
    seen: list[tuple[int, int]] = []
    count: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    open_source(all_of(web), DATA, fetched=count)
    assert seen == [(i, 6) for i in range(1, 7)]


def test_the_kept_index_is_readable_by_people(web: Web, cache: Path) -> None:
    open_source(f"{web.url}/part-001.tar", DATA)
    [kept] = cache.glob("*.json")
    record = json.loads(kept.read_text())
    assert record["shard"] == f"{web.url}/part-001.tar"
    assert record["samples"][0] == ["part-001.tar/1-0000.png", 512, record["samples"][0][2], "0"]
