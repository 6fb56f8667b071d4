r"""Two pages from the runs of the experiment with a pretrained model: what SPCT and every baseline reach and what it costs, and
verdicts to read.

    python experiments/studies/human_report.py --run=runs/gemma3_270m --output=docs/results/gemma3_270m.md \
        --sample=runs/gemma3_270m/verdicts.jsonl --notes=notes.md

Reads files and needs no weights; a minute on a CPU. `--run` is laid out as `human_credits` says, and may hold more:
`after/export.json` of `export_check.py`, `data/counts.json`, and `readings.jsonl`, one {"when", "what"} a line for every time
that the test was looked at. `--sample` is written where it is not there, and its judgements are counted where a person has
filled them in. The second page, `*_verdicts.md`, and the pictures are saved beside the first.
"""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence

import human_credits
import human_plots
import numpy as np
import verdict_sample
from absl import flags
from human_credits import GRM, SYSTEMS, Experiment

from spct_jax import cli
from spct_jax.config import POLICIES
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap, metrics, recorded
from spct_jax.reporting import markdown, plots, results
from spct_jax.storage import digests, files

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "Directory of the experiment.", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "The page, .md.", required=True, flag_values=FLAGS)
SAMPLE = flags.DEFINE_string("sample", None, "Verdicts for a person to read, .jsonl.", required=True, flag_values=FLAGS)
NOTES = flags.DEFINE_string("notes", None, "What stands at the top of the page, Markdown, title included.", flag_values=FLAGS)

TO_READ = 20
"""Verdicts of the sample that are shown."""
WORDS_ON = "hh"
"""The source on which every system is set beside length and words."""
FIELDS = {"seconds": 1, "compile_seconds": 1, "steps": 0, "tokens": 0, "tokens_per_second": 0, "peak_memory_gib": 1}
"""Of a stage's summary, and how many decimals of each are shown."""
TEXT_BASELINES = ("length", "words", "words of all", "criteria", "likelihood per token", "likelihood summed")
MARKS = "▲ and ▼: the interval lies above or below 0."


def accuracy(credit: np.ndarray) -> str:
    """The mean in % and its interval, of problems that were asked."""
    known = credit[~np.isnan(credit)]
    return markdown.percent(float(known.mean()), bootstrap.interval(known)) if len(known) else markdown.percent(None)


def difference(more: np.ndarray, less: np.ndarray) -> str:
    """The mean difference in points and its interval, of problems on which both were asked."""
    both = ~np.isnan(more) & ~np.isnan(less)
    if not both.any():
        return markdown.percent(None)
    found = bootstrap.paired(more[both], less[both])
    mark = " ▲" if found.low > 0 else " ▼" if found.high < 0 else ""
    return markdown.percent(found.mean, (found.low, found.high), signed=True) + mark


def accuracy_section(experiment: Experiment) -> str:
    """Every way of judging, over all problems and by source."""
    masks = experiment.masks()
    header = ["judge", *(f"{name} ({int(mask.sum()):,})" for name, mask in masks.items()), "ties, %"]
    rows = []
    for key, way in experiment.ways.items():
        asked = ~np.isnan(way.credit)
        cells = [accuracy(way.credit[mask]) for mask in masks.values()]
        if key == "chance":
            cells = [markdown.percent(float(way.credit[mask].mean())) for mask in masks.values()]
        rows.append([way.name, *cells, markdown.percent(float(way.tied[asked].mean()))])
    notes = [f"- {way.name}: {way.note}." for way in experiment.ways.values() if way.note]
    sizes = collections.Counter(int((~np.isnan(way.credit)).sum()) for way in experiment.ways.values())
    for size, judges in sizes.items():
        if size < len(experiment.problems):
            notes.append(
                f"- {judges} of these judges were asked on {size:,} of the comparisons only, and their rows are of those."
            )
    if experiment.unmeasured:
        notes.append(f"- Not evaluated: {', '.join(experiment.unmeasured)}.")
    said = (
        "Accuracy in % on test comparisons, with 95 % bootstrap intervals over comparisons; how many there are of each source "
        "stands above its column. A tie between t responses counts 1/t, no readable verdict 1/n."
    )
    return "\n\n".join(["## Accuracy", said, markdown.table(header, rows), "\n".join(notes)])


def last_policy(experiment: Experiment) -> str:
    """The label of the GRM's last stage that was evaluated; "" where there is none."""
    if GRM not in experiment.runs:
        return ""
    return next((label for label in reversed(POLICIES) if label in experiment.runs[GRM].samples), "")


