import struct

import numpy as np
import pytest
from photo_pixels import develop, layer, read_exr


def write_exr(path, channels, compression=0):
    """The smallest scan-line EXR: header, offsets, rows of float32 channels in alphabetical order."""
    names = sorted(channels)
    height, width = channels[names[0]].shape

    def attribute(name, kind, data):
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(data)) + data

    listed = b"".join(n.encode() + b"\0" + struct.pack("<iB3xii", 2, 0, 1, 1) for n in names) + b"\0"
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    head = b"\x76\x2f\x31\x01" + struct.pack("<i", 2)
    head += attribute("channels", "chlist", listed)
    head += attribute("compression", "compression", bytes([compression]))
    head += attribute("dataWindow", "box2i", window) + b"\0"
    rows = [
        struct.pack("<ii", y, 4 * width * len(names)) + b"".join(channels[n][y].astype("<f4").tobytes() for n in names)
        for y in range(height)
    ]
    start = len(head) + 8 * height
    offsets = b"".join(struct.pack("<Q", start + y * len(rows[0])) for y in range(height))
    path.write_bytes(head + offsets + b"".join(rows))


def test_read_exr(tmp_path):
    rng = np.random.default_rng(0)
    channels = {f"View.Combined.{c}": rng.random((5, 7)).astype(np.float32) for c in "RGB"}
    write_exr(tmp_path / "a.exr", channels)
    read = read_exr(tmp_path / "a.exr")
    assert set(read) == set(channels)
    for name in channels:
        np.testing.assert_array_equal(read[name], channels[name])
    np.testing.assert_array_equal(layer(read, "Combined.G"), channels["View.Combined.G"])
    with pytest.raises(KeyError):
        layer(read, "Depth.Z")


def test_compressed_files_are_refused(tmp_path):
    write_exr(tmp_path / "a.exr", {"R": np.zeros((2, 2))}, compression=3)
    with pytest.raises(ValueError, match="NONE"):
        read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize("light", [1e-3, 1.0, 1e3])
def test_exposure_follows_the_light(light):
    linear = np.random.default_rng(0).uniform(0.2, 1.0, (32, 32, 3)) * light
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    photo = develop(linear, mask, np.random.default_rng(1))
    assert photo.dtype == np.uint8
    assert 50 < photo[mask].mean() < 220
