"""Images with their labels, in two splits."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images and their labels.

    Attributes:
        images: ``uint8 [n, h, w, c]``.
        labels: ``uint8 [n]``, or ``int32 [n]`` where there are more than 256 classes.
    """

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set with its test split.

    Attributes:
        name: for people.
        train, test: the two splits.
        classes: names of the labels; none if the images have no labels (then all labels are 0).
        skipped: files that could not be read, with the reason.
        names: of the files of the train and of the test images, or ``image 7`` where there are
            none; empty for MNIST.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
