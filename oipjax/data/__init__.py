"""Images to train with and to look at."""

from oipjax.data import folder, mnist
from oipjax.data.dataset import Dataset, Split
from oipjax.data.image_file import read_image

__all__ = ["Dataset", "Split", "folder", "mnist", "read_image"]
