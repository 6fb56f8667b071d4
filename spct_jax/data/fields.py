"""From the fields of `DataConfig` to records: mixtures of sources, without copies and benchmarks, divided into splits."""

import json
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tqdm

from spct_jax.data import mixtures, selection, sources
from spct_jax.data.config import SPLITS, DataConfig
from spct_jax.data.contamination import Benchmarks
from spct_jax.data.index import Records
from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.data.kinds import DECIDED, DEMONSTRATIONS, Kind
from spct_jax.data.selection import Dropped
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import digests, files
from spct_jax.storage.paths import Path

KINDS = {**dict.fromkeys(SPLITS, DECIDED), "demonstrations": DEMONSTRATIONS, "general": DEMONSTRATIONS}
"""What the records of a field are."""
LEARNT_FROM = ("train", "demonstrations", "general")
Opener = Callable[[str, Kind, OnBad, str], tuple[Records, ReadReport]]
"""Opens one source: (source, what its records are, what a bad row does, name of the files that are kept about it)."""


def report_name(data: DataConfig, field: str) -> str:
    """Whose report counts what is left out of a field: its source's, or its own where that is no file or not all of it."""
    text, divided = getattr(data, field), bool(data.split) and field in SPLITS
    alone = text and not divided and len(mixtures.parse(text)) == 1
    return _source_report_name(data, field, text) if alone else field


def _source_report_name(data: DataConfig, field: str, source: str) -> str:
    """Name of the report of a source of a field; one that several fields name has one for each, as each leaves out its own."""
    texts = [getattr(data, other) for other in KINDS]
    if _is_toy(source) and getattr(data, field) == source:
        return field
    named = sum(source == other for text in texts if text for _, other in mixtures.parse(text))
    return f"{source} in {field}" if _is_toy(source) or named > 1 else source


def load(
    data: DataConfig, open_source: Opener, directory: Path, kinds: Mapping[str, Kind] = KINDS
) -> tuple[dict[str, Records], dict[str, ReadReport]]:
    """The records of every field, and reports of the sources and of fields that are not simply one source.

    What was dropped on the way is listed in `directory/dropped.jsonl`. All processes must call this.

    Args:
        data: names the sources, and what is to be left out of them.
        open_source: opens one of them.
        directory: see above.
        kinds: what the records of a field must be.

    Raises:
        InputError: what `open_source` raises, or nothing is left of a field.
    """
    found, reports, dropped = {field: Records.of([]) for field in KINDS}, {}, []
    benchmarks = _benchmarks(data, open_source)
    for field, kind in kinds.items():
        if not getattr(data, field):
            continue
        records, own = _open(data, field, kind, open_source)
        reports |= own
        fractions = data.split if field == "train" and data.split else (1.0,)
        kept = directory / f"{field}.fingerprints"
        parts, copies = selection.divide(field, records, kept, deduplicate=data.deduplicate, fractions=fractions)
        dropped.append(copies)
        origins = np.zeros(len(records), int) if records.shares is None else records.shares.sources
        for number, report in enumerate(own.values()):
            _count(report, copies.reason, int((origins[copies.numbers] == number).sum()))
        for name, part, fraction in zip(SPLITS if len(parts) > 1 else (field,), parts, fractions, strict=True):
            if fraction:
                found[name] = part
                reports.setdefault(report_name(data, name), ReadReport(len(part), len(part)))
        if benchmarks is not None and field in LEARNT_FROM:
            found[field], others = selection.without_benchmarks(
                field, found[field], benchmarks, directory / f"{field}.benchmarks"
            )
            dropped.append(others)
            _count(reports[report_name(data, field)], others.reason, len(others))
        if not len(found[field]):
            raise InputError(f"{getattr(data, field)}: nothing is left of it")
    _write(dropped, directory / "dropped.jsonl")
    return found, reports


def _open(data: DataConfig, field: str, kind: Kind, open_source: Opener) -> tuple[Records, dict[str, ReadReport]]:
    """The records of a field, and a report of every source that it names."""
    parts = mixtures.parse(getattr(data, field))
    opened, reports = [], {}
    for number, (weight, source) in enumerate(parts):
        name = field if len(parts) == 1 else f"{field}.{number}"
        records, report = open_source(source, kind, data.on_bad, name)
        reports[_source_report_name(data, field, source)] = report
        opened.append((weight, records))
    return opened[0][1] if len(parts) == 1 else mixtures.mix(opened), reports


def _is_toy(source: str) -> bool:
    return sources.parse_source(source).format == "toy"


def _benchmarks(data: DataConfig, open_source: Opener) -> Benchmarks | None:
    if not data.decontaminate:
        return None
    opened = []
    for number, source in enumerate(data.decontaminate):
        opened.append(open_source(source, sources.kind_of(source), "skip", f"benchmark.{number}")[0])
    return Benchmarks(data.decontaminate, opened)


def _count(report: ReadReport, reason: str, count: int) -> None:
    if count:
        report.used -= count
        report.skipped[reason] = report.skipped.get(reason, 0) + count


def _write(dropped: Iterable[Dropped], path: Path) -> None:
    """Writes what was dropped, unless it is there already."""
    some = [group for group in dropped if len(group)]
    stamp, kept = digests.of_json([group.stamp for group in some]), path.with_suffix(".stamp")
    if not distributed.is_first() or (kept.exists() and kept.read_text() == stamp and path.exists()):
        return
    with files.replacing(path) as file, tqdm.tqdm(total=sum(map(len, some)), desc=path.name, delay=5, unit="record") as bar:
        for group in some:
            for line in group:
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
                bar.update()
    files.write(kept, stamp)
