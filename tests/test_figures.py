"""Each figure on tiny input: what is drawn is what was given, and nothing written overlaps."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from skimage.color import deltaE_ciede2000, rgb2lab

from cmiclib import figures
from cmiclib.figures import data, style
from cmiclib.figures.data import surface
from cmiclib.study.speed import least_seconds, search_work

RNG = np.random.default_rng(0)
AZIMUTHS = list(range(0, 360, 30))
CATEGORIES = ["bed", "bookcase", "cabinet", "truck-bus"]


def pictures(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, 16, 16), dtype=np.uint8)


def photos(*shape: int) -> np.ndarray:
    result = pictures(*shape, 4)
    result[..., 3, :, :] = 0
    result[..., 3, 4:12, 4:12] = 255
    return result


def weights(*shape: int) -> np.ndarray:
    return RNG.dirichlet(np.full(12, 0.3), shape)


def draw(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def assert_apart(figure: Figure, texts: list[Text]) -> None:
    """No two of these texts cover each other, and all lie inside the figure."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]
    assert len(boxes) > 1
    width, height = figure.canvas.get_width_height()
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"'{text}' is cut off"
    for (a, first), (b, second) in combinations(boxes, 2):
        inside = first.x0 < second.x1 - 1 and second.x0 < first.x1 - 1
        assert not (inside and first.y0 < second.y1 - 1 and second.y0 < first.y1 - 1), f"'{a}' and '{b}' overlap"


def written(figure: Figure) -> list[Text]:
    """All titles, axis labels, tick labels and notes."""
    texts: list[Text] = []
    for ax in figure.axes:
        shown = [(axis, axis.get_view_interval()) for axis in (ax.xaxis, ax.yaxis) if ax.axison]
        ticks = [tick.label1 for axis, (a, b) in shown for tick in axis.get_major_ticks() if a <= tick.get_loc() <= b]
        labels = [ax.xaxis.label, ax.yaxis.label] if ax.axison else []
        texts += [*ticks, *labels, ax.title, ax._left_title, *ax.texts]  # type: ignore[attr-defined]
    return texts


def framed(ax: Axes) -> str | None:
    """Colour of the frame around an axes, None without one."""
    frames = [patch for patch in ax.patches if patch.get_gid() == "frame"]
    return to_hex(frames[0].get_edgecolor()) if frames else None


def test_style_leaves_the_defaults_alone_until_it_is_asked() -> None:
    import matplotlib.pyplot as plt

    with plt.rc_context():
        plt.rcParams["axes.titlesize"] = 33
        figures.cameras(np.zeros(3), np.zeros(3), AZIMUTHS, 20)
        assert plt.rcParams["axes.titlesize"] == 33
        figures.use_style()
        assert plt.rcParams["axes.titlesize"] == 11
    assert plt.get_fignums() == []  # else notebooks would show each figure twice


def test_category_colors_depend_on_the_set_alone() -> None:
    assert figures.category_colors(["b", "a", "b"]) == figures.category_colors(["a", "b"])
    assert figures.category_colors(["a", "others"])["others"] == style.DISTRACTOR


def test_the_thirteen_categories_with_photos_have_colours_that_differ() -> None:
    colors = figures.category_colors([f"category {i}" for i in range(13)] + ["others"]).values()
    lab = rgb2lab(np.array([[to_rgb(color) for color in colors]]))[0]  # (14, 3)
    distance = deltaE_ciede2000(lab[:, None], lab[None]) + 100 * np.eye(14)
    assert distance.min() > 12  # 2 is a difference that one notices


@pytest.mark.parametrize("picture", [pictures(), pictures(3), photos(), pictures(3).transpose(1, 2, 0)])
def test_every_kind_of_picture_becomes_rgb(picture: np.ndarray) -> None:
    rgb = style.as_rgb(picture)
    assert rgb.shape == (16, 16, 3)
    channel = picture if picture.ndim == 2 else picture[0] if len(picture) < 16 else picture[..., 0]
    np.testing.assert_array_equal(rgb[..., 0], channel)


