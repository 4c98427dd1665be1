"""The state of a long computation in one file.

An interrupted computation goes on from it, and ends in the same bits.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from oipjax.storage.files import load_npz, npz, write_file
from oipjax.storage.provenance import differences, refuse_other


class StateFile:
    """A pytree of arrays and some JSON, kept together with the plan that they belong to.

    Args:
        file: is written atomically; its folder is made if need be.
        plan: all that the state depends on, as plain JSON; a state of another plan is never read.
        overwrite: a state of another plan counts as none.
    """

    def __init__(self, file: Path, plan: dict[str, Any], *, overwrite: bool = False):
        self.file = file
        self.plan = json.loads(json.dumps(plan))
        self.overwrite = overwrite

    def read(self, like: Any) -> tuple[Any, Any] | None:
        """The tree, in the structure of ``like``, and the JSON.

        None if there is no state, or it is damaged.

        Raises:
            ValueError: the state is of another plan; the message shows the differences.
        """
        arrays = {}
        # A file that cannot be read is absent: its content is computed again.
        with contextlib.suppress(ValueError):
            arrays = load_npz(self.file)
        if not arrays:
            return None
        plan = json.loads(str(arrays.pop("plan")))
        facts = json.loads(str(arrays.pop("facts")))
        if differences(plan, self.plan):
            if self.overwrite:
                return None
            refuse_other(self.file.parent, plan, self.plan)
        structure = jax.tree.structure(like)
        leaves = [arrays[_name(number)] for number in range(structure.num_leaves)]
        return jax.tree.unflatten(structure, leaves), facts

    def write(self, tree: Any, facts: Any) -> None:
        """Replace the state."""
        arrays = {}
        for number, leaf in enumerate(jax.tree.leaves(tree)):
            arrays[_name(number)] = np.asarray(leaf)
        arrays["plan"] = np.array(json.dumps(self.plan))
        arrays["facts"] = np.array(json.dumps(facts))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.file, npz(arrays))


def _name(number: int) -> str:
    return f"leaf{number:05d}"
