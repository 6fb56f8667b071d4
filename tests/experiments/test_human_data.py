import gzip
import itertools
import json

import pytest
import study_modules

from spct_jax.data import fingerprints
from spct_jax.data.sources import read_comparisons, read_demonstrations
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig

WORDS = "apple boat candle drum eagle feather garden hammer island jacket kettle lantern".split()


@pytest.fixture(scope="module")
def human_data():
    with study_modules.imported("human_data") as (module,):
        yield module


def sentence(i, words=9):
    """Words that no other number gives in this order."""
    return " ".join(WORDS[(i // len(WORDS) ** k + k * i) % len(WORDS)] for k in range(words)) + f" {i}"


def hh():
    for i in range(120):
        opening = f"\n\nHuman: Tell me about {sentence(i)}?"
        shouted = f"\n\nHuman: TELL ME ABOUT {sentence(i).upper()}?"
        yield {"chosen": f"{opening}\n\nAssistant: Yes, gladly, {i}.", "rejected": f"{opening}\n\nAssistant: I can't."}
        if i % 3 == 0:  # a conversation that goes on, and the same pair once more
            longer = f"{opening}\n\nAssistant: Well.\n\nHuman: And then {i}?"
            yield {"chosen": f"{longer}\n\nAssistant: That.", "rejected": f"{longer}\n\nAssistant: Never."}
            yield {"chosen": f"{shouted}\n\nAssistant: Yes, gladly, {i}.", "rejected": f"{shouted}\n\nAssistant: I can't."}
    yield {"chosen": "\n\nHuman: q\n\nAssistant: ", "rejected": "\n\nHuman: q\n\nAssistant: x"}


def solution(text, right):
    return {"solution": text, "is_correct": right}


def gsm8k():
    for i in range(60):
        yield {
            "question": f"Add {i} and {i + 3}, says {sentence(1000 + i)}",
            "a": solution(f"It is {i}+{i + 3}=<<{i}+{i + 3}={2 * i + 3}>>{2 * i + 3}\nA: {2 * i + 3}", True),
            "b": solution(f"So {i}+{i + 3}={2 * i + 3}\nA: {2 * i + 3}", i % 2 == 0),
            "c": solution(f"I say {i}\nA: {i}", i % 4 == 3),
            "d": solution(f"Maybe {i + 1}\nA: {i + 1}", False),
        }


WRAPPED = "###The instruction to evaluate:\n{}\n\n###Response to evaluate:\n{}\n\n###Score Rubrics:\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every file that the experiment reads, small and invented."""
    place = tmp_path_factory.mktemp("all")

    def write(path, records, lines=False):
        path = place / path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(r) + "\n" for r in records) if lines else json.dumps(list(records))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

    write("hh-rlhf/harmless-base/test.jsonl.gz", hh(), lines=True)
    write("gsm8k/example_model_solutions.jsonl", gsm8k(), lines=True)
    train = [{"question": f"How much is {sentence(2000 + i)}?", "answer": f"<<1+{i}=1>>It is {i}"} for i in range(30)]
    leaked = {"question": f"Tell me about {sentence(5, 9)} and {sentence(5, 9)}", "answer": "7"}
    write("gsm8k/train.jsonl", [*train, leaked], lines=True)
    pandalm = [
        {
            "instruction": f"Write on {sentence(3000 + i // 2)}",
            "input": "",
            "response1": f"One {i}.",
            "response2": "Two is longer.",
        }
        | {f"annotator{k}": (i + (k == 3)) % 3 for k in (1, 2, 3)}
        for i in range(60)
    ]
    write("pandalm/testset-v1.json", pandalm)
    hhh = [
        {"source": "s", **{f"{k}_instruction": WRAPPED.format(sentence(4000 + i), f"{k} {i}") for k in ("chosen", "rejected")}}
        for i in range(40)
    ]
    write("prometheus/hhh_alignment_eval.json", hhh)
    for part, name in enumerate(
        ("Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut", "Adversarial/Manual")
    ):
        rows = [
            {"input": sentence(5000 + 10 * part + i), "output_1": "Good.", "output_2": "Bad.", "label": 1} for i in range(5)
        ]
        write(f"llmbar/LLMBar/{name}/dataset.json", rows)
    alpaca = [{"instruction": sentence(6000 + i), "chosen": "It is so.", "rejected": "It is not."} for i in range(20)]
    write("llama_factory/dpo_en_demo.json", alpaca)
    return place


PROMPT = PromptConfig("short", "short_single", "short_meta", "short_judge")


@pytest.fixture(scope="module")
def made(human_data, folder, tmp_path_factory):
    tokenizer = train_tokenizer([sentence(i) for i in range(200)], vocab_size=320)
    where = tmp_path_factory.mktemp("made")
    limits = human_data.Limits(2000, 2000, 2000)
    counts = human_data.prepare(folder, where, PROMPT, tokenizer, limits, seed=0)
    human_data.prepare(folder, where / "again", PROMPT, tokenizer, limits, seed=0)
    return where, counts


def test_nothing_is_shared_between_splits(made):
    where, counts = made
    splits = {name: read_comparisons(where / f"{name}.jsonl", need_best=True)[0] for name in ("train", "development", "test")}
    assert {name: len(found) for name, found in splits.items()} == {n: c["all"] for n, c in counts["splits"].items()}
    openings = {name: {fingerprints.normalise(c.conversation[0].content) for c in found} for name, found in splits.items()}
    assert all(openings.values())
    assert not any(a & b for a, b in itertools.combinations(openings.values(), 2))
    sources = {name: {c.id.partition("/")[0] for c in found} for name, found in splits.items()}
    assert sources["test"] == {"hh", "pandalm", "hhh", "gsm8k", "llmbar"} and sources["train"] == sources["test"] - {"llmbar"}
    contents = [fingerprints.of(c)[1] for found in splits.values() for c in found]
    assert len({*contents}) == len(contents) and counts["dropped"]["copies of another"] == 40
    assert any(c.n > 2 for c in splits["test"])  # the rest of a conversation, and of a problem, is there


def test_checked_solutions_have_one_right_answer(made):
    where, counts = made
    found = [c for name in ("train", "test") for c in read_comparisons(where / f"{name}.jsonl")[0] if c.id.startswith("gsm8k")]
    for c in found:
        i = int(c.query.split()[1])
        assert sum(c.scores) == 1 and not any("<<" in response for response in c.responses)
        assert c.responses[c.best].endswith((f"A: {2 * i + 3}", f"A: {i}"))
        assert c.n == 1 + 1 + (i % 2 == 1) + (i % 4 != 3)
    assert counts["sources"]["hh"]["left out"]["empty response"] == 1


def test_counts_add_up(made):
    where, counts = made
    used = sum(source["comparisons"] - source["left out"]["too long"] for source in counts["sources"].values())
    assert used - sum(counts["dropped"].values()) == sum(split["all"] for split in counts["splits"].values())
    for name, of_system in counts["demonstrations"].items():
        assert len(read_demonstrations(where / f"{name}.jsonl")[0]) == of_system["used"] > 10
    general, _ = read_demonstrations(where / "general.jsonl")
    assert 20 < len(general) <= 51 and not any("<<" in text for d in general for text in d.completions)


def test_the_same_data_give_the_same_files(made):
    where, _ = made
    names = sorted(path.name for path in (where / "again").iterdir())
    assert len(names) == 9
    assert all((where / name).read_bytes() == (where / "again" / name).read_bytes() for name in names)


def test_what_is_too_long_is_counted(human_data, folder, tmp_path):
    tokenizer = train_tokenizer([sentence(i) for i in range(200)], vocab_size=320)
    found = human_data.prepare(folder, tmp_path, PROMPT, tokenizer, human_data.Limits(2000, 20, 2000), seed=0)
    assert 0 < found["sources"]["gsm8k"]["left out"]["too long"]
    with pytest.raises(InputError, match="nothing is left for train"):
        human_data.prepare(folder, tmp_path, PROMPT, tokenizer, human_data.Limits(2, 20, 2000), seed=0)


def test_missing_data_is_named(human_data, tmp_path):
    tokenizer = train_tokenizer([sentence(i) for i in range(200)], vocab_size=320)
    with pytest.raises(InputError, match="llmbar/LLMBar/Natural/dataset.json"):
        human_data.prepare(tmp_path, tmp_path / "out", PROMPT, tokenizer, human_data.Limits(9, 9, 9), 0)
