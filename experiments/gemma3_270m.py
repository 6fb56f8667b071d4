"""SPCT on Gemma-3 270M, from the pretrained model to a judge of real responses.

What: all stages on people's preferences and checked solutions, which `experiments/studies/gemma3_270m.py` prepares; prompt 640,
completion 192. The short templates: a model of this size profits from no long instruction, and tokens cost time.
Machine: without an argument two CPU cores, for hours; `:gpu` one H100 or H200; `:tpu` the slice below. With any of them one
of the paper's baselines, as in `:gpu,btrm`, or one of `config.SYSTEMS`.
Hardware: one slice v5e:2x2 (4 chips, 1 host; GKE ct5lp-hightpu-4t; TPU VM v5litepod-4).
Time: an H200 took 257 s for the cold start, of which 34 compiling, and 158 s for RL, of which 25, with the XLA_FLAGS that
docs/results/gemma3_270m.md gives; without them programs compile for minutes. Rejection sampling, RFT and the meta RM took 26,
49 and 51 s in an earlier run with shorter verdicts.

    python -m spct_jax.train --config=experiments/gemma3_270m.py:gpu --workdir=DIR --config.init_checkpoint=MODEL
    python -m spct_jax.plan --config=experiments/gemma3_270m.py:tpu --topology=v5e:2x2

The numbers differ from the paper's where a model of 1/100 the size and data of 1/500 ask for it: learning rates are higher,
since there are a hundredth of the steps, and groups are of eight, since on a GPU further branches of a trunk cost little while
a group in which all are right or all are wrong teaches nothing.
"""

import dataclasses

from spct_jax import config as config_lib
from spct_jax.errors import InputError
from spct_jax.models import sizes

RESPONSE = 384
"""Tokens of the longest response, which scalar reward models read by itself; other systems read it as a part of the prompt."""
GPU_BUCKETS = {"btrm": ((320, 96),), "pairrm": ((320, 128),)}
"""A shape of updates on a GPU beside the largest, where that leaves most slots empty; it holds nearly all comparisons."""
GPU_BUCKET = (448, 144)
"""The same for systems that write: with it SFT computes 2.0 slots a token, and RL 1.4."""
DEMONSTRATIONS = {"llm_judge": "_judge", "no_principles": "_no_principles", "cloud": "_cloud"}
"""What the name of a system's own demonstrations ends in."""


def get_config(variant: str = "") -> config_lib.Config:
    """The experiment for a machine (`MACHINES`) and, after a comma, as a system (`config.SYSTEMS`); either may be left out.

    Raises:
      InputError: the variant names something else.
    """
    names = [name for name in variant.split(",") if name]
    machines, systems = ([name for name in names if name in known] for known in (MACHINES, config_lib.SYSTEMS))
    if unknown := [name for name in names if name not in MACHINES and name not in config_lib.SYSTEMS]:
        known = ", ".join((*MACHINES, *config_lib.SYSTEMS))
        raise InputError(f"unknown variant {unknown[0]!r}; known: {known}")
    if len(machines) > 1 or len(systems) > 1:
        raise InputError(f"{variant!r} names more than one machine or more than one system")
    config = _common()
    MACHINES[machines[0] if machines else "cpu"](config)
    system = systems[0] if systems else ""
    config_lib.as_system(config, system)
    if system in ("btrm", "pairrm"):
        # From the pretrained model: the cold start would teach them the demonstrator's faults.
        config.stages = (system, "evaluate")
        config.data.max_completion = RESPONSE
        if "gpu" in machines:
            config.data.buckets = GPU_BUCKETS[system]
    if system in DEMONSTRATIONS:
        config.data.demonstrations = f"data/demonstrations{DEMONSTRATIONS[system]}.jsonl"
    if system == "llm_judge":
        # Beyond the paper, whose judge learns from pairs alone: the test, the same for all, has more than two in places.
        config.data.responses = (2, 4)
    return config


