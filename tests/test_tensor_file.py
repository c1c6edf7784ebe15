"""What is written piece by piece is read by the safetensors library."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cmiclib.tensor_file import NAMES, Blocks, write_tensors


@pytest.mark.parametrize("dtype", NAMES, ids=str)
def test_every_type_comes_back(dtype, tmp_path):
    values = (100 * torch.rand(7, 3, 2)).to(dtype)
    tensors = {"ä": Blocks(values.shape, dtype, values.split(3)), "one": Blocks.of(values[0, 0, 0])}
    write_tensors(tmp_path / "file", tensors, {"text": "a „b“"})
    back = load_file(tmp_path / "file")
    assert torch.equal(back["ä"], values) and torch.equal(back["one"], values[0, 0, 0])
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == {"text": "a „b“"}


def test_numbers_of_several_sizes_are_aligned(tmp_path):
    tensors = {
        "a": torch.arange(3, dtype=torch.uint8), "b": torch.randn(5).bfloat16(),
        "c": torch.randn(3), "d": torch.tensor(7),
    }  # fmt: skip
    write_tensors(tmp_path / "file", {name: Blocks.of(value) for name, value in tensors.items()}, {})
    for name, value in load_file(tmp_path / "file").items():
        assert torch.equal(value, tensors[name]) and value.data_ptr() % value.itemsize == 0


@pytest.mark.parametrize("parts", [[(2, 3)], [(2, 3), (2, 3), (2, 3)], [(2, 3), (2, 4)]])
def test_parts_that_do_not_make_the_tensor_are_refused(parts, tmp_path):
    blocks = Blocks((4, 3), torch.float32, [torch.zeros(shape) for shape in parts])
    with pytest.raises(ValueError, match="x"):
        write_tensors(tmp_path / "file", {"x": blocks}, {})
