"""The site: `sphinx-build -W docs site`. Its pages are the Markdown files of this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import keras_seq

project = "keras_seq"
author = "The keras_seq authors"
version = release = keras_seq.__version__
html_title = f"keras_seq {version}"

# What stands in the navigation, by group. A page that is in none fails the build.
navigation = {
    "Start": ["install", "my_own_text", "my_keras_model", "trellisnet_in_80_lines"],
    "Models": ["models", "sequence_models", "pretrained", "results"],
    "Layers": [
        "layers/trellisnet",
        "layers/pru",
        "layers/r_transformer",
        "layers/deep_equilibrium",
        "deq_gradients",
        "deq_convergence",
        "layers/deq_transformer",
        "layers/baselines",
        "layers/dropouts",
        "layers/heads",
    ],
    "Train": ["training", "pipelines", "optimizers", "tuning", "tensorboard", "scaling"],
    "Use": ["command_line", "generation", "analysis", "serving"],
    "From the papers' code": ["convert", "from_keras_tcn", "parity"],
    "Extend": ["design", "add_a_model_family"],
    "Reference": [
        "reference/layers",
        "reference/models",
        "reference/zoo",
        "reference/pipelines",
        "reference/training",
        "reference/tuning",
        "reference/generation",
        "reference/export",
        "reference/analysis",
        "reference/convert",
        "reference/solvers",
        "reference/gradients",
        "reference/optimizers",
        "reference/losses",
        "reference/metrics",
    ],
}

extensions = ["myst_parser", "site_parts"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["dollarmath", "alert"]
myst_fence_as_directive = ["math"]  # as a code host reads such blocks, too
myst_heading_anchors = 4
html_math_renderer = "mathml"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
add_module_names = False
highlight_language = "none"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_js_files = ["copy.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
