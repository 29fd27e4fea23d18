"""Small plots as SVG, in the colours of the page around them."""

import math
from collections.abc import Sequence
from html import escape

from .figures import Figure

COLOURS = 6  # the page names them --c0 to --c5
_WIDTH, _ROW = 220, 14
_PLOT = (460, 240)
_MARGIN = (46, 10, 34, 8)  # left, right, bottom, top


def intervals(figures: Sequence[tuple[str, int, Figure]], aim: float | None = None) -> str:
    """One line per subject: its value, its 95 % interval; chance dashed, the aim thin.

    Args:
        figures: (whose, colour's number, figure).
    """
    values = [v for _, _, f in figures for v in (f.value, f.low, f.high, f.chance) if v is not None]
    values = [v for v in (*values, aim) if v is not None and math.isfinite(v)]
    if not values:
        return ""
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    height = _ROW * len(figures) + 4

    def x(value: float) -> float:
        return round(4 + (_WIDTH - 8) * (value - low + pad) / (high - low + 2 * pad), 1)

    marks = []
    chances = sorted({f.chance for _, _, f in figures if f.chance is not None and math.isfinite(f.chance)})
    marks += [_line(x(chance), 0, x(chance), height, "chance", f"chance {chance:.3g}") for chance in chances]
    if aim is not None:
        marks.append(_line(x(aim), 0, x(aim), height, "aim", f"aim {aim:g}"))
    for row, (name, colour, figure) in enumerate(figures):
        if not math.isfinite(figure.value):
            continue
        y = _ROW * row + _ROW / 2 + 2
        style = f"c{colour % COLOURS}"
        if math.isfinite(figure.low):
            marks.append(_line(x(figure.low), y, x(figure.high), y, style))
        marks.append(_dot(x(figure.value), y, style, f"{name}: {figure.value:.3g}"))
    return _svg(_WIDTH, height, marks, "values with their intervals")


def scatter(
    points: Sequence[tuple[float, float, int, str]], x_name: str, y_name: str, legend: Sequence[tuple[str, int]] = ()
) -> str:
    """Points (x, y, colour's number, label), with axes."""
    points = [
        p for p in points if p[0] is not None and p[1] is not None and math.isfinite(p[0]) and math.isfinite(p[1])
    ]
    if not points:
        return ""
    width, height = _PLOT
    left, right, bottom, top = _MARGIN
    x_ticks, y_ticks = (_ticks([p[axis] for p in points]) for axis in (0, 1))

    def x(value: float) -> float:
        return round(left + (width - left - right) * (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]), 1)

    def y(value: float) -> float:
        return round(height - bottom - (height - bottom - top) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]), 1)

    marks = [_line(left, y(t), width - right, y(t), "grid") for t in y_ticks]
    marks += [_text(left - 6, y(t) + 4, f"{t:g}", "end") for t in y_ticks]
    marks += [_text(x(t), height - bottom + 14, f"{t:g}", "middle") for t in x_ticks]
    marks.append(_text((left + width - right) / 2, height - 4, x_name, "middle"))
    marks += [_dot(x(p[0]), y(p[1]), f"c{p[2] % COLOURS}", p[3]) for p in points]
    for row, (name, colour) in enumerate(legend):
        marks.append(_dot(width - 92, top + 8 + 15 * row, f"c{colour % COLOURS}", name))
        marks.append(_text(width - 84, top + 12 + 15 * row, name, "start"))
    marks.append(_text(left, top + 6, y_name, "start"))
    return _svg(width, height, marks, f"{y_name} over {x_name}")


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, at least two, that span the values."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(step * n, 10) for n in range(first, max(last, first + 1) + 1)]


def _svg(width: float, height: float, marks: Sequence[str], label: str) -> str:
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{"".join(marks)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<line class="{style}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}">{inner}</line>'


def _dot(x: float, y: float, style: str, title: str) -> str:
    return f'<circle class="{style}" cx="{x:g}" cy="{y:g}" r="3.5"><title>{escape(title)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
