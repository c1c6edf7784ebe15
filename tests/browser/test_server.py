"""The app's server, asked by programs: its answers, its limits, and what it refuses."""

import asyncio
import dataclasses
import io
import json
import re
import threading
from base64 import b64decode
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from cmiclib import silhouette
from cmiclib.browser import server
from cmiclib.browser.doubt import Doubt, Limit
from cmiclib.browser.retriever import Choice, Question, Retriever
from cmiclib.browser.upload import MAX_BYTES, read_upload
from cmiclib.index import ShapeIndex


def asked(retriever, **options) -> TestClient:
    application, _ = server.application(retriever, "The tiny one", **options)
    return TestClient(application, base_url="http://127.0.0.1:8866", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(retriever) -> TestClient:
    return asked(retriever)


@pytest.fixture(scope="module")
def stored(retriever) -> Question:
    return retriever.stored(int(retriever.rows[1]))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo(stored) -> bytes:
    return png(stored.photo.repeat(4, axis=0).repeat(4, axis=1))


@pytest.fixture(scope="module")
def mask(stored) -> bytes:
    return png(stored.mask.repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8) * 255)


def search(client: TestClient, photo: bytes | None = None, mask: bytes | None = None, **fields) -> dict:
    parts = {"photo": photo, "mask": mask}
    files = {name: ("mine.png", content) for name, content in parts.items() if content is not None}
    reply = client.post("/search", data=fields, files=files or None)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize(
    ("fields", "masked", "choice"),
    [
        ({}, False, Choice("none")),
        ({"top": "3"}, False, Choice("none", top=3)),
        ({"box": "10,20,110,120"}, False, Choice("none", (10, 20, 110, 120))),
        ({"marking": "automatic", "mirror": "true"}, False, Choice("automatic", mirror=True)),
        ({}, True, Choice("given")),
        ({"marking": "none", "category": "box"}, True, Choice("none", category="box")),
    ],
)
def test_a_photo_is_answered_as_the_library_answers(client, retriever, photo, mask, fields, masked, choice):
    found = search(client, photo, mask if masked else None, **fields)
    shown = np.asarray(Image.open(io.BytesIO(mask))) >= 128 if masked else None
    expected = retriever.answer(Question("mine.png", read_upload(photo)[0], shown), choice)
    assert [each["shape_id"] for each in found["results"]] == [each.shape_id for each in expected.found]
    assert [each["score"] for each in found["results"]] == pytest.approx([each.score for each in expected.found])
    assert found["mask"] == choice.mask and found["size"] == [128, 128] and found["photo"] == "mine.png"
    assert found["rank"] is None and {each["right"] for each in found["results"]} == {None}
    assert all(sum(each["weights"]) == pytest.approx(1, abs=1e-4) for each in found["results"])


def test_a_test_photo_shows_its_right_shape_wherever_it_lies(client, retriever):
    ranks = []
    for row in retriever.rows:
        name = retriever.stored(int(row)).name
        found, expected = search(client, sample=name, top=1), retriever.answer(retriever.stored(int(row)))
        assert len(found["results"]) == 1 and found["rank"] == expected.rank == found["right_shape"]["rank"]
        assert found["right_shape"]["shape_id"] in found["own"] and found["right_shape"]["right"]
        assert found["results"][0]["right"] == (found["rank"] == 1)
        ranks.append(found["rank"])
    assert max(ranks) > 1, "some shape must lie further down than what is shown"


def test_a_category_is_searched_alone(client, retriever):
    found = search(client, sample=retriever.stored(int(retriever.rows[0])).name, category="round", top=8)
    assert {each["category"] for each in found["results"]} == {"round"} and len(found["results"]) == 3
    scores = [each["score"] for each in found["results"]]
    assert scores == sorted(scores, reverse=True) and found["visited"] == 3


