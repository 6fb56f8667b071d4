"""Figures that others have published, in %, to stand beside ours.

"The paper" is *Inference-Time Scaling for Generalist Reward Modeling*, arXiv 2504.02495v3. Its figures are as printed; where
they contradict each other, a note says so. A model whose name ends in "(reported)" was not run by the authors of the source.
"""

import dataclasses
from collections.abc import Mapping

Row = tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class Published:
    """What has been published on one benchmark.

    Attributes:
      columns: names of the figures.
      places: where ours are found, for each column: an aggregate or a subset of the benchmark, and a column of its figures.
      rows: for each model or way of judging, one figure per column; None where the source gives none.
      notes: the sources, and what to know before comparing.
      digits: decimals of the figures.
    """

    columns: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    rows: Mapping[str, Row]
    notes: tuple[str, ...]
    digits: int = 2


_TABLE_2 = {
    # RewardBench, PPE Preference, PPE Correctness, RMB, overall
    "Skywork-Reward-Gemma-2-27B (reported)": (94.1, 56.6, 56.6, 60.2, 66.9),
    "DeepSeek-V2.5-0905 (reported)": (81.5, 62.8, 58.5, 65.7, 67.1),
    "Gemini-1.5-Pro (reported)": (86.8, 66.1, 59.8, 56.5, 67.3),
    "ArmoRM-8B-v0.1 (reported)": (90.4, 60.6, 61.2, 64.6, 69.2),
    "InternLM2-20B-Reward (reported)": (90.2, 61.0, 63.0, 62.9, 69.3),
    "LLaMA-3.1-70b-Instruct (reported)": (84.1, 65.3, 59.2, 68.9, 69.4),
    "Claude-3.5-sonnet (reported)": (84.2, 65.3, 58.8, 70.6, 69.7),
    "Nemotron-4-340B-Reward (reported)": (92.0, 59.3, 60.8, 69.9, 70.5),
    "GPT-4o (reported)": (86.7, 67.1, 57.6, 73.8, 71.3),
    "LLM-as-a-Judge, greedy": (83.4, 64.2, 58.8, 64.8, 67.8),
    "DeepSeek-BTRM-27B": (81.7, 68.3, 66.7, 57.9, 68.6),
    "CLoud-Gemma-2-27B, greedy": (82.0, 67.1, 62.4, 63.4, 68.7),
    "DeepSeek-PairRM-27B": (87.1, 65.8, 64.8, 58.2, 69.0),
    "DeepSeek-GRM-27B-RFT, greedy": (84.5, 64.1, 59.6, 67.0, 68.8),
    "DeepSeek-GRM-27B, greedy": (86.0, 64.7, 59.8, 69.0, 69.9),
}
_TABLE_3 = {
    "LLM-as-a-Judge, vote@1": (83.0, 63.4, 57.4, 64.3, 67.0),
    "CLoud-Gemma-2-27B, mean@1": (82.0, 67.0, 62.0, 63.2, 68.5),
    "DeepSeek-GRM-27B-RFT, vote@1": (84.0, 62.2, 59.4, 65.8, 67.8),
    "DeepSeek-GRM-27B, vote@1": (85.2, 62.4, 59.5, 64.4, 67.9),
    "LLM-as-a-Judge, vote@8": (83.4, 63.8, 58.2, 65.2, 67.6),
    "LLM-as-a-Judge, token probabilities@8": (83.8, 64.6, 58.8, 65.2, 68.1),
    "CLoud-Gemma-2-27B, mean@8": (82.4, 67.3, 62.4, 63.2, 68.8),
    "DeepSeek-GRM-27B-RFT, vote@8": (85.3, 64.5, 59.7, 67.7, 69.3),
    "DeepSeek-GRM-27B, vote@8": (87.7, 64.9, 60.3, 69.5, 70.6),
    "DeepSeek-GRM-27B, meta@8": (89.8, 66.4, 63.0, 68.8, 72.0),
    "DeepSeek-GRM-27B, vote@32": (88.5, 65.3, 60.4, 69.7, 71.0),
    "DeepSeek-GRM-27B, meta@32": (90.4, 67.2, 63.2, 70.3, 72.8),
}
_PAPER = (
    "The paper's Tables 2 and 3. Greedy rows are at temperature 0, votes at 0.5; meta@k keeps k/2 of the votes. Ties are "
    "broken at random, which is the paper's credit; models marked (reported) are the paper's quotations of other sources."
)


