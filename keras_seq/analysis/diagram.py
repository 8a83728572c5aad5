"""The architecture of a model as a picture; it needs matplotlib (`keras-seq[plots]`)."""

import io
import textwrap
from typing import Any

from keras_seq.analysis.architecture import Architecture, Block
from keras_seq.analysis.pictures import MISSING, available

_WIDTH = 7.2  # inches
_LINE = 0.19  # height of a line of text
_PAD = 0.13
_GAP = 0.26  # between boxes that follow one another
_NARROW = 0.12  # between parts whose order is not known
_SUM = 0.2  # more, where a residual connection is added
_BRANCH = 0.14  # more, where one begins
_COLOURS = ("#e8eef7", "#f7f3e3", "#e6f2e8", "#f5e8ee")
_EDGE, _TURN, _TIE, _SKIP = "#4a5568", "#9b2c2c", "#2b6cb0", "#2f855a"


def draw_architecture(found: Architecture, footer: str = "") -> bytes:
    """Draws the blocks of a model from the top down, as PNG data.

    A box within another is a part of it; ×n stands for n of them, one after the other; the arrow
    beside a box for what is repeated with the same weights; the line around boxes, to a ⊕, for a
    residual connection. The dashed line joins two boxes with one table.

    Args:
        found: of `architecture`.
        footer: a line below the picture.

    Raises:
        RuntimeError: without matplotlib.

    Example:

    ```python
    found = keras_seq.analysis.architecture("rtransformer_python_docs")
    Path("rtransformer.png").write_bytes(keras_seq.analysis.draw_architecture(found))
    ```
    """
    if not available():
        raise RuntimeError(MISSING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left, right = 0.75, _WIDTH - 0.75
    heights = [_height(block, right - left) for block in found.blocks]
    height = 1.85 + sum(heights) + _GAP * (len(heights) + 1)
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)
    plot = figure.add_axes((0, 0, 1, 1))
    plot.set(xlim=(0, _WIDTH), ylim=(height, 0))
    plot.axis("off")
    middle = (left + right) / 2
    plot.text(middle, 0.3, found.name, ha="center", va="center", fontsize=13, weight="bold")
    y = 0.65
    plot.text(middle, y, found.source, ha="center", va="center", fontsize=9.5, style="italic")
    y += 0.13
    places = []
    for block, tall in zip(found.blocks, heights, strict=True):
        _arrow(plot, middle, y, y + _GAP)
        y += _GAP
        _draw(plot, block, left, right, y, 0)
        places.append(y + tall / 2)
        y += tall
    _arrow(plot, middle, y, y + _GAP)
    y += _GAP + 0.13
    plot.text(middle, y, found.result, ha="center", va="center", fontsize=9.5, style="italic")
    if found.tied is not None:
        _join(plot, left, *(places[place] for place in found.tied))
    legend = "right: trainable parameters, shape of the output"
    if any(map(_has_residual, found.blocks)):
        legend += " · ⊕: residual connection"
    for line in (footer, legend):
        y += 0.3
        plot.text(middle, y, line, ha="center", va="center", fontsize=8.5, color="0.3")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130, facecolor="white")
    return data.getvalue()


def _said(block: Block, width: float) -> list[str]:
    """The lines below the title."""
    whole = [fact.replace(" ", "\xa0") for fact in block.facts]  # no break within
    lines = textwrap.wrap("\xa0· ".join(whole), int(width * 14.5))
    return [*lines, f"↻ {block.loop}"] if block.loop else lines


def _height(block: Block, width: float) -> float:
    inner = [_height(part, width - 4 * _PAD) for part in block.parts]
    within = sum(inner) + sum(_gaps(block))
    return _LINE * (1 + len(_said(block, width))) + 2 * _PAD + within


def _gaps(block: Block) -> list[float]:
    """What is free above each part, and below the last."""
    count = len(block.parts)
    gaps = [_GAP if block.ordered else _NARROW] * count + [0.0]
    for first, last, _ in block.residuals:
        gaps[first] += _BRANCH
        gaps[last + 1] += _SUM
    return gaps


def _has_residual(block: Block) -> bool:
    return bool(block.residuals) or any(map(_has_residual, block.parts))


