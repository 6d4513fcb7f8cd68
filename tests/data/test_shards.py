"""WebDataset shards give the same labels and pixels."""

import json
from pathlib import Path

import pytest
from written import NAMES, Item, content, expected, write_shards

from convmix.config import Data
from convmix.data.formats import expand
from convmix.data.sources import open_source
from convmix.errors import DataError

DATA = Data()
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("form", ["cls", "txt", "json"])
def test_webdataset_shards(tmp_path: Path, items: list[Item], form: str) -> None:
    texts = {"cls": lambda c: str(c), "txt": lambda c: NAMES[c], "json": lambda c: json.dumps({"label": NAMES[c], "id": 7})}
    write_shards(tmp_path, items, lambda c: (form, texts[form](c).encode()))
    if form == "cls":
        (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    for spec in (str(tmp_path), f"{tmp_path}/{{train,val,test}}-{{000000..000000}}.tar"):
        assert content(open_source(spec, DATA)) == expected(items)


def test_one_shard_cut_short_gives_what_is_whole(tmp_path: Path, items: list[Item]) -> None:
    write_shards(tmp_path, items, lambda c: ("cls", str(c).encode()))
    shard = tmp_path / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:9000])
    source = open_source(shard, DATA)
    assert 1 <= len(source.splits["all"]) < 12
    assert any("cannot be read to its end" in reason for _, reason in source.dropped)


def test_patterns_keep_leading_zeros(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"s-{i:03}.tar").touch()
    assert [p.name for p in expand(f"{tmp_path}/s-{{009..011}}.tar")] == ["s-009.tar", "s-010.tar", "s-011.tar"]
    with pytest.raises(DataError, match="no file matches"):
        open_source(f"{tmp_path}/x-*.tar", DATA)
