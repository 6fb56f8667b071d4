"""The report on a benchmark: what is in it, and that it says no more than its figures."""

import copy
import warnings
from xml.etree import ElementTree

import pytest

from spct_jax.errors import InputError
from spct_jax.reporting import benchmark_plots, benchmark_report, document
from spct_jax.reporting.document import Facts, Heading, Paragraph, Picture, Table

FIGURE = {"value": 0.625, "low": 0.5, "high": 0.75}


def measured(name, official=True, k=1):
    columns = {"official": FIGURE | {"value": 0.875}} if official else {}
    columns |= {"paper": FIGURE, "strict": FIGURE | {"value": 0.25}}
    return {
        **{"name": name, "votes": "sampled", "k": k, "k_meta": None, "items": 8, "sizes": {}, "unread": 1},
        "table": {"all": columns, "mean of subsets": columns},
        "subsets": {"Natural": columns, "Adversarial/Manual": columns},
        **{"tie_rate": 0.125, "malformed_rate": 0.0625, "truncated_rate": None},
        "by_subset": {
            name: {"items": 4, "tie_rate": 0.125, "malformed_rate": 0.0, "truncated_rate": None}
            for name in ("Adversarial/Manual", "Natural")
        },
    }


FIGURES = {
    "benchmark": "llmbar",
    "title": "LLMBar",
    "quantity": "accuracy",
    "rules": {},
    "about": {"data": "a_<b>_c", "items": "8"},
    "unjudged": {"prompt longer than the context": 2},
    "skipped": {},
    "beside": {},
    "chance": 0.5,
    "measures": {"greedy": measured("greedy", official=False), "vote@8": measured("vote@8", k=8)},
    "by_k": {"vote": {"1": FIGURE, "8": FIGURE}},
    "position": {
        "sampled": {
            **{"items": 7, "changes_with_order": 0.5, "changes_in_order": None, "consistent": 0.25},
            "wins_by_position": {"2": [0.75, 0.25]},
            "score_by_position": {"2": [6.0, 5.0]},
        }
    },
}
EXAMPLE = {
    **{"id": "Natural/1", "outcome": "Wrong", "subset": "Natural", "best": 1, "votes": 8, "valid": 7, "totals": (50, 40)},
    **{"conversation": [("user", "why?")], "responses": ["<b>first</b>", "second"], "critique": "Scores: ...", "order": [1, 0]},
}


def section(blocks, title):
    """The blocks between a heading of level 2 and the next."""
    start = blocks.index(Heading(title)) + 1
    return blocks[start : next((i for i in range(start, len(blocks)) if getattr(blocks[i], "level", 9) == 2), None)]


@pytest.fixture(scope="module")
def blocks():
    return benchmark_report.build(FIGURES, [EXAMPLE])


def test_the_sections(blocks):
    titles = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    assert titles == [
        *("Accuracy", "By number of votes", "Beside published figures", "Aggregates"),
        *("By subset", "Position bias", "Verdicts to read"),
    ]
    assert blocks[:3] == [
        Heading("LLMBar", 1),
        Facts({"data": "a_<b>_c", "items": "8"}),
        Paragraph("2 could not be shown to the judge and count as unread: prompt longer than the context."),
    ]
    pictures = [block.name for block in blocks if isinstance(block, Picture)]
    assert pictures == ["scaling.svg", "subsets.svg", "positions_sampled.svg"]
    assert all(b"<svg" in block.svg for block in blocks if isinstance(block, Picture))


def test_the_tables(blocks):
    (accuracy,) = (block for block in section(blocks, "Accuracy") if isinstance(block, Table))
    assert accuracy.rows == [
        ["greedy", "–", "62.5 (50.0 to 75.0)", "25.0", "12.5", "6.2", "–", "1"],
        ["vote@8", "87.5 (50.0 to 75.0)", "62.5 (50.0 to 75.0)", "25.0", "12.5", "6.2", "–", "1"],
    ]
    (beside,) = (block for block in section(blocks, "Beside published figures") if isinstance(block, Table))
    # LLMBar's own metric, which one greedy verdict has not; absent subsets are dashes.
    assert beside.own == 1 and beside.rows[0] == ["ours: vote@8", "87.5", "–", "–", "–", "87.5"]
    assert beside.rows[1] == ["GPT-4, vanilla prompt", "95.5", "78.7", "86.4", "77.7", "80.4"]
    (position,) = (block for block in section(blocks, "Position bias") if isinstance(block, Table))
    assert position.rows == [["sampled", "7", "50.0", "–", "25.0"]]
    subset = [block for block in section(blocks, "By subset") if isinstance(block, Table)]
    assert [row[0] for row in subset[-1].rows] == ["Adversarial/Manual (4 items)", "Natural (4 items)"]