def _draw(plot: Any, block: Block, left: float, right: float, top: float, depth: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    width, tall = right - left, _height(block, right - left)
    radius = "round,pad=0,rounding_size=0.07"
    if block.repeats > 1:  # a second sheet behind
        back = FancyBboxPatch(
            (left + 0.06, top + 0.06), width, tall, boxstyle=radius, fc="white", ec=_EDGE, lw=0.8
        )
        plot.add_patch(back)
    colour = _COLOURS[depth % len(_COLOURS)]
    plot.add_patch(
        FancyBboxPatch((left, top), width, tall, boxstyle=radius, fc=colour, ec=_EDGE, lw=1)
    )
    y = top + _PAD + _LINE / 2
    title = block.title + (f"  × {block.repeats}" if block.repeats > 1 else "")
    plot.text(left + _PAD, y, title, va="center", fontsize=9.5, weight="bold")
    numbers = [f"{block.parameters:,}" if block.parameters else "", block.output]
    said = "   ".join(number for number in numbers if number)
    plot.text(right - _PAD, y, said, va="center", ha="right", fontsize=8.5, color="0.25")
    for line in _said(block, width):
        y += _LINE
        colour = _TURN if line.startswith("↻") else "0.25"
        plot.text(left + _PAD, y, line, va="center", fontsize=8.5, color=colour)
    if block.loop:
        _loop(plot, right, top, tall)
    y += _LINE / 2
    inner = (left + 2 * _PAD, right - 2 * _PAD)
    middle, gaps, edges = sum(inner) / 2, _gaps(block), []
    begins = {first for first, _, _ in block.residuals}
    for place, part in enumerate(block.parts):
        if (place and block.ordered) or place in begins:
            _arrow(plot, middle, y, y + gaps[place])
        y += gaps[place]
        bottom = y + _height(part, inner[1] - inner[0])
        _draw(plot, part, *inner, y, depth + 1)
        edges.append((y, bottom))
        y = bottom
    for first, last, through in block.residuals:
        _skip(plot, middle, right - _PAD, edges[first][0], edges[last][1], through)


def _arrow(plot: Any, x: float, start: float, end: float) -> None:
    style = {"arrowstyle": "-|>", "color": _EDGE, "lw": 1, "shrinkA": 1, "shrinkB": 0}
    plot.annotate("", (x, end), (x, start), arrowprops=style)


def _loop(plot: Any, right: float, top: float, tall: float) -> None:
    """An arrow from the end of a box to its beginning."""
    x, begin, end = right + 0.2, top + 0.2 * tall, top + 0.8 * tall
    plot.plot([right, x, x], [end, end, begin], color=_TURN, lw=1.2, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": _TURN, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    plot.annotate("", (right, begin), (x, begin), arrowprops=style)


def _skip(plot: Any, middle: float, x: float, top: float, bottom: float, through: str) -> None:
    """A line from above a box around it to a sum below, with what it passes written beside."""
    branch, added, radius = top - 0.19, bottom + 0.12, 0.06
    plot.plot([middle, x, x, middle + radius], [branch, branch, added, added], color=_SKIP, lw=1.2)
    plot.plot([middle], [branch], marker="o", ms=3, color=_SKIP)
    plot.plot([middle, middle], [bottom, added], color=_EDGE, lw=1)
    plot.plot([middle], [added], marker="o", ms=9, mfc="white", mec=_SKIP, mew=1.2)
    plot.plot([middle], [added], marker="+", ms=6, color=_SKIP, mew=1.2)
    if through:
        style = {"ha": "right", "va": "center", "fontsize": 8, "color": _SKIP}
        plot.text(x - 0.05, branch - 0.07, through, **style)


def _join(plot: Any, left: float, start: float, end: float) -> None:
    """A dashed line along the boxes' left side."""
    x = left - 0.3
    line = {"color": _TIE, "lw": 1.1, "ls": (0, (4, 3))}
    plot.plot([left, x, x, left], [start, start, end, end], **line)
    label = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 8.5, "color": _TIE}
    plot.text(x - 0.06, (start + end) / 2, "the same table", **label)
