"""A trained model as two files, ``config.json`` and ``model.safetensors``: in a run folder, or on a model hub."""

from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .config import Config, ModelConfig, parse_config
from .errors import CheckpointError
from .io.atomic import write_atomically, write_json
from .io.files import check_inside, check_regular, read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
AGAIN = "train again, or copy the run folder again"
HUB = "hf-hub:"


class Pretrained(nn.Module):
    """Loading and saving, for :class:`cmiclib.model.CMIC`."""

    config: ModelConfig

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Return the model of a run folder, or of the hub's repository ``hf-hub:OWNER/NAME``, in evaluation mode.

        The hub's client keeps what it fetched in its own cache and needs a network the first time only; here, it was
        only tried with a hub that a test stands in for. CheckpointError: no such files, or weights that do not fit;
        ConfigError: a configuration that cannot be read.
        """
        if str(source).startswith(HUB):
            config, weights = (_from_hub(str(source).removeprefix(HUB), name) for name in (CONFIG, WEIGHTS))
        else:
            config, weights = (Path(source) / name for name in (CONFIG, WEIGHTS))
            for file in (config, weights):
                check_inside(file, Path(source), CheckpointError)
        settings = parse_config(read_json(config, CheckpointError, AGAIN), path=str(config)).model
        check_regular(weights, CheckpointError)
        try:
            stored = load_file(weights)
            state = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
            dim = settings.dim
            if "attention_weight" not in state or state["attention_weight"].shape != (dim, dim):
                raise RuntimeError(f"they have no attention_weight of {dim} × {dim} numbers")
            model = cls(settings)
            model.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"the weights cannot be used: {error}", path=weights, fix=AGAIN) from None
        return model.eval()

    def save_pretrained(self, folder: str | Path, config: Config | None = None) -> None:
        """Write a folder that :meth:`from_pretrained` and every command's ``--run`` take.

        ``config`` is the training's, whose ``model`` is this model's; default: a training that nothing is known of.
        CheckpointError for the model of an index that was read, which has no encoder of views.
        """
        if not hasattr(self, "view_encoder"):
            raise CheckpointError("the model of an index has no encoder of views", fix="save the model of a run")
        config = config or Config(model=self.config)
        write_json(Path(folder) / CONFIG, config.model_dump(mode="json"))
        save_weights(Path(folder) / WEIGHTS, self)


def _from_hub(name: str, file: str) -> Path:
    """Return a file of a repository on the hub, in the cache of the hub's client; what lies there may be a link."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, file)).resolve()
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "check the name and the network, or copy the repository into a folder and pass that"
        raise CheckpointError(f"{HUB}{name}: {file} cannot be had ({said})", fix=fix) from None


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights as safetensors, atomically."""
    # Cloned, because safetensors refuses two names of one shared layer.
    state: dict[str, torch.Tensor] = {
        name: value.detach().contiguous().cpu().clone() for name, value in model.state_dict().items()
    }
    write_atomically(path, lambda temporary: save_file(state, temporary))
