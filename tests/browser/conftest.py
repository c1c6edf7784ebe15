"""A small model and what the browser makes of it."""

import pytest
import torch

from cmiclib.browser.retriever import Retriever
from cmiclib.config import Config
from cmiclib.index import ShapeIndex
from cmiclib.model import CMIC

SETTINGS = {
    "profile": "test",
    "model": {"query_backbone": "resnet10t", "view_backbone": "resnet10t", "image_size": 32, "init": "random"},
}


@pytest.fixture(scope="session")
def index(tiny_benchmark) -> ShapeIndex:
    torch.manual_seed(0)
    config = Config.model_validate(SETTINGS)
    return ShapeIndex.build(CMIC(config.model), tiny_benchmark, config)


@pytest.fixture(scope="session")
def retriever(index, tiny_benchmark) -> Retriever:
    return Retriever(index, tiny_benchmark)
