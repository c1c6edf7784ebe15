"""Files that Jittor saved: real ones from `shared/parity`, and forged ones that must be refused without running."""

import hashlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
import torchvision

from cmiclib.config import Config, ModelConfig
from cmiclib.encoders import Encoder
from cmiclib.errors import CheckpointError
from cmiclib.io.jittor import MAGIC, read_jittor
from cmiclib.model import CMIC
from cmiclib.training.run import Run, convert_reference_checkpoint, load_reference_checkpoint
from cmiclib.weights import load_initial_weights

SMALL = ModelConfig(query_backbone="resnet18", view_backbone="resnet18", dim=16, init="random")


def envelope(body):
    return body + hashlib.sha1(body).digest() + MAGIC


def their_name(name):
    name = name.replace("view_encoder.", "rendering_encoder.").replace(".backbone.", ".resnet.")
    return name.replace(".head.", ".resnet.fc.").replace("attention_weight", "attention.linear_in.weight")


@pytest.fixture(scope="module")
def weights():
    """A small model's weights with the released names, as arrays."""
    torch.manual_seed(0)
    state = CMIC(SMALL).state_dict()
    arrays = {their_name(n): value.numpy() for n, value in state.items() if not n.endswith("num_batches_tracked")}
    return arrays | {"attention.linear_out.weight": np.zeros((16, 32), np.float32)}


@pytest.fixture
def save(tmp_path):
    def write(values, name="model.pt"):
        (tmp_path / name).write_bytes(envelope(values if isinstance(values, bytes) else pickle.dumps(values, 4)))
        return tmp_path / name

    return write


# Real files


@pytest.mark.shared
@pytest.mark.parametrize(
    "name, entries",
    [("tiny_jt1.3.1.63.pt", 19), ("small_jt1.3.1.63.pt", 24), ("tiny_jt1.3.11.0.pkl", 19), ("tiny_jt1.3.11.0.pt", 19)],
)
def test_each_kind_of_file_is_read(shared_root, name, entries):
    values = read_jittor(shared_root / "parity" / name)
    assert len(values) == entries
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in values.values())
    assert values["query_encoder.resnet.fc.1.bias"].shape == (128,)


@pytest.mark.shared
def test_the_three_kinds_of_one_model_hold_the_same_numbers(shared_root):
    first, *others = [
        read_jittor(shared_root / "parity" / f"tiny_jt{name}")
        for name in ("1.3.1.63.pt", "1.3.11.0.pkl", "1.3.11.0.pt")
    ]
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(value, first[name]) for name, value in other.items())


@pytest.mark.shared
def test_a_part_of_the_released_model_is_refused_with_what_it_lacks(shared_root):
    with pytest.raises(CheckpointError, match=r"missing: query_encoder\.backbone\.conv1\.weight.* and more"):
        load_reference_checkpoint(shared_root / "parity" / "tiny_jt1.3.1.63.pt")


# The whole way


@pytest.mark.parametrize("core", ["core", "_core"], ids=["numpy 1", "numpy 2"])
def test_a_checkpoint_becomes_the_model_that_it_was(weights, save, core):
    body = pickle.dumps(weights, 3)
    assert b"cnumpy._core.multiarray\n" in body
    body = body.replace(b"cnumpy._core.multiarray\n", f"cnumpy.{core}.multiarray\n".encode())
    model = load_reference_checkpoint(save(body), SMALL)
    state = model.state_dict()
    assert not model.training
    assert all(np.array_equal(state[n], weights[their_name(n)]) for n in state if "num_batches" not in n)