def test_samples() -> None:
    examples = {name: (pictures(), photos(2)) for name in CATEGORIES}
    figure = draw(figures.samples(examples, across=3))
    assert len(figure.axes) == 4 * 3
    assert [ax.get_title(loc="left") for ax in figure.axes[::3]] == CATEGORIES
    view, photo = figure.axes[3].images[0], figure.axes[4]
    np.testing.assert_array_equal(view.get_array()[..., 0], examples["bookcase"][0])
    assert len(photo.collections) == 2 and not figure.axes[3].collections  # outline and its halo, on photos only
    corners = photo.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([corners.min(), corners.max()], [3.5, 11.5])


def test_counts() -> None:
    shapes = pd.DataFrame({"shape_id": ["a/1", "a/2", "b/1", "lamp/1"], "category": ["a", "a", "b", "lamp"]})
    queries = pd.DataFrame(
        [("a/1|a/2", "a", "train", True), ("a/1", "a", "test", True), ("b/1", "b", "test", False)],
        columns=["shape_id", "category", "split", "seen"],
    )
    figure = draw(figures.counts(shapes, queries))
    left, right = figure.axes
    assert [bars.get_label() for bars in left.containers] == ["seen", "unseen", "without photos"]
    widths = np.array([[bar.get_width() for bar in bars] for bars in left.containers])
    np.testing.assert_array_equal(widths, [[2, 0, 0], [0, 1, 0], [0, 0, 1]])  # of a, b, lamp
    widths = np.array([[bar.get_width() for bar in bars] for bars in right.containers])
    np.testing.assert_array_equal(widths, [[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert [text.get_text() for text in right.texts] == ["2", "1"]
    assert_apart(figure, written(figure))


def test_cameras() -> None:
    figure = draw(figures.cameras(np.array([-90.0, 370.0]), np.array([5.0, 40.0]), AZIMUTHS, 20))
    photo_marks, view_marks = figure.axes[0].collections
    np.testing.assert_allclose(photo_marks.get_offsets(), [[270, 5], [10, 40]])
    np.testing.assert_allclose(view_marks.get_offsets()[:, 0], AZIMUTHS)
    assert_apart(figure, written(figure))


def test_views() -> None:
    stack = pictures(12)
    figure = draw(figures.views(stack, AZIMUTHS, "a chair"))
    assert [ax.get_title() for ax in figure.axes] == [f"{a}°" for a in AZIMUTHS]
    np.testing.assert_array_equal(figure.axes[7].images[0].get_array()[..., 1], stack[7])
    assert_apart(figure, [ax.title for ax in figure.axes] + figure.texts)


def test_the_surface_of_voxels_is_seen_from_outside():
    solid = np.random.default_rng(0).random((5, 6, 7)) < 0.4
    squares = surface(solid).astype(float)
    normals = np.cross(squares[:, 1] - squares[:, 0], squares[:, 2] - squares[:, 1])  # (F, 3), as long as the area
    assert (np.linalg.norm(normals, axis=1) == 1).all()
    assert (squares.mean(axis=1) * normals).sum() / 3 == pytest.approx(solid.sum())  # Gauss: the volume that they hold


def test_solid_turns_points_and_voxels_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corner that is right, high and in front (x, y, z large) is at large X, small Y, large Z of matplotlib."""
    points = RNG.uniform(0.5, 1, (400, 3)).astype(np.float16)
    voxels = np.zeros((16, 16, 16), dtype=bool)
    voxels[12:, 12:, 12:] = True
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(data, "surface", lambda cells: drawn.append(surface(cells)) or drawn[-1])
    figure = draw(figures.voxel_plot(pictures(), points, voxels, cells=4))
    _, cloud, grid = figure.axes
    assert "400" in cloud.get_title() and "4³ of 16³" in grid.get_title()
    corners = drawn[0].reshape(-1, 3)  # of the only cell
    assert [*corners.min(axis=0), *corners.max(axis=0)] == [3, 0, 3, 4, 1, 4]
    x, y, z = cloud.collections[0]._offsets3d
    assert x.min() >= 0.5 and y.max() <= -0.5 and z.min() >= 0.5


def test_color_transfer() -> None:
    content, colors, lab = RNG.random((3, 2, 3, 8, 8))
    reference = lab.copy()
    reference[1, :, 2, 3] += 0.5
    figure = draw(figures.color_transfer(content, colors, lab, reference))
    assert len(figure.axes) == 2 * 5 + 1
    gap = figure.axes[9].images[0].get_array()
    assert gap[2, 3] == pytest.approx(127.5) and np.sum(gap > 0) == 1
    np.testing.assert_allclose(figure.axes[5].images[0].get_array(), content[1].transpose(1, 2, 0))
    assert_apart(figure, [ax._left_title for ax in figure.axes])  # type: ignore[attr-defined]


def test_attention_marks_the_strongest_view() -> None:
    weight, product = weights(2), RNG.uniform(-0.2, 0.9, (2, 12))
    figure = draw(figures.attention(photos(2), pictures(2, 12), weight, product, ["first", "second"]))
    assert len(figure.axes) == 2 * 4
    for row in range(2):
        _, strip, bars, line = figure.axes[4 * row : 4 * row + 4]
        assert strip.get_title(loc="left") == ["first", "second"][row]
        borders = [patch for patch in strip.patches if patch.get_gid() == "border"]
        assert len(strip.images) == len(borders) == 12
        thickest = int(np.argmax([border.get_linewidth() for border in borders]))
        assert thickest == weight[row].argmax()
        np.testing.assert_allclose([bar.get_height() for bar in bars.patches], weight[row])
        np.testing.assert_allclose(line.lines[0].get_ydata(), product[row])
        assert_apart(figure, [*bars.texts, *line.texts])


def test_loss_matrix_marks_the_positives() -> None:
    scores = RNG.uniform(-0.2, 0.9, (3, 5))
    target = np.array([1, 0, 4])
    same = np.zeros((3, 5), dtype=bool)
    same[[0, 0, 1, 2], [1, 3, 0, 4]] = True
    instance, category = RNG.random((2, 3))
    names = ["bed plain", "table low", "chair with arms", "table high", "sofa long"]
    figure = draw(figures.loss_matrix(scores, target, same, instance, category, ["p1", "p2", "p3"], names))
    heat, losses = figure.axes
    own = [patch.get_center() for patch in heat.patches if patch.get_gid() == "own"]
    np.testing.assert_allclose(own, [(1.5, 0.5), (0.5, 1.5), (4.5, 2.5)])
    category_cells = sorted(tuple(p.get_center()) for p in heat.patches if p.get_gid() == "category")
    np.testing.assert_allclose(category_cells, [(0.5, 1.5), (1.5, 0.5), (3.5, 0.5), (4.5, 2.5)])
    assert [text.get_text() for text in heat.texts][:2] == [f"{scores[0, 0]:.2f}", f"{scores[0, 1]:.2f}"]
    np.testing.assert_allclose([bar.get_width() for bar in losses.containers[0]], instance)
    np.testing.assert_allclose([bar.get_width() for bar in losses.containers[1]], category)
    assert_apart(figure, heat.get_yticklabels() + losses.texts)


def training_log() -> pd.DataFrame:
    steps = [{"step": s, "loss": 4 / s, "instance": 3 / s, "category": 5 / s, "lr": 1e-3} for s in range(10, 101, 10)]
    values = ((50, 0.2, 0.6, 0.3), (80, 0.5, 0.8, 0.6), (100, 0.55, 0.8, 0.6))
    looks = [{"step": s, "val.top1": a, "val.top10": b, "val.mrr": c} for s, a, b, c in values]
    return pd.DataFrame(steps + looks).sort_values("step", kind="stable")


def test_training_curves_mark_the_weights_that_were_kept() -> None:
    figure = draw(figures.training_curves(training_log(), smooth=3))
    validation = next(ax for ax in figure.axes if "Validation" in ax.get_title(loc="left"))
    marks = {line.get_color(): line for line in validation.lines if line.get_gid() == "best"}
    # The first of two equal MRR is kept, whatever Top-1 says.
    assert {float(line.get_xdata()[0]) for line in marks.values()} == {80.0}
    assert {float(line.get_ydata()[0]) for line in marks.values()} == {0.5, 0.8, 0.6}
    assert any("step 80" in text.get_text() for text in validation.texts)
    loss = next(ax for ax in figure.axes if ax.get_title(loc="left") == "Training loss")
    raw, smooth = loss.lines[:2]
    np.testing.assert_allclose(raw.get_ydata(), 3 / np.arange(10, 101, 10))
    assert smooth.get_ydata()[1] == pytest.approx(np.mean([3 / 10, 3 / 20, 3 / 30]))
    assert_apart(figure, written(figure))


def test_training_curves_of_a_run_that_was_best_at_once() -> None:
    log = training_log()
    log.loc[log.step == 50, "val.mrr"] = 0.9
    figure = draw(figures.training_curves(log))
    assert_apart(figure, written(figure))


def test_effects_are_coloured_only_where_the_interval_leaves_zero_out() -> None:
    table = pd.DataFrame({
        "name": ["better", "worse", "unclear"], "difference": [0.03, -0.02, 0.005], "low": [0.01, -0.03, -0.01],
        "high": [0.05, -0.01, 0.02], "by_seed": [[0.02, 0.04], [-0.02, -0.02], [0.0, 0.01]],
    })  # fmt: skip
    (ax,) = draw(figures.effects(table, "points")).axes
    lines = {kind: [line for line in ax.lines if line.get_gid() == kind] for kind in ("point", "interval", "seed")}
    assert [line.get_xdata()[0] for line in lines["point"]] == [3.0, -2.0, 0.5]
    assert [list(line.get_xdata()) for line in lines["interval"]] == [[1, 5], [-3, -1], [-1, 2]]
    assert [list(line.get_xdata()) for line in lines["seed"]] == [[2, 4], [-2, -2], [0, 1]]
    assert len({line.get_color() for line in lines["point"]}) == 3
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.name)


def test_result_points() -> None:
    table = pd.DataFrame({
        "method": ["ours", "chance", "someone else"], "kind": ["measured", "measured", "published"],
        "top1": [0.7, 0.0, 0.8], "top1_low": [0.65, np.nan, np.nan], "top1_high": [0.74, np.nan, np.nan],
        "top10": [0.93, 0.02, np.nan],
    })  # fmt: skip
    figure = draw(figures.result_points(table, metrics=("top1", "top10")))
    first, second = figure.axes
    points = [line for line in first.lines if line.get_gid() == "point"]
    assert [line.get_xdata()[0] for line in points] == [0.7, 0.0, 0.8]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, False, True]
    (interval,) = [line for line in first.lines if line.get_gid() == "interval"]
    assert list(interval.get_xdata()) == [0.65, 0.74]
    assert [text.get_text() for text in second.texts] == ["93.0", "2.0"]
    assert [label.get_text() for label in first.get_yticklabels()] == list(table.method)
    assert_apart(figure, written(figure))


def test_category_bars_are_sorted() -> None:
    table = pd.DataFrame({
        "of": CATEGORIES, "queries": [10, 20, 30, 40], "top1": [0.5, 0.9, 0.3, 0.7], "top1_low": [0.4, 0.8, 0.2, 0.6],
        "top1_high": [0.6, 1.0, 0.4, 0.8], "top10": [0.9, 1.0, 0.6, 0.95],
    })  # fmt: skip
    figure = draw(figures.category_bars(table))
    (ax,) = figure.axes
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == [
        "bookcase",
        "truck-bus",
        "bed",
        "cabinet",
    ]
    assert [bar.get_width() for bar in ax.patches] == [0.9, 0.7, 0.5, 0.3]
    assert_apart(figure, [*ax.get_yticklabels(), *ax.get_xticklabels(), ax.xaxis.label, ax._left_title])  # type: ignore[attr-defined]


def test_rank_curves() -> None:
    ranks = {"seen": np.array([1, 1, 2, 11]), "unseen": np.array([1, 5, 5, 20])}
    figure = draw(figures.rank_curves(ranks, gallery=20))
    (ax,) = figure.axes
    seen = next(line for line in ax.lines if line.get_label().startswith("seen"))
    assert list(seen.get_ydata()[[0, 1, 9, 10, 19]]) == [0.5, 0.75, 0.75, 1, 1]
    assert sorted(text.get_text() for text in ax.texts) == ["25", "50", "75", "75"]  # equal shares stay apart
    assert_apart(figure, written(figure))


def test_confusion_rows_add_up() -> None:
    true = ["bed"] * 4 + ["cabinet"] * 2
    found = ["bed", "bed", "cabinet", "lamp", "cabinet", "bed"]
    figure = draw(figures.confusion(true, found))
    ax = figure.axes[0]
    values = ax.collections[0].get_array().reshape(2, 3)
    np.testing.assert_allclose(values, [[50, 25, 25], [50, 50, 0]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["bed", "cabinet", "others"]
    assert_apart(figure, [*ax.get_yticklabels(), *ax.texts, ax.xaxis.label])


def test_margins_divide_right_from_wrong() -> None:
    values = {"Seen": np.array([0.3, 0.2, 0.001, -0.001]), "Unseen": np.array([-0.3, 0.1, -0.2])}
    figure = draw(figures.margins(values))
    for ax, margin in zip(figure.axes, values.values(), strict=True):
        bars = dict.fromkeys((style.RIGHT, style.WRONG), 0.0)
        for patch in ax.patches:
            bars[to_hex(patch.get_facecolor())] += patch.get_height()
            assert (patch.get_x() >= -1e-9) == (to_hex(patch.get_facecolor()) == style.RIGHT) or not patch.get_height()
        assert bars == {style.RIGHT: (margin > 0).sum(), style.WRONG: (margin <= 0).sum()}
    assert_apart(figure, written(figure))


def test_embedding_map() -> None:
    names = np.repeat(CATEGORIES, 30)
    middles = {"bed": (0, 0), "bookcase": (0.2, 0.1), "cabinet": (0.1, 0.15), "truck-bus": (5, 5)}
    places = np.array([middles[name] for name in names]) + RNG.normal(0, 0.3, (120, 2))
    is_photo = np.arange(120) % 3 > 0
    figure = draw(figures.embedding_map(places, names, is_photo))
    (ax,) = figure.axes
    dots, triangles = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), places[is_photo])
    np.testing.assert_allclose(triangles.get_offsets(), places[~is_photo])
    colors = figures.category_colors(CATEGORIES)
    assert to_hex(dots.get_facecolors()[0]) == colors["bed"]
    assert sorted(text.get_text() for text in ax.texts if text.get_gid() == "name") == CATEGORIES
    assert_apart(figure, list(ax.texts))  # three categories lie on top of one another


def test_retrieval_frames_the_right_shape_and_no_other() -> None:
    right = np.zeros((3, 5), dtype=bool)
    right[0, 0] = right[1, 3] = True
    scores = np.sort(RNG.random((3, 5)))[:, ::-1]
    found, own, queries = pictures(3, 5), pictures(3), photos(3)
    figure = draw(
        figures.retrieval_rows(queries, own, found, scores, right, ["bed, rank 1", "sofa, rank 4", "car, rank 9"])
    )
    axes = np.array(figure.axes).reshape(3, 7)
    assert [ax.get_title() for ax in axes[0]] == ["photo", "own shape", "1", "2", "3", "4", "5"]
    for r, k in np.ndindex(3, 5):
        ax = axes[r, 2 + k]
        assert framed(ax) == (style.RIGHT if right[r, k] else None)
        assert ax.get_xlabel() == ("✓ " if right[r, k] else "") + f"{scores[r, k]:.2f}"
        np.testing.assert_array_equal(ax.images[0].get_array()[..., 0], found[r, k])
    np.testing.assert_array_equal(axes[2, 1].images[0].get_array()[..., 0], own[2])
    assert_apart(figure, written(figure))


def test_attended_views_name_the_strongest_in_bold() -> None:
    weight = weights(3)
    figure = draw(
        figures.attended_views(
            photos(3), pictures(3, 12), weight, ["chair/a-long-name → sofa/another: 0.83"] * 3, AZIMUTHS
        )
    )
    for row in range(3):
        labels = figure.axes[2 * row + 1].get_xticklabels()
        bold = [i for i, label in enumerate(labels) if label.get_fontweight() == "bold"]
        assert bold == [int(weight[row].argmax())]
        assert labels[bold[0]].get_text() == f"{AZIMUTHS[bold[0]]}°\n{weight[row].max():.2f}"
    assert_apart(figure, written(figure))


def searches():
    return [
        {
            "dtype": dtype, "shapes": shapes, "queries": queries, "seconds": [0.01 * queries, 0.02 * queries],
            "copy_rate": 3e10, "product_rate": 2e11, **search_work(shapes, queries, getattr(torch, dtype)),
        }
        for dtype in ("float32", "bfloat16") for shapes in (1000, 50_000) for queries in (1, 8, 256)
    ]  # fmt: skip


def test_scaling_shows_times_and_the_least_ones():
    left, right = figures.search_scaling(searches()).axes
    times, least = right.lines[0], right.lines[1]
    assert times.get_xdata().tolist() == [1, 8, 256] and times.get_ydata().tolist() == pytest.approx([20, 160, 5120])
    expected = [1e3 * least_seconds(row) for row in searches() if (row["dtype"], row["shapes"]) == ("float32", 50_000)]
    assert least.get_ydata().tolist() == pytest.approx(expected)
    assert len(left.get_legend().get_texts()) == 4


def test_a_roofline_bounds_rates_by_memory_and_by_products():
    (ax,) = figures.roofline([row for row in searches() if row["shapes"] == 50_000]).axes
    roof = ax.lines[0]
    x, y = np.array(roof.get_xdata()), np.array(roof.get_ydata())
    np.testing.assert_allclose(y, np.minimum(30 * x, 200))
    assert list(ax.lines[1].get_xdata()) == pytest.approx([1, 8, 256])  # 2 · 2 · Q / 4 bytes


@pytest.mark.parametrize("share", [0.94, 1.0, 1.06])
def test_the_higher_roof_has_its_name_above_and_the_lower_one_below(share):
    rows = [row for row in searches() if row["shapes"] == 50_000]
    for row in rows:
        row["product_rate"] *= share if row["dtype"] == "bfloat16" else 1
    figure = draw(figures.roofline(rows))
    (ax,) = figure.axes
    names = {text.get_text().removeprefix("products in "): text.get_window_extent() for text in ax.texts[:8]}
    float32, bfloat16 = names["float32"], names["bfloat16"]
    tops = [ax.transData.transform((1, rate))[1] for rate in (200, 200 * share)]
    (upper, lower) = (bfloat16, float32) if share > 1 else (float32, bfloat16)
    assert upper.y0 > max(tops) and lower.y1 < min(tops)


def test_bounds_are_shown_over_the_clusters_with_what_bounds_them():
    rows = [{"clusters": k, "skipped_by_radius": 0.1, "skipped_by_distance": 0.2} for k in (16, 64)]
    result = {"vectors": "trained", "skipped_by_products": 0.9, "rows": rows}
    first, _ = figures.bound_shares([result, result | {"vectors": "random"}]).axes
    assert first.get_title(loc="left") == "Trained vectors"
    assert [list(line.get_ydata()) for line in first.lines] == [[0.9, 0.9], [0.2, 0.2], [0.1, 0.1]]


def test_certificates_show_what_the_counts_say():
    needed = {"1000": [10, 20, 30, 40], "100000": [100, 200, 300, 4000]}
    left, right = figures.certificates(needed, 512).axes
    median, _, most = (line.get_ydata().tolist() for line in left.get_lines())
    assert median == [25, 250] and most == [40, 4000]
    at, share = right.get_lines()[0].get_data()
    assert dict(zip(at.tolist(), share.tolist(), strict=True))[256] == 0.5 and share[-1] == 1
