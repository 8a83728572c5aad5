"""What every fixed-point solver is: an initial state and a rule for one step."""

from typing import Any

from keras_seq._export import export


@export("keras_seq.solvers.Solver")
class Solver:
    """The rule of one step towards a fixed point z = f(z).

    A solver knows nothing of tolerances, limits or layers: `keras_seq.solvers.solve` runs it. It
    works on vectors (b, n), one for each sample of the batch, and treats every sample for itself.

    To write one, derive from this class, implement `init` and `propose`, and decorate it with
    `keras.saving.register_keras_serializable` so that layers that use it can be saved.
    """

    def init(self, z, max_steps: int) -> tuple:
        """The state before the first step: a tuple of tensors whose shapes stay as they are.

        Args:
            z: the initial guess, (b, n).
            max_steps: the most steps that the driver will ask for.
        """
        del z, max_steps
        return ()

    def propose(self, z, g, state: tuple, step) -> tuple[Any, tuple]:
        """The next iterate, from the current one and its residual.

        Args:
            z: the current iterate, (b, n).
            g: f(z) - z, (b, n).
            state: from `init` or the step before.
            step: number of steps taken before, a scalar integer tensor.

        Returns:
            The next iterate, (b, n), and the next state.
        """
        raise NotImplementedError

    def advance(self, evaluate, z, g, state: tuple, step):
        """One step: proposes an iterate and evaluates it there, once.

        Args:
            evaluate: a function from an iterate to its residual f(z) - z.
            z: the current iterate, (b, n).
            g: its residual, (b, n).
            state: from `init` or the step before.
            step: number of steps taken before.

        Returns:
            The next iterate, its residual, the next state and the number of evaluations.
        """
        z, state = self.propose(z, g, state, step)
        return z, evaluate(z), state, 1

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Solver":
        return cls(**config)
