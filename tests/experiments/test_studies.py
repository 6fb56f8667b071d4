"""Every study can be started: what it imports is there, also what a program imports that it gives to another interpreter."""

import ast
import importlib
import re

import pytest
import study_modules

PATHS = sorted(study_modules.STUDIES.glob("*.py"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_all_that_a_study_imports_is_there(path):
    if path.stem != "transformers_greedy":  # for the interpreter of an environment that has it
        with study_modules.imported(path.stem):
            pass
    strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    for text in (string for string in strings if isinstance(string, str)):
        for module, names in re.findall(r"\bfrom (spct_jax[\w.]*) import ([\w, ]+)", text):
            for name in re.split(r", *", names):
                name = name.partition(" as ")[0].strip()
                assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}")
