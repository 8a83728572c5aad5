"""Fixed-point solvers: they know nothing of layers or gradients."""

from keras_seq.solvers.anderson import Anderson as Anderson
from keras_seq.solvers.broyden import Broyden as Broyden
from keras_seq.solvers.driver import solve as solve
from keras_seq.solvers.fixed_point import FixedPoint as FixedPoint
from keras_seq.solvers.registry import get as get
from keras_seq.solvers.solution import Solution as Solution
from keras_seq.solvers.solution import Status as Status
from keras_seq.solvers.solver import Solver as Solver

__all__ = ["Anderson", "Broyden", "FixedPoint", "Solution", "Solver", "Status", "get", "solve"]
