"""What is installed beside the modules."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]


def test_all_that_is_no_module_is_installed_too_and_type_checkers_are_told_to_read_the_annotations():
    setup = ast.walk(ast.parse((ROOT / "setup.py").read_text()))
    (data,) = [ast.literal_eval(node.value) for node in setup if getattr(node, "arg", "") == "package_data"]
    patterns = {package.replace(".", "/"): globs for package, globs in data.items()}
    installed = {path for package, globs in patterns.items() for pattern in globs for path in (ROOT / package).glob(pattern)}
    there = {path for path in (ROOT / "spct_jax").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert installed == there and ROOT / "spct_jax" / "py.typed" in there
