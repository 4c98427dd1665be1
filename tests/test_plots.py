"""Figures: nothing clipped, nothing overlapping, every map on the page."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from scipy import ndimage

from oipjax import plots
from oipjax.study import DEAD, FOUND, UNRESOLVED, Atlas
from oipjax.training import Epoch, ReconstructionEpoch, accuracy_curves, reconstruction_curves


def made_up(count: int, channels: int = 1, side: int = 28) -> Atlas:
    rng = np.random.default_rng(0)
    status = np.full(count, FOUND, np.uint8)
    status[1::5], status[2::7] = UNRESOLVED, DEAD
    scores = 10.0 ** rng.uniform(-4, 4, (count, 2))
    one = np.zeros((count, 2))
    return Atlas(
        model="a-network",
        layer="conv3",
        maps=np.arange(count, dtype=np.int32) * 3,
        status=status,
        run_status=one.astype(np.uint8),
        images=rng.normal(size=(count, 2, side, side, channels)).astype(np.float32),
        scores=scores,
        responses=scores,
        start_index=one.astype(np.int64),
        start_scores=one,
        trace=one[..., None],
        trace_steps=np.zeros(1, np.int32),
        bound=np.maximum(scores[:, 0] * 3.3, 0.0123),
        node_bound=one[:, 0] + 1,
        bound_by=np.full(count, "sets"),
        responded_fraction=one[:, 0],
        draws_seen=one[:, 0].astype(int),
        gradient_evaluations=one[:, 0].astype(int),
        found_by=np.full(count, ""),
    )


def check_text(figure) -> list:
    """Every text lies inside the page and none lies on another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    # An axis has tick labels that it does not draw; those it does are looked after by the box of
    # the whole page.
    ticks = [label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)]
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and _is_drawn(text) and text not in ticks
    ]
    boxes = []
    page = figure.get_tightbbox(renderer)
    sides = (-page.x0, -page.y0, page.x1 - figure.get_figwidth(), page.y1 - figure.get_figheight())
    assert max(sides) < 1e-6, sides
    for text in texts:
        if not text.get_text():
            continue
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
        boxes.append((text.get_text(), box.x0, box.x1, box.y0, box.y1))
    for i, (a, ax0, ax1, ay0, ay1) in enumerate(boxes):
        for b, bx0, bx1, by0, by1 in boxes[i + 1 :]:
            assert min(ax1, bx1) <= max(ax0, bx0) + 0.5 or min(ay1, by1) <= max(ay0, by0) + 0.5, (
                a,
                b,
            )
    return [box[0] for box in boxes]


def _is_drawn(text: Text) -> bool:
    """Not a part of a hidden axis."""
    axes = text.axes
    return (
        axes is None
        or axes.axison
        or text in axes.texts
        or any(text in t.get_children() for t in axes.tables)
    )


@pytest.mark.parametrize(
    ("count", "channels"), [(1, 1), (3, 3), (32, 1), (64, 2), (128, 1), (256, 1)]
)
def test_the_atlas_shows_every_map_and_fits_on_a_page(count, channels):
    atlas = made_up(count, channels, side=12)
    figure = plots.atlas_figure(atlas, "how it was made")
    width, height = figure.get_size_inches()
    assert width == pytest.approx(8.27) and height <= 11.7
    texts = check_text(figure)
    assert {str(number) for number in atlas.maps} <= set(texts)
    assert texts.count("unresolved") == (atlas.status == UNRESOLVED).sum()
    assert texts.count("dead") == (atlas.status == DEAD).sum()
    (drawn,) = figure.axes[0].images
    panels, _ = ndimage.label(drawn.get_array()[..., 3])
    assert panels.max() == (atlas.status == FOUND).sum()
    sizes = [text.get_fontsize() for text in figure.axes[0].texts if text.get_text() == "0"]
    assert min(sizes) >= 4


