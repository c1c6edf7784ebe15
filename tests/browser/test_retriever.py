"""Answers are those of search and evaluation, however the object is cut out."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cmiclib.browser import QueryBrowser, static_page
from cmiclib.browser.page import MapPicture, answer_png, guessed, outlined, verdict
from cmiclib.browser.retriever import Choice, Question, Retriever, best_mask
from cmiclib.cli import app
from cmiclib.errors import BenchmarkError, ImageError
from cmiclib.evaluation.report import score_index
from cmiclib.index import ShapeIndex
from cmiclib.io.foreground import ALONE
from cmiclib.study.variants import Change, apply_variant


def search(tmp_path, index, *arguments) -> list[dict]:
    index.save(tmp_path / "index.safetensors")
    options = ["--index", str(tmp_path / "index.safetensors"), "--json", str(tmp_path / "found.json"), "--top", "8"]
    done = CliRunner().invoke(app, ["search", *map(str, arguments), *options])
    assert done.exit_code == 0, done.output
    return json.loads((tmp_path / "found.json").read_text())


def test_stored_photos_are_answered_as_evaluated(retriever, index, tiny_benchmark):
    table = score_index(index, tiny_benchmark).table()
    for record in table.itertuples():
        answer = retriever.answer(retriever.stored(record.row))
        assert answer.rank == record.rank and answer.found[0].shape_id == record.first
        assert answer.margin == pytest.approx(record.margin, abs=1e-6)
        assert [each.right for each in answer.found] == [each.shape_id == record.shape_id for each in answer.found]
        scores = sorted((each.score for each in answer.found), reverse=True)
        assert answer.lead == pytest.approx(scores[0] - scores[1], abs=1e-6)
        assert all(each.weights.sum() == pytest.approx(1, abs=1e-5) for each in answer.found)


def test_rankings_equal_the_commands(retriever, index, tiny_benchmark, tmp_path):
    names = tiny_benchmark.queries.query_id.to_numpy()[retriever.rows]
    found = search(tmp_path, index, *names, "--benchmark", tiny_benchmark.path)
    for row, result in zip(retriever.rows, found, strict=True):
        record = retriever.answer(retriever.stored(row)).record()
        assert record["object"] == result["object"]
        assert [each["shape_id"] for each in record["results"]] == [each["shape_id"] for each in result["results"]]
        np.testing.assert_allclose(
            [each["score"] for each in record["results"]], [each["score"] for each in result["results"]], atol=1e-6
        )


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        (Choice("given"), ["--mask", "mask.png"]),
        (Choice("automatic"), ["--auto-mask"]),
        (Choice("automatic", (4, 4, 28, 28)), ["--box", "4,4,28,28", "--auto-mask"]),
        (Choice("none", (4, 4, 28, 28)), ["--box", "4,4,28,28"]),
        (Choice("none"), []),
    ],
)
def test_a_photo_of_ones_own_is_cut_as_the_command_cuts_it(retriever, index, tmp_path, choice, options):
    stored = retriever.stored(int(retriever.rows[0]))
    Image.fromarray(stored.photo).save(tmp_path / "photo.png")
    Image.fromarray(stored.mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    options = [tmp_path / option if option.endswith(".png") else option for option in options]
    (expected,) = search(tmp_path, index, tmp_path / "photo.png", *options)
    answer = retriever.answer(Question("photo.png", stored.photo, stored.mask), choice)
    assert [each.shape_id for each in answer.found] == [each["shape_id"] for each in expected["results"]]
    assert answer.rank is None and answer.margin is None
    assert ("automatic" in answer.query.how) == ("automatic" in expected["object"])


def test_mirror_box_and_mask_change_the_query(retriever):
    question = retriever.stored(int(retriever.rows[0]))
    plain = retriever.answer(question)
    mirrored = retriever.answer(question, Choice(mirror=True))
    np.testing.assert_array_equal(mirrored.query.image, plain.query.image[:, :, ::-1])
    assert mirrored.query.how.endswith("mirrored")
    part = retriever.answer(question, Choice(box=(0, 0, 16, 32)))
    assert part.query.how == "given mask, within the box" and not part.query.mask[:, 16:].any()
    with pytest.raises(ImageError, match="nothing within the box"):
        retriever.answer(question, Choice(box=(0, 0, 1, 1)))
    bare = Question("photo", question.photo)
    assert best_mask(bare) == "none" and best_mask(question) == best_mask(question, (1, 1, 5, 5)) == "given"
    alone = dataclasses.replace(question, how=ALONE)
    assert best_mask(alone) == "given" and best_mask(alone, (1, 1, 5, 5)) == "none", "a box says what counts"
    with pytest.raises(ImageError, match="has no mask"):
        retriever.answer(bare, Choice("given"))


def test_photos_are_filtered_and_sorted(retriever):
    table = retriever.table
    assert set(table.outcome) <= {"right", "wrong"} and ((table.outcome == "right") == (table.margin > 0)).all()
    assert retriever.select(order="worst first").margin.is_monotonic_increasing
    assert retriever.select(order="most doubtful first").margin.abs().is_monotonic_increasing
    for outcome in ("right", "wrong"):
        assert set(retriever.select(outcome=outcome).outcome) <= {outcome}
    assert set(retriever.select("box").category) == {"box"}
    sample = retriever.spread(4)
    assert len(sample) == 4 and sample.shape_id.is_unique and sample.margin.is_monotonic_decreasing


def test_where_shapes_are_too_few_each_gives_as_few_photos_as_do(retriever):
    shapes, photos = retriever.table.shape_id.nunique(), len(retriever.table)
    assert retriever.spread(shapes).shape_id.is_unique and shapes < photos
    more = retriever.spread(shapes + 1)
    assert len(more) == shapes + 1 and more.query_id.is_unique and more.shape_id.value_counts().max() <= 2
    everything = retriever.spread(1000)
    assert len(everything) == photos and everything.margin.is_monotonic_decreasing


def test_the_listing_asks_for_no_embedding(index, tiny_benchmark):
    fresh = Retriever(index, tiny_benchmark)
    assert len(fresh.select("box")) and fresh.vectors is None
    done = []
    fresh.embed_photos(lambda part, total: done.append((part, total)))
    assert done[-1] == (len(fresh.rows), len(fresh.rows))


def test_a_gallery_without_photos_lists_and_sorts_none(index, tiny_benchmark):
    gallery = dataclasses.replace(tiny_benchmark, queries=tiny_benchmark.queries.iloc[:0])
    browser = QueryBrowser(index, gallery)
    browser.order.value = "worst first"
    assert browser.problem.value == "" and browser.photo.options == () and browser.answer is None


def test_views_are_those_of_the_index(index, tiny_benchmark):
    variant = apply_variant(tiny_benchmark, Change(views=3))
    three = Retriever(ShapeIndex.build(index.model, variant, index.config), variant)
    answer = three.answer(three.stored(int(three.rows[0])))
    assert three.azimuths == (0, 120, 240) and len(answer.found[0].weights) == 3
    assert np.array_equal(three.gallery.views, tiny_benchmark.views[:, ::4])


def test_the_index_of_another_gallery_is_refused(index, tiny_benchmark):
    half = ShapeIndex(index.views[:4], index.attention, index.shape_ids[:4], index.model, index.config)
    with pytest.raises(BenchmarkError, match="it has 8 shapes, the index 4"):
        Retriever(half, tiny_benchmark)


def test_of_several_right_shapes_the_best_scored_is_the_own_one(index, tiny_benchmark):
    queries = tiny_benchmark.queries.assign(shape_id="|".join(tiny_benchmark.shapes.shape_id[1:3]))
    asked = Retriever(index, dataclasses.replace(tiny_benchmark, queries=queries))
    named = set()
    for row in asked.rows:
        answer = asked.answer(asked.stored(int(row)), Choice(top=8))
        score = {each.shape_id: each.score for each in answer.found}
        assert answer.own.shape_id == max(answer.question.own, key=score.__getitem__)
        assert answer.found[answer.rank - 1].shape_id == answer.own.shape_id
        assert answer.rank == 1 or answer.own.shape_id in verdict(answer)
        assert answer_png(asked, answer).startswith(b"\x89PNG")
        named.add(answer.own.shape_id)
    assert named != {min(tiny_benchmark.shapes.shape_id[1:3])}, "the first name must not always be the best"


def test_a_place_on_the_map_is_that_of_the_nearest(retriever):
    atlas = retriever.atlas
    for i in (0, len(atlas.points) - 1):
        np.testing.assert_allclose(atlas.locate(atlas.points[i]), atlas.places[i], atol=1e-2 * np.ptp(atlas.places))
    picture = MapPicture(atlas)
    percent = np.array([picture.percent(place) for place in atlas.places])
    assert (percent > 0).all() and (percent < 100).all()
    highest, leftmost = atlas.places[:, 1].argmax(), atlas.places[:, 0].argmin()
    assert percent[:, 1].argmin() == highest and percent[:, 0].argmin() == leftmost


def test_pictures_show_the_choice(retriever):
    question = retriever.stored(int(retriever.rows[0]))
    answer = retriever.answer(question, Choice(mirror=True))
    drawn = outlined(answer)
    assert drawn.shape == (360, 360, 3)
    np.testing.assert_array_equal(drawn[:, ::-1], outlined(retriever.answer(question)))
    png = answer_png(retriever, answer, 1)
    assert png.startswith(b"\x89PNG")
    own = Question("photo", question.photo)
    assert answer_png(retriever, retriever.answer(own, Choice("none"))).startswith(b"\x89PNG")


@pytest.mark.parametrize("mirror", [False, True])
def test_a_silhouette_is_outlined_where_it_lies_in_the_photo(retriever, mirror):
    photo = np.full((120, 200, 3), 128, np.uint8)
    question, box = Question("own", photo), (60.0, 20.0, 100.0, 60.0)  # its square is 48 pixels from (56, 16)
    answer = retriever.answer(question, Choice("none", box, mirror=mirror))
    assert answer.query.soft is None, "this model cuts nothing out"
    soft = np.zeros((224, 224), np.float32)
    soft[56:168, 28:112] = 1  # 12 to 36 pixels below, 6 to 24 from the left
    soft = soft[:, ::-1] if mirror else soft
    marked = dataclasses.replace(answer, query=answer.query._replace(soft=soft))
    drawn, plain = outlined(marked, side=200), outlined(answer, side=200)
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    columns = 199 - columns if mirror else columns
    found = (columns.min(), rows.min(), columns.max(), rows.max())
    np.testing.assert_allclose(found, (62, 28, 80, 52), atol=2.5)  # a line has three pixels
    area = np.zeros((120, 200), bool)
    area[28:52, 62:80] = True
    np.testing.assert_array_equal(guessed(marked), area)
    assert guessed(answer) is None


@pytest.fixture
def of_one_shape(index, tiny_benchmark):
    """A gallery of one shape, and its photos."""
    own = (tiny_benchmark.queries.shape_id == index.shape_ids[0]).to_numpy()
    gallery = dataclasses.replace(
        tiny_benchmark,
        shapes=tiny_benchmark.shapes.iloc[:1],
        queries=tiny_benchmark.queries[own].reset_index(drop=True),
        arrays={"views.npy": tiny_benchmark.views[:1], "queries.npy": tiny_benchmark.images[own]},
    )
    one = ShapeIndex(index.views[:1], index.attention, index.shape_ids[:1], index.model, index.config)
    return Retriever(one, gallery)


def strict(page: str) -> dict:
    """Parse a page's data as JSON.parse does, which knows no Infinity and no NaN."""
    block = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(block, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_gallery_of_one_shape_has_no_margin(of_one_shape):
    answer = of_one_shape.answer(of_one_shape.stored(int(of_one_shape.rows[0])))
    assert answer.rank == 1 and answer.margin is None and answer.lead is None
    assert verdict(answer).endswith("comes first with score " + f"{answer.found[0].score:.3f}.")
    assert of_one_shape.table.margin.isna().all() and len(of_one_shape.select(order="worst first"))
    (record, *_) = strict(static_page(of_one_shape, of_one_shape.rows))["records"]
    assert record["margin"] is None and record["lead"] is None
    unknown = of_one_shape.answer(Question("photo", answer.question.photo), Choice("none"))
    assert unknown.rank is None and unknown.lead is None and "not known" in verdict(unknown)


def test_a_photo_for_which_all_shapes_are_right_has_no_margin(retriever):
    question = retriever.stored(int(retriever.rows[0]))
    answer = retriever.answer(dataclasses.replace(question, own=frozenset(retriever.index.shape_ids)))
    assert answer.rank == 1 and answer.margin is None and answer.lead > 0
    assert json.dumps(answer.record(), allow_nan=False) and "Right." in verdict(answer)


def test_in_the_widget_a_gallery_of_one_shape_is_listed_and_exported(of_one_shape):
    browser = QueryBrowser(of_one_shape.index, of_one_shape.gallery)
    browser.order.value = "worst first"
    browser.export.click()
    assert browser.problem.value == "" and "nan" not in browser.photo.options[0][0] and browser.links.value


def test_records_are_json(retriever):
    record = json.loads(json.dumps(retriever.answer(retriever.stored(int(retriever.rows[0]))).record()))
    assert len(record["results"]) == 8 and len(record["results"][0]["weights"]) == 12
    assert sum(record["results"][0]["weights"]) == pytest.approx(1, abs=1e-4)
    assert torch.isfinite(torch.tensor([each["score"] for each in record["results"]])).all()