def test_verdicts_are_told_and_escaped(blocks):
    page = document.to_html("t", blocks)
    assert "<b>" not in page and "&lt;b&gt;first&lt;/b&gt;" in page and "a_&lt;b&gt;_c" in page
    told = [getattr(block, "title", getattr(block, "text", "")) for block in section(blocks, "Verdicts to read")]
    assert told == [
        "Wrong: Natural/1",
        "Subset Natural. 7 of 8 votes could be read. Totals: response 1: 50, response 2: 40. The right one is response 2.",
        *("Conversation", "Response 1", "Response 2 (the right one)"),
        "The first critique, which read the responses in the order 2, 1",
    ]


def test_totals_that_differ_are_told_apart():
    blocks = benchmark_report.build(FIGURES, [EXAMPLE | {"totals": (160.123457, 160.123456)}])
    assert any("response 1: 160.123457, response 2: 160.123456." in getattr(block, "text", "") for block in blocks)


def test_a_subset_that_only_some_ways_of_judging_have_is_told():
    """AlpacaEval leaves out what could not be read, and a subset with it."""
    figures = copy.deepcopy(FIGURES)
    del figures["measures"]["greedy"]["subsets"]["Natural"]
    tables = [block for block in section(benchmark_report.build(figures, []), "By subset") if isinstance(block, Table)]
    assert tables[0].rows == [["Adversarial/Manual", "–", "87.5"], ["Natural", "–", "87.5"]]
    assert tables[1].rows == [["Adversarial/Manual", "62.5", "62.5"], ["Natural", "–", "62.5"]]


def test_the_aggregate_that_is_shown_is_named_where_there_is_one():
    figures = copy.deepcopy(FIGURES) | {"by_k": {}}
    for name, said in (("greedy", "shown is “all”, the first"), ("vote@8", "of these items there are no such figures.")):
        figures["measures"][name]["table"] = {}
        (paragraph,) = (
            block for block in section(benchmark_report.build(figures, []), "Accuracy") if isinstance(block, Paragraph)
        )
        assert said in paragraph.text


def test_what_is_no_accuracy_is_named_as_what_it_is():
    measure = measured("vote@8", k=8) | {"tie_rate": None}
    measure["by_subset"] = {name: one | {"tie_rate": None} for name, one in measure["by_subset"].items()}
    figures = copy.deepcopy(FIGURES) | {"measures": {"vote@8": measure}, "chance": None, "quantity": "ROC-AUC"}
    blocks = benchmark_report.build(figures | {"rules": {"paper": "the area under the curve"}}, [])
    (facts,) = (block for block in section(blocks, "ROC-AUC") if isinstance(block, Facts))
    assert facts.rows["paper"] == "the area under the curve" and facts.rows["strict"] == benchmark_report.RULES["strict"]
    assert next(block for block in section(blocks, "ROC-AUC") if isinstance(block, Table)).rows[0][4] == "–"
    (picture,) = (block for block in section(blocks, "By number of votes") if isinstance(block, Picture))
    assert picture.caption == "ROC-AUC by number of votes"
    assert picture.svg != benchmark_plots.scaling({"vote": {1: FIGURE, 8: FIGURE}}, None, None)
    # Where nothing ties and nothing says what was cut, there are no tables of it.
    titles = [block.text for block in section(blocks, "By subset") if isinstance(block, Heading)]
    assert titles == ["official", "paper", "strict", "malformed"]


def test_columns_that_are_not_there_are_not_explained():
    figures = copy.deepcopy(FIGURES)
    for measure in figures["measures"].values():
        for row in (*measure["table"].values(), *measure["subsets"].values()):
            row.pop("strict", None)
    (facts,) = (block for block in section(benchmark_report.build(figures, []), "Accuracy") if isinstance(block, Facts))
    assert "strict" not in facts.rows and facts.rows["paper"].endswith("; a judge that guesses gets 50.0")


