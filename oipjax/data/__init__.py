"""Images to train with and to look at."""

from oipjax.data.image_file import read_image
from oipjax.data.mnist import Dataset, Split

__all__ = ["Dataset", "Split", "read_image"]
