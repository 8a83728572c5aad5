"""What the spaces of several families have in common."""

from keras_seq.tuning.parameters import Choice, Float, Int, Space
from keras_seq.tuning.spaces.ranges import on_or_off, one_of, rate, scaled, width
from keras_seq.tuning.spaces.settings import Settings


def regularized(settings: Settings) -> Space:
    """Activation regularisation, as AWD-LSTM has it."""
    found: Space = {}
    for name in ("activation_regularization", "temporal_activation_regularization"):
        value = float(settings[name] or 0.0)
        found[f"model.{name}"] = Float(0.0, max(3.0, value), default=value)
    return found


def tied_width(settings: Settings) -> Space:
    """The width of an embedding to which the softmax is tied, and so of the last level."""
    if not settings.tied:
        return {}
    return {"model.embedding_dim": width(settings["embedding_dim"], also=("model.output_units",))}


def attention(settings: Settings) -> Space:
    """Width and heads, such that any of the one goes with any of the others."""
    heads = settings["heads"]
    counts = one_of(heads, tuple(n for n in (heads // 2, heads, heads * 2) if n))
    units = width(settings["units"], max(counts.values))
    if any(size % count for size in units.values for count in counts.values):
        counts = Choice((heads,))
        units = scaled(settings["units"], multiple=heads)
    return {"model.units": units, "model.heads": counts}


def equilibrium(settings: Settings) -> Space:
    """Solver, gradient and Jacobian regularisation of a deep equilibrium."""
    phantom, regular = {"model.gradient": ("phantom",)}, {"switch.jacobian": (True,)}
    tolerance, weight = settings["tolerance"], settings["jacobian_weight"]
    frequency = min(1.0, settings["jacobian_frequency"])
    return {
        "model.gradient": one_of(settings["gradient"], ("implicit", "one_step", "phantom")),
        "model.phantom_steps": Int(2, 8, default=settings["phantom_steps"], when=phantom),
        "model.max_steps": scaled(settings["max_steps"], (0.5, 0.75, 1.0, 1.5)),
        "model.tolerance": Float(min(1e-4, tolerance), 1e-1, sampling="log", default=tolerance),
        "switch.jacobian": on_or_off(weight > 0, sets={"False": {"model.jacobian_weight": 0.0}}),
        "model.jacobian_weight": Float(
            0.1, max(4.0, weight), sampling="log", default=weight or 1.0, when=regular
        ),
        "model.jacobian_frequency": Float(0.05, 1.0, default=frequency, when=regular),
        "model.hidden_dropout": rate(settings["hidden_dropout"]),
        "model.input_dropout": rate(settings["input_dropout"]),
        "model.output_dropout": rate(settings["output_dropout"]),
    }
