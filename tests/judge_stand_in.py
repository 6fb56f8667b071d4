"""Judges without a model, and files for them to judge."""

import gzip
import itertools
import json
import random

from spct_jax.errors import InputError
from spct_jax.grm import orders
from spct_jax.judging import files
from spct_jax.judging.verdicts import Sample, Verdict

SETTINGS = {"checkpoint": "/models/judge", "k": 4, "seed": 0}


class Judge:
    """Scores by the lengths of the responses; reads `window` comparisons ahead; breaks at the id `breaks_at`."""

    is_local, memory = True, 0

    def __init__(self, window=3, breaks_at=None):
        self.window, self.breaks_at, self.asked, self.ahead = window, breaks_at, [], 0
        self.digests = {"checkpoint": "c0", "template": "t0"}

    def stream(self, comparisons, *, k):
        comparisons, window = iter(comparisons), []
        while window := window + list(itertools.islice(comparisons, self.window - len(window))):
            comparison, *window = window
            self.asked.append(comparison.id)
            if comparison.id == self.breaks_at:
                raise KeyboardInterrupt
            yield self.answer(comparison, k)

    def answer(self, comparison, k):
        if "TOO LONG" in comparison.query:
            return InputError("prompt longer than the context (5,000 tokens, 4,096 fit)")
        if "MUMBLE" in comparison.query:
            return Verdict(comparison.id, None, None, (), k, 0, 0, (Sample(tuple(range(comparison.n)), None, None, "?"),) * k)
        scores = tuple(len(response) % 10 + 1 for response in comparison.responses)
        samples = tuple(Sample(tuple(range(comparison.n)), scores, None, f"caf\u00e9 {s}\n\\boxed{{}}") for s in range(k))
        totals = tuple(k * score for score in scores)
        return Verdict(comparison.id, totals, totals.index(max(totals)), (), k, k, 0, samples)


class RandomJudge:
    """Scores at random, by seed, id and sample; `bias` points more for what is shown first, `skill` for the response "good"."""

    is_local, memory = True, 0

    def __init__(self, bias=0, skill=0, breaks_at=None):
        self.bias, self.skill, self.breaks_at, self.judged, self.shown = bias, skill, breaks_at, 0, []
        self.digests = {"checkpoint": "c", "template": "t"}

    def stream(self, comparisons, *, k, k_meta=0, temperature, seed, order, **_):
        for comparison in comparisons:
            self.judged += 1
            self.shown.append(comparison)
            if self.judged == self.breaks_at:
                raise KeyboardInterrupt
            if comparison.query == "TOO LONG":
                yield InputError("prompt longer than the context (more than 64 tokens)")
            else:
                yield self.verdict(comparison, k, k_meta, temperature, seed, order)

    def verdict(self, comparison, k, k_meta, temperature, seed, order):
        samples = []
        for sample in range(k):
            shown = orders.sample_order(comparison.n, order, seed, comparison.id, sample)
            draw = random.Random(f"{seed} {temperature and sample} {comparison.id}")
            scores = [draw.randint(1, 10) for _ in comparison.responses]
            scores[shown[0]] += self.bias
            scores = [score + self.skill * (text == "good") for score, text in zip(scores, comparison.responses, strict=True)]
            read = draw.random() > 0.1
            meta = draw.random() if k_meta else None
            samples.append(Sample(shown, tuple(scores) if read else None, meta, f"text {sample}", truncated=not read))
        valid = sum(sample.scores is not None for sample in samples)
        return Verdict(comparison.id, None, None, (), k, valid, k - valid, tuple(samples))


def comparison(id, responses=("aaa", "bb"), query="q", **more):
    return json.dumps({"id": id, "query": query, "responses": list(responses)} | more).encode()


GOOD = [comparison(str(n), ["a" * n, "b" * (9 - n)]) for n in range(1, 7)]


MIXED = [
    b"{'id': 1}",
    comparison("a", scores=[1, 0]),
    b'"\xff"',
    b"",
    comparison("b", query="TOO LONG"),
    comparison("a"),
    b'{"query": "q", "responses": []}',
    comparison("c", query="MUMBLE", scores=[0, 1]),
    b"[1]",
    comparison(7, responses=["a", 5]),
    comparison(True),
    comparison("d", responses=["x" * 5_000_000]),
    comparison("e", scores=[1, 2, 3]),
    b'{"query": "no id", "responses": ["one"]}',
    b'{"id": "f", "responses": ["one"]}',
    b"  ",
]


ERRORS = {
    1: (None, "not JSON (Expecting property name enclosed in double quotes at column 2)"),
    3: (None, "not UTF-8 (byte 2 of the line)"),
    4: (None, "blank line"),
    5: ("b", "prompt longer than the context (5,000 tokens, 4,096 fit)"),
    6: ("a", "duplicate id ('a', first on line 2)"),
    7: (7, "no responses"),
    9: (None, "not a JSON object (list)"),
    10: (7, "response is not a string (number 2 is int)"),
    11: (None, "id is not a string or an integer (bool)"),
    12: ("d", "longer than any context (5,000,001 characters)"),
    13: ("e", "scores of the wrong length (3 for 2 responses)"),
    15: ("f", "missing field 'conversation' (or 'query')"),
    16: (None, "blank line"),
}


def write(path, lines):
    text = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def run(source, target, judge=None, on_bad="skip", settings=SETTINGS, k=4):
    judge = judge or Judge()
    return files.judge_file(str(source), str(target), lambda: judge, options={"k": k}, settings=settings, on_bad=on_bad)


def unscored():
    raise AssertionError("a model was loaded")


def read(target):
    return [json.loads(line) for line in target.read_text().splitlines()]


def write_llmbar(directory, items=60):
    """A small LLMBar: the right response is "good", first or second."""
    for subset in ("Natural", "Manual"):
        rows = [
            {
                "input": f"{subset} {i}",
                "output_1": ("good", "bad")[i % 2],
                "output_2": ("bad", "good")[i % 2],
                "label": 1 + i % 2,
            }
            for i in range(items // 2)
        ]
        path = directory / ("Natural" if subset == "Natural" else "Adversarial/Manual") / "dataset.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows))
    return directory