@pytest.mark.parametrize(("shape", "channels"), [((10, 40), 5), ((30, 12), 1), ((3, 3), 3)])
def test_each_panel_of_the_atlas_shows_its_map(shape, channels):
    atlas = made_up(7, channels)
    images = np.random.default_rng(1).normal(size=(7, 2, *shape, channels)).astype(np.float32)
    figure = plots.atlas_figure(
        replace(atlas, images=images, status=np.array([FOUND] * 5 + [DEAD, FOUND], np.uint8))
    )
    axes = figure.axes[0]
    drawn, left, right, bottom, top = axes.images[0].get_array(), *axes.images[0].get_extent()
    places = {text.get_text(): text.get_position() for text in axes.texts}
    for position in (0, 3, 6):
        x, base = places[str(atlas.maps[position])]
        column, row = (
            (x - left) / (right - left) * drawn.shape[1],
            (base - top) / (bottom - top) * drawn.shape[0],
        )
        below = np.flatnonzero(drawn[: int(row), round(column), 3])[-1] + 1
        side = np.flatnonzero(drawn[below - 1, round(column) :, 3] == 0)
        wide = side[0] if len(side) else drawn.shape[1] - round(column)
        shown = plots.contrast(images[position, 0], 2.0)
        high = wide * shape[0] * -(-24 // shape[0]) // (shape[1] * -(-24 // shape[1]))
        panel = drawn[below - high : below, round(column) : round(column) + wide, :3]
        panel = panel[:: high // shape[0], :: wide // shape[1]].astype(float) / 255
        np.testing.assert_allclose(
            panel, np.broadcast_to(shown.reshape(*shape, -1), panel.shape), atol=0.003
        )


def test_the_strip_shows_every_step_twice():
    steps = [0, 9, 18, 36, 72, 144, 288, 599]
    images = np.random.default_rng(0).normal(size=(8, 28, 28, 1))
    figure = plots.oip_figure(
        "t", steps, images, np.linspace(1, 300, 8), np.geomspace(1, 1e-3, 8), "note"
    )
    check_text(figure)
    assert sum(bool(axes.images) for axes in figure.axes) == 16
    single = plots.oip_figure("t", [0], images[:1], np.ones(1), np.ones(1))
    FigureCanvasAgg(single).draw()


def test_contrast_keeps_the_order_and_the_range():
    image = np.linspace(-3, 5, 50).reshape(5, 10, 1)
    shown = plots.contrast(image, 3.0)
    assert shown.shape == (5, 10) and shown.min() >= 0 and shown.max() <= 1
    assert (np.diff(shown.ravel()) >= 0).all() and shown.mean() == pytest.approx(0.5)
    assert plots.contrast(np.zeros((4, 4, 3)), 2.0).shape == (4, 4, 3)
    assert (plots.contrast(np.zeros((4, 4, 1)), 2.0) == 0.5).all()
    assert plots.contrast(np.ones((4, 4, 2)), 2.0).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12.34, "12.3"),
        (0.00208, "0.0021"),
        (0.45, "0.450"),
        (3e-5, "3.0e-05"),
        (1234.0, "1234"),
    ],
)
def test_numbers_are_short(value, text):
    assert plots.number(value) == text


def drawn_history(history, curves):
    return plots.history_figure([epoch.epoch for epoch in history], curves(history), 4, "t")


def test_curves_of_an_autoencoder():
    errors = []
    for i in range(1, 6):
        errors.append(ReconstructionEpoch(i, 0.1 + 1 / i, 0.1 / i, 0.2 / i, 0.1 + 2 / i, 1e-3))
    both = drawn_history(errors, reconstruction_curves)
    by_squared_error = [epoch._replace(loss=epoch.train_mse) for epoch in errors]
    one = drawn_history(by_squared_error, reconstruction_curves)
    assert len(both.axes) == 2
    assert len(one.axes) == 1
    assert one.axes[0].get_ylabel() == "mean squared error of pixels"
    check_text(both)
    check_text(one)


def test_curves_of_a_classifier():
    history = [Epoch(i, 1 / i, 1 - 0.1 / i, 1 - 0.2 / i, 2 / i, 1e-3) for i in range(1, 6)]
    figure = drawn_history(history, accuracy_curves)
    assert figure.axes[1].get_ylabel() == "accuracy (%)"
    assert figure.axes[1].lines[0].get_ydata()[0] == pytest.approx(90)
    check_text(figure)
    nothing_held_out = []
    for epoch in history:
        nothing_held_out.append(epoch._replace(validation_accuracy=np.nan, validation_loss=np.nan))
    check_text(drawn_history(nothing_held_out, accuracy_curves))


def test_reconstructions_and_confusion():
    images = np.random.default_rng(0).uniform(size=(15, 8, 8, 3))
    double = plots.reconstruction_figure(images, images[::-1], "t", "n")
    triple = plots.reconstruction_figure(images, images[::-1], "t", "n", 3 * images)
    assert sum(len(axes.images) for axes in double.axes) == 30
    assert sum(len(axes.images) for axes in triple.axes) == 45
    grey = images[:1, ..., :1]
    check_text(double)
    check_text(triple)
    check_text(plots.reconstruction_figure(grey, grey, "t"))
    check_text(plots.confusion_figure(np.diag([90, 95, 99]) + 1, "abc", "t"))
    check_text(plots.confusion_figure(np.diag([90, 95, 99]), "abc", "perfect"))
