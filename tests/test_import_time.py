"""`import keras_seq` costs about what `import keras` costs."""

import os
import subprocess
import sys

SLOW_OR_OPTIONAL = (
    "IPython",
    "keras_tuner",
    "matplotlib",
    "pandas",
    "scipy",
    "tensorboard",
    "tensorflow_datasets",
    "tensorflow_text",
    "typer",
)
LAZY = ("cli", "convert", "export", "generation", "pipelines", "training", "tuning", "zoo")


def run(code: str, tmp_path) -> str:
    """Runs code in a fresh process outside the checkout and returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_what_the_import_loads(tmp_path):
    code = (
        "import sys, keras; before = set(sys.modules); import keras_seq;"
        "print('\\n'.join(sorted(set(sys.modules) - before)))"
    )
    loaded = run(code, tmp_path).split()
    ours = {name for name in loaded if name.startswith("keras_seq.")}
    assert "keras_seq.layers" in ours
    for part in LAZY:
        assert not any(name.startswith(f"keras_seq.{part}") for name in ours), f"{part} is loaded"
    others = {name.split(".")[0] for name in loaded}
    assert not others & set(SLOW_OR_OPTIONAL)


def test_import_time(tmp_path):
    """CPU time of Keras, then of the rest; the smallest of each counts. More while in doubt."""
    code = (
        "import time, keras; before = time.process_time();"
        "import keras_seq; print(before, time.process_time() - before)"
    )
    runs, ratio = [], float("inf")
    while len(runs) < 6 and (len(runs) < 2 or ratio > 1.10):
        runs.append([float(part) for part in run(code, tmp_path).split()])
        of_keras, ours = (min(times) for times in zip(*runs, strict=True))
        ratio = 1 + ours / of_keras
    assert ratio <= 1.10, f"import keras_seq costs {ratio:.2f} times import keras: {runs}"


def test_the_zoo_is_reached_from_the_package_alone(tmp_path):
    code = (
        "import sys, keras_seq;"
        "loaded = 'keras_seq.zoo' in sys.modules;"
        "model = keras_seq.zoo.trellisnet_python_docs();"
        "print(loaded, type(model).__name__)"
    )
    assert run(code, tmp_path).split()[-2:] == ["False", "LanguageModel"]
