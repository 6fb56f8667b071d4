import json

import pytest
import study_modules

from spct_jax.errors import InputError


@pytest.fixture(scope="module")
def study():
    with study_modules.imported("human_rollouts") as (module,):
        yield module


def write(directory, steps):
    for number, groups in enumerate(steps):
        lines = (json.dumps({"id": name, "scores": scores, "truth": truth}) for name, scores, truth in groups)
        (directory / f"{number:06}.jsonl").write_text("\n".join(lines) + "\n")


def test_what_changed_by_hand(study, tmp_path):
    before = ("hh/1", [[3, 5], [4, 4], None, [6, 2]], [0.0, 1.0])  # right, tied, unreadable, wrong; the sums are 13 and 11
    after = ("hh/2", [[3, 5], [4, 4], [1, 2], [1, 2]], [0.0, 1.0])
    other = ("gsm8k/1", [[1, 2, 3], [3, 3, 1], [3, 1, 1], [1, 1, 1]], [1.0, 0.0, 0.0])
    write(tmp_path, [[before, other], [after, other]])
    groups = study.read(tmp_path, 2)
    values = {name: [measure(g) for g in groups] for name, measure in study.MEASURES.items()}
    assert values["right by Eq. 10"] == [0.25, 0.25, 0.75, 0.25]
    assert values["ties shared"] == pytest.approx([0.5, (0.5 + 1 + 1 / 3) / 4, 0.875, (0.5 + 1 + 1 / 3) / 4])
    assert values["vote of the group"] == [0.0, 1.0, 1.0, 1.0]
    assert values["ties"] == pytest.approx([1 / 3, 0.5, 0.25, 0.5])
    assert values["malformed"] == [0.25, 0.0, 0.0, 0.0]
    # Half of the groups are of hh, whose share of right verdicts rose by a half; sources of one group have no spread.
    assert "| right by Eq. 10 | +25.0 (+25.0 to +25.0) |" in study.change(groups, 2)
    assert "| hh | 2 of 2 | 1 | 75.0 (75.0 to 75.0) |" in study.progress(groups, 2)
    assert "over 4 groups: +" in study.gain(groups)


def test_what_is_no_rollout(study, tmp_path):
    with pytest.raises(InputError, match="holds rollouts of 0 steps, for 2 parts"):
        study.read(tmp_path, 2)
    write(tmp_path, [[("hh/1", [[1, 2]], [0.0, 1.0])], []])
    (tmp_path / "000001.jsonl").write_text('{"id": "hh/1"}\n')
    with pytest.raises(InputError, match=r"000001.jsonl:1: no field 'scores'"):
        study.read(tmp_path, 2)
