"""Draws the diagrams of the documentation as SVG files, with nothing but the standard library.

    python docs/make_diagrams.py

`tests/test_docs.py` holds docs/images/*.svg equal to what this makes.
"""

from html import escape
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"

INK, MUTED, LINE, PANEL = "#1f2937", "#6b7280", "#9ca3af", "#f3f4f6"
BLUE, ORANGE, GREEN, PURPLE = "#2563eb", "#ea580c", "#059669", "#7c3aed"
PALE_BLUE, PALE_ORANGE, PALE_GREEN, PALE_PURPLE = "#dbeafe", "#ffedd5", "#d1fae5", "#ede9fe"


class Drawing:
    """A white SVG canvas; every method draws one shape."""

    def __init__(self, width: int, height: int, title: str):
        self.size, self.title = (width, height), title
        self.shapes: list[str] = []

    def rect(self, x, y, w, h, fill=PANEL, stroke="none", radius=6, dash=""):
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius}" '
            f'fill="{fill}" stroke="{stroke}"{extra}/>'
        )

    def circle(self, x, y, r, fill="white", stroke=INK):
        self.shapes.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{fill}" stroke="{stroke}"/>'
        )

    def line(self, x1, y1, x2, y2, color=LINE, width=1.5, dash="", arrow=True):
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        if arrow:
            extra += f' marker-end="url(#head-{color[1:]})"'
        self.shapes.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}" '
            f'stroke-width="{width:g}"{extra}/>'
        )

    def text(
        self, x, y, words, size: float = 13, color=INK, anchor="middle", bold=False, mono=False
    ):
        family = "monospace" if mono else "sans-serif"
        weight = ' font-weight="bold"' if bold else ""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-family="{family}" font-size="{size}"{weight} '
            f'fill="{color}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def svg(self) -> str:
        width, height = self.size
        heads = "".join(
            f'<marker id="head-{color[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
            f'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{color}"/></marker>'
            for color in (INK, MUTED, LINE, BLUE, ORANGE, GREEN, PURPLE)
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<defs>{heads}</defs>",
                f'<rect width="{width}" height="{height}" rx="8" fill="white"/>',
                *self.shapes,
                "</svg>\n",
            ]
        )


def trellisnet() -> str:
    """Levels by time: the same two matrices everywhere, the input injected at every level."""
    d = Drawing(900, 470, "TrellisNet: levels by time, tied weights, injected input")
    steps, levels = 6, 4
    left, bottom, dx, dy, r = 95, 345, 84, 74, 17

    def at(t, level):
        return left + dx * t, bottom - dy * level

    d.text(left + dx * 2.5, 30, "one network, drawn over time and depth", 15, bold=True)
    for level in range(levels):
        for t in range(steps):
            x, y = at(t, level)
            up = (x, y - dy + r)
            if level < levels - 1:
                d.line(x, y - r, up[0], up[1], ORANGE, 2)
                if t:
                    px, py = at(t - 1, level)
                    d.line(px + 12, py - 12, x - 13, y - dy + 12, BLUE, 2)
    for level in range(levels):
        x, y = at(0, level)
        d.text(x - 38, y + 4, f"level {level}" if level else "zeros", 12, MUTED, "end")
        for t in range(steps):
            x, y = at(t, level)
            top, first = level == levels - 1, level == 0
            fill = PALE_PURPLE if top else ("white" if first else PANEL)
            d.circle(x, y, r, fill, LINE if first else INK)
            d.text(x, y + 4, "0" if first else "h, c", 11, MUTED if first else INK)
            if level:
                d.rect(x + 15, y + 8, 20, 15, PALE_GREEN, GREEN, 3)
                d.text(x + 25, y + 19, "x", 11, GREEN, bold=True)
    for t in range(steps):
        x, y = at(t, 0)
        d.rect(x - 19, y + 45, 38, 24, PALE_GREEN, GREEN, 4)
        d.text(x, y + 61, f"x{'₁₂₃₄₅₆'[t]}", 13, GREEN, bold=True)
        top = at(t, levels - 1)
        d.line(x, top[1] - r, x, top[1] - r - 22, PURPLE, 2)
        d.text(x, top[1] - r - 28, f"y{'₁₂₃₄₅₆'[t]}", 13, PURPLE, bold=True)
    d.text(left + dx * 2.5, bottom + 92, "time", 13, MUTED)
    d.line(left + dx * 2.5 + 24, bottom + 88, left + dx * 2.5 + 92, bottom + 88, MUTED)

    x = 600
    d.rect(x, 52, 280, 398, PANEL)
    d.text(x + 16, 80, "one step of one level", 14, anchor="start", bold=True)
    rows = [
        ("ẑ  =  W₁ [xₜ₋₁; hₜ₋₁]  +  W₂ [xₜ; hₜ]  +  b", INK),
        ("i, o, g, f  =  the four parts of ẑ", INK),
        ("c′ₜ  =  σ(f) cₜ₋₁  +  σ(i) tanh(g)", INK),
        ("h′ₜ  =  σ(o) tanh(c′ₜ)", INK),
    ]
    for row, (words, color) in enumerate(rows):
        d.text(x + 16, 112 + 26 * row, words, 12.5, color, "start")
    d.text(x + 16, 214, "h, c: level below;  h′, c′: this level", 11.5, MUTED, "start")
    legend = [
        (BLUE, "W₁: the previous time step", "the same matrix at every level"),
        (ORANGE, "W₂: the current time step", "the same matrix at every level"),
        (GREEN, "x: the input, injected anew", "its product is computed once a call"),
        (PURPLE, "y: the last output_units of h", "at the last level"),
    ]
    for row, (color, words, more) in enumerate(legend):
        y = 252 + 50 * row
        d.line(x + 16, y, x + 46, y, color, 3)
        d.text(x + 58, y + 4, words, 12.5, color, "start", bold=True)
        d.text(x + 58, y + 21, more, 11.5, MUTED, "start")
    return d.svg()


