"""Why do random latent vectors fail, and which ones give good images?

Question: where do the codes of an autoencoder's images lie, and is that region one ellipsoid or
fragments? Which way of drawing vectors gives images that a classifier recognises as well as
reconstructions of real ones?
Expected: vectors with independent components, uniform in a box about the origin, fail even where
their radii are those of the codes: hardly any of them lies in the ellipsoid that holds 99 % of the
fitted normal. Draws from this normal do not fail: the classifier's mean confidence is at least 0.85
of that in reconstructions of real digits, and clearly less for the box. The codes are about normal,
and form one connected body.
Cost: 1 minute with the sample of 1,000 digits; 3 minutes with all of MNIST (if OIPJAX_DATA is set),
or with 10,000 faces.
Command: python -m experiments.latent_space (clothes: --autoencoder FOLDER --source fashion
--classifier FOLDER; your images: --autoencoder FOLDER --data ZIP --crop 0 10 89 99 --name faces
--attributes CSV)
"""

import importlib.util
import os
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from scipy import stats

import oipjax
from experiments.common import command, save, show
from experiments.figures import latent_region
from experiments.figures import latent_space as figures
from experiments.tools import generators, region
from oipjax.analysis import latent
from oipjax.data import Dataset, Split
from oipjax.data import folder as pictures
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder, checkpoint
from oipjax.pytrees import fingerprint
from oipjax.training import autoencoder as autoencoding

RESULTS = Path(__file__).parent / "results"
PICTURES = Path("oipjax-out/latent_space")
"""The folder of figures that show your images: you may not be allowed to publish them."""
HELD_OUT = "held out, given back"
COLUMNS = (
    "vectors",
    "radius",
    "to nearest code",
    "inside 99 %",
    "code moved",
    "again MSE",
    "confidence",
    "relative",
    "class spread",
    "precision",
    "recall",
    "density",
    "coverage",
)
BATCH = 500
"""Images that the judge takes at once."""


@dataclass(frozen=True)
class Config:
    """The autoencoder, its images, the judge, and the ways of drawing vectors.

    Attributes:
        autoencoder: the network; None: one is made in memory and not trained.
        source: the data set, unless ``data`` is given.
        data: your images, as in `pictures.load`. They are brought to the size of the autoencoder
            and cut into training and test images as ``oipjax train`` does.
        crop: of your images, as in `pictures.load`.
        test: share of your images that are test images.
        name: of your images, for the files that are written.
        attributes: a table for your images, as in `pictures.attributes`.
        latent: the number of latent numbers that is expected of the autoencoder.
        classifier: the judge; by default mnist-cnn for digits, and none for other images. Without
            one its columns are empty, and precision, recall, density and coverage are those of the
            encoder's last maps.
        feature: another layer to take precision, recall, density and coverage from.
        boxes: half widths, as multiples of the one whose radii are those of the codes.
        confidences: of the ellipses of pairs.
        draws: vectors of each kind.
        projection: of the codes; auto: t-SNE if scikit-learn is installed.
        seed: of the draws.
    """

    autoencoder: str | None = "mnist-autoencoder"
    source: Literal["mnist", "fashion"] = "mnist"
    data: Path | None = None
    crop: tuple[int, int, int, int] | None = None
    test: float = 0.1
    name: str | None = None
    attributes: Path | None = None
    latent: int | None = None
    classifier: str | None = None
    feature: str | None = None
    boxes: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    confidences: tuple[float, ...] = (0.5, 0.9, 0.99)
    draws: int = 1000
    projection: Literal["auto", "pca", "tsne"] = "auto"
    seed: int = 0


SMOKE = Config(autoencoder=None, boxes=(0.1, 1.0), confidences=(0.9,), draws=40, projection="pca")


def images_of(config: Config, auto: Autoencoder) -> Dataset:
    """Training images, whose codes make the region, and test images."""
    if config.data is not None:
        return your_images(config, config.data, auto)
    if config.crop is not None or config.attributes is not None:
        raise ValueError("--crop and --attributes are for your images: --data FOLDER")
    if config.source == "fashion":
        dataset = data.load(data.FASHION)
    elif os.environ.get(data.ENVIRONMENT):
        dataset = data.load(data.MNIST)
    else:
        dataset = halves_of_the_sample()
    expected = auto.config.input_shape
    given = dataset.test.images.shape[1:]
    if given != expected:
        raise ValueError(
            f"{auto.name} takes images {expected}, those of {dataset.name} are {given}: "
            "take another --autoencoder, or --data"
        )
    return dataset


