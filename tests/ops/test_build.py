"""Kernels compiled on first use: what is kept, what a broken machine does to it."""

import logging
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convmix.ops import build
from convmix.ops.depthwise import depthwise_conv2d, reference

needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")
USE = """
import os, sys
import torch
from convmix.ops.depthwise import depthwise_conv2d
other = os.fork()
x = torch.ones(1, 4, 5, 5).to(memory_format=torch.channels_last)
w = torch.ones(4, 1, 3, 3, requires_grad=True)
depthwise_conv2d(x, w).sum().backward()
print(w.grad.sum().item(), flush=True)
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def assert_convolves() -> None:
    x = torch.randn(2, 6, 5, 7).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, 3, 3, requires_grad=True)
    torch.testing.assert_close(depthwise_conv2d(x, weight), reference(x, weight, None, 1))


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@needs_compiler
def test_what_was_compiled_is_kept(empty_cache, monkeypatch):
    assert build.library("depthwise", "K=3", "STORAGE_F32") is not None
    (kept,) = empty_cache.glob("*.so")
    build.library.cache_clear()
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.library("depthwise", "K=3", "STORAGE_F32") is not None
    assert list(empty_cache.iterdir()) == [kept]  # and nothing unfinished


@pytest.mark.slow
@needs_compiler
def test_a_file_cut_short_is_compiled_again(empty_cache):
    build.library("depthwise", "K=3", "STORAGE_F32")
    (kept,) = empty_cache.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()  # not written into: this process has it loaded
    kept.write_bytes(whole[:2000])
    build.library.cache_clear()
    assert_convolves()
    assert kept.read_bytes() == whole


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no permissions as on Unix")
def test_a_cache_that_cannot_be_written_does_not_matter(empty_cache, monkeypatch):
    def refuse(kind: str) -> Path:
        raise PermissionError(f"read-only: {kind}")

    monkeypatch.setattr(build, "cache_dir", refuse)
    assert build.library("depthwise", "K=3", "STORAGE_F32") is not None
    assert not list(empty_cache.glob("*"))
    assert_convolves()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'fatal: no licence' >&2; exit 1", "no licence"),
        ("exit 1", "it says nothing"),
        ("exit 0", "cannot compile depthwise.c"),
    ],
    ids=["fails", "fails silently", "makes nothing"],
)
def test_a_compiler_that_fails_is_said_once_and_pytorch_goes_on(text, message, empty_cache, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CC", str(script(tmp_path / "broken", f'case "$1" in --version) echo 1;; *) {text};; esac')))
    with caplog.at_level(logging.WARNING, logger="convmix"):
        assert_convolves()
        assert build.library("depthwise", "K=3", "STORAGE_F32") is None
    assert len(caplog.records) == 1 and message in caplog.text


def test_without_a_compiler_it_is_said_once(empty_cache, monkeypatch, caplog):
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    assert build.library("depthwise", "K=3", "STORAGE_F32") is None
    assert build.library("depthwise", "K=5", "STORAGE_F32") is None
    assert len(caplog.records) == 1 and "no C compiler" in caplog.text


def test_kernels_can_be_switched_off(empty_cache, monkeypatch, caplog):
    monkeypatch.setenv("CONVMIX_KERNELS", "off")
    assert build.library("depthwise", "K=3", "STORAGE_F32") is None
    assert not caplog.records and not empty_cache.exists()


@needs_compiler
def test_the_compiler_of_the_environment_is_taken_with_its_arguments(empty_cache, monkeypatch):
    name = Path(build.find_compiler()[0]).name
    monkeypatch.setenv("CC", f"{name} -DNDEBUG")
    assert build.find_compiler() == (shutil.which(name), "-DNDEBUG")
    assert build.library("depthwise", "K=3", "STORAGE_F32") is not None


@needs_compiler
@pytest.mark.slow
def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path):
    """Two that part behind the imports, which take longest."""
    environment = {**os.environ, "CONVMIX_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", USE], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["676.0", "676.0"], "")
    assert len(list((tmp_path / "kernels").iterdir())) == 1
    assert stat.S_ISREG(next((tmp_path / "kernels").iterdir()).stat().st_mode)


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    monkeypatch.setattr(build, "_announced", [])
    monkeypatch.delenv("CONVMIX_KERNELS", raising=False)


def test_the_line_about_a_missing_compiler_says_what_to_install_and_what_it_costs(no_compiler):
    line = build.said("cpu")
    assert line is not None
    for part in ("no C compiler", "several times as long", "apt install gcc", "CONVMIX_KERNELS=off"):
        assert part in line


@pytest.mark.parametrize(("device", "kernels"), [("cpu", "off"), ("cuda", "on"), ("mps", "on")])
def test_nothing_is_said_where_the_kernels_would_not_be_used(device, kernels, no_compiler, monkeypatch):
    monkeypatch.setenv("CONVMIX_KERNELS", kernels)
    assert build.said(device) is None


def test_nothing_is_said_where_there_is_a_compiler(no_compiler, monkeypatch):
    monkeypatch.setattr(build, "find_compiler", lambda: ("/usr/bin/gcc",))
    assert build.said("cpu") is None


def test_the_log_does_not_repeat_the_line(no_compiler, empty_cache, caplog):
    build.said("cpu")
    assert build.library.__wrapped__("depthwise", "K=3", "F32") is None
    assert not caplog.records
