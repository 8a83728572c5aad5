"""Writes the tables of the zoo into README.md and docs/, from recipes and manifests.

    python docs/make_tables.py            # rewrites what stands between the markers
    python docs/make_tables.py --check    # exits 1 if a page is out of date

`tests/test_docs.py` holds the pages equal to what this makes.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_seq import zoo
from keras_seq._tasks import FIGURES, metric_of
from keras_seq.zoo import Recipe

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MODELS = ROOT / "docs" / "models.md"
PRETRAINED = ROOT / "docs" / "pretrained.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def reported(recipe: Recipe) -> str:
    """The paper's figure in words: `perplexity 56.97`."""
    reported = recipe.reported
    metric = metric_of(reported.metric)
    if reported.value is not None:
        return metric.cell(reported.value)
    if reported.validation is not None:
        return f"{metric.cell(reported.validation)} (validation)"
    return "none"


def short_paper(recipe: Recipe) -> str:
    """The title alone, without a subtitle, of `Authors: Title: Subtitle. Venue.`"""
    text = recipe.paper
    if ": " in text:
        text = text.split(": ", 1)[1]
    return text.split(": ")[0].split(". ")[0].split(" (")[0].strip().rstrip(".")


def recipes() -> list[Recipe]:
    """All recipes, by family and name."""
    return sorted(
        (zoo.recipe(name) for name in zoo.names()),
        key=lambda recipe: (recipe.family, recipe.name),
    )


@dataclass(frozen=True)
class Family:
    """What the README says of a family beside its recipes."""

    title: str
    page: str
    layers: tuple[str, ...]
    shown: str  # the recipe whose reported figure stands in the table


FAMILIES = {
    "trellisnet": Family(
        "TrellisNet", "layers/trellisnet.md", ("TrellisNet",), "trellisnet_ptb_word"
    ),
    "deq_trellisnet": Family(
        "DEQ-TrellisNet",
        "layers/deep_equilibrium.md",
        ("DeepEquilibrium", "DEQTrellisCell"),
        "deq_trellisnet_wt103",
    ),
    "deq_transformer": Family(
        "DEQ-Transformer",
        "layers/deq_transformer.md",
        ("DeepEquilibrium", "DEQTransformerCell"),
        "deq_transformer_wt103",
    ),
    "pru": Family("Pyramidal recurrent unit", "layers/pru.md", ("PRU", "LSTM"), "pru_ptb_word"),
    "r_transformer": Family(
        "R-Transformer", "layers/r_transformer.md", ("RTransformer",), "rtransformer_nottingham"
    ),
    "tcn": Family("TCN", "layers/baselines.md", ("TCN",), "tcn_nottingham"),
    "recurrent": Family(
        "LSTM, GRU, RNN", "layers/baselines.md", ("LSTM", "KerasRecurrent"), "lstm_nottingham"
    ),
    "transformer": Family(
        "Transformer", "layers/baselines.md", ("Transformer",), "transformer_nottingham"
    ),
    "transformer_xl": Family(
        "Transformer-XL", "layers/baselines.md", ("TransformerXL",), "transformer_xl_wt103"
    ),
}


def families() -> str:
    """The table of the README: a row for each family, those of the four papers first."""
    grouped: dict[str, list[Recipe]] = {}
    for recipe in recipes():
        grouped.setdefault(recipe.family, []).append(recipe)
    rows = []
    for name in sorted(grouped, key=lambda name: [*FAMILIES, name].index(name)):
        members = grouped[name]
        family = FAMILIES.get(name) or Family(name, "models.md", (), members[0].name)
        shown = zoo.recipe(family.shown)
        figure = reported(shown)
        sizes = sorted(recipe.parameters for recipe in members)
        rows.append(
            (
                f"[{family.title}](docs/{family.page})",
                short_paper(shown),
                ", ".join(f"`{layer}`" for layer in family.layers),
                f"{rounded(sizes[0])} to {rounded(sizes[-1])}, {len(members)} models",
                figure if figure == "none" else f"{figure}, `{shown.data.name}`",
                reached(name) or "see [Results](docs/results.md)",
            )
        )
    head = ("family", "paper", "layers", "parameters", "reported (test)", "reached here (test)")
    return table(head, rows)


def rounded(count: int) -> str:
    """`182M`, `14K`."""
    return f"{count / 1e6:.0f}M" if count >= 1e6 else f"{count / 1e3:.0f}K"