def your_images(config: Config, place: Path, auto: Autoencoder) -> Dataset:
    """The images of ``--data``, in the size that the autoencoder takes."""
    height, width, channels = auto.config.input_shape
    dataset = pictures.load(
        place,
        crop=config.crop,
        size=(height, width),
        colour=channels == 3,
        test=config.test,
    )
    for line in dataset.skipped:
        print(f"left out: {line}", file=sys.stderr)
    return dataset


def halves_of_the_sample() -> Dataset:
    """The sample of digits: every second one is a test image."""
    images, labels = data.sample()
    return Dataset(
        name="mnist sample",
        train=Split(images[::2], labels[::2]),
        test=Split(images[1::2], labels[1::2]),
        classes=data.MNIST.classes,
    )


def network(config: Config) -> Autoencoder:
    """The autoencoder that is looked at."""
    if config.autoencoder is not None:
        return checkpoint.load_autoencoder(config.autoencoder, latent=config.latent)
    small = AutoencoderConfig(filters=(4,), strides=(4,), latent=4)
    params = autoencoder.init(jax.random.key(config.seed), small)
    return Autoencoder(small, params, name="untrained")


def classifier_of(config: Config, auto: Autoencoder) -> Model | None:
    """The classifier, if there is one."""
    name = config.classifier
    is_digits = config.data is None and config.source == "mnist"
    if name is None and is_digits:
        name = "mnist-cnn"
    if name is None:
        return None
    model = oipjax.load(name)
    made = auto.config.input_shape
    if model.input_shape != made:
        raise ValueError(
            f"--classifier {name} takes images {model.input_shape}, {auto.name} makes {made}"
        )
    return model


def median_length(vectors: np.ndarray) -> float:
    """The median norm of vectors ``[n, d]``."""
    return float(np.median(np.linalg.norm(vectors, axis=1)))


