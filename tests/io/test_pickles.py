"""Small pickles that unpack without end."""

import pickle
import struct
import time

import numpy as np
import pytest

from cmiclib.errors import SourceError
from cmiclib.io.pickles import load_pickle


def pairs(depth: int) -> bytes:
    """Opcodes of a pair that holds one pair twice, and so on."""
    return b"K\x01" + b"2\x86" * depth


@pytest.fixture(autouse=True)
def quick():
    started = time.process_time()
    yield
    assert time.process_time() - started < 5


def test_one_tuple_in_many_places_becomes_one_list(tmp_path) -> None:
    value = load_pickle(b"\x80\x02" + pairs(200) + b".", tmp_path / "x", SourceError)
    assert value[0] is value[1] and value[0][0] is value[0][1]


@pytest.mark.parametrize(
    "body",
    [b"}" + pairs(60) + b"K\x01s", b"}(" + pairs(60) + b"K\x01u", b"(" + pairs(60) + b"K\x01d",
     b"\x8f(" + pairs(60) + b"\x90", b"(" + pairs(60) + b"\x91"],
    ids=["one entry", "entries", "dictionary", "set", "frozen set"],
)  # fmt: skip
def test_a_key_that_takes_for_ever_to_hash_is_refused(body, tmp_path) -> None:
    with pytest.raises(SourceError, match=r"as a key|a set"):
        load_pickle(b"\x80\x04" + body + b".", tmp_path / "x", SourceError)


def test_a_bytearray_that_is_not_there_claims_nothing(tmp_path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        load_pickle(b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b"abc.", tmp_path / "x", SourceError)


def test_one_text_is_not_encoded_again_and_again(tmp_path) -> None:
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    again = b"c_codecs\nencode\n" + b"h\x01X\x06\x00\x00\x00latin1\x86R"
    body = b"\x80\x02]q\x00(" + text + b"q\x01" + again * 100 + b"e."
    with pytest.raises(SourceError, match="unpacks to more than it holds"):
        load_pickle(body, tmp_path / "x", SourceError)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_still_come_back(protocol, tmp_path) -> None:
    value = {"a": [np.arange(6).reshape(2, 3)], "b": (1, "x", b"y", None, 2.5)}
    read = load_pickle(pickle.dumps(value, protocol), tmp_path / "x", SourceError)
    assert np.array_equal(read["a"][0], value["a"][0]) and read["b"] == [1, "x", b"y", None, 2.5]