def reached(family: str) -> str:
    """What the trained weights of a family that ship with the package reach."""
    figures = []
    for packed in zoo.weights():
        recipe = zoo.recipe(packed.model)
        if recipe.family == family:
            metric = metric_of(recipe.reported.metric)
            value = metric.cell(packed.figures["test"][metric.key])
            figures.append(f"{value}, `{recipe.data.name}`")
    return "; ".join(figures)


def link(recipe: Recipe) -> str:
    """A model's name, which leads to its section."""
    return f"[`{recipe.name}`](#{recipe.name})"


def sources() -> str:
    """Task, data and source of every model's figure."""
    return table(
        ("model", "task", "data", "parameters", "size in the paper", "reported (test)", "source"),
        (
            (
                link(r),
                r.task.replace("_", " "),
                f"`{r.data.name}`",
                f"{r.parameters:,}",
                r.reported.size or "none",
                reported(r),
                r.reported.source or "none",
            )
            for r in recipes()
        ),
    )


def training() -> str:
    """How every model is trained."""
    rows = []
    for r in recipes():
        window = "none" if r.data.length is None else str(r.data.length)
        if r.data.history:
            window += f" + {r.data.history}"
        clip = r.optimizer.global_clipnorm
        rows.append(
            (
                link(r),
                str(r.data.batch_size),
                window,
                f"{r.optimizer.name} {r.optimizer.learning_rate:g}",
                "none" if clip is None else f"{clip:g}",
                f"{r.optimizer.l2:g}",
                r.schedule.name,
                str(r.epochs),
            )
        )
    head = ("model", "batch", "window", "optimizer", "clip", "L2", "schedule", "epochs")
    return table(head, rows)


def details() -> str:
    """A section for every model: summary, paper, settings, variants, notes."""
    sections = []
    for r in recipes():
        lines = [f"### `{r.name}`", "", sentence(r.summary), "", f"Paper: {sentence(r.paper)}"]
        source = r.reported.source
        if r.reported.value is not None and r.reported.validation is not None:
            source = f"{r.reported.validation:.2f} on the validation split, {source}"
        lines += ["", f"Figure: {reported(r)}, {sentence(source)}"]
        settings = ", ".join(f"`{key}={value!r}`" for key, value in r.model.items())
        lines += ["", f"Settings: {settings}."]
        for name, changes in r.variants.items():
            made = ", ".join(f"`{key}={value!r}`" for key, value in changes.items())
            lines += ["", f"Variant `{name}`: {made}."]
        if r.notes:
            lines += ["", sentence(r.notes)]
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def shipped() -> str:
    """The trained weights that ship with the package, from their manifests."""
    rows = []
    for packed in zoo.weights():
        facts, test = packed.manifest, packed.figures["test"]
        figures = ", ".join(f"{test[m.key]:.3f} {m.unit}" for m in FIGURES if m.key in test)
        size = sum(file.stat().st_size for file in packed.folder.iterdir())
        rows.append(
            (
                f"`{packed.model}`",
                f"`{packed.name}`",
                f"{facts['parameters']:,}",
                f"{size / 1e6:.2f} MB",
                figures,
                f"`{facts['command']}`",
                f"{facts['seconds']:.0f} s",
            )
        )
    head = ("model", "weights", "parameters", "size", "test", "trained with", "in")
    return table(head, rows)


def sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith(".") else text + "."


PARTS: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"families": families},
    MODELS: {"models": sources, "training": training, "details": details},
    PRETRAINED: {"shipped": shipped},
}


def updated(page: Path) -> str:
    """A page's text with its tables made anew."""
    text = page.read_text()
    for name, make in PARTS[page].items():
        start, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if start not in text or end not in text:
            raise ValueError(f"{page.name} must hold the markers {start} and {end}.")
        before, rest = text.split(start, 1)
        text = f"{before}{start}\n{make()}\n{end}{rest.split(end, 1)[1]}"
    return text


def stale() -> list[Path]:
    """The pages whose tables are not those of the recipes."""
    return [page for page in PARTS if page.read_text() != updated(page)]


def main() -> int:
    if "--check" in sys.argv[1:]:
        pages = stale()
        for page in pages:
            print(f"{page.relative_to(ROOT)} is out of date: run python docs/make_tables.py")
        return 1 if pages else 0
    for page in PARTS:
        page.write_text(updated(page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
