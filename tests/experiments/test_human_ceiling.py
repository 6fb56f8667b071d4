import json

import pytest
import study_modules

from spct_jax.data.comparison import Comparison, Turn


@pytest.fixture(scope="module")
def human_ceiling():
    with study_modules.imported("human_ceiling") as (module,):
        yield module


def made(count, source):
    """Comparisons in which the better one says sorry first, whatever its place."""
    for i in range(count):
        responses = ("I’m sorry, but that is not for me to say.", "You could ask anybody at all, and it goes on and on.")
        scores = (1.0, 0.0)
        yield Comparison(
            conversation=(Turn("user", f"May I do thing number {i}?"),),
            responses=responses[:: 1 - 2 * (i % 2)],
            scores=scores[:: 1 - 2 * (i % 2)],
            id=f"{source}/{i}",
        )


def test_what_is_read_was_not_fitted_on(human_ceiling):
    train = [*made(30, "a"), *made(20, "b")]
    parts = [*human_ceiling.by_folds(train, list(made(4, "a")))]
    assert sorted(c.id for comparisons, _ in parts for c in comparisons) == sorted(c.id for c in train)
    rows = [line.split("|")[1:-1] for line in human_ceiling.table(parts).splitlines()]
    assert [cell.strip() for cell in rows[0][1:4]] == ["all (50)", "a (30)", "b (20)"]
    by_name = {row[0].strip(): [cell.split("(")[0].strip() for cell in row[1:4]] for row in rows[2:]}
    assert by_name["all criteria, weighted"] == by_name["demonstrator, vote@32"] == ["100.0"] * 3


def test_how_even_demonstrations_are(human_ceiling, tmp_path):
    path = tmp_path / "demonstrations.jsonl"
    texts = [[r"\boxed{4, 2}", r"\boxed{1, 2}"], [r"\boxed{9, 2}", r"\boxed{9, 2, 1}", r"\boxed{6, 6}", "nothing"]]
    path.write_text("".join(json.dumps({"turns": [], "completions": each}) + "\n" for each in texts))
    assert human_ceiling.balance(path).endswith("on top in 2 of 3 verdicts on two, and 1 more are ties")
