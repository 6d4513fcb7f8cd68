"""timm's names read from its sources are those of its registry."""

import timm

from convmix.models import timm_names
from convmix.models.catalog import registered_names


def test_names_in_the_sources_are_those_of_the_registry() -> None:
    registered = [name for name in timm.list_models() if name not in registered_names()]
    found = timm_names._names_in_sources()
    assert sorted(found, key=timm_names._natural) == registered
    assert len(registered) > 1000


def test_without_sources_the_registry_is_asked(monkeypatch) -> None:
    monkeypatch.delitem(timm_names.sys.modules, "timm.models")
    monkeypatch.setattr(timm_names.importlib.util, "find_spec", lambda name: None)
    assert timm_names._names_in_sources() == set()
    assert timm_names.timm_names() == timm.list_models()


def test_what_others_have_registered_is_listed(monkeypatch) -> None:
    monkeypatch.setattr(timm, "list_models", lambda: ["resnet9000"])
    assert timm_names.timm_names() == ["resnet9000"]
