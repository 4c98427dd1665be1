"""Libraries of the extra ``experiments``, imported when they are used."""

import importlib
from typing import Any


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn, e.g. ``metrics``.

    Raises:
        ValueError: scikit-learn is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise ValueError("this needs scikit-learn: pip install 'oipjax[experiments]'") from None
