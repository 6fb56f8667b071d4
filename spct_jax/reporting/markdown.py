"""The report as Markdown, for people."""

import re
from collections.abc import Mapping, Sequence

from spct_jax.evaluation import metrics
from spct_jax.grm import voting
from spct_jax.reporting.results import label_name
from spct_jax.reporting.run_files import RunFiles


def markdown(report: Mapping, run: RunFiles, images: Sequence[str]) -> str:
    """The report for people."""
    parts = [f"# Report of a run, seed {report['seed']}", _headline(report)]
    for name in images:
        parts.append(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})")
    parts += [_votes_section(report), _other_section(report), _stages_section(report), _data_section(run)]
    parts.append(_verdicts_section(run))
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence], strong: int = 0) -> str:
    """A Markdown table; the first column is left-aligned, the others right. Cells cannot break out of it.

    The names of the first `strong` rows are set in bold.
    """
    lines = [[escape(cell) for cell in line] for line in (header, *rows)]
    lines[1 : strong + 1] = [[f"**{name}**", *cells] for name, *cells in lines[1 : strong + 1]]
    lines.insert(1, ["---"] + ["--:"] * (len(header) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fence(text: str, language: str = "text") -> str:
    """Text as a Markdown code block that nothing inside it can close; lone surrogates become U+FFFD."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"


def percent(value: float | None, interval: Sequence[float] | None = None, signed: bool = False) -> str:
    """0.8125 as "81.2", or "81.2 (79.0 to 83.1)" with an interval; an absent value as a dash."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f}"
    return f"{text} ({100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f})" if interval else text


def temperature(report: Mapping) -> float | None:
    """Of the run's sampled verdicts where no other is named; None if its configuration does not say."""
    return report["config"].get("evaluation", {}).get("temperature")


def _headline(report: Mapping) -> str:
    if not report["accuracy"]:
        return "No model has been evaluated yet."
    split = report["config"].get("evaluation", {}).get("split", "held-out")
    intro = (
        f"Accuracy in % on {report['problems']:,} {split} problems with two or more responses, with 95 % bootstrap "
        f"intervals over problems. A tie between t responses counts 1/t; chance is {percent(report['chance'])}."
    )
    if report["by_k"] and (degrees := temperature(report)) is not None:
        intro += f" Votes are over samples at temperature {degrees} where no other is named."
    return f"{intro}\n\n{_accuracy_table(report)}"


def _accuracy_table(part: Mapping) -> str:
    names = {name: None for measures in part["accuracy"].values() for name in measures}
    rows = []
    for label, measures in part["accuracy"].items():
        cells = [percent(measures.get(name), part["intervals"][label].get(name)) for name in names]
        rows.append([label_name(label), *cells])
    return table(["model", *names], rows)


def _votes_section(report: Mapping) -> str:
    parts = []
    for label, curve in report["by_k"].items():
        kinds = [kind for kind in ("vote", "meta") if kind in curve]
        rows = [
            [k, *(percent(curve[kind][i], curve[f"{kind}_interval"][i]) for kind in kinds)] for i, k in enumerate(curve["k"])
        ]
        parts.append(f"### {label_name(label)}")
        parts.append(table(["k", *({"vote": "plain vote", "meta": "meta-guided"}[kind] for kind in kinds)], rows))
        pairs = report["paired"].get(label, {})
        rows = [[name, percent(p["difference"], p["interval"], signed=True)] for name, p in pairs.items()]
        if rows:
            parts.append(table(["paired difference, points", "with 95 % interval"], rows))
    return "\n\n".join(["## By number of votes", *parts]) if parts else ""


def _other_section(report: Mapping) -> str:
    columns: dict[str, dict[str, float | None]] = {}
    fields = {"ties": "tie_rate", "malformed": "malformed_rate", "of these truncated": "truncated_rate"}
    for what, field in fields.items():
        for label, rates in report[field].items():
            for name, rate in rates.items():
                columns.setdefault(f"{what}, {name}", {})[label] = rate
    if report["agreement"]:
        columns["two samples agree"] = report["agreement"]
    labels = list(report["malformed_rate"])
    rows = [[label_name(label), *(percent(rates.get(label)) for rates in columns.values())] for label in labels]
    parts = ["## Ties, malformed and truncated verdicts, agreement, %", table(["model", *columns], rows)] if rows else []
    if single := report.get("single"):
        parts += [f"## A single response, right or wrong: {single['problems']:,} problems", _accuracy_table(single)]
    return "\n\n".join(parts)


def _stages_section(report: Mapping) -> str:
    if not report["stages"]:
        return ""
    named = ("seconds", "compile_seconds", "steps", "tokens", "tokens_per_second", "peak_memory_gib")
    timing = []
    for stage, summary in report["stages"].items():
        others = [f"{key} = {_number(value)}" for key, value in summary.items() if key not in (*named, "data")]
        timing.append([label_name(stage), *(_number(summary.get(key)) for key in named), ", ".join(others)])
    header = ["stage", "seconds", "of which compiling", "steps", "tokens", "tokens/s", "peak GiB", "other"]
    parts = ["## Stages", table(header, timing)]
    if (peak := report["peak_memory_gib"]) is not None:
        parts.append(
            f"Peak resident memory of the first process, up to the end of each stage; of the run: {_number(peak)} GiB."
        )
    return "\n\n".join(parts)


def _data_section(run: RunFiles) -> str:
    counted = run.data | {label_name(stage): summary["data"] for stage, summary in run.stages.items() if "data" in summary}
    rows = []
    for name, counts in counted.items():
        skipped = ", ".join(f"{reason}: {count:,}" for reason, count in counts.get("skipped", {}).items())
        rows.append([name, _number(counts["read"]), _number(counts["used"]), skipped or "none"])
    return f"## Data\n\n{table(['source or stage', 'read', 'used', 'skipped'], rows)}" if rows else ""


def _verdicts_section(run: RunFiles) -> str:
    kinds = [(label, "sampled") for label in run.samples] + [(label, "greedy") for label in reversed(run.samples)]
    for label, kind in kinds:
        told = (row for row in run.rows(label, kind) if row["id"] in run.problems)
        if rows := [row for row in told if any(sample.get("text") for sample in row["samples"])]:
            chosen = _choose(rows)
            parts = [_verdict(row, run.problems[row["id"]], heading) for heading, row in chosen]
            return "\n\n".join([f"## Verdicts to read ({label_name(label)}, {kind})", *parts])
    return ""


def _choose(rows: Sequence[Mapping]) -> list[tuple[str, Mapping]]:
    """Three problems: one the vote has wrong, one it has right though its first sample is not, one right; else any."""
    votes = {row["id"]: metrics.tally([row], len(row["samples"])).credit[0] for row in rows}
    firsts = {row["id"]: metrics.tally([row], 1).credit[0] for row in rows}
    wanted = {
        "Wrong": lambda row: votes[row["id"]] == 0,
        "Right by vote, though the first sample is not": lambda row: votes[row["id"]] == 1 > firsts[row["id"]],
        "Right": lambda row: votes[row["id"]] == 1 == firsts[row["id"]],
        "Another": lambda row: True,
    }
    chosen: dict[str, tuple[str, Mapping]] = {}
    for heading, holds in [*wanted.items(), ("Another", wanted["Another"]), ("Another", wanted["Another"])]:
        row = next((row for row in rows if row["id"] not in chosen and holds(row)), None)
        if row is not None and len(chosen) < 3:
            chosen[row["id"]] = (heading, row)
    return list(chosen.values())


def _verdict(row: Mapping, problem: Mapping, heading: str) -> str:
    lines = [f"problem {row['id']}", "", problem["query"], ""]
    for index, (response, truth) in enumerate(zip(problem["responses"], problem["scores"], strict=True)):
        lines += [f"[response {index + 1}; truth {truth}]", response, ""]
    totals = metrics.vote(row, len(row["samples"]))
    parsed = sum(sample["scores"] is not None for sample in row["samples"])
    vote = f"{parsed} of {len(row['samples'])} samples parsed. The best is response {row['best'] + 1}."
    if totals is not None:
        top = " and ".join(str(index + 1) for index in voting.winners(totals))
        vote += f" The vote says response {top}, with totals {', '.join(map(str, totals))}."
    sample = next(sample for sample in row["samples"] if sample.get("text"))
    order = "" if sample["order"] is None else ", ".join(str(index + 1) for index in sample["order"])
    said = f"One verdict, whole (it read the responses {f'in the order {order}' if order else 'one by one'}):"
    return "\n\n".join([f"### {heading}", fence("\n".join(lines).rstrip()), vote, said, fence(sample["text"])])


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"


def escape(value: object) -> str:
    """Text on one line in which nothing is markup."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", str(value))
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


_MARKUP = re.compile(r"[\\|`<\[*~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
"""Within a word an underscore is none, and neither is an ampersand that begins no character reference."""
