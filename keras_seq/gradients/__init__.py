"""Gradients of equilibria, and measures of their Jacobians."""

from keras_seq.gradients._backend import if_drawn as if_drawn
from keras_seq.gradients.guard import GuardedCell as GuardedCell
from keras_seq.gradients.guard import advance_state as advance_state
from keras_seq.gradients.implicit import attach_implicit_gradient as attach_implicit_gradient
from keras_seq.gradients.implicit import find_equilibrium as find_equilibrium
from keras_seq.gradients.jacobian import draw_vectors as draw_vectors
from keras_seq.gradients.jacobian import jacobian_loss as jacobian_loss
from keras_seq.gradients.jacobian import spectral_radius as spectral_radius
from keras_seq.gradients.once import once as once
from keras_seq.gradients.phantom import phantom_steps as phantom_steps
from keras_seq.gradients.phantom import unrolled_steps as unrolled_steps
from keras_seq.gradients.released import graphs_released as graphs_released

__all__ = [
    "GuardedCell",
    "advance_state",
    "attach_implicit_gradient",
    "draw_vectors",
    "find_equilibrium",
    "graphs_released",
    "if_drawn",
    "jacobian_loss",
    "once",
    "phantom_steps",
    "spectral_radius",
    "unrolled_steps",
]
