"""What int8 weights, keys and values change in verdicts of the tiny experiment, and in the probabilities of what is drawn.

    python experiments/studies/int8_accuracy.py --checkpoint=runs/tiny/rft --checkpoint=runs/tiny/rl

For every policy, with and without `quantize=int8`: the accuracy of greedy verdicts and of votes on test problems, how many
greedy verdicts name the same best response, and `drift`: |p/q - 1| of tokens drawn with probability q that the policy in floats
gives p, at temperature 1, as of RL's metric `sampler_drift`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from spct_jax import cli, models, sampling, sharding
from spct_jax.config import MeshConfig, ToyConfig
from spct_jax.data import batches
from spct_jax.data.comparison import Comparison
from spct_jax.evaluation import metrics
from spct_jax.judging.judge import Judge
from spct_jax.judging.models import Model
from spct_jax.judging.verdicts import sample_to_json
from spct_jax.reporting import markdown
from spct_jax.toy import world

FLAGS = flags.FlagValues()
CHECKPOINTS = flags.DEFINE_multi_string("checkpoint", [], "Model directories of policies.", flag_values=FLAGS)
PROBLEMS = flags.DEFINE_integer("problems", 400, "Test problems.", flag_values=FLAGS)
K = flags.DEFINE_list("k", ["8", "32"], "Votes.", flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "Of samples.", flag_values=FLAGS)
LIMIT = 72
"""Tokens of a verdict; those of the tiny experiment have fewer."""
DRIFT_PROMPTS, DRIFT_SAMPLES = 16, 4


def rows(judge: Judge, problems: list[Comparison], k: int, temperature: float) -> list[dict]:
    """Verdicts as `metrics` reads them."""
    found = judge.score(problems, k=k, temperature=temperature, seed=SEED.value, max_new_tokens=LIMIT, batch_size=16)
    return [
        {"id": c.id, "n": c.n, "best": c.best, "scores": v.scores, "samples": [sample_to_json(sample) for sample in v.samples]}
        for c, v in zip(problems, found, strict=True)
    ]


def drift(floats: Model, drawn_with: Model, problems: list[Comparison]) -> np.ndarray:
    """|p/q - 1| of every token of completions that one model draws and another scores."""
    prompts = [floats.prompter.encode(c, tuple(range(c.n))) for c in problems[:DRIFT_PROMPTS]]
    options = {"num_samples": DRIFT_SAMPLES, "max_new_tokens": LIMIT, "bucket": max(map(len, prompts))}
    stops = floats.prompter.tokenizer.stop_ids
    out = sampling.generate(
        drawn_with.params, drawn_with.config, prompts, jax.random.key(SEED.value), stop_ids=stops, **options
    )
    tokens, lengths, last = batches.pack_prompts(prompts, options["bucket"])
    shown = models.Prompts(jnp.asarray(tokens), jnp.asarray(lengths))
    first = jnp.broadcast_to(jnp.asarray(last)[:, None, None], (*out.lengths.shape, 1))
    inputs = jnp.concatenate([first, out.tokens[..., :-1]], axis=-1)
    scored, _ = models.token_logprobs(floats.params, floats.config, shown, inputs, out.tokens)
    drawn = np.arange(LIMIT) < np.asarray(out.lengths)[..., None]
    return np.abs(np.exp(np.asarray(scored) - np.asarray(out.logprobs)) - 1)[drawn]


def main(_) -> None:
    """Judges by every policy in both ways and prints the table."""
    sharding.use_devices(MeshConfig(cpu_devices=1))
    shown = (p.comparison for p in world.problems("test", PROBLEMS.value, ToyConfig()))
    problems, ks = [c for c in shown if c.n > 1], [int(k) for k in K.value]
    lines = []
    for checkpoint in CHECKPOINTS.value:
        judges = {quantize: Judge.load(checkpoint, quantize=quantize) for quantize in ("none", "int8")}
        best = {}
        for quantize, judge in judges.items():
            greedy, sampled = rows(judge, problems, 1, 0.0), rows(judge, problems, max(ks), 1.0)
            best[quantize] = [np.argmax(row["scores"] or [0]) for row in greedy]
            same = np.mean(np.array(best["none"]) == best[quantize])
            off = drift(judges["none"].models.policy, judge.models.policy, problems)
            accuracies = [metrics.tally(greedy, 1).accuracy, *(metrics.tally(sampled, k).accuracy for k in ks), same]
            cells = [markdown.percent(x) for x in accuracies] + [
                f"{x:.2g}" for x in (off.mean(), np.percentile(off, 95), off.max())
            ]
            lines.append([checkpoint, quantize, *cells])
            print(" ".join(lines[-1]), flush=True)
    votes = [f"vote@{k}, %" for k in ks]
    print(markdown.table(["policy", "quantize", "greedy, %", *votes, "same best, %", "drift, mean", "95 %", "largest"], lines))


if __name__ == "__main__":
    cli.run(main, FLAGS)
