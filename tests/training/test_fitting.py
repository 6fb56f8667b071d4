"""Which comparisons fit, whatever order their responses are shown in and whoever reads them."""

import dataclasses
import itertools

import pytest
from stand_ins import stand_in

from spct_jax.config import tiny
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.config import DataConfig
from spct_jax.data.index import Records
from spct_jax.data.jsonl import ReadReport
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.training.context import Dataset, Run
from spct_jax.training.fitting import drop_misfits, measure_comparison


@pytest.fixture(scope="module")
def prompter():
    return Prompter(
        PromptConfig(),
        train_tokenizer(["Response 1 is quiet and has wifi, Response 2 and Response 3 have a pool.\n"] * 50, vocab_size=400),
    )


def run_of(prompter, tmp_path, comparison, stages, *, on_bad="skip", **data):
    config = dataclasses.replace(tiny(), stages=stages, data=DataConfig(on_bad=on_bad, **data))
    other = dataclasses.replace(comparison, responses=("a", "b"), scores=(0, 1), id="short")
    both, none = Records.of([other, comparison]), Records.of([])
    reports = {name: ReadReport(2, 2) for name in ("train", "development", "test")}
    dataset = Dataset(both, both, both, none, none, reports)
    (tmp_path / "data").mkdir(exist_ok=True)
    rest = {"model": None, "layout": None, "rollout_layout": None}
    return stand_in(Run, config=config, workdir=tmp_path, dataset=dataset, prompter=prompter, **rest)


@pytest.mark.parametrize("stages", [("sft",), ("sft", "meta_rm"), ("sft", "rejection"), ("rejection", "meta_rm")])
def test_a_comparison_fits_where_its_longest_prompt_in_any_order_does(prompter, tmp_path, stages):
    """The longest of all that any stage makes: hinted, and as the meta RM reads it."""
    responses = ["wifi", "wifi and a pool", "quiet" + "\n" * 30]  # at the end of a prompt white space is trimmed
    shown = Comparison(conversation=[Turn("user", "q")], responses=responses, scores=[0, 1, 0], id="x")
    orders = list(itertools.permutations(range(3)))
    kinds = (False, True) if "rejection" in stages else (False,)
    each = [len(prompter.encode(shown, order, hinted=hinted)) for order in orders for hinted in kinds]
    if "meta_rm" in stages:
        each += [len(prompter.encode_meta(shown, order)) for order in orders]
    assert max(each) > len(prompter.encode(shown, (0, 1, 2))) + 20
    for limit, fitting in ((max(each), True), (max(each) - 1, False)):
        run = run_of(prompter, tmp_path, shown, stages, max_prompt=limit)
        assert measure_comparison(run, shown) == (3 if fitting else -1)
        assert [c.id for c in drop_misfits(run).dataset.train] == ["short", "x"][: 1 + fitting]
    with pytest.raises(InputError, match="^train: prompt of 'x' is longer"):
        drop_misfits(run_of(prompter, tmp_path, shown, stages, on_bad="fatal", max_prompt=max(each) - 1))
    with pytest.raises(InputError, match="^config.data.train: none of 2 comparisons fits; train: prompt of 'short' is longer"):
        drop_misfits(run_of(prompter, tmp_path, shown, stages, max_prompt=5))


def test_a_reward_model_of_responses_reads_each_by_itself(prompter, tmp_path):
    shown = Comparison(conversation=[Turn("user", "q")], responses=["wifi", "wifi and a pool " * 9], scores=[0, 1], id="x")
    longest = len(prompter.tokenizer.encode_completion(shown.responses[1].strip()))
    prompt = len(prompter.tokenizer.encode_turns(shown.conversation))
    for limit, found in ((longest, 2), (longest - 1, -2)):
        run = run_of(prompter, tmp_path, shown, ("btrm", "evaluate"), max_prompt=prompt, max_completion=limit)
        assert measure_comparison(run, shown) == found
        kept = drop_misfits(run).dataset
        assert len(kept.train) == 2 - (found < 0)
        assert kept.reports["train"].skipped == ({"response too long": 1} if found < 0 else {})
    with pytest.raises(InputError, match="response of 'x' is longer than data.max_completion"):
        drop_misfits(
            dataclasses.replace(
                run, config=dataclasses.replace(run.config, data=DataConfig(max_prompt=prompt, max_completion=limit))
            )
        )
    # Where a policy judges, too, its prompt must fit, which is not known from a survey for scalar models alone.
    limit = len(prompter.encode(dataclasses.replace(shown, responses=("a", "b")), (0, 1)))
    runs = [run_of(prompter, tmp_path, shown, stages, max_prompt=limit) for stages in (("btrm",), ("sft", "btrm"))]
    kept = [drop_misfits(run).dataset for run in runs]
    assert [len(each.train) for each in kept] == [2, 1] and kept[1].reports["train"].skipped == {"prompt too long": 1}


def test_training_comparisons_with_other_numbers_of_responses_are_left_out_and_counted(prompter, tmp_path):
    shown = Comparison(conversation=[Turn("user", "q")], responses=["a", "b", "c"], scores=[0, 1, 0], id="x")
    kept = drop_misfits(run_of(prompter, tmp_path, shown, ("sft",), responses=(3, 4))).dataset
    assert [c.id for c in kept.train] == ["x"] and kept.responses.tolist() == [3] and len(kept.test) == 2
    assert kept.reports["train"].skipped == {"fewer or more responses than data.responses": 1}
    with pytest.raises(InputError, match=r"config\.data\.responses: no training comparison has 5 to 6 responses"):
        drop_misfits(run_of(prompter, tmp_path, shown, ("sft",), responses=(5, 6)))
