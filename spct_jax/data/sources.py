"""Where records come from, as a string: `hh_rlhf:data/*.jsonl.gz`, `pairs:tfds:mine:train`, `x.jsonl`, `toy:`."""

import dataclasses
import difflib
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import TypeVar

from spct_jax.data import formats, index, rows
from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.data.jsonl import OnBad, ReadReport, check_on_bad
from spct_jax.data.kinds import COMPARISONS, DECIDED, DEMONSTRATIONS, Kind
from spct_jax.data.layouts import LAYOUTS
from spct_jax.errors import InputError
from spct_jax.storage import paths
from spct_jax.storage.paths import Path

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where records come from.

    Attributes:
        layout: name of what the rows are, see `layouts.LAYOUTS`; nothing: the project's own.
        format: name of how the rows are stored, see `formats.FORMATS`, or 'toy'; nothing: what the file's name says.
        place: a path, in which `*` and the like stand for many; for tfds NAME[/CONFIG]:SPLIT; for the toy world a split or
            nothing.
        bare: whether it was given as a path alone.
    """

    layout: str
    format: str
    place: str
    bare: bool = False

    def __str__(self) -> str:
        prefixes = [] if self.bare else [name for name in (self.layout, self.format) if name]
        return ":".join([*prefixes, self.place])

    @property
    def has_path(self) -> bool:
        """Whether its place is a path."""
        return self.format not in ("tfds", "toy")

    def absolute(self, flag: str) -> "Source":
        """The same with an absolute path; InputError naming the flag for a URL that cannot be read."""
        return dataclasses.replace(self, place=str(paths.parse(self.place, flag))) if self.has_path else self

    def paths(self, data_dir: str = "") -> list[Path]:
        """The files that it names; of the toy world none. Raises InputError if there are none."""
        if self.format == "toy":
            return []
        if self.format == "tfds":
            return formats.tfds.paths(self.place, data_dir)
        return [paths.of(path) for path in rows.expand(self.place)]


def parse_source(text: str) -> Source:
    """The source that a string names: LAYOUT:PATH, LAYOUT:FORMAT:PLACE, FORMAT:PLACE, toy:[SPLIT], or PATH.

    A path alone is JSON Lines unless the end of its name says another format.

    Raises:
        InputError: it names no file, or begins with something like a name that is none; says the nearest one.
    """
    head, colon, rest = text.partition(":")
    if colon and head in (*formats.FORMATS, "toy"):
        found = Source("", head, rest)
    elif colon and head in LAYOUTS:
        format, colon, place = rest.partition(":")
        found = Source(head, format, place) if colon and format in formats.FORMATS else Source(head, "", rest)
    elif colon and re.fullmatch(r"\w+", head) and not rest.startswith("/") and not os.path.exists(text):
        names = [*formats.FORMATS, "toy", *LAYOUTS]
        near = difflib.get_close_matches(head, names, n=1, cutoff=0.0)[0]
        raise InputError(f"{text}: no format or layout is called {head!r}; did you mean {near!r}?")
    else:
        found = Source("", formats.named_by(text) or "jsonl", text, bare=True)
    if not found.place and found.format != "toy":
        raise InputError(f"{text}: names no file" if text else "a source names no file")
    return found


def kind_of(source: str | Source) -> Kind:
    """What the rows of a source are, if nobody needs them to be something else: comparisons wherever the layout makes them."""
    layout = LAYOUTS.get((parse_source(source) if isinstance(source, str) else source).layout, COMPARISONS.own)
    return COMPARISONS if layout.comparisons else DEMONSTRATIONS


def open_source(
    source: str | Source,
    kind: Kind[T],
    *,
    on_bad: OnBad = "fatal",
    directory: Path | None = None,
    name: str = "records",
    data_dir: str = "",
    fields: Sequence[str] = (),
) -> tuple[Records[T], ReadReport]:
    """The records of a source other than the toy world, each made when it is asked for, and a report of all its rows.

    Args:
        source: see `parse_source`.
        kind: what the records must be: `COMPARISONS`, `DECIDED` or `DEMONSTRATIONS`.
        on_bad: 'fatal' raises at the first bad row; 'skip' leaves it out and counts it. What a layout leaves out by its own
            rules, such as ties, is counted either way.
        directory: keeps `name.index` and other files, so that rows are looked through once until they change; all processes
            must call this. Without it nothing is kept, and every process works for itself.
        name: what these files are called.
        data_dir: where prepared tfds datasets lie; nothing: where tfds looks.
        fields: 'ours=theirs': rows have under the name `theirs` what the layout calls `ours`.

    Raises:
        InputError: naming file and row; the file, when it cannot be read as a whole; or the source, when it gives no record.
    """
    check_on_bad(on_bad)
    source = parse_source(source) if isinstance(source, str) else source
    layout = LAYOUTS[source.layout] if source.layout else kind.own
    kind.made_by(layout)
    if source.format == "toy":
        raise InputError(f"{source}: only a training run has the toy world's records")
    scratch = None if directory else tempfile.TemporaryDirectory(prefix="spct_jax_records_")
    place = pathlib.Path(scratch.name) if scratch else directory
    found = formats.open_rows(source.place, source.format, directory=directory, name=name, data_dir=data_dir)
    if fields:
        found = rows.Renamed(found, dict(field.split("=", 1) for field in fields))
    return index.index_rows(
        found, layout, kind, on_bad=on_bad, source=str(source), path=place / f"{name}.index", shared=scratch is None
    )


def read_comparisons(
    source: str | os.PathLike, *, on_bad: OnBad = "fatal", need_best: bool = False
) -> tuple[list[Comparison], ReadReport]:
    """The comparisons of a source, in its order; with `need_best`, a record without one best response is bad.

    A record's id is that of its row, or the row's line or number, which is never taken for a duplicate of a given id. The
    other arguments and errors are those of `open_source`.
    """
    records, report = open_source(os.fspath(source), DECIDED if need_best else COMPARISONS, on_bad=on_bad)
    return list(records), report


def read_demonstrations(source: str | os.PathLike, on_bad: OnBad = "fatal") -> tuple[list[Demonstration], ReadReport]:
    """The demonstrations of a source, in its order; arguments and errors are those of `open_source`."""
    records, report = open_source(os.fspath(source), DEMONSTRATIONS, on_bad=on_bad)
    return list(records), report