def test_the_papers_table_with_ours_first():
    overall = {
        "rewardbench": {"greedy": 0.5, "vote@8": 0.75},
        "ppe_preference": {"vote@8": 0.5},
        "ppe_correctness": {"vote@8": 0.5},
    }
    blocks = benchmark_report.build(FIGURES | {"beside": overall | {"rmb": {"vote@8": 0.65, "meta@8/4": 0.5}}}, [])
    (table,) = (block for block in section(blocks, "Overall") if isinstance(block, Table))
    assert table.own == 3 and table.rows[:3] == [
        ["ours: greedy", "50.0", "–", "–", "–", "–"],
        ["ours: vote@8", "75.0", "50.0", "50.0", "65.0", "60.0"],
        ["ours: meta@8/4", "–", "–", "–", "50.0", "–"],
    ]
    assert ["DeepSeek-GRM-27B, meta@32", "90.4", "67.2", "63.2", "70.3", "72.8"] in table.rows


def test_little_is_enough(tmp_path):
    figures = copy.deepcopy(FIGURES) | {"benchmark": "none", "by_k": {}, "position": {}, "unjudged": {}, "chance": None}
    figures["measures"] = {"all votes": measured("all votes", k=None)}
    for one in figures["measures"].values():
        one["subsets"] = {"": one["subsets"]["Natural"]}
    benchmark_report.write(tmp_path, figures, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "report.html", "report.md"]
    benchmark_report.write(tmp_path, FIGURES, [EXAMPLE])
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    benchmark_report.write(tmp_path, FIGURES, [EXAMPLE])
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "name", ["a\ud83d", "\x01b", "two\nlines", "\u4e2d\u6587", "$x^$", "abcdefghijklmnopqrstuvwxyzabcd$xyz", ""]
)
def test_a_picture_of_a_subset_of_any_name(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = benchmark_plots.subsets({"vote@1": {name: FIGURE, "Natural": FIGURE}})
    assert "text" in {element.get("id", "")[:4] for element in ElementTree.fromstring(svg).iter()}


def test_names_that_are_cut_are_told_apart_and_leave_room():
    tasks = ("Ideas of all", "Idea Growth")
    goals = [f"{kind}_set/Helpfulness/Brainstorming/{task}" for kind in ("BoN", "Pairwise") for task in tasks]
    shown = [benchmark_plots._shortened(name) for name in (*goals, "\u4e2d" * 50)]
    assert len(set(shown)) == 5 and [len(name) for name in shown] == [40] * 4 + [20]
    assert shown[0].startswith("BoN_set/Helpf") and shown[0].endswith("storming/Ideas of all")


def test_positions_of_many_numbers_of_responses_fit_a_page():
    def width(*numbers):
        svg = benchmark_plots.positions({n: [1 / n] * n for n in numbers})
        return float(ElementTree.fromstring(svg).get("width").removesuffix("pt")) / 72

    assert width(2) < 3 and width(2, 3, 4, 5, 6, 7) < 10 and width(10) < 10


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"benchmark": ["rmb"], "measures": {}}, "x: holds no figures of rewardbench, "),
        ({"benchmark": "rmb", "measures": []}, "x: holds no figures of rewardbench, "),
        ({"benchmark": "rmb", "measures": {"vote@1": {}}}, "x: not the figures of rmb as this command writes them"),
        ({"benchmark": "rmb", "measures": {"vote@1": {"table": {"Overall": {"paper": {"value": "1"}}}}}}, "x: not the figures"),
    ],
)
def test_figures_of_another_form_are_not_put_into_the_papers_table(figures, message):
    with pytest.raises(InputError, match=message):
        benchmark_report.overall_column(figures, "x")


def test_only_numbers_are_put_into_the_papers_table():
    def column(value):
        found = {"table": {"Overall": {"paper": {"value": value}}}, "subsets": {}}
        return benchmark_report.overall_column({"benchmark": "rmb", "measures": {"vote@1": found}}, "x")

    assert column(0.5) == {"vote@1": 0.5} and column(1) == {"vote@1": 1.0}
    for value in (float("nan"), float("inf"), 10**400, "0.5", True, None, [1]):
        with pytest.raises(InputError, match="x: not the figures of rmb as this command writes them"):
            column(value)
