"""Parts of `config.json` that several families have, in the two styles in use.

The older style is that of most files on the hub (`rope_theta`, `rope_local_base_freq`, `rope_scaling`,
`sliding_window_pattern`), the newer one that of transformers 5 (`rope_parameters`, `layer_types`).
"""

from collections.abc import Mapping
from typing import Any

from spct_jax.errors import InputError
from spct_jax.models.config import LONGEST_PATTERN, ModelConfig

_LAYER_TYPES = {"sliding_attention": "local", "full_attention": "global"}

Fields = Mapping[str, Any]


def refuse(fields: Fields, names: tuple[str, ...]) -> None:
    """Raises InputError where one of these fields is set: ours would compute something else."""
    for name in names:
        if fields.get(name):
            raise InputError(f"{name}={fields[name]!r} is not supported")


def read_pattern(fields: Fields) -> tuple[str, ...]:
    """The shortest pattern of `local` and `global` whose repetition gives every layer its kind.

    Raises:
      InputError: `layer_types` or `sliding_window_pattern` says nothing of the sort, or more than we support.
    """
    layers, types = fields["num_hidden_layers"], fields.get("layer_types")
    if types is None:
        period = fields.get("_sliding_window_pattern") or fields["sliding_window_pattern"]
        if type(period) is not int or not 1 <= period <= LONGEST_PATTERN:
            raise InputError(f"sliding_window_pattern is {period!r}, not a whole number from 1 to {LONGEST_PATTERN}")
        return ("local",) * (period - 1) + ("global",)
    if not isinstance(types, list):
        raise InputError(f"layer_types is a {type(types).__name__}, not a list")
    if len(types) != layers:
        raise InputError(f"layer_types has {len(types)} entries for num_hidden_layers={layers}")
    unknown = [t for t in types if t not in _LAYER_TYPES]
    if unknown:
        raise InputError(f"layer_types: {unknown[0]!r} is not supported")
    kinds = tuple(_LAYER_TYPES[t] for t in types)
    period = next(p for p in range(1, layers + 1) if kinds == (kinds[:p] * layers)[:layers])
    if period > LONGEST_PATTERN:
        raise InputError(f"layer_types repeat after {period} layers; at most {LONGEST_PATTERN} are supported")
    return kinds[:period]


def write_layer_types(config: ModelConfig) -> list[str]:
    """`layer_types`: the kind of every layer."""
    names = {ours: theirs for theirs, ours in _LAYER_TYPES.items()}
    return [names[kind] for kind in config.layer_kinds]


def read_ropes(fields: Fields, local_base: float | None) -> dict[str, float]:
    """The fields of `ModelConfig` about rotary positions.

    Args:
      fields: of `config.json`.
      local_base: base of local layers in a file of the older style; None: that of all layers.

    Raises:
      InputError: positions are scaled in a way that we do not compute.
    """
    ropes = fields.get("rope_parameters")
    if ropes is None:
        everywhere = fields["rope_theta"], _scale(fields.get("rope_scaling"), "rope_scaling")
        local = everywhere if local_base is None else (local_base, 1.0)
    elif "rope_theta" in ropes:
        everywhere = local = ropes["rope_theta"], _scale(ropes, "rope_parameters")
    else:
        everywhere, local = (
            (ropes[name]["rope_theta"], _scale(ropes[name], f"rope_parameters.{name}"))
            for name in ("full_attention", "sliding_attention")
        )
    if local[1] != 1:
        raise InputError("a rope factor for sliding_attention is not supported")
    return {
        "rope_base_local": float(local[0]),
        "rope_base_global": float(everywhere[0]),
        "rope_scale_global": float(everywhere[1]),
    }


def _scale(scaling: Fields | None, field: str) -> float:
    """What positions are divided by."""
    if not scaling:
        return 1.0
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear"):
        raise InputError(f"{field}: rope type {kind!r} is not supported; default and linear are")
    return float(scaling.get("factor") or 1.0) if kind == "linear" else 1.0


def exact(value: float) -> float | int:
    """The integer that a float came from, where it came from one."""
    return round(value) if abs(value - round(value)) < 1e-6 * value else value
