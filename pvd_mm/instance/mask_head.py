# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The mask head for mmdet."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.ops import roi_align
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmdet.structures.mask import mask_target
from mmengine.config import ConfigDict
from torch import Tensor

from pvd_mm.decoder import decoder_config, refuse_arguments
from pvd_mm.decoder.layers import CONV_1X1, Conv1x1
from pvd_mm.ops.checks import check_choice, check_integer, check_not_negative
from pvd_mm.ops.standard_operators import are_wanted
from pvd_mm.ops.tracing import sizes_of

VOTES_FROM = ('image', 'roi')

_TARGETS_AT_ONCE = 8


def square_side(name: str, value: int | Sequence[int]) -> int:
    """The side of a square that is given by its side, or by two equal ones as in
    mmdet.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is not positive, or the sides differ.
    """
    sides = value if isinstance(value, (list, tuple)) else [value]
    if len(sides) not in (1, 2) or sides[0] != sides[-1]:
        raise ValueError(f'{name} must be the side of a square, but got {value}')
    return check_integer(name, sides[0], 1)


def _sample_cells(x: Tensor, rois: Tensor, side: int, scale: float) -> Tensor:
    """RoIAlign with one sample for each cell, (R, C, side, side): on a CPU torch's
    ``grid_sample`` takes a quarter to two thirds of the time of mmcv's, forward and
    backward. Beyond the map, where mmcv's is zero, it goes on with its edge."""
    centres = (torch.arange(side).to(rois) + 0.5) / side
    first, last = rois[:, 1:3, None], rois[:, 3:5, None]
    # both count from the corner of the map: RoIs in pixels, a grid from -1 to 1
    sizes = rois.new_tensor(x.shape[:1:-1])[:, None]
    # (R, 2, side)
    points = (first + (last - first) * centres) * (2 * scale / sizes) - 1
    columns, rows = points[:, 0, None, :], points[:, 1, :, None]
    grid = torch.stack(torch.broadcast_tensors(columns, rows), -1)
    crops, order = [], []
    for image in range(len(x)):
        (where,) = torch.nonzero(rois[:, 0] == image, as_tuple=True)
        if len(where):
            own = grid[where].flatten(0, 1)[None]
            y = F.grid_sample(
                x[image, None], own, padding_mode='border', align_corners=False
            )
            crops.append(y[0].unflatten(1, (-1, side)).transpose(0, 1))
            order.append(where)
    if len(crops) == 1:
        return crops[0].contiguous()  # what follows would take its order over
    return torch.cat(crops)[torch.cat(order).argsort()]


class ImageFeatures(NamedTuple):
    """What is computed once per image and cropped per RoI: its maps, and for
    each step what its coarse end adds to the fused M, with the votes behind it
    in one tensor, so that they are cropped by one call; without the votes if
    these are regressed on crops. ``widths`` are the channels of the first."""

    maps: Sequence[Tensor]
    steps: Sequence[Tensor]
    widths: Sequence[int]


