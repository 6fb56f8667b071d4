"""A small model in Hugging Face's layout, with a tokenizer."""

import json
import pathlib
import shutil

import pytest

from spct_jax.data.tokenizer import train_tokenizer

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def tokenizer():
    """Fewer pieces than the fixtures' tables have rows."""
    return train_tokenizer(["Alba has wifi, sun.", "Birch has tea."], vocab_size=300)


@pytest.fixture
def source(tmp_path, tokenizer):
    """gemma2_tiny with a tokenizer and a stop id of its own."""
    directory = tmp_path / "source"
    shutil.copytree(FIXTURES / "gemma2_tiny", directory, copy_function=shutil.copyfile)
    directory.chmod(0o755)
    tokenizer.save(directory / "tokenizer.model")
    generation = directory / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [1, 7]}))
    return directory
