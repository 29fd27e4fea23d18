"""Results as JSON, and as one page that needs nothing else."""

import base64
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
import soundfile as sf

from face2voice.pipeline import MADE_BY

from .charts import COLOURS, intervals, scatter
from .figures import Figure, Player, Section
from .run import PARTS, Results

SAMPLE_RATE = 16_000
_ROWS = 250  # of one table, the rest is in the JSON

AIMS: Mapping[tuple[str, str], tuple[str, float]] = {
    ("intelligibility", "word_error_rate"): ("at most", 0.22),
    ("attention", "attention_failures"): ("at most", 0.0),
    ("attention", "long_text_failures"): ("at most", 0.0),
    ("voices", "sex_agreement"): ("at least", 0.99),
    ("pairs", "secs"): ("at least", 0.56),
    ("pairs", "secs_margin"): ("at least", 0.06),
    ("sound", "mel_cepstral_distortion_13"): ("at most", 5.0),
    ("sound", "copied_word_error_ratio"): ("at most", 1.3),
    ("speed", "real_time_factor"): ("at most", 1.0),
}
"""(part, figure) -> what a default bundle should reach."""

_TITLES = {
    "intelligibility": "Intelligibility",
    "voices": "Voice: sex, age, variety",
    "pairs": "Voice: the person's own",
    "sound": "Sound",
    "attention": "Attention failures",
    "speech2face": "Speech to face",
    "speed": "Speed",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --soft: #666; --rule: #ddd;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #a3457d; --c4: #8a6d00; --c5: #56a0d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #18181b; --soft: #a0a0a8; --rule: #3a3a40;
  --c0: #56b4e9; --c1: #f08a3c; --c2: #2cc79b; --c3: #d98cc0; --c4: #e0c04a; --c5: #9fb8ff; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--rule); }
small, .soft { color: var(--soft); }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.player { display: inline-block; width: 19rem; margin: 0 1rem .6rem 0; vertical-align: top; font-size: .85rem; }
.player audio { width: 100%; height: 2rem; }
summary { cursor: pointer; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
line { stroke-width: 1; } line.grid { stroke: var(--rule); }
line.chance { stroke: var(--soft); stroke-dasharray: 3 3; } line.aim { stroke: var(--ink); }
""" + "".join(
    f".c{n} {{ color: var(--c{n}); }} circle.c{n} {{ fill: var(--c{n}); fill-opacity: .8; }} "
    f"line.c{n} {{ stroke: var(--c{n}); stroke-width: 2; }}\n"
    for n in range(COLOURS)
)


def to_json(results: Results) -> str:
    """All figures and every observation: ``about``, ``bundles`` and ``references``, each by part with
    ``figures``, ``rows`` and ``notes``; what could not be measured is null."""
    subjects = {"bundles": results.bundles, "references": results.references}
    plain = {
        kind: {name: {part: _plain_section(s) for part, s in parts.items()} for name, parts in found.items()}
        for kind, found in subjects.items()
    }
    return json.dumps(_plain({"about": results.about, **plain}), indent=1, allow_nan=False, ensure_ascii=False)


def to_html(results: Results) -> str:
    """The same for reading and listening."""
    subjects = [*results.bundles.items(), *results.references.items()]
    names = [name for name, _ in subjects]
    parts = [part for part in PARTS if any(part in found for _, found in subjects)]
    body = "".join(_part(part, names, [found.get(part) for _, found in subjects]) for part in parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Face2Voice: {escape(', '.join(results.bundles))}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Face2Voice, measured</h1>{_about(results.about)}{body}{_material(results.about)}</body></html>\n"
    )


def summary(results: Results) -> list[tuple[str, str, str, str, str, str]]:
    """(part, figure, bundle, value, interval, chance) of every figure of the bundles, as texts."""
    return [
        (part, _words(name), bundle, _number(figure, figure.value), _interval(figure), _chance(figure))
        for bundle, found in results.bundles.items()
        for part, section in found.items()
        for name, figure in section.figures.items()
    ]


# ---- the page


def _part(part: str, names: Sequence[str], sections: Sequence[Section | None]) -> str:
    shown = [(i, s) for i, s in enumerate(sections) if s is not None]
    with_figures = [(i, s) for i, s in shown if s.figures]
    html = [f"<h2>{escape(_TITLES[part])}</h2>"]
    if with_figures:
        heads = "".join(f'<th class="c{i % COLOURS}">{escape(names[i])}</th>' for i, _ in with_figures)
        keys = dict.fromkeys(key for _, s in with_figures for key in s.figures)
        rows = "".join(_figure_row(part, key, names, with_figures) for key in keys)
        heads = f"<th>figure</th><th></th>{heads}<th>chance</th><th>aim</th>"
        html.append(f'<div class="wide"><table><tr>{heads}</tr>{rows}</table></div>')
    html += [_plots(part, names[i], s.rows) for i, s in shown]
    for i, section in shown:
        notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
        html.append(f'<p class="c{i % COLOURS}">{escape(names[i])}</p><ul>{notes}</ul>' if notes else "")
        html.append(_players(names[i], section.players))
        html.append(_observations(names[i], section.rows))
    return "".join(html)


def _figure_row(part: str, key: str, names: Sequence[str], sections: Sequence[tuple[int, Section]]) -> str:
    figures = [(i, section.figures.get(key)) for i, section in sections]
    kind, aim = AIMS.get((part, key), ("", None))
    chart = intervals([(names[i], i, figure) for i, figure in figures if figure], aim)
    cells = "".join(f'<td class="number">{_cell(figure)}</td>' for _, figure in figures)
    chances = dict.fromkeys(_chance(figure) for _, figure in figures if figure and figure.chance is not None)
    wanted = "" if aim is None else f"{kind} {aim:g}"
    return (
        f"<tr><td>{escape(_words(key))}</td><td>{chart}</td>{cells}"
        f'<td class="number">{"<br>".join(map(escape, chances))}</td><td class="number">{wanted}</td></tr>'
    )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return (
        f"{_number(figure, figure.value)} {escape(figure.unit)}<br>"
        f"<small>{_interval(figure)}<br>{figure.n} {escape(figure.of)}</small>"
    )


def _plots(part: str, name: str, rows: Sequence[dict]) -> str:
    plot = ""
    if part == "voices" and rows and "age" in rows[0]:
        points = [
            (row["age"], row["f0"], row["sex"] != "f", f"{row['photo']}: {row['f0']} Hz") for row in rows if "f0" in row
        ]
        plot = scatter(points, "age, years", "median F0, Hz", (("women", 0), ("men", 1)))
    elif part == "attention" and rows:
        points = [
            (row["characters"], row["seconds"], bool(row["faults"]), f"{', '.join(row['faults'])} {row['said']}")
            for row in rows
            if row["pieces"] <= 2
        ]
        plot = scatter(points, "characters", "seconds", (("in order", 0), ("failed", 1)))
    elif part == "pairs" and rows and "f0" in rows[0]:
        points = [
            (row["real_f0"], row["f0"], row["sex"] != "f", f"{row['photo']}, {row['speaker']}: {row['secs']:.2f}")
            for row in rows
        ]
        plot = scatter(points, "F0 of the person, Hz", "F0 of the voice, Hz", (("women", 0), ("men", 1)))
    elif part == "intelligibility" and rows:
        voices = dict.fromkeys(row["voice"] for row in rows)
        if 1 < len(voices) <= 12:
            plot = _rate_by_voice(rows, voices)
    return f"<h3>{escape(name)}</h3>{plot}" if plot else ""


def _rate_by_voice(rows: Sequence[dict], voices: Iterable[str]) -> str:
    lines = []
    for voice in voices:
        own = [row for row in rows if row["voice"] == voice]
        rate = sum(row["errors"] for row in own) / max(1, sum(row["words"] for row in own))
        nan = float("nan")
        chart = intervals([(voice, 0, Figure(rate, nan, nan, len(own), "sentences", 0.0))], 1.0)
        sex = escape(own[0]["sex"] or "")
        lines.append(f'<tr><td>{escape(voice)} {sex}</td><td>{chart}</td><td class="number">{rate:.2f}</td></tr>')
    return f"<table><tr><th>voice</th><th>word error rate, 0 to 1</th><th></th></tr>{''.join(lines)}</table>"


def _players(name: str, players: Sequence[Player]) -> str:
    if not players:
        return ""
    sounds = [(p.label, f'<audio controls preload="none" src="{_data_uri(p.samples)}"></audio>') for p in players]
    boxes = "".join(f'<div class="player">{escape(label)}<br>{audio}</div>' for label, audio in sounds)
    return f"<details><summary>{escape(name)}: {len(players)} sounds</summary>{boxes}</details>"


def _observations(name: str, rows: Sequence[dict]) -> str:
    """Tables of the single observations, those of one kind together."""
    kinds: dict[tuple[str, ...], list[dict]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    html = []
    for keys, some in kinds.items():
        heads = "".join(f"<th>{escape(_words(key))}</th>" for key in keys)
        cells = (
            "<tr>" + "".join(f"<td>{escape(_value(row[key]))}</td>" for key in keys) + "</tr>" for row in some[:_ROWS]
        )
        more = f" (the first {_ROWS} of {len(some)})" if len(some) > _ROWS else ""
        html.append(
            f"<details><summary>{escape(name)}: {len(some)} observations{more}</summary>"
            f'<div class="wide"><table><tr>{heads}</tr>{"".join(cells)}</table></div></details>'
        )
    return "".join(html)


def _about(about: Mapping) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in about["machine"].items())
    bundles = "".join(
        f"<li>{escape(name)}: {escape(str(weights['folder']))}, {weights['mebibytes']} MiB</li>"
        for name, weights in about["bundles"].items()
    )
    lines = [
        f"{about['date']}. {machine}.",
        f"Judge of voices: {about['judge']}. Recogniser: {about['recogniser']}.",
        f"In brackets and as lines: confidence intervals ({about['intervals']}). Dashed: chance. Thin line: aim.",
    ]
    return "".join(f'<p class="soft">{escape(line)}</p>' for line in lines) + f"<ul>{bundles}</ul>"


def _material(about: Mapping) -> str:
    """Exactly which people and sentences were used."""
    html = ["<h2>People and sentences</h2>"]
    keys = (
        *("people", "harvard_sentences", "varied_sentences", "long_text", "originals_of_copies"),
        *("natural_speech", "real_speakers", "pairs"),
    )
    for key in keys:
        value = about[key]
        if isinstance(value, str):
            inner, count = f"<p>{escape(value)}</p>", f"{len(value)} characters"
        else:
            items = (", ".join(map(_value, v.values())) if isinstance(v, dict) else v for v in value)
            inner, count = f"<ol>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ol>", str(len(value))
        html.append(f"<details><summary>{escape(_words(key))}: {count}</summary>{inner}</details>")
    return "".join(html)


# ---- values


def _words(key: str) -> str:
    return key.replace("_", " ")


def _number(figure: Figure, value: float) -> str:
    if not math.isfinite(value):
        return "not measured"
    return f"{value:.1f}" if figure.unit == "Hz" else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _interval(figure: Figure) -> str:
    if not math.isfinite(figure.low):
        return ""
    return f"[{_number(figure, figure.low)}, {_number(figure, figure.high)}]"


def _chance(figure: Figure) -> str:
    return "" if figure.chance is None else _number(figure, figure.chance)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return "" if value is None else str(value)


def _data_uri(samples: np.ndarray) -> str:
    buffer = io.BytesIO()
    with sf.SoundFile(buffer, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS") as file:
        file.comment = MADE_BY
        file.write(samples)
    return "data:audio/ogg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plain_section(section: Section) -> dict:
    figures = {name: dataclasses.asdict(figure) for name, figure in section.figures.items()}
    return {"figures": figures, "rows": list(section.rows), "notes": list(section.notes)}


def _plain(value: object) -> object:
    """Values that JSON has: no NaN, no numpy."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
