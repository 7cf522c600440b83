# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is written to a file: a model from the raw image on."""

from torch import Tensor, nn

from pvd_mm.ops.standard_operators import use_standard_operators


class WholeModel(nn.Module):
    """A trained model with its normalisation, and what the writers have to know of it.

    =============== =============================================================
    attribute       what
    =============== =============================================================
    sides           name of a free side, by dimension of the image (N, 3, H, W)
    first_side      name of the first side of what it returns
    output_names    names of what it returns
    proof_outputs   how many of them, the last ones, are for the proof alone
    recording       makes a context within which ``torch.export`` and
                    ``torch.jit.trace`` record it
    translations    makes the table of operators that only it has, to ONNX; see
                    ``torch.onnx.export``
    half_operators  those of ONNX that compute in float16; None for all that can
    mean_range      of int8, see :func:`.to_int8`
    =============== =============================================================

    Args:
        model (nn.Module): The trained model.
    """

    sides: dict[int, str]
    first_side: str
    output_names: list[str]
    proof_outputs = 0
    recording = staticmethod(use_standard_operators)
    translations = staticmethod(dict)
    half_operators: tuple[str, ...] | None = None
    mean_range = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()
        preprocessor = model.data_preprocessor
        self.normalises = hasattr(preprocessor, 'mean')
        if self.normalises:
            self.register_buffer('mean', preprocessor.mean.clone())
            self.register_buffer('std', preprocessor.std.clone())

    def normalise(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, W) from 0 to 255 to what the backbone takes."""
        return (image - self.mean) / self.std if self.normalises else image
