"""What a search has found: read from its folder, as a table, a picture and the best recipe."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from keras_seq import _files
from keras_seq._reading import read_object, reading
from keras_seq.training.run import Run
from keras_seq.training.run_folder import SEARCH
from keras_seq.tuning.objectives import Objective, objective
from keras_seq.tuning.parameters import Parameter
from keras_seq.tuning.picture import draw_trials
from keras_seq.tuning.space import from_json
from keras_seq.zoo import Recipe

RESTORE = "Restore it from a copy of the search."
FIGURES = ("trial", "status", "value", "best_epoch", "epochs", "parameters", "seconds", "reason")
STATUS = {"COMPLETED": "completed", "RUNNING": "running"}


@dataclass(frozen=True)
class Results:
    """The trials of a search, the best one first, those that failed last.

    `load_results` reads them; `search` returns them.

    Attributes:
        folder: the search folder.
        objective: what was made small or large.
        rows: one dict a trial: `trial`, `status` (`completed`, `failed` or `running`), `value` of
            the objective, `best_epoch`, `epochs`, `parameters`, `seconds`, `reason` of a failure,
            `values` of the parameters, `metrics` of the best epoch.
    """

    folder: Path
    objective: Objective
    rows: Sequence[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best trial; `None` if none has been completed."""
        first = self.rows[0] if self.rows else None
        return first if first is not None and first["status"] == "completed" else None

    @property
    def best_recipe(self) -> Recipe | None:
        """The recipe of the best trial, with the epochs of the whole search."""
        best = self.best
        if best is None:
            return None
        recipe = Run(self.folder / f"trial_{best['trial']}" / "run").recipe
        note = (
            f"Found by a search over {recipe.name}: trial {best['trial']} of {len(self.rows)}, "
            f"{self.objective.name} {best['value']:.5g} in epoch {best['best_epoch']}."
        )
        parameters = best["parameters"] or recipe.parameters
        return recipe.replace(notes=note, parameters=parameters, variants={})

    def count(self, status: str) -> int:
        """The number of trials of a status."""
        return sum(row["status"] == status for row in self.rows)

    def names(self) -> list[str]:
        """Names of the parameters that differ between trials."""
        names = dict.fromkeys(name for row in self.rows for name in row["values"])
        return [name for name in names if len({str(r["values"].get(name)) for r in self.rows}) > 1]

    def table(self, number: int = 10) -> Table:
        """The best trials as a `rich` table, a line for each parameter."""
        shown = self.rows[:number]
        table = Table(title=f"{self.folder}: {self.objective.name}", title_justify="left")
        table.add_column("trial", no_wrap=True)
        for row in shown:
            table.add_column(str(row["trial"]), justify="right")
        table.add_row(self.objective.metric, *(_short(row["value"]) for row in shown), style="bold")
        for name in ("status", "best_epoch", "parameters", "seconds"):
            table.add_row(name.replace("_", " "), *(_short(row[name]) for row in shown))
        table.add_section()
        for name in self.names():
            table.add_row(name, *(_short(row["values"].get(name)) for row in shown))
        return table

    def write(self) -> None:
        """Writes `results.json`, `results.csv` and `best_recipe.json`."""
        _files.write_json(
            self.folder / "results.json",
            {
                "objective": self.objective.name,
                "direction": self.objective.direction,
                "trials": list(self.rows),
            },
        )
        text = io.StringIO()
        values = list(dict.fromkeys(name for row in self.rows for name in row["values"]))
        writer = csv.DictWriter(text, [*FIGURES, *values], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: row[name] for name in FIGURES} | row["values"])
        _files.write_text(self.folder / "results.csv", text.getvalue())
        recipe = self.best_recipe
        if recipe is not None:
            _files.write_text(self.folder / "best_recipe.json", recipe.to_json())

    def draw(self) -> bool:
        """Draws `results.png`.

        Returns:
            Whether there is a picture: it needs matplotlib, and two completed trials.
        """
        completed = [row for row in self.rows if row["status"] == "completed"]
        return draw_trials(self.folder / "results.png", completed, self.names(), self.objective)


def load_results(folder: str | Path) -> Results:
    """Reads the trials of a search from its folder, also while it is running.

    Args:
        folder: the search folder.

    Raises:
        FileNotFoundError: if there is no search in it.
    """
    folder = Path(folder)
    search = read_search(folder)
    goal, space = objective(search["objective"]), from_json(search["space"])
    rows = []
    for file in sorted(folder.glob("trial_*/trial.json")):
        with reading(file, "a trial", RESTORE):
            rows.append(_row(file, space))

    def rank(row):
        value = row["value"]
        return (
            ("completed", "running", "failed").index(row["status"]),
            goal.order(value) if row["status"] == "completed" else 0.0,
        )

    return Results(folder, goal, sorted(rows, key=rank))


def read_search(folder: Path) -> dict[str, Any]:
    """What a search folder says of the search.

    Raises:
        FileNotFoundError: if there is no search in it.
    """
    file = folder / SEARCH
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no search here, it has no {SEARCH}.")
    search = read_object(file, "a search", RESTORE)
    with reading(file, "a search", RESTORE):  # those that are needed to read the rest
        Recipe.from_json(json.dumps(search["recipe"]))
        from_json(search["space"])
        str.strip(search["objective"])
    return search


def _row(file: Path, space: dict[str, Parameter]) -> dict[str, Any]:
    trial = read_object(file, "a trial", RESTORE)
    found = file.with_name("result.json")
    result = read_object(found, "the result of a trial", RESTORE) if found.exists() else {}
    status = STATUS.get(trial["status"], "failed")
    if status == "completed" and result.get("value") is None:
        result["value"] = trial["score"]
    values = trial["hyperparameters"]["values"]
    return {
        "trial": trial["trial_id"],
        "status": status,
        **{name: result.get(name) for name in FIGURES[2:]},
        "values": {n: space[n].tidy(v) for n, v in values.items() if n in space},
        "metrics": result.get("metrics", {}),
    }


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
