"""Why do random latent vectors fail, and which ones give good images?

Question: where do the codes of an autoencoder's images lie, is that region one ellipsoid or fragments, and which way of
drawing vectors gives images that a classifier takes for what the autoencoder gives back of real ones?
Expected: vectors with independent components, uniform in a box about the origin, fail even where their radii are those
of the codes: hardly any lies in the ellipsoid with 99 % of the fitted normal. Draws from this normal do not: the
classifier's mean confidence is at least 0.85 of that on real digits' reconstructions, and clearly less for the box.
Codes are about normal, one connected body.
Cost: 1 minute with the sample of 1,000 digits, 2 with all of MNIST (if OIPJAX_DATA is set).
Command: python -m experiments.latent_space (clothes: --autoencoder FOLDER --source fashion --classifier None)
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from scipy import stats

import oipjax
from experiments.common import save, show
from experiments.figures import latent_space as figures
from oipjax import autoencoding, data, latent
from oipjax.data import Split
from oipjax.latent import Normal
from oipjax.model import Model, fingerprint
from oipjax.networks import autoencoder, checkpoint
from oipjax.networks.autoencoder import Autoencoder, AutoencoderConfig

RESULTS = Path(__file__).parent / "results"
HELD_OUT, NORMAL = "held out, given back", "fitted normal"
COLUMNS = (
    "vectors", "radius", "to nearest code", "inside 99 %", "code moved", "again MSE", "confidence", "relative",
    "class spread", "precision", "recall",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is looked at; ``boxes`` are half widths as multiples of the one whose radii are those of the codes.

    An autoencoder that is not given is made in memory, untrained. Without a classifier its columns are empty, and
    precision and recall are those of pixels.
    """

    autoencoder: str | None = "mnist-autoencoder"
    source: Literal["mnist", "fashion"] = "mnist"
    classifier: str | None = "mnist-cnn"
    feature: str = "dense1"
    boxes: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    confidences: tuple[float, ...] = (0.5, 0.9, 0.99)
    draws: int = 1000
    seed: int = 0


SMOKE = Config(autoencoder=None, boxes=(0.1, 1.0), confidences=(0.9,), draws=40)


def images_of(config: Config) -> tuple[Split, Split, str]:
    """Images whose codes make the region, others, and what they are: the data set's splits, or halves of the sample."""
    if config.source == "fashion" or os.environ.get(data.ENVIRONMENT):
        whole = data.load(data.FASHION if config.source == "fashion" else data.MNIST)
        return whole.train, whole.test, whole.name
    images, labels = data.sample()
    return Split(images[::2], labels[::2]), Split(images[1::2], labels[1::2]), "mnist sample"


def network(config: Config) -> Autoencoder:
    """The autoencoder that is looked at."""
    if config.autoencoder is not None:
        return checkpoint.load_autoencoder(config.autoencoder)
    small = AutoencoderConfig(filters=(4,), strides=(4,), latent=4)
    return Autoencoder(small, autoencoder.init(jax.random.key(config.seed), small), name="untrained")


