"""Imports go one way, from the bottom up, and in no circles."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

GROUND = {"errors", "interrupts", "rounding", "terminal", "python_files", "field_bounds", "configs", "runtime", "storage"}
MAY_IMPORT = {
    "errors": set(),
    "interrupts": set(),
    "rounding": set(),
    "terminal": set(),
    "python_files": {"errors"},
    "field_bounds": {"errors"},
    "configs": {"errors", "field_bounds"},
    "runtime": {"errors", "interrupts"},
    "storage": {"errors", "runtime"},
    "data": GROUND,
    "sharding": GROUND,
    "grm": GROUND | {"data"},
    "toy": GROUND | {"data", "grm"},
    "models": GROUND | {"sharding"},
    "config": GROUND | {"models"},
    "checkpoints": GROUND | {"data", "grm", "sharding", "models"},
    "sampling": GROUND | {"data", "sharding", "models"},
    "reward_models": GROUND | {"data", "grm", "sharding", "models", "checkpoints", "sampling"},
    "judging": GROUND | {"data", "grm", "sharding", "models", "checkpoints", "sampling", "reward_models"},
}
MAY_IMPORT["training"] = MAY_IMPORT["judging"] | {"config", "toy"}
MAY_IMPORT["evaluation"] = MAY_IMPORT["training"] | {"judging", "training"}
MAY_IMPORT["reporting"] = MAY_IMPORT["evaluation"] | {"evaluation"}
MAY_IMPORT["planning"] = MAY_IMPORT["training"] | {"training"}
MAY_IMPORT["cli"] = GROUND | {"config"}
MAY_IMPORT["launching"] = {
    "errors",
    "runtime.hardware",
    "runtime.slices",
    "storage.paths",
    "configs",
    "grm.rewards",
    "grm.template",
    "sharding.strategies",
    "config",
}
MAY_IMPORT["pipeline"] = set(MAY_IMPORT) - {"cli"}
ENTRIES = {"train", "judge", "evaluate", "convert", "plan", "data.__main__"}
MAY_IMPORT |= dict.fromkeys(ENTRIES, set(MAY_IMPORT))
"""Who may import whom: packages, or single modules of them. `configs` is the config.py of every package, fields and ranges."""


def modules() -> dict[str, ast.Module]:
    """All modules of the package by dotted name."""
    found = {}
    for path in (ROOT / "spct_jax").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


def imported(tree: ast.Module, known: dict[str, ast.Module]) -> set[str]:
    """The modules of the package that a module names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "spct_jax":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


def row_of(module: str) -> str:
    """The row of the table that a module stands in."""
    parts = module.split(".")[1:]
    if parts[1:] == ["__main__"]:
        return ".".join(parts)
    return "configs" if len(parts) == 2 and parts[1] == "config" else parts[0] if parts else ""


KNOWN = modules()
EDGES = {name: imported(tree, KNOWN) - {name} for name, tree in KNOWN.items() if name != "spct_jax"}


@pytest.mark.parametrize("row", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_stands_below_it(row):
    wrong = [
        f"{name} imports {other}"
        for name, others in sorted(EDGES.items())
        for other in sorted(others)
        if row_of(name) == row and not {row_of(other), other.removeprefix("spct_jax.")} & (MAY_IMPORT[row] | {row})
    ]
    assert not wrong, wrong


def test_every_module_has_a_row():
    assert {row_of(name) for name in EDGES} == set(MAY_IMPORT)


def test_no_module_imports_itself_by_way_of_others():
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, f"a circle: {' -> '.join([*under_way[under_way.index(name) :], name])}"
        if name not in done:
            under_way.append(name)
            for other in sorted(EDGES.get(name, ())):
                visit(other)
            done.add(under_way.pop())

    for name in sorted(EDGES):
        visit(name)


@pytest.mark.parametrize("slow", ["pallas", "matplotlib"])
def test_what_loads_slowly_is_loaded_where_it_is_used_and_no_earlier(slow):
    """Pallas takes a twentieth of a command's start, and most programs do without; pictures are drawn at its end."""
    imports = ast.Import | ast.ImportFrom
    at_once = {name: [ast.unparse(node) for node in tree.body if isinstance(node, imports)] for name, tree in KNOWN.items()}
    assert not [name for name, lines in at_once.items() if any(slow in line for line in lines)]


def test_the_bare_import_is_quick_and_leaves_jax_alone():
    code = "import sys, time; t = time.process_time(); import spct_jax; print(time.process_time() - t)\n"
    code += "print(sorted({'jax', 'flax', 'numpy', 'orbax'} & sys.modules.keys()))"
    seconds, loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert float(seconds) < 0.3 and loaded == "[]"
