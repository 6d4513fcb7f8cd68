"""Pictures of kinds that need a package which is not installed: counted and named, never lost in silence."""

from collections import Counter
from dataclasses import replace

from convmix.data.examples import Source
from convmix.data.extra_formats import missing_package
from convmix.data.readers.survey import suffix_of
from convmix.errors import DataError

EXTRA = "pip install 'convmix[formats]'"


def without_foreign(source: Source) -> Source:
    """Without the images that cannot be opened here; one note says what would add them. DataError where none is left."""
    counts: Counter[str] = Counter()
    dropped = list(source.dropped)
    splits = {}
    for split, examples in source.splits.items():
        needs = {suffix: package for suffix in (".heic", ".heif", ".hif", ".jxl", ".avif") if (package := missing_package(suffix))}
        lost = [i for i, name in enumerate(examples.names) if suffix_of(name) in needs] if needs else []
        if not lost:
            splits[split] = examples
            continue
        for i in lost:
            suffix = suffix_of(examples.name(i))
            counts[suffix] += 1
            dropped.append((examples.name(i), f"a picture of the kind {suffix}, which needs {needs[suffix]} ({EXTRA})"))
        gone = set(lost)
        if len(gone) < len(examples):
            splits[split] = examples.select([i for i in range(len(examples)) if i not in gone])
    if not counts:
        return source
    kinds = " and ".join(f"{n} {suffix}" for suffix, n in counts.most_common())
    if not splits:
        raise DataError(f"all images are of kinds that cannot be opened here ({kinds}): {EXTRA} adds them")
    return replace(
        source, splits=splits, dropped=dropped, notes=(*source.notes, f"{kinds} images cannot be opened here: {EXTRA} adds them")
    )
