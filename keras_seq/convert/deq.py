"""Deep equilibrium models: names and layouts of the original release."""

from keras_seq.convert.mappings import (
    ANY_PREFIX,
    CHANNEL_GAIN,
    CONVOLUTION,
    Slot,
    Unused,
    mapping,
    slots,
)
from keras_seq.layers import DeepEquilibrium, DEQTrellisCell


@mapping(DEQTrellisCell)
def trellis_cell_slots(cell: DEQTrellisCell, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """`func.full_conv` (hidden) and `inject_conv` (input), each a weight and a bias."""
    found: list[Slot | Unused] = []
    for module, kernel, bias, gain in (
        (r"func\.full_conv", cell.kernel_hidden, cell.bias_hidden, cell.gain_hidden),
        (r"inject_conv", cell.kernel_input, cell.bias_input, cell.gain_input),
    ):
        direction = "" if gain is None else "_v"
        found.append(Slot(kernel, (rf"{prefix}{module}\.weight{direction}",), CONVOLUTION))
        found.append(Slot(bias, (rf"{prefix}{module}\.bias",)))
        if gain is not None:
            found.append(Slot(gain, (rf"{prefix}{module}\.weight_g",), CHANNEL_GAIN))
    return found


@mapping(DeepEquilibrium)
def equilibrium_slots(layer: DeepEquilibrium, prefix: str = ANY_PREFIX) -> list[Slot | Unused]:
    """Those of the cell."""
    return slots(layer.cell, prefix)
