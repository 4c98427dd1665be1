"""The state of a long computation in one file, so that it goes on after an interruption and ends in the same bits."""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from oipjax.storage.parts import load_npz, npz, write_file
from oipjax.storage.provenance import refuse_other


class StateFile:
    """A pytree of arrays and some JSON, kept together with the plan that they belong to.

    Args:
        file: is written atomically; its folder is made if need be.
        plan: all that the state depends on, as plain JSON; a state of another plan is never read.
        overwrite: a state of another plan counts as none.
    """

    def __init__(self, file: Path, plan: dict[str, Any], *, overwrite: bool = False):
        self.file, self.plan, self.overwrite = file, json.loads(json.dumps(plan)), overwrite

    def read(self, like: Any) -> tuple[Any, Any] | None:
        """The tree, in the structure of ``like``, and the JSON; None if there is none, or it is damaged.

        Raises:
            ValueError: the state is of another plan; the message shows the differences.
        """
        arrays = {}
        # What cannot be read is not there: it is computed again.
        with contextlib.suppress(ValueError):
            arrays = load_npz(self.file)
        if not arrays:
            return None
        there, facts = (json.loads(str(arrays.pop(name))) for name in ("plan", "facts"))
        if there != self.plan:
            if self.overwrite:
                return None
            refuse_other(self.file.parent, there, self.plan)
        structure = jax.tree.structure(like)
        return jax.tree.unflatten(
            structure, [arrays[_name(number)] for number in range(structure.num_leaves)]
        ), facts

    def write(self, tree: Any, facts: Any) -> None:
        """Replace the state."""
        arrays = {
            _name(number): np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(tree))
        }
        texts = {"plan": np.array(json.dumps(self.plan)), "facts": np.array(json.dumps(facts))}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.file, npz({**arrays, **texts}))


def _name(number: int) -> str:
    return f"leaf{number:05d}"
