"""Imports point one way, `import convmix` is light, files are small, named by their noun and free of machine paths."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "convmix"

# A file may import what stands above it.
ORDER = (
    "errors", "config",
    "data.facts",
    "recipes", "hardware", "cache", "after_import",
    "data.extra_formats", "data.decode", "data.geometry", "data.placement", "data.frame", "data.targets", "data.formats",
    "data.urls", "data.web", "data.stores", "data.shard_cache", "data.remote_shards", "data.order", "data.examples", "data.rle",
    "data.mixing", "data.randaugment", "data.transforms", "data.device_geometry", "data.device_draws", "data.device_color",
    "data.device_augment", "data.folders", "data.tables", "data.shards", "data.remote_sets", "data.hub", "data.readers.survey",
    "data.readers.names", "data.readers.splits", "data.readers.pairing", "data.readers.paired", "data.readers.yaml_splits",
    "data.readers.evidence", "data.readers.maps", "data.objectrows", "data.coco", "data.voc", "data.yolo", "data.pixelmaps",
    "data.mapfolders", "data.readers.shapes", "data.readers.labelme", "data.readers.labelstudio", "data.readers.cvat",
    "data.readers.table_files", "data.readers.label_cells", "data.readers.box_table", "data.annotated", "data.readers.tagged",
    "data.readers.labelled_table", "data.readers.several_labels", "data.readers.unopened", "data.readers.class_folders",
    "data.sources", "data.motion", "data.dense",
    "data.splits", "data.sweep", "data.scan", "data.memory", "data.loaders", "data.resident", "inspection",
    "ops.build", "ops.storage", "ops.gpu.arithmetic", "ops.gpu.tuning", "ops.gpu.moments", "ops.gpu.routes", "ops.gpu.banded",
    "ops.gpu.norm", "ops.gpu.convolution", "ops.gpu.correlation", "ops.gpu.pointwise", "ops.depthwise", "ops.act_norm", "ops.mix_space",
    "ops.mix", "ops.winograd",
    "models.layers", "models.convmixer", "models.multiscale", "models.convmlp", "models.checkpoint", "models.origins", "models.published",
    "models.weights", "models.timm_names", "models.catalog", "models.timm_registry", "models.receptive", "models.macs",
    "models.meta_shapes", "models.describe",
    "results", "metrics", "matching", "detection_metrics", "segmentation_metrics", "calibration", "draw", "overlay",
    "speed.fold", "speed.native", "speed.winograd", "speed.fused", "speed.backends", "speed.check", "speed.report", "speed.store",
    "speed.select",
    "tasks.base", "tasks.classify", "tasks.pyramid", "tasks.anchors", "tasks.retinanet", "tasks.maskrcnn", "tasks.semanticfpn",
    "tasks.suppression", "tasks.deployed_retinanet", "tasks.deployed_maskrcnn", "tasks.mmlab", "tasks.dense", "tasks.detect",
    "tasks.segment",
    "runtime.description", "runtime.sessions", "runtime.network", "runtime.pixels", "runtime.exported",
    "artifact", "inference", "report", "card",
    "training.agree", "training.sharding", "training.batch_norm", "training.schedule", "training.budget", "training.signals",
    "training.state", "training.log", "training.tuning", "training.job", "training.loop", "training.finish", "training.session",
    "files", "provenance", "acceleration", "predictor",
    "evaluation.answers", "evaluation.appearance", "evaluation.slices", "evaluation.reliability", "evaluation.selection",
    "evaluation.corruption", "evaluation.intervals", "evaluation.gallery", "evaluation.attributes", "evaluation.pairing",
    "evaluation.result", "evaluation.rival", "evaluation.pictures", "evaluation.page", "evaluation.mistakes", "evaluation.dense_result",
    "evaluation.dense_pictures", "evaluation.dense_page", "evaluation.found_page", "evaluation.found", "evaluation.mapped_page",
    "evaluation.mapped", "evaluation.dense", "evaluation.score", "evaluation.terminal", "evaluation.calibrated", "evaluation.certainty",
    "result_files", "prediction_files", "dense_prediction", "prediction", "hub",
    "exporting.preprocessing", "exporting.graph", "exporting.quantised", "exporting.onnx_file", "exporting.openvino_file",
    "exporting.torch_program", "exporting.script", "exporting.specimens", "exporting.agreement", "exporting.verification",
    "exporting.export", "exporting.race",
    "benchmarking.work", "benchmarking.process", "benchmarking.race", "benchmarking.roofline", "benchmarking.floor",
    "benchmarking.record", "benchmarking.picture", "benchmarking.measure",
    "explanation.specimen", "explanation.layers", "explanation.attribution", "explanation.trust", "explanation.weights",
    "explanation.receptive_field", "explanation.activations", "explanation.result", "explanation.subject", "explanation.pictures",
    "explanation.page", "explanation.terminal", "explanation.study",
    "serving.exposition", "serving.limits", "serving.problem", "serving.orders", "serving.batching", "serving.schema", "serving.card",
    "serving.admission", "serving.answering", "serving.workers", "serving.document", "serving.intake", "serving.explaining",
    "serving.app", "serving.server",
    "scaling.storage", "scaling.shipping", "scaling.progress", "scaling.rows", "scaling.listing", "scaling.parts", "scaling.blocks",
    "scaling.summary", "scaling.manifest", "scaling.reading", "scaling.attempts", "scaling.worker", "scaling.cluster", "scaling.job",
    "comparison.interval", "comparison.contenders", "comparison.grid", "comparison.study", "comparison.trainer", "comparison.trial",
    "comparison.ledger", "comparison.series", "comparison.score", "comparison.measurement", "comparison.effect", "comparison.picture",
    "comparison.table", "comparison.page", "comparison.contest", "comparison.ablation",
    "health.facts", "health.finding", "health.faults", "health.likeness", "health.duplicates", "health.balance", "health.labels",
    "health.remedy", "health.picture", "health.page", "health.examination",
)  # fmt: skip
ROOF = (
    "__init__", "__main__", "api", "cli", "demo", "commands",
    "commands.learning", "commands.judging", "commands.comparing", "commands.using", "commands.sharing", "commands.exporting",
    "commands.serving", "commands.scaling", "commands.listing", "commands.inspecting",
)  # fmt: skip  # may import everything

# Imports inside a function that go against the order: (file, imported) -> why. Keep it short.
EXCEPTIONS: dict[tuple[str, str], str] = {}

BANNED_NAMES = {"util", "utils", "common", "misc", "helper", "helpers", "core", "engine"}
MAX_LINES = 400
HEAVY = ("torch", "torchvision", "timm", "datasets", "accelerate", "matplotlib", "pandas", "sklearn", "scipy", "cyclopts", "rich")


@dataclass(frozen=True)
class Import:
    file: str  # "models.catalog": the importing file, without the leading convmix
    line: int
    target: str  # "models.weights"; "" is the package itself
    in_function: bool


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """convmix/models/catalog.py -> models.catalog; convmix/models/__init__.py -> models."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(source: str, file: str, *, is_package: bool, modules: set[str]) -> Iterator[Import]:
    """Every import of convmix in a file, inside functions and `if TYPE_CHECKING` too."""
    here = ["convmix", *file.split(".")][: None if is_package else -1]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for dotted in targets(child):
                if dotted == "convmix" or dotted.startswith("convmix."):
                    yield Import(file, child.lineno, dotted.removeprefix("convmix").lstrip("."), in_function)  # type: ignore[attr-defined]
            yield from visit(child, in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    def targets(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            origin = ".".join(p for p in (base, node.module or "") if p)
            # `from convmix.models import catalog` imports the file catalog, not merely the package.
            return sorted({full if (full := f"{origin}.{a.name}").removeprefix("convmix.") in modules else origin for a in node.names})
        return []

    yield from visit(ast.parse(source), False)


def place(name: str) -> int | None:
    """Where a file stands in the order; a package's own `__init__` stands below its last file; None where nothing is said."""
    if name in ("", *ROOF):
        return len(ORDER)
    at = [i for i, entry in enumerate(ORDER) if entry == name or entry.startswith(f"{name}.")]
    return at[-1] if at else None


def against_the_order(found: Import) -> bool:
    if found.file in ROOF or (found.in_function and (found.file, found.target) in EXCEPTIONS):
        return False
    mine, theirs = place(found.file), place(found.target)
    if mine is None or theirs is None:
        return False  # reported by test_every_file_has_a_place_in_the_order
    return theirs > mine


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def all_imports() -> list[Import]:
    modules = {name_of(p) for p in python_files()}
    return [
        found
        for path in python_files()
        for found in imports_of(path.read_text(), name_of(path), is_package=path.name == "__init__.py", modules=modules)
    ]


def tracked_files() -> list[Path]:
    """What git tracks or would track; skipped outside a checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in sorted(set(listing.stdout.split("\0")) - {""}) if (path := REPO / name).is_file()]


def test_every_file_has_a_place_in_the_order() -> None:
    unplaced = [name_of(p) for p in python_files() if place(name_of(p)) is None]
    assert not unplaced, f"give these files a place in ORDER, and docs/files.md a line for each: {unplaced}"


def test_the_order_names_only_files_that_exist() -> None:
    missing = [e for e in ORDER if not PACKAGE.joinpath(*e.split(".")).with_suffix(".py").exists()]
    assert not missing, f"ORDER names files that are gone: {missing}"


def test_imports_point_upwards_only() -> None:
    wrong = [
        f"convmix/{i.file.replace('.', '/')}.py:{i.line} imports {i.target or 'convmix itself'}"
        for i in all_imports()
        if against_the_order(i)
    ]
    assert not wrong, "a file imports only what stands above it in ORDER:\n" + "\n".join(wrong)


def test_every_exception_is_still_needed() -> None:
    used = {(i.file, i.target) for i in all_imports() if i.in_function}
    assert not set(EXCEPTIONS) - used


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("config", "from convmix.errors import ConfigError", False),
        ("errors", "from convmix.config import Run", True),
        ("errors", "def f():\n    import convmix.config", True),
        ("models.convmixer", "from convmix.models import layers", False),
        ("models.layers", "from convmix.models import convmixer", True),
        ("models.layers", "from . import convmixer", True),
        ("models.layers", "from ..prediction import predict", True),
        ("evaluation", "from convmix.training.loop import fit", False),
        ("prediction", "import convmix", True),
        ("prediction", "from convmix import cli", True),
        ("cli", "from convmix import prediction", False),
        ("tasks", "from convmix.tasks.classify import Classify", False),
        ("tasks.base", "from convmix.tasks import create_task", True),
        ("metrics", "import torch", False),
    ],
)
def test_the_checker_tells_right_from_wrong(file: str, source: str, wrong: bool) -> None:
    modules = {*ORDER, *ROOF, "tasks"}
    found = list(imports_of(source, file, is_package=False, modules=modules))
    assert any(against_the_order(i) for i in found) is wrong


def test_import_convmix_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import convmix; "
        f"print(len(set(sys.modules) - before), *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    count, *heavy = done.stdout.split()
    assert not heavy, f"import convmix imports {heavy}"
    assert int(count) <= 60, f"import convmix imports {count} modules"  # 30, those of the standard library counted; torch alone is 1,000


def test_files_are_small_rooms() -> None:
    files = [p for folder in ("convmix", "tests", "benchmarks") for p in sorted((REPO / folder).rglob("*.py"))]
    large = {str(p.relative_to(REPO)): n for p in files if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert not large, f"over {MAX_LINES} lines: {large}"


def test_files_are_named_by_their_noun() -> None:
    banned = [str(p.relative_to(REPO)) for p in PACKAGE.rglob("*") if p.stem in BANNED_NAMES]
    assert not banned, f"name these by what they hold: {banned}"


def test_no_tracked_file_names_a_machine() -> None:
    """No absolute path of somebody's machine, no address of a package index."""
    path = re.compile(r"(?<![\w.}])/(?:work|root|home|Users|farm)/(?!somebody)[\w.]")  # somebody: invented
    index = re.compile("|".join((r"--(?:extra-)?index-" + "url", r"pypi\." + "org", r"pytorch\." + "org/whl", r"find-" + "links")))
    hits = []
    for file in tracked_files():
        content = file.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if path.search(line) or index.search(line):
                hits.append(f"{file.relative_to(REPO)}:{number}: {line.strip()[:100]}")
    assert not hits, "\n".join(hits)
