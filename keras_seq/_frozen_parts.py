"""Frozen layers and parts: the flag `trainable` goes down to all parts, and configurations keep it.

Keras hands the flag down when it is set, but not to parts that are made later, and the parts that
a layer makes itself are not in its configuration.
"""

from typing import Any

import keras


class FrozenParts:
    """Mixin of layers and models; it stands before the class of Keras.

    What is frozen when a layer has been built is frozen with all that is in it. Parts that are
    frozen while the layer is not are named in the configuration, under `frozen`, by their paths:
    `["block_1", "block_2/norm"]`. A layer without such parts has no such key.

    Attributes:
        given_parts: the attributes that hold parts given to the constructor. They are in the
            configuration as they are, flags included.
    """

    given_parts: tuple[str, ...] = ()
    _frozen_later: tuple[str, ...] = ()

    def _post_build(self):
        super()._post_build()  # type: ignore[misc]
        if self._frozen_later:
            self.freeze(self._frozen_later)
        if self._frozen_later:
            raise ValueError(
                "`frozen` must name parts of the layer. Received: "
                f"frozen={list(self._frozen_later)} for a {type(self).__name__}. Take "
                "the others out of the configuration."
            )
        _hand_down(self)

    def freeze(self, paths) -> None:
        """Freezes parts by their paths, those that are not yet made as soon as they are."""
        self._frozen_later = tuple(path for path in paths if not _freeze(self, path))

    def given_layers(self) -> list:
        """The parts that the configuration holds as they are."""
        given = [getattr(self, name) for name in self.given_parts]
        return [part for part in keras.tree.flatten(given) if part is not None]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.frozen_config()}  # type: ignore[misc]

    def frozen_config(self) -> dict[str, list[str]]:
        """What the configuration says of frozen parts."""
        frozen = [*_frozen(self), *self._frozen_later]
        return {"frozen": frozen} if frozen else {}

    @classmethod
    def from_config(cls, config, *args, **kwargs):
        config = dict(config)
        frozen = config.pop("frozen", ())
        layer = super().from_config(config, *args, **kwargs)  # type: ignore[misc]
        if frozen:
            layer.freeze(frozen)
        return layer


def _hand_down(layer) -> None:
    """Freezes all parts of frozen layers; Keras does nothing where a flag is set already."""
    for part in layer._flatten_layers(include_self=False, recursive=False):
        if not layer.trainable:
            part.trainable = False
        _hand_down(part)


def _parts(layer) -> list[tuple[Any, bool]]:
    """The layers right within a layer whose configuration does not say all of what is frozen.

    These are those that it made itself and layers of Keras that it was given. For each also whether
    the latter is so: such a layer says whether it is frozen itself, but not what is in it.
    """
    given = layer.given_layers() if isinstance(layer, FrozenParts) else []
    parts = []
    for part in layer._flatten_layers(include_self=False, recursive=False):
        is_given = any(part is other for other in given)
        if not (is_given and isinstance(part, FrozenParts)):
            parts.append((part, is_given))
    return parts


def _frozen(layer) -> list[str]:
    """Paths of the frozen parts of a layer; none within those, and none where it is frozen."""
    found = []
    for part, is_given in _parts(layer) if layer.trainable else ():
        found += [f"{part.name}/{path}" for path in _frozen(part)]
        if not part.trainable and not is_given:
            found.append(part.name)
    return found


def _freeze(layer, path: str) -> bool:
    """Freezes the part of a layer with this path; whether there is one."""
    name, _, inner = path.partition("/")
    for part, _ in _parts(layer):
        if part.name == name:
            if inner:
                return _freeze(part, inner)
            part.trainable = False
            return True
    return False
