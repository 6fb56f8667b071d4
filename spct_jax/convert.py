"""Converts checkpoints between layouts: `python -m spct_jax.convert --from=DIR --to=DIR --format=orbax|hf`.

The source is recognised: a model directory of this library, Hugging Face's safetensors, or Google's Orbax (which has no
description of itself, so `--size` must name it and `--tokenizer` the tokenizer). The target is written under
another name and renamed when it is complete.
"""

import json

from absl import flags

from spct_jax import checkpoints, cli, interrupts
from spct_jax.checkpoints.conversion import FORMATS
from spct_jax.checkpoints.safetensors_files import DTYPES
from spct_jax.models import sizes
from spct_jax.runtime import distributed
from spct_jax.storage import paths

FLAGS = flags.FlagValues()
FROM = flags.DEFINE_string("from", None, "Directory to read.", required=True, flag_values=FLAGS)
TO = flags.DEFINE_string("to", None, "Directory to write; must not exist, or be empty.", required=True, flag_values=FLAGS)
FORMAT = flags.DEFINE_enum("format", None, FORMATS, "Layout to write.", required=True, flag_values=FLAGS)
KIND = flags.DEFINE_enum(
    "kind",
    None,
    [kind.value for kind in checkpoints.ModelKind if kind.has_head],
    "What a sequence classifier of Hugging Face's scores, where its config.json does not say; default: meta_rm.",
    flag_values=FLAGS,
)
DTYPE = flags.DEFINE_enum("dtype", None, DTYPES, "Of the parameters; default: as they are stored.", flag_values=FLAGS)
SIZE = flags.DEFINE_enum("size", None, sorted(sizes.SIZES), "Size of a checkpoint in Google's layout.", flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "SentencePiece model, if none lies with the weights.", flag_values=FLAGS)


def main(_) -> None:
    """Entry of `python -m spct_jax.convert`."""
    distributed.devices()
    source, target = paths.parse(FROM.value, "--from"), paths.parse(TO.value, "--to")
    tokenizer = str(paths.parse(TOKENIZER.value, "--tokenizer")) if TOKENIZER.value else ""
    model = checkpoints.convert(
        source,
        target,
        FORMAT.value,
        kind=checkpoints.ModelKind(KIND.value) if KIND.value else None,
        dtype=DTYPE.value or None,
        size=SIZE.value or "",
        tokenizer=tokenizer,
    )
    print(f"{target}: {model.kind}, {json.dumps(model.config.stored())}")


if __name__ == "__main__":
    interrupts.clean_up()
    cli.run(main, FLAGS)
