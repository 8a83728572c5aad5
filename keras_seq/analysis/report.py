"""`analyze`: all numbers and pictures of one language model."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _files
from keras_seq.analysis import embeddings, entropy, pictures
from keras_seq.analysis.saliency import gradient_coverage, passages, saliency
from keras_seq.models import LanguageModel
from keras_seq.pipelines import Data, Vocabulary
from keras_seq.training.adapted import check_language_model
from keras_seq.training.evaluation import open_split
from keras_seq.training.opening import OpenedModel, Source

PASSAGES = 20  # of the held-out text, over which the coverage is a mean
LENGTH = {"word": 30, "character": 50}  # tokens of a passage


def analyze(
    source: Source,
    data_dir: str | Path | None = None,
    split: str = "test",
    *,
    weights: str | Path | None = None,
    text: str | None = None,
    tags: str | Path | None = None,
    to: str | Path | None = None,
    fraction: float = 0.1,
    draw: bool = True,
    data: Data | None = None,
) -> dict[str, Any]:
    """Looks into a language model: Mehta et al. (2018), section 4.3.

    Writes `analysis.json` and, with `draw`, the pictures `entropy.png`, `saliency.png` and
    `embeddings.png`, which are logged as TensorBoard images as well: of a run in its own log
    folder, else in `logs` below the folder.

    Args:
        source: a run, a recipe, a name or a file, see `training.open_model`.
        data_dir: folder of the raw files; a run remembers its own.
        split: `"test"` or `"validation"`.
        weights: see `training.open_model`.
        text: the passage of the saliency map; by default the first of the split.
        tags: file of lines `word<TAB>tag`, to group the embeddings by.
        to: folder to write; by default `analysis` in the run's folder, else `analysis/MODEL`.
        fraction: share of the largest saliency above which a word counts as covered.
        draw: whether to draw pictures, which needs matplotlib.
        data: the data, if it is loaded already.

    Returns:
        The numbers, as they are in `analysis.json`.

    Raises:
        ValueError: if it is no language model, or its text or the tags do not fit.
        RuntimeError: with `draw`, without matplotlib.

    Example:

    ```python
    numbers = keras_seq.analysis.analyze("pru_python_docs", weights="python_docs")
    print(numbers["entropy"]["mean"], numbers["coverage"]["passages"])
    ```
    """
    if draw and not pictures.available():
        raise RuntimeError(pictures.MISSING)
    tagged = None if tags is None else embeddings.read_tags(tags)
    opened, data = open_split(source, data_dir, split, weights=weights, data=data)
    model = check_language_model(opened, "The analysis")
    folder = _folder(opened, to)
    numbers: dict[str, Any] = {
        "model": opened.recipe.name,
        "data": data.name,
        "split": split,
        "weights": opened.origin,
        "entropy": _entropy_numbers(model, data, split),
        **_saliency_numbers(model, data, split, text, fraction),
        "embeddings": _embedding_numbers(model, data, tagged),
        "files": [str(folder / "analysis.json")],
        "logs": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if draw:
        drawn = pictures.draw(numbers)
        for name, png in drawn.items():
            pictures.write(folder / f"{name}.png", png)
            numbers["files"].append(str(folder / f"{name}.png"))
        logs = (folder / "logs" if opened.run is None else opened.run.logs_folder) / "analysis"
        pictures.log_images(logs, drawn)
        numbers["logs"] = str(logs)
    _files.write_json(folder / "analysis.json", numbers)
    return numbers


def _folder(opened: OpenedModel, to: str | Path | None) -> Path:
    if to is not None:
        return Path(to)
    return (
        Path("analysis") / opened.recipe.name
        if opened.run is None
        else (opened.run.folder / "analysis")
    )


def _entropy_numbers(model: LanguageModel, data: Data, split: str) -> dict[str, Any]:
    found = entropy.predict_entropies(model, data.split(split))
    histogram = entropy.entropy_histogram(found.entropies, model.vocabulary_size)
    return {"loss": float(np.mean(found.losses, dtype=np.float64)), **histogram}


def _saliency_numbers(
    model: LanguageModel, data: Data, split: str, text: str | None, fraction: float
) -> dict[str, Any]:
    """`saliency` of the passage, and `coverage` of it and of passages of the split."""
    vocabulary = data.vocabulary
    length = LENGTH["word" if vocabulary is None else vocabulary.level]
    held_out = list(passages(data.split(split), PASSAGES, length))
    if text is not None:
        ids = _encode(vocabulary, text)
    elif held_out:
        ids = held_out[0]
    else:
        raise ValueError(f"The {split} split has no passage of two tokens. Give the text.")
    found = saliency(model, ids)
    shares = [gradient_coverage(saliency(model, p).norms, fraction) for p in held_out]
    rows = zip(found.top_ids, found.top_probabilities, strict=True)
    return {
        "saliency": {
            "tokens": _names(vocabulary, ids),
            "predictions": [
                {
                    "top": [
                        [name, float(share)]
                        for name, share in zip(_names(vocabulary, words), values, strict=True)
                    ]
                }
                for words, values in rows
            ],
            "norms": found.norms.tolist(),
        },
        "coverage": {
            "fraction": fraction,
            "shown": gradient_coverage(found.norms, fraction),
            "passages": float(np.mean(shares)) if shares else None,
            "passages_read": len(shares),
            "passage_length": length,
        },
    }


def _embedding_numbers(
    model: LanguageModel, data: Data, tagged: dict[str, list[bytes]] | None
) -> dict[str, Any]:
    vectors = embeddings.word_vectors(model)
    if data.train is None:
        raise ValueError(
            "The frequency of words comes from the training text. "
            f"Received: {data.name} without a training split. Give its files."
        )
    counts = embeddings.count_tokens(data.epoch(0), model.vocabulary_size, model.history_steps)
    numbers: dict[str, Any] = {
        "variance": embeddings.variance(vectors),
        "bands": embeddings.variance_by_band(vectors, counts),
        "tags": None,
    }
    if tagged is not None:
        if data.vocabulary is None:
            raise ValueError(f"Tags need a vocabulary. Received: {data.name} without one.")
        numbers["tags"] = embeddings.variance_by_tag(vectors, data.vocabulary, tagged)
    return numbers


def _encode(vocabulary: Vocabulary | None, text: str) -> np.ndarray:
    if vocabulary is None:
        raise ValueError("A text needs a vocabulary, and these data have none. Leave it out.")
    ids = np.asarray(vocabulary.encode(text))
    if not ids.size:
        raise ValueError(f"The text must hold one token or more. Received: {text!r}.")
    return ids


def _names(vocabulary: Vocabulary | None, ids) -> list[str]:
    if vocabulary is None:
        return [str(int(number)) for number in ids]
    tokens = vocabulary.tokens
    return [
        tokens[number].decode("utf-8", "replace") if number < len(tokens) else f"#{number}"
        for number in map(int, ids)
    ]
