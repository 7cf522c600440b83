# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is measured of a model, whichever framework it is of."""

from abc import ABC, abstractmethod

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.utils import set_random_seed
from torch import nn

from pvd_mm.apis.complexity import count_macs, count_params


def random_model(cfg: Config) -> nn.Module:
    """The model of a config with random weights, the same at each call."""
    set_random_seed(0)
    init_default_scope(cfg.default_scope)
    model = cfg.model.copy()
    model.pop('pretrained', None)
    # a process of its own needs no SyncBN, nor does a CPU take it
    return revert_sync_batchnorm(MODELS.build(model))


class ModelBenchmark(ABC):
    """A model of a config, with random weights, on random data.

    Args:
        cfg (Config): Of the framework that the class is for. Pretrained
            weights are left out.
        name (str): What the tables call it.
        size (tuple[int, int]): Height and width of the images.
        batch_size (int): Images of a training step; inference takes one.
        device (str): Where it runs.
    """

    #: Methods that are measured, which is also what the tables call them
    kinds: tuple[str, ...] = ('forward', 'train')
    #: Images that a training step needs
    least_batch_size = 1

    def __init__(
        self,
        cfg: Config,
        name: str,
        size: tuple[int, int],
        batch_size: int,
        device: str,
    ) -> None:
        self.cfg = cfg
        self.name = name
        self.size = size
        self.batch_size = batch_size
        self.device = device
        self.model = None

    def load(self) -> None:
        """Build the model, its optimizer and its data."""
        self.model = random_model(self.cfg).to(self.device)
        if 'train' in self.kinds:
            wrapper = self.cfg.optim_wrapper.copy()
            self.optimizer = build_optim_wrapper(self.model, wrapper)
        self.load_data()

    @property
    def channels(self) -> int:
        """Of the images, as the backbone takes them."""
        return (self.cfg.model.get('backbone') or {}).get('in_channels', 3)

    @staticmethod
    @abstractmethod
    def default_size(cfg: Config) -> tuple[int, int]:
        """Height and width, where none are given."""

    @abstractmethod
    def load_data(self) -> None:
        """Make images and their annotations."""

    @abstractmethod
    def forward(self) -> None:
        """One image through the network."""

    @abstractmethod
    def losses(self) -> dict:
        """The losses of a batch."""

    @abstractmethod
    def title(self) -> str:
        """What the measured passes hold."""

    def train(self) -> None:
        """One training step: losses, gradients and the optimizer's step."""
        self.model.train()
        loss, _ = self.model.parse_losses(self.losses())
        self.optimizer.update_params(loss)

    def complexity(self) -> dict[str, int]:
        """``params``, those of inference, and ``forward_macs``; likewise of
        other kinds, training steps apart."""
        kinds = [kind for kind in self.kinds if kind != 'train']
        return dict(
            params=count_params(self.model),
            **{f'{kind}_macs': count_macs(getattr(self, kind)) for kind in kinds},
        )
