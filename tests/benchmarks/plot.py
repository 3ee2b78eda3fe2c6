"""Draws the two pictures of the README as one SVG, by hand, so that nothing needs to be installed for it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from tests.benchmarks.results import Spread

_WIDTH, _HEIGHT = 1080, 540
_CAPTION_CHARACTERS = 165
_TOP, _BOTTOM = 84, 330  # of the plotting areas
_FONTS = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
_INK, _QUIET, _RULE = "#1f2328", "#59636e", "#d1d9e0"


class Series(NamedTuple):
    """What is drawn of one contender: its colour, calls a second by number of threads, CPU a record."""

    name: str
    colour: str
    calls: Mapping[int, Spread]
    cpu: Spread | None


def draw(series: Sequence[Series], title: str, caption: str) -> str:
    """Returns the SVG text. Points and bars are medians; thin lines go from the lowest round to the highest."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="{_FONTS}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(28, 30, title, size=16, weight=600),
        *_lines_panel(series, left=72, right=500),
        *_bars_panel(series, left=750, right=1020),
        *_legend(series),
        *(
            _text(28, 482 + 15 * index, line, size=11, colour=_QUIET)
            for index, line in enumerate(textwrap.wrap(caption, _CAPTION_CHARACTERS))
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lines_panel(series: Sequence[Series], *, left: float, right: float) -> list[str]:
    counts = sorted({count for one in series for count in one.calls})
    if not counts:
        return []
    ticks = _ticks(max(spread.high for one in series for spread in one.calls.values()))
    # One step for each doubling, as the numbers of threads are chosen.
    step = (right - left) / max(1, len(counts) - 1)
    place = {count: left + index * step for index, count in enumerate(counts)}

    def height(value: float) -> float:
        return _BOTTOM - value / ticks[-1] * (_BOTTOM - _TOP)

    parts = [_text(28, 62, "Calls a second, all threads together (more is better)", weight=600)]
    for tick in ticks:
        parts.append(_rule(left, height(tick), right, height(tick)))
        parts.append(
            _text(left - 10, height(tick) + 4, f"{tick / 1000:g} k" if tick else "0", anchor="end", colour=_QUIET)
        )
    for count, x in place.items():
        parts.append(_text(x, _BOTTOM + 20, str(count), anchor="middle", colour=_QUIET))
    parts.append(_text((left + right) / 2, _BOTTOM + 40, "threads logging at once", anchor="middle", colour=_QUIET))
    for one in series:
        points = [(place[count], spread) for count, spread in sorted(one.calls.items())]
        path = " ".join(f"{x:.1f},{height(spread.median):.1f}" for x, spread in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{one.colour}" stroke-width="2"/>')
        for x, spread in points:
            parts.append(_rule(x, height(spread.low), x, height(spread.high), one.colour))
            parts.append(
                f'<circle cx="{x:.1f}" cy="{height(spread.median):.1f}" r="4" fill="{one.colour}" stroke="#ffffff"/>'
            )
    return parts


def _bars_panel(series: Sequence[Series], *, left: float, right: float) -> list[str]:
    bars = [(one, one.cpu) for one in series if one.cpu is not None]
    if not bars:
        return []
    longest = max(cpu.high for _, cpu in bars)
    pitch = min(34.0, (_BOTTOM - _TOP + 30) / len(bars))
    parts = [_text(556, 62, "CPU a record, all threads, to its acknowledgement, µs", weight=600)]
    for index, (one, cpu) in enumerate(sorted(bars, key=lambda bar: bar[1].median)):
        top = _TOP + index * pitch
        middle = top + pitch / 2 - 3

        def reach(value: float) -> float:
            return left + value / longest * (right - left - 50)

        parts.append(_text(left - 10, middle + 4, one.name, anchor="end"))
        parts.append(
            f'<rect x="{left}" y="{top:.1f}" width="{reach(cpu.median) - left:.1f}" height="{pitch - 6:.1f}" '
            f'fill="{one.colour}"/>'
        )
        parts.append(_rule(reach(cpu.low), middle, reach(cpu.high), middle, _INK))
        parts.append(_text(reach(cpu.high) + 8, middle + 4, f"{cpu.median:.1f}"))
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts: list[str] = []
    shown = [one for one in series if one.calls]
    for index, one in enumerate(shown):
        x, y = 28 + index % 4 * 262, 400 + index // 4 * 22
        parts.append(f'<circle cx="{x + 5}" cy="{y - 4}" r="5" fill="{one.colour}"/>')
        parts.append(_text(x + 18, y, one.name))
    return parts


def _ticks(highest: float) -> list[float]:
    """Returns round values from 0 to beyond *highest*, four to eight of them."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(step for step in (power / 5, power / 2, power, 2 * power) if highest / step <= 6)
    return [step * index for index in range(math.ceil(highest / step) + 1)]


def _text(
    x: float, y: float, text: str, *, size: int = 12, weight: int = 400, anchor: str = "start", colour: str = _INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = _RULE) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