def _of_the_paper(
    column: int, columns: tuple[str, ...], places: tuple[str, ...], parts: Mapping[str, Row], *notes: str
) -> Published:
    """The rows of both tables, with the parts that a later table gives in front of the figure of this benchmark."""
    missing = (None,) * (len(columns) - 1)
    rows = {name: (*parts.get(name, missing), row[column]) for name, row in (_TABLE_2 | _TABLE_3).items()}
    return Published(columns, tuple((place, "paper") for place in places), rows, (_PAPER, *notes), digits=1)


def _official(*places: str) -> tuple[tuple[str, str], ...]:
    return tuple((place, "official") for place in places)


_REWARDBENCH = {
    "LLM-as-a-Judge, greedy": (96.7, 69.3, 83.5, 84.3),
    "DeepSeek-BTRM-27B": (96.7, 86.2, 75.7, 89.8),
    "DeepSeek-PairRM-27B": (95.5, 86.8, 52.3, 92.0),
    "DeepSeek-GRM-27B-RFT, greedy": (94.7, 77.2, 87.0, 79.2),
    "DeepSeek-GRM-27B, greedy": (94.1, 78.3, 88.0, 83.8),
    "LLM-as-a-Judge, vote@8": (95.0, 70.0, 83.5, 85.0),
    "LLM-as-a-Judge, token probabilities@8": (95.8, 71.3, 83.3, 84.8),
    "CLoud-Gemma-2-27B, mean@8": (96.7, 85.8, 56.2, 91.0),
    "DeepSeek-GRM-27B-RFT, vote@8": (94.7, 79.0, 87.3, 80.2),
    "DeepSeek-GRM-27B, vote@8": (95.3, 80.9, 89.3, 85.4),
    "DeepSeek-GRM-27B, meta@8": (95.5, 85.7, 88.5, 89.5),
    "DeepSeek-GRM-27B, vote@32": (95.5, 81.8, 90.0, 86.9),
    "DeepSeek-GRM-27B, meta@32": (95.3, 85.7, 89.5, 91.0),
}
_PPE_CORRECTNESS = {
    "LLM-as-a-Judge, greedy": (66.0, 68.0, 52.8, 50.2, 56.8),
    "DeepSeek-BTRM-27B": (68.8, 73.2, 56.8, 68.8, 66.0),
    "CLoud-Gemma-2-27B, greedy": (68.7, 68.8, 53.5, 59.0, 62.0),
    "DeepSeek-PairRM-27B": (68.3, 74.7, 55.0, 63.1, 62.9),
    "DeepSeek-GRM-27B-RFT, greedy": (64.8, 68.7, 55.5, 49.0, 60.2),
    "DeepSeek-GRM-27B, greedy": (64.8, 68.8, 55.6, 50.1, 59.8),
    "LLM-as-a-Judge, vote@8": (66.2, 66.4, 51.9, 49.9, 56.8),
    "LLM-as-a-Judge, token probabilities@8": (66.4, 68.1, 53.0, 49.5, 57.0),
    "CLoud-Gemma-2-27B, mean@8": (68.7, 68.9, 53.5, 59.0, 62.0),
    "DeepSeek-GRM-27B-RFT, vote@8": (64.8, 68.7, 55.5, 49.5, 60.2),
    "DeepSeek-GRM-27B, vote@8": (65.7, 68.7, 55.5, 50.0, 61.6),
    "DeepSeek-GRM-27B, meta@8": (68.0, 68.7, 57.3, 51.3, 69.9),
    "DeepSeek-GRM-27B, vote@32": (65.5, 69.4, 56.0, 49.9, 61.0),
    "DeepSeek-GRM-27B, meta@32": (68.1, 70.0, 56.9, 50.8, 70.4),
}
_RMB = {
    "LLM-as-a-Judge, greedy": (55.8, 78.5, 50.8, 73.9),
    "DeepSeek-BTRM-27B": (64.0, 83.0, 33.6, 51.0),
    "CLoud-Gemma-2-27B, greedy": (64.7, 81.1, 41.7, 66.1),
    "DeepSeek-PairRM-27B": (59.9, 83.3, 34.1, 55.5),
    "DeepSeek-GRM-27B-RFT, greedy": (58.4, 79.3, 54.2, 76.0),
    "DeepSeek-GRM-27B, greedy": (62.3, 80.5, 57.0, 76.1),
    "LLM-as-a-Judge, vote@8": (56.0, 78.5, 52.5, 73.8),
    "LLM-as-a-Judge, token probabilities@8": (56.0, 78.5, 52.5, 73.8),
    "CLoud-Gemma-2-27B, mean@8": (63.8, 82.1, 40.9, 66.1),
    "DeepSeek-GRM-27B-RFT, vote@8": (59.2, 80.1, 54.8, 76.5),
    "DeepSeek-GRM-27B, vote@8": (63.9, 79.5, 57.6, 77.1),
    "DeepSeek-GRM-27B, meta@8": (63.4, 80.5, 56.8, 74.6),
    "DeepSeek-GRM-27B, vote@32": (63.9, 79.8, 58.0, 77.0),
    "DeepSeek-GRM-27B, meta@32": (64.2, 81.6, 58.0, 77.4),
}
_REALMISTAKE = {
    "GPT-4o-0806": (74.3,),
    "DeepSeek-V2.5-0905": (69.4,),
    "DeepSeek-V2-Lite-Chat": (61.9,),
    "Gemma-2-27B-it": (65.8,),
    "DeepSeek-BTRM-27B": (69.3,),
    "DeepSeek-GRM-16B, greedy": (64.9,),
    "DeepSeek-GRM-27B, greedy": (72.2,),
    "DeepSeek-GRM-27B, vote@8": (74.4,),
}
_JUDGEBENCH = {
    "Arena-Hard prompt, o1-mini": (58.44, 62.24, 82.14, 78.57, 65.71),
    "Skywork-Reward-Gemma-2-27B": (59.74, 66.33, 83.93, 50.00, 64.29),
    "InternLM2-20B-Reward": (None, None, None, None, 63.43),
    "Skywork-Reward-Llama-3.1-8B": (None, None, None, None, 62.29),
    "GRM-Gemma-2B": (None, None, None, None, 59.43),
    "InternLM2-7B-Reward": (None, None, None, None, 59.43),
}
_RM_BENCH = {
    "DeepSeek-R1": (84.24, 72.66, 93.59, 90.65, 80.24, 85.28),
    "J1-Llama-70B": (None, None, None, None, None, 82.7),
    "Skywork-Reward-Llama-3.1-8B": (None, None, None, None, 46.6, 70.1),
    "Nemotron-4-340B-Reward": (None, None, None, None, 56.1, 69.5),
}
_LLMBAR = {
    "GPT-4, vanilla prompt": (95.5, 78.7, 86.4, 77.7, 80.4),
    "GPT-4, vanilla prompt without rules": (93.5, 64.2, 76.6, 76.6, 75.0),
    "GPT-4, swap + chain of thought": (94.0, 78.7, 85.3, 79.8, 77.2),
}
_REWARDMATH = {
    "InternLM2-7B-Reward": (37.27, 37.27, 55.17),
    "GPT-4o, ratings": (25.98, 35.71, 46.70),
    "Llama-3-70B, ratings": (0.62, 13.20, 17.16),
}