def layering() -> str:
    """What imports what."""
    d = Drawing(860, 430, "The parts of keras_seq and what imports what")
    boxes = {
        "cli": (330, 20, 200, 44, "cli", "one command a verb", PANEL, INK),
        "tuning": (
            40,
            100,
            180,
            50,
            "tuning  analysis",
            "searches; looking into",
            PALE_PURPLE,
            PURPLE,
        ),
        "training": (330, 100, 200, 50, "training", "recipe to run", PALE_PURPLE, PURPLE),
        "tools": (
            590,
            100,
            230,
            50,
            "generation  export  convert",
            "what a model is for",
            PALE_PURPLE,
            PURPLE,
        ),
        "zoo": (330, 186, 200, 50, "zoo", "models and recipes", PALE_ORANGE, ORANGE),
        "models": (330, 272, 200, 50, "models", "embedding, core, head", PALE_BLUE, BLUE),
        "layers": (330, 358, 200, 50, "layers", "one idea of one paper", PALE_BLUE, BLUE),
        "pipelines": (40, 230, 180, 50, "pipelines", "files to tf.data", PALE_GREEN, GREEN),
        "small": (
            590,
            272,
            230,
            50,
            "losses  metrics  optimizers",
            "what Keras lacks",
            PALE_BLUE,
            BLUE,
        ),
        "solvers": (
            590,
            358,
            230,
            50,
            "ops  gradients  solvers",
            "functions of tensors, fixed points",
            PANEL,
            LINE,
        ),
    }
    arrows = [
        ((430, 64), (430, 99)),
        ((330, 50), (150, 99)),
        ((530, 50), (690, 99)),
        ((330, 125), (221, 125)),
        ((430, 150), (430, 185)),
        ((430, 236), (430, 271)),
        ((430, 322), (430, 357)),
        ((530, 297), (589, 297)),
        ((530, 383), (589, 383)),
        ((130, 150), (130, 229)),
        ((345, 150), (221, 236)),
        ((705, 150), (532, 276)),
    ]
    for index, ((x1, y1), (x2, y2)) in enumerate(arrows):
        if index == 3:  # tuning and analysis import training
            x1, x2 = x2 - 1, x1 - 1
        d.line(x1, y1, x2, y2, MUTED)
    for x, y, w, h, name, words, fill, stroke in boxes.values():
        d.rect(x, y, w, h, fill, stroke)
        d.text(x + w / 2, y + 20, name, 14, bold=True)
        d.text(x + w / 2, y + 38, words, 11.5, MUTED)
    d.text(40, 380, "An arrow reads: imports.", 12, MUTED, "start")
    d.text(40, 398, "Arrows never turn back;", 12, MUTED, "start")
    d.text(40, 416, "a test holds them.", 12, MUTED, "start")
    return d.svg()