def votes_of(experiment: Experiment, kind: str) -> list[str]:
    """Keys of the votes of the GRM's last policy of one kind, by their size."""
    start = f"{GRM} {last_policy(experiment)} {kind}@"
    return sorted((key for key in experiment.ways if key.startswith(start)), key=lambda key: float(key.rpartition("@")[2]))


def steps(experiment: Experiment) -> list[tuple[str, str]]:
    """(more, less): what each step of SPCT should add to what is without it."""
    last = last_policy(experiment)
    found = [("rft greedy", "sft greedy"), ("rl greedy", "rft greedy"), ("rl greedy", "sft greedy")]
    pairs = [(f"{GRM} {more}", f"{GRM} {less}") for more, less in found]
    votes = votes_of(experiment, "vote")
    pairs += [(vote, votes[0]) for vote in votes[1:]]
    pairs += [(votes[-1], f"{GRM} {last} greedy")] if votes[1:] else []
    pairs += [(meta, meta.replace(" meta@", " vote@")) for meta in votes_of(experiment, "meta")]
    pairs += [(key, votes[-1]) for key in votes_of(experiment, "adaptive") if votes]
    pairs += [(key, key.replace(" expected", " scores")) for key in experiment.ways if key.endswith(" expected")]
    known = [pair for pair in pairs if all(key in experiment.ways for key in pair)]
    asked = {key: ~np.isnan(experiment.ways[key].credit) for pair in known for key in pair}
    return [(more, less) for more, less in known if (asked[more] & asked[less]).any()]


def _difference_table(experiment: Experiment, pairs: Sequence[tuple[str, str]]) -> str:
    masks, ways, rows = experiment.masks(), experiment.ways, []
    for more, less in pairs:
        cells = [difference(ways[more].credit[mask], ways[less].credit[mask]) for mask in masks.values()]
        rows.append([f"{ways[more].name} - {ways[less].name}", *cells])
    return markdown.table(["difference, points", *masks], rows)


def steps_section(experiment: Experiment) -> str:
    """Each step against what is without it, and in how far the paper's order holds; "" where there are no two to compare."""
    pairs, said = steps(experiment), []
    if not pairs:
        return ""
    for more, less in pairs:
        a, b = experiment.ways[more], experiment.ways[less]
        both = ~np.isnan(a.credit) & ~np.isnan(b.credit)
        found = bootstrap.paired(a.credit[both], b.credit[both])
        verdict = "holds" if found.low > 0 else "reversed" if found.high < 0 else "undecided"
        said.append(f"- {a.name} above {b.name}: **{verdict}**.")
    head = f"Paired by comparison, resampled 2,000 times. {MARKS} Over all sources:"
    return "\n\n".join(["## What each step adds", head, "\n".join(said), _difference_table(experiment, pairs)])


def finals(experiment: Experiment) -> list[str]:
    """Keys of what the last stage of every other system does: greedy, and by the most votes."""
    found = []
    for system, run in experiment.runs.items():
        labels = human_credits.labels_of(run)
        if system != GRM and labels:
            last = [label for label in labels if label.partition("+")[0] == labels[-1].partition("+")[0]]
            starts = [f"{system} {label} {kind}" for label in last for kind in ("greedy", "vote@", "meta@")]
            of_kind = ([key for key in experiment.ways if key.startswith(start)] for start in starts)
            found += [keys[-1] for keys in of_kind if keys]
    return found


def baselines_section(experiment: Experiment) -> str:
    """The GRM, greedy and by its largest votes, against every baseline; every system against length and words on one source."""
    ways = experiment.ways
    ours = [key for key in (f"{GRM} {last_policy(experiment)} greedy",) if key in ways]
    ours += [keys[-1] for kind in ("vote", "meta") if (keys := votes_of(experiment, kind))]
    others = [key for key in (*TEXT_BASELINES, *finals(experiment)) if key in ways]
    parts = ["## Against the baselines", MARKS, _difference_table(experiment, [(a, b) for b in others for a in ours])]
    mask = experiment.masks().get(WORDS_ON, np.zeros(len(experiment.problems), bool))
    systems = [way for way in ways.values() if way.system and not np.isnan(way.credit[mask]).all()]
    if systems and "words" in ways:
        rows = [
            [
                way.name,
                accuracy(way.credit[mask]),
                *(difference(way.credit[mask], ways[b].credit[mask]) for b in ("words", "length")),
            ]
            for way in systems
        ]
        best = max(systems, key=lambda way: np.nanmean(way.credit[mask]))
        parts += [
            f"### Every system beside length and words, on {WORDS_ON}",
            f"The highest is {best.name}. It is the highest of {len(systems)} on these very comparisons, which flatters it.",
            markdown.table(["judge", "accuracy", "ahead of bag of words", "ahead of length"], rows),
        ]
    return "\n\n".join(parts)