@MODELS.register_module()
class PVDMaskHead(FCNMaskHead):
    """Pixel Voting Decoder head for instance segmentation (section 4.3).

    Decodes the primary mask of a RoI down the encoder's levels, every step
    doubling its side: 7 → 14 → 28 → 56. Votes are regressed once per image, on
    the backbone's maps, and cropped per RoI; so is what a map adds to the
    fused M. RoIs are the batch of the decoder, which is that of the semantic
    head, unchanged.

    ======== ====================================== ======================
    symbol   meaning                                shape
    ======== ====================================== ======================
    z_l      encoder maps of the image, finest      (N, C_l, H_l, W_l)
             first
    R        RoIs of all images
    n_l      side of the RoI's grid at level l      7 at its start, times
                                                    the stride of each step
    V_l      votes of step l, z_l to z_{l+1}, at    (R, G·k²,
             the RoI's grid                         n_{l+1}, n_{l+1})
    y_l      the decoded map                        (R, C_obj, n_l, n_l)
    C_obj    ``channels``; without them 1 with
             ``class_agnostic``, else
             ``num_classes``
    ======== ====================================== ======================

    **What is decoded.** The paper's C_obj is the number of objects: one map for
    each. So no map here has to have RoIs times classes:

    - With ``channels`` an embedding of so many channels is decoded. A 1×1
      convolution makes it of the RoI's own features (``feature_channels``),
      after ``num_convs`` of 3×3 that see the RoI as a whole, or of its class
      activation. At the sides where masks are asked for one
      classifier gives the mask of the RoI's label alone: the
      row of its weights that belongs to the label, or the only one with
      ``class_agnostic``.
    - With ``class_agnostic`` alone the class activation of the label is
      decoded, one channel: the literal reading.
    - Without either the class activations of all classes are decoded.

    **What cropping does to a vote.** A vote says how strongly one pixel of
    z_l belongs to a pixel of z_{l+1} beside it. A RoI's grid has n_{l+1}
    cells a side, however many pixels g·n_{l+1} of z_{l+1} the RoI covers.
    Votes are sampled at the cells (RoIAlign, which averages over a cell) and
    then used between cells: with g = 1 they mean what they say; with g > 1 the
    vote for the next pixel speaks for the next cell, g pixels on; with g < 1
    neighbouring cells share a pixel's votes, and the mask is smoother than its
    grid. What votes start as, plain upsampling, holds for any g. There are
    two ways to votes that mean what they say:

    - ``start_level='size'`` of :class:`PVDRoIHead`: each RoI starts at the
      level whose pixels are as large as its cells, which keeps g near 1 for
      RoIs of most sizes, at no cost.
    - ``votes_from='roi'``: the maps are cropped, and votes are regressed
      between the cells, for every g. It takes more time and memory, for both
      maps of a step are cropped with all their channels. The last step of a
      C4 detector, whose top map is made inside the RoI, is always of that
      kind.

    Args:
        in_channels (Sequence[int]): Channels of z_0 … z_L, finest first.
        num_classes (int): Defaults to 80.
        class_agnostic (bool): Decode one mask per RoI, that of its label,
            instead of one per class; with ``channels``, classify all labels
            alike. Defaults to False.
        channels (int, optional): Channels of the decoded map, see above.
            Defaults to None: those of the masks.
        feature_channels (int, optional): Channels of the RoI's features, from
            which ``channels`` are made: those that the box head is given.
            Defaults to None: they are made of the class activation.
        num_convs (int): 3×3 convolutions of these features before that, as
            many as ``FCNMaskHead`` has on a grid of four times the cells.
            Defaults to 0.
        mask_size (int): Side of the decoded mask; this sets the depth.
            RoIs that start so low that z_0 is reached before are
            interpolated. Defaults to 56.
        roi_feat_size (int): Side of the primary mask. Defaults to 7.
        finest_stride (int): Stride of z_0, in pixels of the image.
            Defaults to 4.
        votes_from (str): 'image' or 'roi', see above. Defaults to 'image'.
        sampling_ratio (int): Of the cropping RoIAlign: samples per side of a
            cell, 0 for as many as pixels. Defaults to 0.
        coarse_loss_weight (float): Weight of the mask losses at the sides
            before the last; 0 for none. Defaults to 0.
        loss_mask (dict, optional): The mask loss. Defaults to cross entropy.
        decoder (dict, optional): Arguments of the decoder, see
            :class:`pvd_mm.decoder.PixelVotingDecoder`: ``kernel_size``,
            ``vote_channels``, ``formulation`` and so on. ``strides`` are 2
            for each step unless they are given here. With ``type`` it is
            another decoder of the registry, of the same interface. Defaults
            to None.

    Raises:
        TypeError: If an argument of the decoder is given outside of
            ``decoder``, or an argument is unknown.
        ValueError: If an argument is out of range, or ``mask_size`` is no
            side that the steps lead to.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int = 80,
        class_agnostic: bool = False,
        channels: int | None = None,
        feature_channels: int | None = None,
        num_convs: int = 0,
        mask_size: int = 56,
        roi_feat_size: int = 7,
        finest_stride: int = 4,
        votes_from: str = 'image',
        sampling_ratio: int = 0,
        coarse_loss_weight: float = 0.0,
        loss_mask: dict | None = None,
        decoder: dict | None = None,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        refuse_arguments(type(self).__name__, kwargs, decoder)
        roi_feat_size = square_side('roi_feat_size', roi_feat_size)
        mask_size = square_side('mask_size', mask_size)
        if channels is not None:
            check_integer('channels', channels, 1)
        if feature_channels is not None:
            check_integer('feature_channels', feature_channels, 1)
            if channels is None:
                raise ValueError(
                    'feature_channels are those that an embedding is made of: set '
                    f'channels, too, or leave out feature_channels={feature_channels}'
                )
        check_integer('num_convs', num_convs, 0)
        if num_convs and feature_channels is None:
            raise ValueError(
                f'num_convs={num_convs} are convolutions of the features: set '
                'feature_channels, too'
            )
        # The contract is FCNMaskHead's; of its layers the first, on the features.
        super().__init__(
            num_convs=num_convs,
            in_channels=feature_channels or 1,
            conv_out_channels=feature_channels or 1,
            roi_feat_size=roi_feat_size,
            num_classes=num_classes,
            class_agnostic=class_agnostic,
            upsample_cfg=dict(type=None),
            loss_mask=loss_mask
            or dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
            init_cfg=init_cfg,
        )
        self.conv_logits = None
        masks = 1 if class_agnostic else num_classes
        if channels is not None:
            self.embed = ConvModule(
                feature_channels or masks, channels, 1, conv_cfg=CONV_1X1
            )
            self.classifier = Conv1x1(channels, masks, 1)
        self.channels = channels
        self.feature_channels = feature_channels
        check_choice('votes_from', votes_from, VOTES_FROM)
        if finest_stride < 1:
            raise ValueError(
                f'finest_stride must be a number of pixels, but got {finest_stride}'
            )
        check_not_negative('coarse_loss_weight', coarse_loss_weight)
        cfg = decoder_config(decoder, in_channels, channels or masks)
        if cfg.get('strides') is None:  # a RoI's sides follow from them
            cfg['strides'] = [2] * (len(in_channels) - 1)
        self.decoder = MODELS.build(cfg)
        self.mask_size = mask_size
        self.votes_from = votes_from
        self.sampling_ratio = sampling_ratio
        self.coarse_loss_weight = coarse_loss_weight
        #: Strides of z_0 … z_L in pixels of the image
        self.map_strides = [finest_stride]
        for stride in self.decoder.strides:
            self.map_strides.append(self.map_strides[-1] * stride)
        if self._sides(self.top, roi_feat_size)[0] != mask_size:
            ratio = self.map_strides[-1] // finest_stride
            raise ValueError(
                f'mask_size must be a side that the steps from '
                f'roi_feat_size={roi_feat_size} by the strides '
                f'{list(self.decoder.strides)[::-1]} lead to, at most '
                f'{roi_feat_size * ratio}, but got {mask_size}'
            )

    @property
    def mask_of_label(self) -> bool:
        """Whether a RoI has one mask, that of its label, and not one per
        class."""
        return self.class_agnostic or self.channels is not None

    @property
    def top(self) -> int:
        """The level L of the coarsest map."""
        return len(self.decoder.in_channels) - 1

    def entry(self, inside: bool) -> tuple[int, int]:
        """Where decoding on the image's maps begins at the coarsest.

        Args:
            inside (bool): Whether the last step is made inside the RoI.

        Returns:
            tuple[int, int]: The level, and the side of the RoI's grid there:
            L and ``roi_feat_size``, or one step further down.
        """
        side = self.roi_feat_size[0]
        if inside:
            return self.top - 1, side * self.decoder.strides[-1]
        return self.top, side

    def _sides(self, start: int, side: int) -> list[int]:
        """Sides of the grids of a RoI that starts at a level with a side,
        which is the last one; finest first."""
        sides = [int(side)]  # while it is traced, a size is a tensor
        for stride in reversed(self.decoder.strides[:start]):
            if sides[0] >= self.mask_size:
                break
            sides.insert(0, sides[0] * stride)
        return sides

    def finest_level(self, starts: Sequence[int], inside: bool) -> int:
        """The finest level that RoIs with these starts are decoded to."""
        _, side = self.entry(inside)
        return min(start + 1 - len(self._sides(start, side)) for start in starts)

    def start_levels(self, inside: bool) -> list[int]:
        """The levels from which ``mask_size`` is reached; of maps of one
        stride the last. See :meth:`entry` for the argument."""
        top, side = self.entry(inside)
        return [
            level
            for level in range(top + 1)
            if level in (top, self.level_of(self.map_strides[level]))
            and self._sides(level, side)[0] == self.mask_size
        ]

    def levels_of_size(
        self, rois: Tensor, levels: Sequence[int], inside: bool
    ) -> Tensor:
        """The one of some levels whose pixels are nearest in size to the
        cells of each RoI's grid.

        Args:
            rois (Tensor): (R, 5), as mmdet's ``bbox2roi`` makes them.
            levels (Sequence[int]): The levels to choose from.
            inside (bool): See :meth:`entry`.

        Returns:
            Tensor: (R,), levels.
        """
        _, side = self.entry(inside)
        width, height = (rois[:, 3:] - rois[:, 1:3]).float().unbind(1)
        cells = (width * height).clamp(min=1.0).sqrt() / side
        strides = cells.new_tensor([self.map_strides[i] for i in levels])
        ratio = cells[:, None].log2() - strides.log2()
        return rois.new_tensor(levels, dtype=torch.long)[ratio.abs().argmin(1)]

    def level_of(self, stride: int) -> int:
        """The last map of so many pixels' stride.

        Raises:
            ValueError: If there is none.
        """
        if stride not in self.map_strides:
            raise ValueError(
                f'the RoI extractor works on a map of stride {stride}, but '
                f"the mask head's maps have the strides {self.map_strides} "
                '(finest_stride and decoder.strides)'
            )
        return max(level for level, own in enumerate(self.map_strides) if own == stride)

    def forward(
        self,
        primary: Tensor,
        rois: Tensor | None = None,
        starts: int | Tensor | None = None,
        maps: Sequence[Tensor] | ImageFeatures | None = None,
        roi_maps: tuple[Tensor, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> list[Tensor]:
        """Decode primary masks. Only ``roi_maps`` may be left out, and
        ``labels`` where there is no classifier with a row for each.

        Args:
            primary (Tensor): What decoding starts from, (R, C, 7, 7): C is
                ``feature_channels`` for the features of the RoIs; else 1 with
                ``class_agnostic``, and else ``num_classes``.
            rois (Tensor): (R, 5), as mmdet's ``bbox2roi`` makes them.
            starts (int | Tensor): The level of ``maps`` that each RoI starts
                at, (R,), or that all start at; with ``roi_maps`` it is where
                decoding goes on after the step inside the RoI.
            maps (Sequence[Tensor]): z_0 … z_L of the images,
                (N, C_l, H_l, W_l), without z_L where ``roi_maps`` brings it.
                Finer maps before them are passed over. Or what
                :meth:`image_features` has made of them.
            roi_maps (tuple[Tensor, Tensor], optional): z_{L-1} and z_L of
                the RoIs, (R, C, 14, 14) and (R, C, 7, 7), where the last
                step is made inside the RoI. Defaults to None.
            labels (Tensor, optional): The classes whose masks are wanted,
                (R,). Defaults to None.

        Returns:
            list[Tensor]: Masks before the sigmoid, (R, 1, n, n) with
            :attr:`mask_of_label`, else (R, num_classes, n, n), n =
            56, 28, …, 7.

        Raises:
            TypeError: If it is given the features of RoIs alone, as the RoI
                heads of mmdet do, or no labels where they are needed.
            ValueError: If the maps don't fit ``in_channels``, or the primary
                masks ``roi_feat_size``.
        """
        if maps is None:
            raise TypeError(
                "PVDMaskHead decodes by the backbone's maps, which mmdet's own RoI "
                "heads don't hand on: give the detector roi_head="
                "dict(type='PVDRoIHead', …)"
            )
        if tuple(primary.shape[2:]) != self.roi_feat_size:
            raise ValueError(
                f'roi_feat_size={self.roi_feat_size[0]} does not fit primary masks of '
                f'{tuple(primary.shape[2:])}'
            )
        if self.channels is not None and not self.class_agnostic and labels is None:
            raise TypeError(
                'PVDMaskHead with channels decodes the mask of a label: give it labels'
            )
        images = maps
        if not isinstance(maps, ImageFeatures):
            images = self.image_features(maps, roi_maps is not None)
        if roi_maps is not None:
            whose = "the backbone's maps and that of the RoI"
            self._check_widths([*images.maps, roi_maps[1]], self.top + 1, whose)
        dtype = torch.promote_types(primary.dtype, torch.float)
        for conv in self.convs:
            primary = conv(primary)
        if self.channels is not None:
            primary = self.embed(primary)
        inside = []
        if roi_maps is not None:
            primary, *inside = self._decode_inside(primary, roi_maps)
        sides = sorted(set(self._sides(self.top, self.roi_feat_size[0])), reverse=True)
        if isinstance(starts, int):  # nothing to sort, nothing to copy
            decoded = self._decode(primary, rois, starts, images)
            masks = self._masks([*decoded, *inside], labels, sides)
        else:
            masks = self._masks_by_level(primary, rois, starts, images, labels)
            masks += self._masks(inside, labels, sides[len(masks) :])
        return [mask.to(dtype) for mask in masks]

    def _logits(self, decoded: Tensor, labels: Tensor | None) -> Tensor:
        """Masks of decoded maps, (R, C_obj, n, n), of every side."""
        if self.channels is None:
            return decoded
        if self.class_agnostic:
            return self.classifier(decoded)
        # a convolution of its own for each RoI, with one row of the weights
        weight = self.classifier.weight[labels].flatten(1)[:, None]  # (R, 1, C_obj)
        bias = self.classifier.bias[labels][:, None, None]
        masks = weight.to(decoded.dtype) @ decoded.flatten(2) + bias
        return masks.unflatten(2, sizes_of(decoded)[2:])

    def image_features(
        self,
        maps: Sequence[Tensor],
        inside: bool,
        votes: Sequence[Tensor] | None = None,
    ) -> ImageFeatures:
        """What is computed once per image, however many RoIs it has.

        Args:
            maps (Sequence[Tensor]): z_0 … z_L of the images,
                (N, C_l, H_l, W_l), as :meth:`forward` takes them.
            inside (bool): Whether the last step is made inside the RoI, so
                that z_L is not among them.
            votes (Sequence[Tensor], optional): Those of the steps between the
                maps, where they are regressed for several heads; finer ones
                before them are passed over. Defaults to None: they are
                regressed here.

        Returns:
            ImageFeatures: What :meth:`forward` takes for ``maps``.

        Raises:
            ValueError: If the maps don't fit ``in_channels``.
        """
        number = self.top + 1 - inside
        maps = maps[-number:]
        self._check_widths(maps, number, "the backbone's maps")
        steps = self.decoder.contexts(maps[1:])
        widths = [int(context.size(1)) for context in steps]
        if self.votes_from == 'image':
            if votes is None:
                votes = self.decoder.votes(maps)
            parts = zip(steps, votes[-len(steps) :])
            steps = [torch.cat(pair, 1) for pair in parts]
        return ImageFeatures(maps, steps, widths)

    def _check_widths(self, maps: Sequence[Tensor], number: int, whose: str) -> None:
        """Are these the first so many maps?"""
        expected = list(self.decoder.in_channels)
        given = [z.size(1) for z in maps]
        if given != expected[:number]:
            raise ValueError(
                f'in_channels={expected} does not fit {whose}, which have {given} '
                'channels'
            )

    def _crop(self, x: Tensor, rois: Tensor, level: int, side: int) -> Tensor:
        """A map of a level at the grid of each RoI, (R, C, side, side)."""
        shape = rois.size(0), x.size(1), side, side
        # RoIAlign takes no empty one; this keeps the graph whole
        if not are_wanted() and 0 in shape:
            return (0 * x.sum()).expand(shape)
        x = x.to(torch.promote_types(x.dtype, torch.float))  # no bfloat16
        rois, scale = rois.to(x.dtype), 1 / self.map_strides[level]
        recorded = are_wanted() or torch.jit.is_tracing()
        if self.sampling_ratio == 1 and x.device.type == 'cpu' and not recorded:
            return _sample_cells(x, rois, side, scale)
        return roi_align(x, rois, (side, side), scale, self.sampling_ratio, 'avg', True)

    def _decode_inside(
        self, primary: Tensor, roi_maps: Sequence[Tensor]
    ) -> list[Tensor]:
        """The last step, between the maps of the RoI: y_{L-1} and y_L."""
        last = self.top - 1
        return self.decoder.decode(
            self.decoder.contexts(roi_maps[1:], last),
            self.decoder.votes(roi_maps, last),
            primary,
            roi_maps[0].shape[2:],
            last,
        )

    def _masks_by_level(
        self,
        primary: Tensor,
        rois: Tensor,
        starts: Tensor,
        images: ImageFeatures,
        labels: Tensor | None,
    ) -> list[Tensor]:
        """Decode RoIs of several start levels; masks of every side."""
        top, side = len(images.maps) - 1, primary.size(-1)
        sides = sorted(set(self._sides(top, side)), reverse=True)
        dtype = torch.promote_types(primary.dtype, torch.float)
        shape = primary.size(0), 1 if self.mask_of_label else self.num_classes
        results = [primary.new_zeros(*shape, n, n, dtype=dtype) for n in sides]
        # Levels without a RoI are gone through as well: every parameter must
        # get a gradient, in every process.
        for start in range(top + 1):
            where = (starts == start).nonzero().squeeze(1)
            if not are_wanted() and len(where) == 0 and not self.training:
                continue
            decoded = self._decode(primary[where], rois[where], start, images)
            own = None if labels is None else labels[where]
            for result, part in zip(results, self._masks(decoded, own, sides)):
                result[where] = part.to(dtype)
        return results

    def _decode(
        self, primary: Tensor, rois: Tensor, start: int, images: ImageFeatures
    ) -> list[Tensor]:
        """Decode RoIs that start at one level; y_l, finest first."""
        sides = self._sides(start, primary.size(-1))
        first = start + 1 - len(sides)

        def crop(maps: Sequence[Tensor], finest: int) -> list[Tensor]:
            """Maps of the levels from ``finest`` on, at the RoIs' grids."""
            grids = sides[finest - first :]
            return [
                self._crop(x, rois, level, side)
                for level, (x, side) in enumerate(zip(maps, grids), finest)
            ]

        # those of a step are at the grid of its coarse end
        contexts = crop(images.steps[first:start], first + 1)
        if self.votes_from == 'image':
            widths = images.widths[first:start]
            votes = [x[:, width:] for x, width in zip(contexts, widths)]
            contexts = [x[:, :width] for x, width in zip(contexts, widths)]
        else:
            cells = crop(images.maps[first : start + 1], first)
            votes = self.decoder.votes(cells, first)
        return self.decoder.decode(
            contexts, votes, primary, (sides[0], sides[0]), first
        )

    def _masks(
        self, decoded: Sequence[Tensor], labels: Tensor | None, sides: Sequence[int]
    ) -> list[Tensor]:
        """The masks at these sides: those of the finest map of a side, or, where
        decoding ends before, the last ones interpolated."""
        by_side, own = {}, [int(sizes_of(y)[-1]) for y in decoded]
        for side, y in zip(own, decoded):
            if side not in by_side:
                by_side[side] = self._logits(y, labels)
        return [
            by_side[side]
            if side in by_side
            else F.interpolate(
                by_side[own[0]],
                (side, side),
                mode='bilinear',
                align_corners=False,
            )
            for side in sides
        ]

    def loss_and_target(
        self,
        mask_preds: Tensor | Sequence[Tensor],
        sampling_results: list,
        batch_gt_instances: list,
        rcnn_train_cfg: ConfigDict,
    ) -> dict:
        """The losses of :meth:`forward`'s result, or of its finest part.

        ``loss_mask`` at the finest side, and with ``coarse_loss_weight``
        ``loss_mask_7`` and so on at the others: there a cell belongs to the
        object if at least half of its area at the finest side does. Cropping
        the annotated masks takes long, and is done once.

        Raises:
            ValueError: If ``rcnn_train_cfg`` asks for targets of another
                size than ``mask_size``.
        """
        targets = rcnn_train_cfg.get('mask_size', self.mask_size)
        if square_side('train_cfg.rcnn.mask_size', targets) != self.mask_size:
            raise ValueError(
                f'train_cfg.rcnn.mask_size={rcnn_train_cfg.mask_size} is the '
                'size of the targets and must be that of the mask head, '
                f'mask_size={self.mask_size}'
            )
        if isinstance(mask_preds, Tensor):
            mask_preds = [mask_preds]
        labels = torch.cat([result.pos_gt_labels for result in sampling_results])
        if self.mask_of_label:  # the only one
            labels = torch.zeros_like(labels)
        finest = self.get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        soft = rcnn_train_cfg.get('soft_mask_target', False)
        losses = {}
        for masks in mask_preds[: None if self.coarse_loss_weight else 1]:
            side = masks.size(-1)
            targets = finest
            if side != self.mask_size:
                cell = side, self.mask_size // side
                cells = finest.unflatten(2, cell).unflatten(1, cell).mean((2, 4))
                targets = cells if soft else (cells >= 0.5).to(cells.dtype)
            # without RoIs, a zero that keeps the graph whole
            loss = self.loss_mask(masks, targets, labels) if len(masks) else masks.sum()
            if not losses:
                losses['loss_mask'] = loss
            else:
                losses[f'loss_mask_{side}'] = self.coarse_loss_weight * loss
        return dict(loss_mask=losses, mask_targets=finest)

    def get_targets(
        self,
        sampling_results: list,
        batch_gt_instances: list,
        rcnn_train_cfg: ConfigDict,
    ) -> Tensor:
        """The masks of the positive RoIs, (R, n, n), zeros and ones.

        mmdet's, for few RoIs at a time: it copies the whole mask of an image for
        each of them, half a gigabyte for 128 RoIs of 800×1333.
        """
        cfg = ConfigDict(rcnn_train_cfg)
        cfg.setdefault('mask_size', self.mask_size)
        parts = [
            (boxes, objects, truth.masks)
            for result, truth in zip(sampling_results, batch_gt_instances)
            for boxes, objects in zip(
                result.pos_priors.split(_TARGETS_AT_ONCE),
                result.pos_assigned_gt_inds.split(_TARGETS_AT_ONCE),
            )
        ]
        return mask_target(*zip(*parts), cfg)

    def _predict_by_feat_single(
        self, mask_preds: Tensor, bboxes: Tensor, labels: Tensor, *args, **kwargs
    ) -> Tensor:
        """mmdet's, which takes from the masks of a RoI that of its label: here
        it may be the only one."""
        if self.mask_of_label:
            labels = torch.zeros_like(labels)
        return super()._predict_by_feat_single(
            mask_preds, bboxes, labels, *args, **kwargs
        )