def states() -> str:
    """The two kinds of state that a TrellisNet hands from one chunk to the next."""
    d = Drawing(860, 330, "Exact streaming state and repackaged history")
    panels = [
        (30, 'state="exact"', "each level's last step is kept", "chunks equal the whole sequence"),
        (450, 'state="history"', "the last level's final h, c", "are handed to every level"),
    ]
    for panel, (left, title, first, second) in enumerate(panels):
        d.rect(left, 16, 380, 298, PANEL)
        d.text(left + 190, 42, title, 14, mono=True, bold=True)
        for level in range(4):
            y = 232 - 48 * level
            for t in range(6):
                x = left + 50 + 46 * t + (56 if t > 2 else 0)
                kept = t == 2 and (panel == 0 or level == 3)
                d.circle(x, y, 13, PALE_ORANGE if kept else "white", ORANGE if kept else LINE)
            x1, x2 = left + 50 + 92 + 14, left + 50 + 138 + 56 - 14
            d.line(x1, y if panel == 0 else 88, x2, y, ORANGE, 2)
        boundary = left + 50 + 92 + 51
        d.line(boundary, 62, boundary, 250, MUTED, 1, "4 4", arrow=False)
        d.text(left + 96, 268, "chunk 1", 12, MUTED)
        d.text(left + 290, 268, "chunk 2", 12, MUTED)
        d.text(left + 190, 288, f"{first}:" if panel == 0 else first, 12)
        d.text(left + 190, 305, second, 12)
    return d.svg()


def windows() -> str:
    """Training windows with an effective history."""
    d = Drawing(860, 240, "Windows of a token stream with and without an effective history")
    left, cell, tokens = 170, 26, 24

    def row(y, start, history, length):
        for i in range(history + length):
            scored = i >= history
            fill, stroke = (PALE_BLUE, BLUE) if scored else ("white", LINE)
            d.rect(left + cell * (start + i) + 2, y, cell - 4, 22, fill, stroke, 3)

    d.text(left - 16, 47, "the stream", 12.5, anchor="end")
    for i in range(tokens):
        d.rect(left + cell * i + 2, 32, cell - 4, 22, PANEL, LINE, 3)
    d.text(left - 16, 92, "history = 4", 12.5, anchor="end", mono=True)
    d.text(left - 16, 110, "length = 6", 12.5, anchor="end", mono=True)
    for k in range(3):
        row(72 + 26 * k, 6 * k, 4, 6)
    d.text(left - 16, 184, "history = 0", 12.5, anchor="end", mono=True)
    d.text(left - 16, 202, "carry_state", 12.5, anchor="end", mono=True)
    for k in range(3):
        row(176, 8 * k, 0, 8)
    for k in range(1, 3):
        x = left + cell * 8 * k
        d.line(x, 170, x, 204, ORANGE, 2, "3 3", arrow=False)
    d.rect(left, 217, 16, 14, PALE_BLUE, BLUE, 3)
    d.text(left + 24, 229, "carries loss", 12, MUTED, "start")
    d.rect(left + 130, 217, 16, 14, "white", LINE, 3)
    d.text(left + 154, 229, "context alone", 12, MUTED, "start")
    d.line(left + 282, 215, left + 282, 233, ORANGE, 2, "3 3", arrow=False)
    d.text(left + 294, 229, "state handed over, gradient cut", 12, MUTED, "start")
    return d.svg()


def diagrams() -> dict[str, str]:
    """File names and contents of all diagrams."""
    return {
        "trellisnet.svg": trellisnet(),
        "layering.svg": layering(),
        "states.svg": states(),
        "windows.svg": windows(),
    }


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for file_name, text in diagrams().items():
        (IMAGES / file_name).write_text(text)