def verdicts_section(experiment: Experiment) -> str:
    """How many verdicts could be read, were cut, tie, agree, and how often they name the response that is shown first."""
    rows = []
    for system, run in experiment.runs.items():
        for label in human_credits.labels_of(run):
            for kind in run.samples[label]:
                if found := run.rows(label, kind):
                    rows.append([f"{human_credits.judge_name(system, label)}, {kind}", *_counts(found, run.problems)])
    header = [
        "verdicts",
        "drawn",
        "valid",
        "truncated",
        "tied, %",
        "two agree, %",
        "first shown wins, %",
        "longer wins, %",
        "tokens each",
    ]
    said = "Tied: of verdicts on their own. Two agree: the chance that two verdicts on one comparison name the same response. "
    said += (
        "First shown wins, longer wins: of verdicts on two responses, a tie counted 1/2; where orders are balanced, a judge "
    )
    said += "that does not look at the place names the first one in 50 %."
    return "\n\n".join(["## Verdicts", said, markdown.table(header, rows)])


def _counts(rows: Sequence[Mapping], problems: Mapping[str, Mapping]) -> list[str]:
    votes, firsts, longer, tokens = metrics.all_votes(rows), [], [], []
    for row in rows:
        lengths = list(map(len, problems[row["id"]]["responses"]))
        for sample in row["samples"]:
            tokens.append(sample.get("tokens", 0))
            if row["n"] == 2 and sample["scores"] is not None:
                ahead = np.sign(sample["scores"][0] - sample["scores"][1])  # of the response that the comparison names first
                if sample["order"]:
                    firsts.append((1 + (ahead if sample["order"][0] == 0 else -ahead)) / 2)
                if lengths[0] != lengths[1]:
                    longer.append((1 + ahead * np.sign(lengths[0] - lengths[1])) / 2)
    valid = [vote for vote in votes if vote.valid]
    tied = [vote.scores.count(max(vote.scores)) > 1 for vote in valid]
    shares = (tied, firsts, longer)
    tied_share, first_share, longer_share = (markdown.percent(float(np.mean(share)) if share else None) for share in shares)
    return [
        f"{len(votes):,}",
        f"{len(valid):,} ({markdown.percent(1 - recorded.malformed_rate(votes))} %)",
        f"{sum(bool(vote.truncated) for vote in votes):,}",
        tied_share,
        markdown.percent(metrics.agreement(rows)),
        first_share,
        longer_share,
        f"{np.mean(tokens):.0f}",
    ]


def time_section(experiment: Experiment) -> str:
    """Seconds of every stage of every system."""
    rows = []
    for system, run in experiment.runs.items():
        for stage, summary in run.stages.items():
            cells = [f"{summary[f]:,.{digits}f}" if f in summary else "–" for f, digits in FIELDS.items()]
            rows.append([SYSTEMS.get(system, system), results.label_name(stage), *cells])
        total = [sum(s.get(f, 0) for s in run.stages.values()) for f in ("seconds", "compile_seconds")]
        rows.append([SYSTEMS.get(system, system), "all stages", *(f"{t:,.1f}" for t in total), "–", "–", "–", "–"])
    header = ["system", "stage", "seconds", "of which compiling", "steps", "tokens", "tokens/s", "peak GiB"]
    return f"## Time\n\n{markdown.table(header, rows)}"


def data_section(experiment: Experiment, directory: pathlib.Path) -> str:
    """Comparisons by split and source, and what the preparation left out."""
    splits = {
        name: collections.Counter(human_credits.source_of(c.id) for c in found) for name, found in experiment.data.items()
    }
    sources = list(dict.fromkeys(source for counts in splits.values() for source in counts))
    rows = [[name, f"{sum(c.values()):,}", *(f"{c[source]:,}" for source in sources)] for name, c in splits.items()]
    parts = ["## Data", markdown.table(["comparisons", "all", *sources], rows)]
    path = directory / "data" / "counts.json"
    if path.exists():
        parts += [
            "What was read and left out, as the preparation counted it:",
            markdown.fence(_indented(files.read_json(path)), "json"),
        ]
    return "\n\n".join(parts)


def _indented(value: Mapping) -> str:
    """JSON with a line for each of the first two levels."""
    lines = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and any(isinstance(one, Mapping) for one in inner.values()):
            lines += [f"{json.dumps(name)}:", *(f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in inner.items())]
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(inner)}")
    return "\n".join(lines)