def generators(config: Config, normal: Normal, codes: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Latent vectors ``[draws, d]`` by the way they are made."""
    d, root = len(normal.mean), jax.random.key(config.seed)

    def key(i: int) -> jax.Array:
        return jax.random.fold_in(root, i)

    fitting = float(np.median(np.linalg.norm(codes, axis=1)) / np.sqrt(d / 3))
    made = {
        f"box, b = {factor * fitting:.2f}": latent.draw_box(key(0), config.draws, d, factor * fitting)
        for factor in config.boxes
    }
    apart = Normal(codes.mean(0), np.eye(d), codes.var(0), 0.0)
    made["normal, no correlations"] = latent.draw_normal(key(1), apart, config.draws)
    made[NORMAL] = latent.draw_normal(key(1), normal, config.draws)
    for p in config.confidences:
        made[f"ellipses of pairs, {100 * p:g} %"] = latent.draw_ellipses(key(2), normal, config.draws, p)
    made["ellipsoid, 99 %"] = latent.draw_ellipses(key(3), normal, config.draws, 0.99, together=d)
    own = [latent.fit(codes[labels == name]) for name in np.unique(labels)]
    share = -(-config.draws // len(own))
    made["normal of each class"] = np.concatenate(
        [latent.draw_normal(key(10 + i), part, share) for i, part in enumerate(own)]
    )[: config.draws]
    return made


def classify(model: Model | None, feature: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Features ``[n, f]``, pixels without a classifier, and the probabilities of classes ``[n, k]``."""
    if model is None:
        return images.reshape(len(images), -1), None
    out = jax.jit(lambda params, x: {name: model.apply(params, x)[name] for name in (feature, "logits")})(
        model.params, model.to_input(images)
    )
    return np.asarray(out[feature]), np.asarray(jax.nn.softmax(out["logits"]))


class Study:
    """An autoencoder with its region, a classifier, and real images to compare with."""

    def __init__(self, config: Config):
        self.config, self.auto = config, network(config)
        self.classifier = None if config.classifier is None else oipjax.load(config.classifier)
        train, test, self.source = images_of(config)
        self.codes, self.labels = autoencoding.encode(self.auto, train.images), train.labels
        self.test_labels, self.test_codes = test.labels, autoencoding.encode(self.auto, test.images)
        self.normal = latent.fit(self.codes)
        self.count = min(config.draws, len(train.images), len(test.images))
        self.real = classify(self.classifier, config.feature, self.pixels(train.images))[0]

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """As many images as every comparison takes, in [0, 1]."""
        return images[: self.count].astype(np.float32) / 255

    def score(self, name: str, z: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """A row of the table, and the images the vectors give."""
        images = autoencoding.decode(self.auto, z)
        back = autoencoding.encode(self.auto, images)
        again = np.square(autoencoding.decode(self.auto, back) - images).mean((1, 2, 3))
        feature, chances = classify(self.classifier, self.config.feature, images)
        precision, recall = latent.precision_recall(self.real[: self.count], feature[: self.count])
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
            "precision": precision,
            "recall": recall,
        }
        return row, images

    def region(self) -> dict[str, Any]:
        """Is it one ellipsoid? How far codes are from it, and what would be otherwise if there were fragments."""
        parts = latent.components(self.codes)
        axes = latent.components(self.normal.to_axes(self.codes))
        correlated = np.abs(latent.correlations(self.codes)[np.triu_indices(len(self.normal.mean), 1)])
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
            **self.fragments(),
        }  # fmt: skip

    def fragments(self) -> dict[str, Any]:
        """Do classes lie apart? Middles between codes of two classes would then be far from all codes."""
        first, second = np.random.default_rng(self.config.seed).permuted(
            np.tile(np.arange(len(self.test_codes)), (2, 1)), axis=1
        )[:, : self.config.draws]
        differ = self.test_labels[first] != self.test_labels[second]
        middle = (self.test_codes[first] + self.test_codes[second])[differ] / 2
        drawn = latent.draw_normal(jax.random.fold_in(jax.random.key(self.config.seed), 4), self.normal, len(middle))
        # Middles are nearer to the centre than codes are: so is what they are compared with.
        drawn = self.normal.mean + (drawn - self.normal.mean) / np.sqrt(2)
        logs = [latent.fit(self.codes[self.labels == name]) for name in np.unique(self.labels)]
        weights = np.unique(self.labels, return_counts=True)[1] / len(self.labels)
        one = log_density(self.normal, self.test_codes)
        mixed = np.logaddexp.reduce(
            [np.log(w) + log_density(part, self.test_codes) for w, part in zip(weights, logs, strict=True)], axis=0
        )
        gain = mixed - one
        neighbours = latent.nearest(self.codes, self.test_codes[: self.config.draws])
        return {
            "to nearest code": {
                "held-out codes": float(np.median(neighbours[0])),
                "middles of two classes": float(np.median(latent.nearest(self.codes, middle)[0])),
                "normal shrunk as middles are": float(np.median(latent.nearest(self.codes, drawn)[0])),
            },
            "nearest code has the class": float(
                (self.labels[neighbours[1][:, 0]] == self.test_labels[: self.config.draws]).mean()
            ),
            "normals of classes above one normal, nats a code": [float(gain.mean()), float(stats.sem(gain))],
            "middles inside 99 %": float(self.normal.inside(middle, 0.99).mean()),
            "confidence": {
                "held-out codes": classified(self, self.test_codes[: self.count]),
                "middles of two classes": classified(self, middle),
                "normal shrunk as middles are": classified(self, drawn),
            },
        }  # fmt: skip


def classified(study: Study, z: np.ndarray) -> float | None:
    """The classifier's mean confidence in what the vectors give."""
    chances = classify(study.classifier, study.config.feature, autoencoding.decode(study.auto, z))[1]
    return None if chances is None else float(chances.max(1).mean())


def relative(row: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    """The confidence as a share of that in real images given back, and its standard error."""
    if row["confidence"] is None:
        return {"relative": None, "relative's standard error": None}
    share = row["confidence"] / real["confidence"]
    parts = [one["standard error"] / one["confidence"] for one in (row, real)]
    return {"relative": share, "relative's standard error": float(share * np.hypot(*parts))}


def log_density(normal: Normal, z: np.ndarray) -> np.ndarray:
    """Of a normal at vectors, ``[n]``, in nats."""
    return stats.multivariate_normal(normal.mean, normal.covariance).logpdf(z)  # pyright: ignore[reportArgumentType]


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
        classified(study, study.normal.from_axes(step * ways)) for step in steps
    ]}  # fmt: skip


def main(config: Config = Config(), results: Path = RESULTS) -> list[dict[str, Any]]:
    """Run, print, write."""
    study = Study(config)
    vectors = {HELD_OUT: study.test_codes[: study.count]}
    vectors |= generators(config, study.normal, study.codes, study.labels)
    rows, pictures = [], {}
    for name, z in vectors.items():
        row, images = study.score(name, z)
        row |= relative(row, rows[0] if rows else row)
        rows.append(row)
        pictures[name] = images[:: max(1, len(images) // 16)][:16]
    region, path = study.region(), along(study)
    show(f"{study.auto.name}, {study.source}", COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
    flat = {name: value for name, value in region.items() if not isinstance(value, list | dict)}
    show("the region of the codes", ["", "value"], list(map(list, flat.items())))
    for name, value in region.items():
        if name not in flat:
            print(f"{name}: {value}")
    print(f"along the principal axes: {path}")
    name = "latent_space" if config.source == "mnist" else f"latent_space_{config.source}"
    facts = {"config": asdict(config), "source": study.source, "parameters_sha256": fingerprint(study.auto.params)}
    save(results, name, facts | {"rows": rows, "region": region, "along": path}, figures.images(study, rows, pictures))
    figures.region(study, vectors, rows).savefig(results / f"{name}_region.png", dpi=150)
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
