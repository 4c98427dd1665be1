"""Single pictures, as a person names them on the command line."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from oipjax.images import to_unit

ENDINGS = (".png", ".jpg", ".jpeg", ".npy")


def read_image(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """One picture as pixels in [0, 1], ``float32 [h, w, c]``.

    Nothing is resized, cropped or turned grey in silence.

    Args:
        file: a png or jpg; or a npy file with bytes, or floats in [0, 1], of ``[h, w]`` or ``[h, w,
            c]``.
        shape: what the network takes, ``(h, w, c)``.

    Raises:
        ValueError: there is no such file, it is no picture, or not one of this shape.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    if file.suffix.lower() not in ENDINGS:
        raise ValueError(f"{file}: expected a picture, one of png, jpg and npy")
    pixels = _read_array(file) if file.suffix.lower() == ".npy" else _read_picture(file)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise ValueError(
            f"{file}: expected one picture [h, w] or [h, w, c], got {list(pixels.shape)}"
        )
    if shape[2] == 1 and pixels.shape[2] == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(f"{file}: is in colour, the network takes grey pictures")
        pixels = pixels[..., :1]
    if pixels.shape != shape:
        given = " x ".join(map(str, pixels.shape))
        expected = " x ".join(map(str, shape))
        raise ValueError(
            f"{file}: is {given}, the network takes {expected} (height, width, channels); "
            "resize it first"
        )
    return pixels


def _read_array(file: Path) -> np.ndarray:
    """Pixels in [0, 1] of a npy file, float32."""
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read as an array ({type(error).__name__})") from None
    if array.dtype == np.uint8:
        return to_unit(array)
    if array.dtype.kind != "f":
        raise ValueError(f"{file}: expected bytes, or floats between 0 and 1, got {array.dtype}")
    if not (array.size and array.min() >= 0 and array.max() <= 1):
        given = f"{array.min():g} to {array.max():g}" if array.size else "none"
        raise ValueError(f"{file}: expected bytes, or floats between 0 and 1, got {given}")
    return to_unit(array)


def _read_picture(file: Path) -> np.ndarray:
    """Pixels in [0, 1] of a picture, float32."""
    try:
        with Image.open(file) as image:
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as a picture ({type(error).__name__})") from None
    if image.mode.startswith("I"):  # grey in 16 bits
        return (np.asarray(image, np.float64) / 65535).astype(np.float32)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            raise ValueError(f"{file}: is partly transparent; put it onto a background first")
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return to_unit(np.asarray(image))