def export_section(directory: pathlib.Path) -> str:
    """What `export_check.py` found."""
    path = directory / "after" / "export.json"
    if not path.exists():
        return "## The judge in transformers\n\nNot measured."
    found = files.read_json(path)
    said = (
        f"Exported and loaded by transformers {found['versions']['transformers']}, in float32, the judge gave the same greedy "
        f"verdict on {found['same_verdicts']} of {found['comparisons']} comparisons, {found['readable']} of them readable, "
        f"and the same tokens on {found['same_tokens']}; {found['tokens_before_parting']:,} of {found['tokens']:,} tokens come "
        "before the first that differs."
    )
    parted = [
        f"- `{one['id']}` parts at token {one['at']}, where the likeliest leads by {one['lead']:.2g}" for one in found["parted"]
    ]
    return "\n\n".join(["## The judge in transformers", said, *(["\n".join(parted)] if parted else [])])


def readings_section(experiment: Experiment, directory: pathlib.Path) -> str:
    """Every evaluation on held-out comparisons that there is, and those that were noted by hand."""
    rows = []
    for system, run in experiment.runs.items():
        settings = run.config.get("evaluation", {})
        passes = ", ".join(f"{label} {kind}" for label, kinds in run.samples.items() for kind in kinds)
        fields = [settings.get("split", "test"), f"{len(run.problems):,}", passes, run.config.get("seed")]
        rows.append([system, *fields, digests.of_json(run.config)[:8]])
    parts = [
        "## Readings of the test",
        markdown.table(["system", "split", "problems", "passes", "seed", "configuration"], rows),
    ]
    path = directory / "readings.jsonl"
    if path.exists():
        lines = [f"- {markdown.escape(r.get('when', ''))}: {markdown.escape(r.get('what', ''))}" for _, r in read_jsonl(path)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def pictures(experiment: Experiment) -> dict[str, bytes]:
    """By what they show."""
    shown = [way for way in experiment.ways.values() if way.name != "chance"]
    drawn = {"accuracy": human_plots.intervals(shown, experiment.ways["chance"], experiment.masks())}
    curves: dict[str, list[dict]] = {}
    for run in experiment.runs.values():
        curves = {**run.curves, **curves}
    if grm := experiment.runs.get(GRM):
        report = results.figures(grm)
        if report["by_k"]:
            greedy = {label: value["greedy"] for label, value in report["accuracy"].items() if "greedy" in value}
            drawn["votes"] = plots.accuracy_by_k(report["by_k"], greedy, markdown.temperature(report))
    if learning := plots.learning_curves(curves):
        drawn["learning"] = learning
    return drawn


VERDICTS = "# Verdicts to read\n\nThe questions and responses are other people's, and some are offensive."


def pages(directory: pathlib.Path, sample: str, notes: str, stem: str) -> dict[str, bytes]:
    """Files by name: the page, the page of verdicts where there are any, and the pictures."""
    experiment = human_credits.read(directory)
    drawn = {f"{stem}_{name}.png": png for name, png in pictures(experiment).items()}
    parts = [notes or "# SPCT on a pretrained model and people's preferences", accuracy_section(experiment)]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in drawn]
    parts += [steps_section(experiment), baselines_section(experiment), verdicts_section(experiment)]
    parts += [time_section(experiment), data_section(experiment, directory), export_section(directory)]
    parts.append(readings_section(experiment, directory))
    texts = {}
    entries = verdict_sample.draw(experiment.runs[GRM], last_policy(experiment)) if last_policy(experiment) else []
    if entries:
        entries, beside = verdict_sample.settle(sample, entries), f"{stem}_verdicts.md"
        link = f"[{min(TO_READ, len(entries))} of them]({beside}) can be read."
        parts += ["## What verdicts say", verdict_sample.counts(entries), link]
        texts[beside] = [VERDICTS, verdict_sample.to_read(entries, TO_READ)]
    texts[f"{stem}.md"] = parts
    made = {name: "\n\n".join(part.strip() for part in text if part) + "\n" for name, text in texts.items()}
    return {name: text.encode() for name, text in made.items()} | drawn


def main(_) -> None:
    """Writes the pages."""
    directory, output = pathlib.Path(RUN.value), pathlib.Path(OUTPUT.value)
    if output.suffix != ".md":
        raise InputError(f"--output={output}: the page is Markdown, so its name must end in .md")
    notes = files.read_bytes(NOTES.value).decode().strip() if NOTES.value else ""
    files.make_directory(output.parent)
    for name, content in pages(directory, SAMPLE.value, notes, output.stem).items():
        files.write(output.parent / name, content)
    print(f"written to {output}; verdicts to read: {SAMPLE.value}")


if __name__ == "__main__":
    cli.run(main, FLAGS)
