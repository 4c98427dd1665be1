"""Why do random latent vectors fail, and which ones give good images?

Question: where do the codes of an autoencoder's images lie, is that region one ellipsoid or
    fragments, and which way of
drawing vectors gives images that a classifier takes for what the autoencoder gives back of real
ones? Expected: vectors with independent components, uniform in a box about the origin, fail even
where their radii are those of the codes: hardly any lies in the ellipsoid with 99 % of the fitted
normal. Draws from this normal do not: the classifier's mean confidence is at least 0.85 of that on
real digits' reconstructions, and clearly less for the box. Codes are about normal, one connected
body. Cost: 1 minute with the sample of 1,000 digits, 3 with all of MNIST (if OIPJAX_DATA is set),
or with 10,000 faces. Command: python -m experiments.latent_space (clothes: --autoencoder FOLDER
--source fashion --classifier FOLDER; one's own images: --autoencoder FOLDER --data ZIP --crop 0 10
89 99 --name faces --attributes CSV)
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
from experiments.figures import latent_space as figures
from experiments.tools import fragments
from oipjax.analysis import Normal, latent
from oipjax.data import Dataset, Split
from oipjax.data import folder as pictures
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder, checkpoint
from oipjax.pytrees import fingerprint
from oipjax.training import autoencoder as autoencoding

RESULTS = Path(__file__).parent / "results"
PICTURES = Path("oipjax-out/latent_space")
"""Where figures go that show one's own images: they may not be one's own to publish."""
HELD_OUT, NORMAL = "held out, given back", "fitted normal"
COLUMNS = (
    "vectors", "radius", "to nearest code", "inside 99 %", "code moved", "again MSE", "confidence", "relative",
    "class spread", "precision", "recall", "density", "coverage",
)  # fmt: skip
GROUPS, LEAST = 10, 10
"""Groups that codes without classes are cut into; held-out images with and without an attribute that are needed."""


@dataclass(frozen=True)
class Config:
    """What is looked at; ``boxes`` are half widths as multiples of the one whose radii are those of the codes.

    An autoencoder that is not given is made in memory, untrained. One's own images, ``data`` as in
    `pictures.load`, are brought to its size and cut into train and test images as ``oipjax train``
    does; ``attributes`` is a table for them, as in `pictures.attributes`. The classifier is by
    default mnist-cnn for digits and none for others: then its columns are empty, and precision,
    recall, density and coverage are those of the encoder's last maps; ``feature`` is another layer
    to take them from. ``latent`` is what is expected of the autoencoder. ``projection`` auto: t-SNE
    as well, if scikit-learn is there.
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
    """Images whose codes make the region, and others: the data set's splits, or halves of the sample."""
    if config.data is not None:
        *size, channels = auto.config.input_shape
        read = pictures.load(
            config.data,
            crop=config.crop,
            size=(size[0], size[1]),
            colour=channels == 3,
            test=config.test,
        )
        for line in read.skipped:
            print(f"left out: {line}", file=sys.stderr)
        return read
    if config.crop is not None or config.attributes is not None:
        raise ValueError("--crop and --attributes are for one's own images: --data FOLDER")
    images, labels = data.sample()
    halves = Split(images[::2], labels[::2]), Split(images[1::2], labels[1::2])
    read = Dataset("mnist sample", *halves, data.MNIST.classes)
    if config.source == "fashion" or os.environ.get(data.ENVIRONMENT):
        read = data.load(data.FASHION if config.source == "fashion" else data.MNIST)
    taken, given = auto.config.input_shape, read.test.images.shape[1:]
    if given != taken:
        raise ValueError(
            f"{auto.name} takes images {taken}, those of {read.name} are {given}: take another --autoencoder, or --data"
        )
    return read


def network(config: Config) -> Autoencoder:
    """The autoencoder that is looked at."""
    if config.autoencoder is not None:
        return checkpoint.load_autoencoder(config.autoencoder, latent=config.latent)
    small = AutoencoderConfig(filters=(4,), strides=(4,), latent=4)
    return Autoencoder(
        small, autoencoder.init(jax.random.key(config.seed), small), name="untrained"
    )