class Study:
    """An autoencoder with its region, a judge of images, and real images to compare with.

    The judge is the classifier or, where there is none, the encoder.
    """

    def __init__(self, config: Config):
        self.config = config
        self.auto = network(config)
        self.images = images_of(config, self.auto)
        self.classifier = classifier_of(config, self.auto)
        self.judge = self.auto.model if self.classifier is None else self.classifier
        self.feature = self.judge.layer(self.feature_name()).name
        train = self.images.train
        test = self.images.test
        self.codes = autoencoding.encode(self.auto, train.images)
        self.test_codes = autoencoding.encode(self.auto, test.images)
        has_classes = len(self.images.classes) > 1
        self.classes = train.labels if has_classes else None
        self.test_classes = test.labels if has_classes else None
        self.normal = latent.fit(self.codes)
        self.count = min(config.draws, len(train.images), len(test.images))
        pixels = train.images[: self.count].astype(np.float32) / 255
        self.real, _ = self.judged(pixels)
        self.tables = self.read_attributes()
        self.projection = self.choose_projection()

    def feature_name(self) -> str:
        """The layer whose activations are compared."""
        if self.config.feature is not None:
            return self.config.feature
        return self.auto.model.default_layer if self.classifier is None else "dense1"

    def read_attributes(self) -> tuple[pictures.Attributes, ...] | None:
        """The attributes of the training and of the test images, if there is a table."""
        file = self.config.attributes
        if file is None:
            return None
        return tuple(pictures.attributes(file, names) for names in self.images.names)

    def choose_projection(self) -> Literal["pca", "tsne"]:
        """The method of the projection; a missing library is reported before the study starts."""
        projection = self.config.projection
        if projection == "auto":
            is_installed = importlib.util.find_spec("sklearn") is not None
            projection = "tsne" if is_installed else "pca"
        latent.embed(self.codes[:4], projection)
        return projection

    def judged(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The judge's view of images with pixels in [0, 1].

        Returns:
            Features ``[n, f]``, and the probabilities of the classes ``[n, k]``, if there are any.
        """
        names = (self.feature,) if self.classifier is None else (self.feature, "logits")

        @jax.jit
        def apply(params, inputs):
            activations = self.judge.apply(params, inputs)
            return {name: activations[name] for name in names}

        parts = []
        for first in range(0, len(images), BATCH):
            inputs = self.judge.to_input(images[first : first + BATCH])
            parts.append(apply(self.judge.params, inputs))
        joined = {}
        for name in names:
            joined[name] = np.concatenate([np.asarray(part[name]) for part in parts])
        features = joined[self.feature].reshape(len(images), -1)
        if self.classifier is None:
            return features, None
        return features, np.asarray(jax.nn.softmax(joined["logits"]))

    def confidence(self, z: np.ndarray) -> float | None:
        """The classifier's mean confidence in the images of latent vectors."""
        _, probabilities = self.judged(autoencoding.decode(self.auto, z))
        return None if probabilities is None else float(probabilities.max(1).mean())

    def to_nearest_code(self, z: np.ndarray) -> float:
        """The median distance of latent vectors to the nearest training code."""
        distances, _ = latent.nearest(self.codes, z)
        return float(np.median(distances))

    def score(self, name: str, z: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """A row of the table, and the images of the latent vectors."""
        images = autoencoding.decode(self.auto, z)
        back = autoencoding.encode(self.auto, images)
        again = autoencoding.decode(self.auto, back)
        errors = np.square(again - images).mean((1, 2, 3))
        moved = np.median(np.linalg.norm(back - z, axis=1))
        # In standard deviations of the codes, so that autoencoders can be compared.
        unit = np.sqrt(self.normal.variances.sum())
        features, probabilities = self.judged(images)
        real = self.real[: self.count]
        made = features[: self.count]
        precision, recall = latent.precision_recall(real, made)
        density, coverage = latent.density_coverage(real, made)
        row = {
            "vectors": name,
            "radius": median_length(z),
            "to nearest code": self.to_nearest_code(z),
            "inside 99 %": float(self.normal.inside(z, 0.99).mean()),
            "code moved": float(moved / unit),
            "again MSE": float(errors.mean()),
            **confidence_facts(probabilities),
            "precision": precision,
            "recall": recall,
            "density": density,
            "coverage": coverage,
        }
        return row, images

    def draw_vectors(self) -> dict[str, np.ndarray]:
        """Latent vectors ``[draws, d]`` by the way they are drawn."""
        config = self.config
        return generators.draw(
            self.codes,
            self.normal,
            self.classes,
            boxes=config.boxes,
            confidences=config.confidences,
            count=config.draws,
            key=jax.random.key(config.seed),
        )

    def region(self) -> dict[str, Any]:
        """Facts about the region of the codes: its shape, and whether it has gaps."""
        facts = region.shape(self.normal, self.codes, self.test_codes)
        facts["half way between two codes"] = self.half_way()
        facts["bodies"] = self.bodies()
        return facts

    def half_way(self) -> dict[str, Any]:
        """Points half way between two codes, beside the codes: whether they lie in gaps."""
        draws = self.config.draws
        seed = self.config.seed
        points = region.half_way(self.normal, self.test_codes, self.test_classes, draws, seed)
        vectors = {"codes": self.test_codes[: self.count], **points}
        facts = {}
        for name, z in vectors.items():
            distance = self.to_nearest_code(z)
            facts[name] = {"to nearest code": distance, "confidence": self.confidence(z)}
        return facts

    def bodies(self) -> dict[str, Any]:
        """Whether codes form fragments or lobes: in groups by k-means, and in classes."""
        facts = region.bodies(self.normal, self.codes, self.test_codes, self.config.seed)
        if self.classes is not None and self.test_classes is not None:
            facts["classes"] = region.class_bodies(
                self.codes, self.classes, self.test_codes, self.test_classes, self.config.draws
            )
        return facts

    @cached_property
    def attributes(self) -> list[dict[str, Any]]:
        """How well attributes of held-out images are read along the vectors of training codes."""
        if self.tables is None:
            return []
        table, held_out_table = self.tables
        return region.attribute_rows(
            self.normal, self.codes, table, self.test_codes, held_out_table
        )

    @property
    def marked(self) -> str | None:
        """The attribute that is read best, of those that a third to two thirds of images have."""
        for row in self.attributes:
            share = row["training images with"] / row["of"]
            if 1 / 3 < share < 2 / 3:
                return row["attribute"]
        return None

    def along(self) -> dict[str, list[Any]]:
        """The classifier's mean confidence along all principal axes.

        Steps are in standard deviations from the mean.
        """
        units = np.eye(len(self.normal.mean))
        directions = np.concatenate([units, -units])
        steps = [0, 1, 2, 3, 4, 6, 8]
        confidences = []
        for step in steps:
            vectors = self.normal.from_axes(step * directions)
            confidences.append(self.confidence(vectors))
        return {"deviations": steps, "confidence": confidences}


def confidence_facts(probabilities: np.ndarray | None) -> dict[str, float | None]:
    """The classifier's mean confidence, its standard error, and the spread of the classes."""
    if probabilities is None:
        return {"confidence": None, "standard error": None, "class spread": None}
    confidence = probabilities.max(1)
    return {
        "confidence": float(confidence.mean()),
        "standard error": float(stats.sem(confidence)),
        "class spread": class_spread(probabilities),
    }


def class_spread(probabilities: np.ndarray) -> float:
    """The number of equally frequent classes with the same entropy as the predicted classes."""
    count = probabilities.shape[1]
    frequencies = np.bincount(probabilities.argmax(1), minlength=count)
    return float(np.exp(stats.entropy(frequencies)))


def relative(row: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    """The confidence as a share of that in reconstructions of real images, and its error."""
    if row["confidence"] is None:
        return {"relative": None, "relative's standard error": None}
    share = row["confidence"] / real["confidence"]
    own_error = row["standard error"] / row["confidence"]
    real_error = real["standard error"] / real["confidence"]
    error = float(share * np.hypot(own_error, real_error))
    return {"relative": share, "relative's standard error": error}


def report(study: Study, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Print the tables and the facts about the region."""
    cells = [[row[name] for name in COLUMNS] for row in rows]
    show(f"{study.auto.name}, {study.images.name}", COLUMNS, cells)
    numbers = []
    lists = []
    for name, value in facts.items():
        if isinstance(value, list | dict):
            lists.append(f"{name}: {value}")
        else:
            numbers.append([name, value])
    show("the region of the codes", ["", "value"], numbers)
    for line in lists:
        print(line)
    if study.attributes:
        cells = [list(row.values()) for row in study.attributes]
        show("attributes", list(study.attributes[0]), cells)


def file_name(study: Study) -> str:
    """The name of the files that are written; that of the images is left out for MNIST."""
    config = study.config
    if config.name is not None:
        images = config.name
    elif config.data is not None:
        images = study.images.name
    else:
        images = "" if config.source == "mnist" else config.source
    return f"latent_space_{images}" if images else "latent_space"


def published(config: Config) -> dict[str, Any]:
    """The configuration with the names of files, but without their folders."""
    options = {}
    for option, value in asdict(config).items():
        options[option] = value.name if isinstance(value, Path) else value
    return options


def draw(
    study: Study,
    vectors: dict[str, np.ndarray],
    rows: list[dict[str, Any]],
    facts: dict[str, Any],
    shown: dict[str, np.ndarray],
    results: Path,
) -> None:
    """Write the figures; those that show your images go to `PICTURES`."""
    name = file_name(study)
    figure = latent_region.region(study, vectors, rows, facts)
    figure.savefig(results / f"{name}_region.png", dpi=150)
    is_yours = study.config.data is not None
    place = PICTURES if is_yours else results
    place.mkdir(parents=True, exist_ok=True)
    figure = figures.images(study, rows, shown)
    figure.savefig(place / f"{name}.png", dpi=220 if is_yours else 150)
    if study.attributes:
        figure = figures.attributes(study, study.attributes)
        figure.savefig(place / f"{name}_attributes.png", dpi=150)
    print(f"images: {place / name}.png")


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    study = Study(config)
    vectors = {HELD_OUT: study.test_codes[: study.count]}
    vectors |= study.draw_vectors()
    rows = []
    shown = {}
    for name, z in vectors.items():
        row, images = study.score(name, z)
        row |= relative(row, rows[0] if rows else row)
        rows.append(row)
        every = max(1, len(images) // 16)
        shown[name] = images[::every][:16]
    facts = study.region()
    report(study, rows, facts)
    content = {
        "config": published(config),
        "source": study.images.name,
        "parameters_sha256": fingerprint(study.auto.params),
        "rows": rows,
        "region": facts,
        "along": study.along(),
        "attributes": study.attributes,
    }
    save(results, file_name(study), content)
    draw(study, vectors, rows, facts, shown, results)
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
