"""The JobSet API of v0.10.1 as a JSON schema in which a field that it does not know is an error."""

import gzip
import json
import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[1] / "fixtures" / "launch" / "jobset-v0.10.1.json.gz"


def _strict(node):
    """The schema with unknown fields forbidden in every object that lists its fields."""
    if isinstance(node, list):
        return [_strict(child) for child in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(child) for key, child in node.items()}
    if isinstance(node.get("properties"), dict):
        strict["properties"] = {name: _strict(child) for name, child in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    return strict


def validator():
    """Checks manifests by `.validate(manifest)`, or finds all faults by `.iter_errors(manifest)`."""
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema (pip install -e '.[dev]')")
    schema = _strict(json.loads(gzip.decompress(PATH.read_bytes())))
    # The API server checks the metadata of all kinds in the same way; a definition leaves it out.
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
            "namespace": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    return jsonschema.Draft202012Validator(schema)
