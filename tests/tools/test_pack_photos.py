import io
import json
import zipfile

import numpy as np
import pytest
from pack_photos import COLUMNS, archives, crop_box, crop_mask, pack, read_records, sheet
from PIL import Image


def raw_photo(folder, shape, k, amodal=False, side=160):
    """A synthetic raw photo: a red square, its mask and its record."""
    name = f"{shape.replace('/', '__')}__{k:02d}"
    rng = np.random.default_rng(k)
    mask = np.zeros((side, side), bool)
    mask[40 : 90 + k, 30:100] = True
    frame = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
    frame[mask] = [200, 30, 30]
    Image.fromarray(frame).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}.mask.png")
    if amodal:
        whole = mask.copy()
        whole[40:90, 30:120] = True
        Image.fromarray(whole).save(folder / f"{name}.amodal.png")
    record = dict.fromkeys(COLUMNS, 0) | {
        "query_id": name, "shape_id": shape, "category": shape.split("/")[0], "k": k,
        "truncated": False, "occluded": amodal, "slightly_occluded": False,
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(record))


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for n in range(3):
        for k in range(4):
            raw_photo(folder, f"chair/C0_{n}", k, amodal=k == 2)
    return folder


def test_crop_box_surrounds_the_mask():
    mask = np.zeros((160, 160), bool)
    mask[50:90, 60:80] = True
    x0, y0, side = crop_box(mask)
    assert side == 48
    assert (x0, y0) == (46, 46)


def test_crop_box_is_shifted_into_the_frame_or_is_the_frame():
    mask = np.zeros((160, 160), bool)
    mask[0:100, 150:160] = True
    assert crop_box(mask) == (40, 0, 120)
    mask[:, 150:160] = True
    assert crop_box(mask) == (0, 0, 160)
    with pytest.raises(ValueError, match="empty"):
        crop_box(np.zeros((4, 4), bool))


def test_crop_mask_counts_half_covered_pixels():
    mask = np.zeros((256, 256), bool)
    mask[:, :128] = True
    small = crop_mask(mask, (0, 0, 256))
    assert small.shape == (128, 128)
    assert small[:, :64].all() and not small[:, 64:].any()


def test_archives_hold_photos_masks_and_records(raw, tmp_path):
    (path,) = pack(raw, tmp_path / "photos")
    rows = read_records(tmp_path / "photos")
    assert [r["query_id"] for r in rows][:3] == [f"chair__C0_{n}__00" for n in range(3)]
    assert set(rows[0]) == {*COLUMNS, "archive"}
    assert rows[0]["truncated"] == "false"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        assert [n for n in names if "amodal" in n] == [f"chair__C0_{n}__02.amodal.png" for n in range(3)]
        photo = np.array(Image.open(io.BytesIO(archive.read("chair__C0_0__00.jpg"))))
        mask = np.array(Image.open(io.BytesIO(archive.read("chair__C0_0__00.png")))) > 0
    assert photo.shape == (128, 128, 3)
    assert photo[mask][:, 0].mean() > 170
    assert photo[~mask][:, 0].mean() < 60


def test_packing_is_deterministic(raw, tmp_path):
    (a,), (b,) = pack(raw, tmp_path / "a"), pack(raw, tmp_path / "b")
    assert a.read_bytes() == b.read_bytes()


def test_packing_appends_and_never_rewrites(raw, tmp_path):
    folder = tmp_path / "photos"
    (first,) = pack(raw, folder, last_k=1)
    before = first.read_bytes()
    assert len(read_records(folder)) == 6
    (second,) = pack(raw, folder)
    assert (first.name, second.name) == ("photos-00.zip", "photos-01.zip")
    assert first.read_bytes() == before
    assert len({r["query_id"] for r in read_records(folder)}) == 12
    assert pack(raw, folder) == []


def test_archives_stay_below_the_limit(raw, tmp_path):
    pack(raw, tmp_path / "photos", limit=30_000)
    written = archives(tmp_path / "photos")
    assert len(written) > 1
    assert all(p.stat().st_size <= 30_000 for p in written)
    assert len(read_records(tmp_path / "photos")) == 12


def test_sheet(raw, tmp_path):
    pack(raw, tmp_path / "photos")
    sheet(tmp_path / "photos", tmp_path / "sheet.png", columns=4)
    assert Image.open(tmp_path / "sheet.png").size == (512, 384)