PUBLISHED: Mapping[str, Published] = {
    "rewardbench": _of_the_paper(
        0,
        ("Chat", "Chat Hard", "Safety", "Reasoning", "average"),
        ("Chat", "Chat Hard", "Safety", "Reasoning", "Overall"),
        _REWARDBENCH,
        "The sections are from its Table 8. Two contradictions: the sections of DeepSeek-BTRM-27B average 87.1 and those of",
        "DeepSeek-PairRM-27B 81.7, while 81.7 and 87.1 are printed, so either rows or averages are swapped; and the greedy",
        "sections of CLoud are those of LLM-as-a-Judge, so they are left out here.",
    ),
    "ppe_preference": _of_the_paper(1, ("accuracy",), ("all items",), {}),
    "ppe_correctness": _of_the_paper(
        2,
        ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval", "average"),
        ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval", "Overall"),
        _PPE_CORRECTNESS,
        "The domains are from Table 9.",
    ),
    "rmb": _of_the_paper(
        3,
        ("Help best-of-N", "Help pairs", "Harm best-of-N", "Harm pairs", "average"),
        ("Helpfulness, best of N", "Helpfulness, pairs", "Harmlessness, best of N", "Harmlessness, pairs", "Overall"),
        _RMB,
        "The cells are from Table 10. The GRM judges best-of-N with all responses in one prompt, models that read one or two",
        "by pairs. The row of token probabilities repeats that of plain voting in the paper.",
    ),
    "realmistake": Published(
        ("ROC-AUC",),
        (("pooled", "paper"),),
        _REALMISTAKE,
        ("The paper's Table 13. Whether its areas are pooled over tasks and models is not stated.",),
        digits=1,
    ),
    "judgebench": Published(
        ("Knowledge", "Reasoning", "Math", "Coding", "overall"),
        _official("Knowledge", "Reasoning", "Math", "Coding", "all items"),
        _JUDGEBENCH,
        ("Pairs of GPT-4o, two games, recomputed from the outputs that ScalerLab/JudgeBench publishes.",),
    ),
    "rm_bench": Published(
        ("Chat", "Code", "Math", "Safety", "hard", "overall"),
        (*_official("chat", "code", "math", "safety"), ("Overall", "hard"), ("Overall", "official")),
        _RM_BENCH,
        ("THU-KEG/RM-Bench and the papers of the models; those other than DeepSeek-R1 at second hand.",),
    ),
    "llmbar": Published(
        ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual"),
        _official("Natural", *(f"Adversarial/{name}" for name in ("Neighbor", "GPTInst", "GPTOut", "Manual"))),
        _LLMBAR,
        ("Mean accuracy of both orders, from the statistics that princeton-nlp/LLMBar publishes.",),
        digits=1,
    ),
    "rewardmath": Published(
        ("strict", "1/t", "mean reciprocal rank"),
        (("all items", "strict"), ("all items", "paper"), ("all items", "mrr")),
        _REWARDMATH,
        ("Computed here from the scores that kimsh0507/RewardMATH_official publishes; best of ten.",),
    ),
    "pandalm": Published(
        ("accuracy",),
        _official("all items"),
        {"PandaLM-7B": (66.77,), "gpt-3.5": (71.07,)},
        ("WeOpenML/PandaLM, three classes against the majority of three annotators; a judge of scores has its own tie rule.",),
    ),
}
"""By the name of the benchmark; a benchmark without published figures at hand is absent."""
OVERALL = {
    "rewardbench": "RewardBench",
    "ppe_preference": "PPE Preference",
    "ppe_correctness": "PPE Correctness",
    "rmb": "RMB",
}
"""The benchmarks of the paper's overall figure, which is the plain mean of the last figure of each."""
OVERALL_TABLE = Published((*OVERALL.values(), "overall"), (), _TABLE_2 | _TABLE_3, (_PAPER,), digits=1)