def test_a_converted_checkpoint_is_a_run_like_any_other(weights, save, tmp_path):
    run = convert_reference_checkpoint(save(weights), tmp_path / "run", Config(model=SMALL))
    again = Run.open(tmp_path / "run").model()
    photos = torch.rand(2, 4, 64, 64)
    torch.testing.assert_close(again.embed_queries(photos), run.model().embed_queries(photos), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="in use"):
        convert_reference_checkpoint(save(weights), tmp_path / "run", Config(model=SMALL))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w.pop("query_encoder.resnet.fc.1.bias"), r"1 missing: query_encoder\.head\.1\.bias"),
        (lambda w: w.update({"attention.extra": np.zeros(3, np.float32)}), r"1 unexpected: attention\.extra"),
        (lambda w: w.update({"query_encoder.resnet.fc.1.bias": np.zeros(3, np.float32)}), r"1 of another shape: query"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_what_does_not_fit_is_listed(weights, save, change, message):
    weights = dict(weights)
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        load_reference_checkpoint(save(weights), SMALL)


# Damaged and forged files


def test_a_damaged_file_is_known_by_its_checksum(weights, save):
    path = save(weights)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-1"):
        read_jittor(path)


def test_a_truncated_file_and_one_of_another_kind_say_so(weights, save, tmp_path):
    path = save(weights)
    path.write_bytes(path.read_bytes()[:-100])
    for other in (path, tmp_path / "text.pt"):
        if not other.exists():
            other.write_text("not weights")
        with pytest.raises(CheckpointError, match="not a file of Jittor, or its end is missing"):
            read_jittor(other)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_jittor(tmp_path / "nothing.pt")


def test_a_damaged_zip_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as file:
        file.writestr("archive/data.pkl", b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_jittor(tmp_path / "model.pt")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_is_not_run(save, tmp_path, protocol):
    body = pickle.dumps({"conv1.weight": Bomb(tmp_path / "boom")}, protocol)
    with pytest.raises(CheckpointError, match=r"open, which is not data"):
        read_jittor(save(body))
    assert not (tmp_path / "boom").exists()


def global_(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


FORGED = {
    "system": global_("os", "system") + b"(S'true'\ntR.",
    "builtin through numpy": global_("numpy", "load") + b"(S'x'\ntR.",
    "array of objects": pickle.dumps({"x": np.array([{}], dtype=object)}, 2),
    "array of strings": pickle.dumps({"x": np.array(["a"])}, 2),
    "numpy's class called": global_("numpy", "ndarray") + b"((I9\ntR.",
    "state of a function": global_("numpy.core.multiarray", "_reconstruct") + b"}b.",
    "state of a class": global_("numpy", "dtype") + b"N}S'numpy'\nNs\x86b.",
    "persistent id": b"P1\n.",
    "registered class": b"\x82\x01.",
    "text in another code": global_("_codecs", "encode") + b"(Vx\nVutf8\ntR.",
    "unfinished array": global_("numpy.core.multiarray", "_reconstruct") + b"(tR.",
    "nothing": b"",
    "stack underflow": b"R.",
    "far memo": b"Nr\xff\xff\xff\x7f0.",
    "long string that is not there": b"\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "wrong number of bytes": pickle.dumps({"x": np.zeros(4, np.float32)}, 2).replace(b"K\x04\x85", b"K\x05\x85"),
    "a list": pickle.dumps([np.zeros(3, np.float32)], 2),
    "no arrays": pickle.dumps({"x": "y"}, 2),
    "numbers as names": pickle.dumps({1: np.zeros(3, np.float32)}, 2),
    "a dictionary that holds itself": b"}q\x00(S'x'\nh\x00u.",
}


@pytest.mark.parametrize("body", FORGED.values(), ids=FORGED.keys())
def test_forged_pickles_are_refused(save, body):
    with pytest.raises(CheckpointError):
        read_jittor(save(body))


def test_forged_states_change_no_class(save):
    for name in ("state of a class", "state of a function"):
        with pytest.raises(CheckpointError, match="state"):
            read_jittor(save(FORGED[name]))


def test_a_torch_zip_with_code_is_not_run(tmp_path):
    torch.save({"x": Bomb(tmp_path / "boom")}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_jittor(tmp_path / "model.pt")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<i8", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_type_order_and_protocol_are_read(save, kind, order, protocol):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=kind, order=order)
    value = read_jittor(save(pickle.dumps({"x": array}, protocol)))["x"]
    assert np.array_equal(value.numpy(), array) and value.dtype == torch.from_numpy(array.astype(kind[1:])).dtype


def test_imagenet_weights_of_the_released_code_start_a_backbone(save, tmp_path):
    state = torchvision.models.resnet18().state_dict()
    arrays = {name: value.numpy() + 1 for name, value in state.items() if "num_batches" not in name}
    encoder = Encoder("resnet18", 1, ModelConfig(dim=8))
    load_initial_weights(encoder, "resnet18", str(save(arrays, "resnet18.pkl")))
    for name, value in encoder.backbone.state_dict().items():
        if "num_batches" not in name and name != "conv1.weight":
            assert np.array_equal(value, arrays[name]), name