@pytest.mark.parametrize(
    ("fields", "content", "said"),
    [
        ({}, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
        ({}, b"", "empty file"),
        ({}, b"\x89PNG\r\n\x1a\nbroken", "damaged|not an image"),
        ({"box": "1,2,3"}, None, "is not a box"),
        ({"box": "500,500,600,600"}, None, "no area inside the photo"),
        ({"top": "0"}, None, "`top`"),
        ({"top": "many"}, None, "`top`"),
        ({"category": "nowhere"}, None, "no shapes of the category"),
        ({"marking": "given"}, None, "has no mask"),
        ({"colour": "red"}, None, "`colour`"),
        ({"sample": "x"}, None, "either a photo or"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(client, photo, fields, content, said):
    reply = client.post("/search", data=fields, files={"photo": ("x.png", photo if content is None else content)})
    assert reply.status_code == 400 and re.search(said, reply.json()["problem"])
    assert "Traceback" not in reply.text and "/tmp" not in reply.text


def test_a_mask_of_another_size_and_a_question_without_a_photo_are_refused(client, photo):
    small = png(np.full((32, 40), 255, np.uint8))
    reply = client.post("/search", files={"photo": ("x.png", photo), "mask": ("m.png", small)})
    assert reply.status_code == 400 and "the mask has 40×32 pixels" in reply.json()["problem"]
    assert client.post("/search", data={"top": "3"}).status_code == 400
    assert client.post("/search", json={"top": 3}).status_code == 400
    assert client.post("/search", data={"sample": "unknown"}).json()["problem"].endswith("no photo 'unknown'")


def test_no_more_bytes_are_read_than_an_upload_may_have(client):
    large = b"x" * (2 * MAX_BYTES + 200_000)
    assert client.post("/search", content=large).status_code == 413

    sent, read = [], 0

    async def receive() -> dict:
        nonlocal read
        head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        read += 1
        return {"type": "http.request", "body": b"x" * 1_000_000 if read > 1 else head, "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/search", "headers": headers, "query_string": b""}
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 413 and b"20 MB" in sent[1]["body"] and read < 45
    one = client.post("/search", files={"photo": ("x.png", large[: MAX_BYTES + 1])})
    assert one.status_code == 400 and "more than 20" in one.json()["problem"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "attacker.example:8866"},
        {"Host": "127.0.0.1.attacker.example"},
        {"Host": "[::"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_pages_and_names_from_elsewhere_are_refused(client, retriever, headers):
    name = retriever.stored(int(retriever.rows[0])).name
    assert client.post("/search", data={"sample": name}, headers=headers).status_code == 403
    for path in ("/", "/about", "/openapi.json", f"/samples/{retriever.rows[0]}"):
        assert client.get(path, headers=headers).status_code == 403, path


def test_its_own_page_under_either_name_and_a_followed_link_are_let_in(client):
    for host in ("127.0.0.1:8866", "localhost:8866", "[::1]:8866"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert client.get("/about", headers=headers).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("up", ["../" * 12, quote("../", safe="") * 12, "..%2f" * 12, "%2e%2e/" * 12])
def test_no_path_leads_out(client, up):
    for below in ("/", "/shapes/", "/samples/", "/shapes/box/flat/views/", "/static/"):
        for target in ("etc/passwd", "server.py", "etc/passwd/mesh", "etc/passwd/views/0"):
            reply = client.get(below + up + target)
            assert reply.status_code in (404, 405) and "root:" not in reply.text, below + up + target


def test_other_methods_and_pages_do_not_exist(client):
    for path in ("/docs", "/redoc", "/lab", "/api/kernels", "/server.py", "/browser.css"):
        assert client.get(path).status_code == 404
    for method in ("put", "delete", "post"):
        assert getattr(client, method)("/about").status_code == 405
    assert client.get("/search").status_code == 405


def test_pictures_and_meshes_are_given_and_others_are_not(client, retriever, tiny_benchmark):
    found = search(client, sample=retriever.stored(int(retriever.rows[0])).name)
    shape = found["results"][0]
    view = client.get(shape["views"][3])
    assert Image.open(io.BytesIO(view.content)).size == (32, 32) and "max-age" in view.headers["Cache-Control"]
    mesh = client.get(shape["mesh"])
    assert mesh.content == tiny_benchmark.mesh_path(shape["shape_id"]).read_bytes()
    assert set(client.get(shape["mesh"].replace("/mesh", "/solid")).json()) == {"corners", "colors"}
    (sample, *_) = client.get("/about").json()["samples"]
    assert Image.open(io.BytesIO(client.get(sample["picture"]).content)).size == (32, 32)
    train = int(tiny_benchmark.rows("train")[0])
    for path in ("/shapes/box/flat/views/12", "/shapes/nothing/views/0", "/shapes/nothing/mesh", f"/samples/{train}"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("content", [b"", b"glTF", b"{", b"glTF" + bytes(40), b"x" * 100])
def test_a_mesh_that_cannot_be_read_is_said_in_words(retriever, monkeypatch, tmp_path, content):
    (tmp_path / "x.glb").write_bytes(content)
    monkeypatch.setattr(type(retriever.gallery), "mesh_path", lambda self, shape_id: tmp_path / "x.glb")
    reply = asked(retriever).get("/shapes/box/flat/solid")
    assert reply.status_code == 400 and "not a mesh" in reply.json()["problem"] and "x.glb" not in reply.text


def test_a_gallery_without_meshes_and_with_odd_names_is_shown(index, tiny_benchmark, tmp_path, stored):
    shapes = tiny_benchmark.shapes.assign(shape_id=[f"a?b/#{i} é&" for i in range(8)])
    odd = dataclasses.replace(tiny_benchmark, shapes=shapes, path=tmp_path, queries=tiny_benchmark.queries[:0])
    renamed = type(index)(index.views, index.attention, shapes.shape_id.tolist(), index.model, index.config)
    client = asked(Retriever(renamed, odd))
    (first, *_) = search(client, png(stored.photo))["results"]
    assert first["mesh"] == "" and client.get(first["views"][0]).status_code == 200
    about = client.get("/about").json()
    assert about["samples"] == [] and about["map"] is False


def test_who_comes_when_it_is_full_is_told(retriever, photo):
    client = asked(retriever, most_waiting=0)
    reply = client.post("/search", files={"photo": ("x.png", photo)})
    assert reply.status_code == 503 and reply.headers["Retry-After"]
    assert reply.json() == {"problem": "the app is full", "fix": "try again in a moment"}
    page = client.get("/")
    assert page.status_code == 503 and "The app is full" in page.text and client.get("/app.css").status_code == 200


def test_what_nobody_foresaw_is_neither_a_crash_nor_a_traceback(retriever, photo, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("secret /path/of/the/machine")

    client = asked(retriever)
    monkeypatch.setattr(retriever, "answer", fail)
    reply = client.post("/search", files={"photo": ("x.png", photo)})
    assert reply.status_code == 500 and "unexpectedly" in reply.json()["problem"] and "secret" not in reply.text
    monkeypatch.undo()
    assert search(client, photo)["results"]


def test_every_reply_forbids_other_servers(client):
    for path in ("/", "/about", "/nothing", "/app.js"):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers
    assert client.get("/", headers={"Host": "x.example"}).headers["Content-Security-Policy"]
    for name in ("/", "/app.js", "/app.css", "/solid.js"):
        assert not re.search(r"https?://", client.get(name).text), name


def test_the_description_is_that_of_the_answer(client, photo):
    described = client.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    found = search(client, photo)
    assert set(schemas["Answered"]["properties"]) == set(found)
    assert set(schemas["Shape"]["properties"]) == set(found["results"][0])
    form = described["paths"]["/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"photo", "mask", "box", "top", "category"} <= set(form["properties"]) and form["properties"]["top"][
        "maximum"
    ]
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)):
        assert name in schemas
    assert set(schemas["Problem"]["properties"]) == set(client.get("/nothing").json())


@pytest.mark.parametrize("value", [255, 0, 90])
def test_a_photo_of_one_colour_is_warned_of(client, value, photo):
    assert "almost one colour" in search(client, png(np.full((64, 64, 3), value, np.uint8)))["notices"][0]
    assert search(client, photo)["notices"] == []


def test_a_mask_comes_back_as_it_was_used(client, photo, mask):
    found = search(client, photo, mask)
    content = io.BytesIO(b64decode(found["marked"].split(",")[1]))
    np.testing.assert_array_equal(
        np.asarray(Image.open(content).convert("L")) >= 128, np.asarray(Image.open(io.BytesIO(mask))) >= 128
    )
    assert search(client, photo)["marked"] is None and search(client, photo)["preview"] is None
    assert search(client, photo, preview="true")["preview"].startswith("data:image/webp")


def test_the_guess_in_a_box_comes_back_in_the_photo(index, tiny_benchmark, monkeypatch):
    soft = np.zeros((1, 224, 224), np.float32)
    soft[:, :, :112] = 1  # the left half of the square around the box
    monkeypatch.setattr(silhouette, "silhouettes", lambda crops, boxes: soft)
    config = index.config.override(["model.mask=cutout"])
    cutting = ShapeIndex(index.views, index.attention, index.shape_ids, index.model, config)
    client = asked(Retriever(cutting, tiny_benchmark))
    photo = png(np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8))
    found = search(client, photo, box="60,20,100,60")  # its square is 48 pixels from (56, 16)
    assert found["object"] == "box, with a learnt silhouette" and found["marked"] is None
    guess = np.asarray(Image.open(io.BytesIO(b64decode(found["guessed"].split(",")[1]))).convert("L")) >= 128
    area = np.zeros((120, 200), bool)
    area[16:64, 56:80] = True
    np.testing.assert_array_equal(guess, area)
    assert search(client, photo)["guessed"] is None


def test_a_limit_is_chosen_on_validation_photos_and_measured_on_test_photos(retriever, tiny_benchmark):
    doubt = Doubt(retriever, least=4)
    assert "not said yet" in doubt.words()
    assert sum(1 for _ in doubt.steps()) > 2 and set(doubt.limits) == {"given", "none"}
    val, test = tiny_benchmark.rows("val"), tiny_benchmark.rows("test")
    scores = {rows is val: retriever.index.scores(retriever.index.embed(tiny_benchmark.images[rows])).numpy()
              for rows in (val, test)}  # fmt: skip
    limit = doubt.limits["given"]
    assert limit.score == pytest.approx(np.quantile(scores[True].max(axis=1), 0.1), abs=1e-5)
    assert limit.photos == len(test) and limit.present == (scores[False].max(axis=1) < limit.score).mean()
    others = np.where(tiny_benchmark.relevant(test), -np.inf, scores[False]).max(axis=1)
    assert limit.absent == (others < limit.score).mean() >= limit.present


def test_the_notice_is_given_below_its_limit_only_and_only_where_it_says_something(retriever):
    answer = retriever.answer(retriever.stored(int(retriever.rows[0])))
    doubt, best = Doubt(retriever), answer.found[0].score
    assert doubt.notice(answer) == ""
    doubt.limits["given"] = Limit(best + 0.1, present=0.1, absent=0.5, photos=50, worth=True)
    said = doubt.notice(answer)
    assert (
        said.startswith("Probably not in this gallery") and "50%" in said and "10%" in said and "50 test photos" in said
    )
    doubt.limits["given"] = Limit(best - 0.1, present=0.1, absent=0.5, photos=50, worth=True)
    assert doubt.notice(answer) == ""
    doubt.limits["given"], doubt.done = Limit(best + 0.1, present=0.4, absent=0.5, photos=50, worth=False), True
    assert doubt.notice(answer) == "" and "hardly tell" in doubt.words()


def test_without_photos_there_is_no_notice_and_that_is_said(index, tiny_benchmark):
    bare = Retriever(index, dataclasses.replace(tiny_benchmark, queries=tiny_benchmark.queries[:0]))
    doubt = Doubt(bare)
    assert list(doubt.steps()) == [] and doubt.limits == {} and "too few photos" in doubt.words()


def test_questions_come_before_the_limit_is_done(retriever, monkeypatch):
    enough = threading.Event()

    def long(self):
        while not enough.wait(0.001):
            yield

    monkeypatch.setattr(Doubt, "steps", long)
    client = asked(retriever)
    name = retriever.stored(int(retriever.rows[0])).name
    assert search(client, sample=name)["results"] and "not said yet" in client.get("/health").json()["notice"]
    enough.set()

    def broken(self):
        yield
        raise RuntimeError("a photo cannot be read")

    monkeypatch.setattr(Doubt, "steps", broken)
    client = asked(retriever)
    assert all(search(client, sample=name)["results"] for _ in range(3))