def classifier_of(config: Config, auto: Autoencoder) -> Model | None:
    """The classifier, if there is one."""
    digits = config.data is None and config.source == "mnist"
    name = config.classifier if config.classifier is not None else "mnist-cnn" if digits else None
    model = None if name is None else oipjax.load(name)
    if model is not None and model.input_shape != auto.config.input_shape:
        raise ValueError(
            f"--classifier {name} takes images {model.input_shape}, {auto.name} makes {auto.config.input_shape}"
        )
    return model


def generators(
    config: Config, normal: Normal, codes: np.ndarray, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Latent vectors ``[draws, d]`` by the way they are made; ``labels`` are those of classes, if there are any."""
    d, root = len(normal.mean), jax.random.key(config.seed)

    def key(i: int) -> jax.Array:
        return jax.random.fold_in(root, i)

    fitting = float(np.median(np.linalg.norm(codes, axis=1)) / np.sqrt(d / 3))
    made = {
        f"box, b = {factor * fitting:.2f}": latent.draw_box(
            key(0), config.draws, d, factor * fitting
        )
        for factor in config.boxes
    }
    apart = Normal(codes.mean(0), np.eye(d), codes.var(0), 0.0)
    made["normal, no correlations"] = latent.draw_normal(key(1), apart, config.draws)
    made[NORMAL] = latent.draw_normal(key(1), normal, config.draws)
    for p in config.confidences:
        made[f"ellipses of pairs, {100 * p:g} %"] = latent.draw_ellipses(
            key(2), normal, config.draws, p
        )
    made["ellipsoid, 99 %"] = latent.draw_ellipses(key(3), normal, config.draws, 0.99, together=d)
    if labels is not None:
        own = [latent.fit(codes[labels == name]) for name in np.unique(labels)]
        share = -(-config.draws // len(own))
        drawn = [latent.draw_normal(key(10 + i), part, share) for i, part in enumerate(own)]
        made["normal of each class"] = np.concatenate(drawn)[: config.draws]
    return made


class Study:
    """An autoencoder with its region, a judge of images, and real images to compare with.

    The judge is the classifier or, where there is none, the encoder.
    """

    def __init__(self, config: Config):
        self.config, self.auto = config, network(config)
        self.images = images_of(config, self.auto)
        self.classifier = classifier_of(config, self.auto)
        self.judge = self.auto.model if self.classifier is None else self.classifier
        deep = self.auto.model.default_layer if self.classifier is None else "dense1"
        self.feature = self.judge.layer(deep if config.feature is None else config.feature).name
        train, test = self.images.train, self.images.test
        self.codes, self.test_codes = (
            autoencoding.encode(self.auto, split.images) for split in (train, test)
        )
        self.classes = train.labels if len(self.images.classes) > 1 else None
        self.test_classes = test.labels if len(self.images.classes) > 1 else None
        self.normal = latent.fit(self.codes)
        self.count = min(config.draws, len(train.images), len(test.images))
        self.real = self.judged(train.images[: self.count].astype(np.float32) / 255)[0]
        self.tables = None
        if config.attributes is not None:
            self.tables = tuple(
                pictures.attributes(config.attributes, names) for names in self.images.names
            )
        there = importlib.util.find_spec("sklearn") is not None
        self.projection = (
            config.projection if config.projection != "auto" else "tsne" if there else "pca"
        )
        latent.embed(self.codes[:4], self.projection)  # says at once if a library is missing

    def judged(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features ``[n, f]`` of images with pixels in [0, 1], and probabilities of classes ``[n, k]``, if any."""
        wanted = (self.feature,) if self.classifier is None else (self.feature, "logits")
        apply = jax.jit(
            lambda params, x: {name: self.judge.apply(params, x)[name] for name in wanted}
        )
        parts = [
            apply(self.judge.params, self.judge.to_input(images[i : i + 500]))
            for i in range(0, len(images), 500)
        ]
        out = {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in wanted}
        chances = None if self.classifier is None else np.asarray(jax.nn.softmax(out["logits"]))
        return out[self.feature].reshape(len(images), -1), chances

    def confidence(self, z: np.ndarray) -> float | None:
        """The classifier's mean confidence in what the vectors give."""
        chances = self.judged(autoencoding.decode(self.auto, z))[1]
        return None if chances is None else float(chances.max(1).mean())

    def score(self, name: str, z: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """A row of the table, and the images the vectors give."""
        images = autoencoding.decode(self.auto, z)
        back = autoencoding.encode(self.auto, images)
        again = np.square(autoencoding.decode(self.auto, back) - images).mean((1, 2, 3))
        feature, chances = self.judged(images)
        both = self.real[: self.count], feature[: self.count]
        (precision, recall), (density, coverage) = (
            latent.precision_recall(*both),
            latent.density_coverage(*both),
        )
        confidence = None if chances is None else chances.max(1)
        row = {
            "vectors": name,
            "radius": float(np.median(np.linalg.norm(z, axis=1))),
            "to nearest code": float(np.median(latent.nearest(self.codes, z)[0])),
            "inside 99 %": float(self.normal.inside(z, 0.99).mean()),
            # In standard deviations of the codes, so that autoencoders can be compared.
            "code moved": float(np.median(np.linalg.norm(back - z, axis=1)) / np.sqrt(self.normal.variances.sum())),
            "again MSE": float(again.mean()),
            "confidence": None if confidence is None else float(confidence.mean()),
            "standard error": None if confidence is None else float(stats.sem(confidence)),
            "class spread": None if chances is None else entropy(chances),
            "precision": precision, "recall": recall, "density": density, "coverage": coverage,
        }  # fmt: skip
        return row, images

    def region(self) -> dict[str, Any]:
        """Is it one ellipsoid? How far codes are from it."""
        parts = latent.components(self.codes)
        axes = latent.components(self.normal.to_axes(self.codes))
        correlated = np.abs(
            latent.correlations(self.codes)[np.triu_indices(len(self.normal.mean), 1)]
        )
        return {
            "codes": len(self.codes), "latent": len(self.normal.mean), "shrinkage": self.normal.shrinkage,
            "centre to origin": float(np.linalg.norm(self.normal.mean)),
            "origin at Mahalanobis radius": float(self.normal.radii(np.zeros_like(self.normal.mean)[None])[0]),
            "radius of 99 %": latent.radius(0.99, len(self.normal.mean)),
            "components' distance from normal": spread_of(parts.distance),
            "components' skew": spread_of(parts.skew), "components' excess kurtosis": spread_of(parts.kurtosis),
            "principal axes' distance from normal": spread_of(axes.distance),
            "absolute correlations": spread_of(correlated),
            "explained variance": self.normal.explained.tolist(),
            "held-out radii's distance from chi": latent.chi_distance(self.test_codes, self.normal),
            "held-out codes inside": {
                str(p): float(self.normal.inside(self.test_codes, p).mean()) for p in (0.5, 0.9, 0.99)
            },
            "half way between two codes": self.half_way(),
            "bodies": self.bodies(),
        }  # fmt: skip

    def half_way(self) -> dict[str, Any]:
        """Are there gaps? The middle between two codes, of different classes if there are classes, would be in one."""
        first, second = np.random.default_rng(self.config.seed).permuted(
            np.tile(np.arange(len(self.test_codes)), (2, 1)), axis=1
        )[:, : self.config.draws]
        differ = (
            first != second
            if self.test_classes is None
            else self.test_classes[first] != self.test_classes[second]
        )
        middle = (self.test_codes[first] + self.test_codes[second])[differ] / 2
        drawn = latent.draw_normal(
            jax.random.fold_in(jax.random.key(self.config.seed), 4), self.normal, len(middle)
        )
        # Middles are nearer to the centre than codes are: so is what they are compared with.
        drawn = self.normal.mean + (drawn - self.normal.mean) / np.sqrt(2)
        vectors = {
            "codes": self.test_codes[: self.count],
            "middles": middle,
            "the same of the fitted normal": drawn,
        }
        far = {
            name: float(np.median(latent.nearest(self.codes, z)[0])) for name, z in vectors.items()
        }
        return {
            name: {"to nearest code": far[name], "confidence": self.confidence(z)} for name, z in vectors.items()
        }  # fmt: skip

    def bodies(self) -> dict[str, Any]:
        """Fragments or lobes? Of codes and of as many draws from one normal, in classes and in groups by k-means."""
        codes, others = self.codes[:20_000], self.test_codes
        drawn = latent.draw_normal(
            jax.random.fold_in(jax.random.key(self.config.seed), 5),
            self.normal,
            len(codes) + len(others),
        )
        found = {}
        for name, x, y in (
            ("codes", codes, others),
            ("fitted normal", drawn[: len(codes)], drawn[len(codes) :]),
        ):
            middles = fragments.centres(x, max(2, min(GROUPS, len(x) // 40)), self.config.seed)
            found[name] = {"linked": fragments.linked(x[:5000])}
            found[name] |= grouped(
                x, fragments.members(x, middles), y, fragments.members(y, middles)
            )
        if self.classes is not None and self.test_classes is not None:
            counts = np.unique(self.classes[: len(codes)], return_counts=True)[1]
            found["classes"] = grouped(codes, self.classes[: len(codes)], others, self.test_classes)
            nearest = latent.nearest(codes, others[: self.config.draws])[1][:, 0]
            same = self.classes[nearest] == self.test_classes[: self.config.draws]
            chance = np.square(counts / counts.sum()).sum()
            found["classes"] |= {
                "nearest code has it": float(same.mean()),
                "by chance": float(chance),
            }
        return found

    @cached_property
    def attributes(self) -> list[dict[str, Any]]:
        """How well attributes of held-out images are read along the vectors that training codes give."""
        if self.tables is None:
            return []
        rows, (train, test) = [], self.tables
        codes, others = self.codes[train.known], self.test_codes[test.known]
        for number, name in enumerate(train.names):
            has, other_has = train.has[train.known, number], test.has[test.known, number]
            if min(other_has.sum(), (~other_has).sum()) < LEAST:
                continue
            vector = latent.attribute(codes, has)
            fisher = np.linalg.solve(self.normal.covariance, vector)
            area = latent.read_out(others, other_has, vector)
            rows.append(
                {
                    "attribute": name, "training images with": int(has.sum()), "of": len(has),
                    "held-out with": int(other_has.sum()), "of held-out": len(other_has),
                    "AUC along the vector": area, "its standard error": spread_of_area(area, other_has),
                    "AUC along Fisher's direction": latent.read_out(others, other_has, fisher),
                    "length, of the codes' spread": float(
                        np.linalg.norm(vector) / np.sqrt(self.normal.variances.sum())
                    ),
                }
            )  # fmt: skip
        return sorted(rows, key=lambda row: -row["AUC along the vector"])

    @property
    def marked(self) -> str | None:
        """The attribute that is read best, of those that a third to two thirds of the images have."""
        even = [
            row
            for row in self.attributes
            if 1 / 3 < row["training images with"] / row["of"] < 2 / 3
        ]
        return even[0]["attribute"] if even else None


def grouped(
    codes: np.ndarray, groups: np.ndarray, others: np.ndarray, other_groups: np.ndarray
) -> dict[str, Any]:
    """Valleys between groups, and what the groups' normals gain over one, in nats a code, with its standard error."""
    gain = fragments.gain(codes, groups, others)
    depth = fragments.valleys(codes, groups, others, other_groups)
    shallow = np.nanmax(depth[np.isfinite(depth).any(1)], axis=1)
    return {
        "groups": len(np.unique(groups)), "shallowest valley of each group": np.sort(shallow).tolist(),
        "gain over one normal": [float(gain.mean()), float(stats.sem(gain))],
    }  # fmt: skip


def spread_of_area(area: float, has: np.ndarray) -> float:
    """Standard error of an area under a ROC curve by J. A. Hanley and B. J. McNeil, Radiology 143 (1982), 29-36."""
    first, second = has.sum(), (~has).sum()
    above, below = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    return float(
        np.sqrt((area * (1 - area) + (first - 1) * above + (second - 1) * below) / (first * second))
    )


def relative(row: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    """The confidence as a share of that in real images given back, and its standard error."""
    if row["confidence"] is None:
        return {"relative": None, "relative's standard error": None}
    share = row["confidence"] / real["confidence"]
    parts = [one["standard error"] / one["confidence"] for one in (row, real)]
    return {"relative": share, "relative's standard error": float(share * np.hypot(*parts))}


def entropy(chances: np.ndarray) -> float:
    """Of the predicted classes: classes that are equally frequent and would give the same entropy."""
    frequencies = np.bincount(chances.argmax(1), minlength=chances.shape[1])
    return float(np.exp(stats.entropy(frequencies)))


def spread_of(values: np.ndarray) -> list[float]:
    """Least, median and greatest."""
    return [float(np.min(values)), float(np.median(values)), float(np.max(values))]


def along(study: Study) -> dict[str, list[Any]]:
    """The classifier's mean confidence along all principal axes, by standard deviations from the mean."""
    steps, d = (0, 1, 2, 3, 4, 6, 8), len(study.normal.mean)
    ways = np.concatenate([np.eye(d), -np.eye(d)])
    return {"deviations": list(steps), "confidence": [
        study.confidence(study.normal.from_axes(step * ways)) for step in steps
    ]}  # fmt: skip


def tell(study: Study, rows: list[dict[str, Any]], region: dict[str, Any]) -> None:
    """Print what was found."""
    show(
        f"{study.auto.name}, {study.images.name}",
        COLUMNS,
        [[row[name] for name in COLUMNS] for row in rows],
    )
    flat = {name: value for name, value in region.items() if not isinstance(value, list | dict)}
    show("the region of the codes", ["", "value"], list(map(list, flat.items())))
    for name, value in region.items():
        if name not in flat:
            print(f"{name}: {value}")
    if study.attributes:
        show(
            "attributes",
            list(study.attributes[0]),
            [list(row.values()) for row in study.attributes],
        )


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    study = Study(config)
    vectors = {HELD_OUT: study.test_codes[: study.count]}
    vectors |= generators(config, study.normal, study.codes, study.classes)
    rows, shown = [], {}
    for name, z in vectors.items():
        row, images = study.score(name, z)
        row |= relative(row, rows[0] if rows else row)
        rows.append(row)
        shown[name] = images[:: max(1, len(images) // 16)][:16]
    region = study.region()
    tell(study, rows, region)
    own = (
        study.images.name
        if config.data is not None
        else config.source
        if config.source != "mnist"
        else None
    )
    name = "_".join(["latent_space", *filter(None, [own if config.name is None else config.name])])
    # Of files their names: where they lie concerns nobody else.
    told = {
        part: value.name if isinstance(value, Path) else value
        for part, value in asdict(config).items()
    }
    facts = {
        "config": told,
        "source": study.images.name,
        "parameters_sha256": fingerprint(study.auto.params),
    }
    save(
        results,
        name,
        facts
        | {"rows": rows, "region": region, "along": along(study), "attributes": study.attributes},
    )
    figures.region(study, vectors, rows, region).savefig(results / f"{name}_region.png", dpi=150)
    place = results if config.data is None else PICTURES
    place.mkdir(parents=True, exist_ok=True)
    figures.images(study, rows, shown).savefig(
        place / f"{name}.png", dpi=150 if config.data is None else 220
    )
    if study.attributes:
        figures.attributes(study, study.attributes).savefig(
            place / f"{name}_attributes.png", dpi=150
        )
    print(f"images: {place / name}.png")
    return rows


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