def _common() -> config_lib.Config:
    """What is the same on all machines: templates, data, lengths, learning rates."""
    config = config_lib.Config(model=sizes.get("gemma3_270m"), init_checkpoint="checkpoints/gemma3_270m")
    config.prompt = config_lib.PromptConfig("short", "short_single", "short_meta", "short_judge")
    config.data = config_lib.DataConfig(
        train="data/train.jsonl",
        development="data/development.jsonl",
        test="data/test.jsonl",
        demonstrations="data/demonstrations.jsonl",
        general="data/general.jsonl",
        max_prompt=640,
        max_completion=192,
    )
    adam = config_lib.OptimizerConfig(learning_rate=5e-5, warmup_steps=10, decay_fraction=0.5)

    def rate(learning_rate: float, warmup: int = 5) -> config_lib.OptimizerConfig:
        return dataclasses.replace(adam, learning_rate=learning_rate, warmup_steps=warmup)

    # Two passes over the demonstrated verdicts, one over what rejection sampling keeps.
    config.sft = config_lib.SFTConfig(steps=480, batch_size=64, general_fraction=0.05, optimizer=rate(2e-4, 20))
    config.rejection = config_lib.RejectionConfig(problems=1536, samples=3, batch_size=256)
    config.rft = config_lib.RFTConfig(steps=24, batch_size=64, general_fraction=0.1, optimizer=rate(2e-5))
    # Beta is the middle of the paper's grid: so few steps cannot lead far from the reference.
    config.rl = config_lib.RLConfig(
        steps=40, batch_size=64, group_size=8, kl_beta=0.02, ref_dtype="bfloat16", optimizer=rate(1e-5)
    )
    config.meta_rm = config_lib.MetaRMConfig(steps=40, batch_size=32, optimizer=rate(1e-5))
    # Two passes over the training comparisons.
    config.btrm = config_lib.PreferenceConfig(steps=150, batch_size=32, optimizer=rate(1e-5, 10))
    config.pairrm = config_lib.PreferenceConfig(steps=150, batch_size=32, optimizer=rate(1e-5, 10))
    config.cloud = config_lib.CLoudConfig(steps=150, batch_size=32, problems=0, draw_batch_size=512, optimizer=rate(1e-5, 10))
    config.evaluation = config_lib.EvaluationConfig(problems=0, k=(1, 8, 32), temperature=1.0, texts=2000)
    config.checkpoint = config_lib.CheckpointConfig(every_steps=50, every_minutes=10, reuse_rollouts=True)
    return config


def _gpu(config: config_lib.Config) -> None:
    """One H100: micro-batches of 16 prompts, and two shapes, since to compile more takes longer than it saves."""
    config.model = dataclasses.replace(config.model, time_chunk=32)
    config.data.buckets = (GPU_BUCKET,)
    config.sft.accumulate = config.rft.accumulate = 2
    config.rl.accumulate, config.meta_rm.accumulate = 4, 2
    # A step of decoding takes 9 ms and 1 more for every 100 branches, so that many at once are cheap.
    config.rejection.batch_size, config.evaluation.slots = 512, 1536
    config.rl.slots, config.rejection.slots, config.cloud.slots = 512, 1536, 512
    # It is over before a checkpoint would pay.
    config.checkpoint = config_lib.CheckpointConfig(every_steps=1000, keep=1)


def _tpu(config: config_lib.Config) -> None:
    """v5e:2x2: four chips of 16 GB, rows split over them."""
    config.mesh = config_lib.MeshConfig(strategy="fsdp")
    config.sft.accumulate = config.rft.accumulate = 4
    config.rl.accumulate, config.meta_rm.accumulate = 8, 4
    config.rl.slots = config.rejection.slots = config.cloud.slots = config.evaluation.slots = 0


def _cpu(config: config_lib.Config) -> None:
    """Two cores: float32, an optimiser without momentum, one micro-batch of few prompts; a tenth of the steps and draws."""
    config.mesh = config_lib.MeshConfig(cpu_devices=1)
    config.model = dataclasses.replace(config.model, dtype="float32", time_chunk=32)
    config.data.num_buckets = 8  # to compile one takes a fraction of the step that it makes shorter
    for stage in (config.sft, config.rft, config.rl, config.meta_rm, config.btrm, config.pairrm, config.cloud):
        stage.optimizer = dataclasses.replace(stage.optimizer, name="adafactor")
    config.sft.steps, config.sft.batch_size, config.sft.accumulate = 60, 16, 8
    config.rejection.problems, config.rejection.batch_size = 192, 16
    config.rft.steps, config.rft.batch_size, config.rft.accumulate = 16, 16, 8
    config.rl.steps, config.rl.batch_size, config.rl.group_size, config.rl.accumulate = 16, 8, 4, 8
    config.meta_rm.steps, config.meta_rm.batch_size, config.meta_rm.accumulate = 16, 8, 8
    for stage in (config.btrm, config.pairrm, config.cloud):
        stage.steps, stage.batch_size = 60, 8
    config.cloud.problems, config.cloud.draw_batch_size = 192, 16
    config.evaluation.problems, config.evaluation.k, config.evaluation.slots = 200, (1, 8), 32
    config.checkpoint = config_lib.CheckpointConfig(every_steps=1000, every_minutes=15, reuse_rollouts=True)


MACHINES = {"cpu": _cpu, "gpu": _gpu, "tpu": _tpu}
