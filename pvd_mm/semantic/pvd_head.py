# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The decode head for mmseg."""

from collections import defaultdict
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import ModuleList

from pvd_mm.decoder import PyramidContext, decoder_config, refuse_decoder_arguments
from pvd_mm.decoder.layers import CONV_1X1
from pvd_mm.ops.checks import check_not_negative
from pvd_mm.ops.tracing import sizes_of


@MODELS.register_module()
class PVDHead(BaseDecodeHead):
    """Pixel Voting Decoder head for semantic segmentation (section 4.2).

    A 1×1 convolution classifies every pixel of the top map z_L; these logits
    are y_L, and the decoder carries them down to the size of z_0, a quarter
    of the image with a backbone's default maps. With ``channels`` set, an
    embedding of so many channels is decoded instead and classified at the
    end. The defaults are the paper's reading; what to choose for what, from
    trainings on CamVid, is in ``docs/use_in_your_project.md``, "Which to
    choose".

    Args:
        in_channels (Sequence[int]): Channels of the maps z_0 … z_L, finest
            first; what a PVD backbone calls ``out_channels``.
        in_index (Sequence[int], optional): Which of the backbone's maps
            these are. Defaults to None, which is all.
        channels (int, optional): Channels of the decoded map. Defaults to
            None, which decodes class logits, as the paper does.
        context_channels (int, optional): Channels of a
            :class:`pvd_mm.decoder.PyramidContext` on z_L, from which y_L is made.
            Defaults to None: from z_L itself, as in the paper.
        coarse_loss_weight (float): Weight of the losses of the coarser
            y_1 … y_L, each against the labels at its own pixels. Defaults to
            0: the finest alone, as in the paper.
        decoder (dict, optional): Arguments of the decoder, see
            :class:`pvd_mm.decoder.PixelVotingDecoder`: ``kernel_size``,
            ``vote_channels``, ``formulation`` and so on. ``norm_cfg`` and
            ``act_cfg`` are the head's unless they are given here. With
            ``type`` it is another decoder of the registry, of the same
            interface (coarse losses ask it for ``strides_of``). Defaults to
            None, the paper's.
        **kwargs: Arguments of mmseg's ``BaseDecodeHead``.

    Raises:
        TypeError: If ``in_channels`` is no list, or an argument of the decoder
            is given outside of ``decoder``.
        ValueError: If an argument is out of range, or, at the first forward
            pass, if the backbone's maps don't fit ``in_channels``,
            ``in_index`` or the decoder's ``strides``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        in_index: Sequence[int] | None = None,
        channels: int | None = None,
        context_channels: int | None = None,
        coarse_loss_weight: float = 0.0,
        decoder: dict | None = None,
        **kwargs,
    ) -> None:
        refuse_decoder_arguments(
            type(self).__name__, kwargs, decoder, own=('norm_cfg', 'act_cfg')
        )
        if not isinstance(in_channels, (list, tuple)):
            raise TypeError(
                'in_channels must list the channels of the maps '
                f'z_0 … z_L, but got {in_channels!r}'
            )
        check_not_negative('coarse_loss_weight', coarse_loss_weight)
        self._takes_all_maps = in_index is None
        top_channels = context_channels or in_channels[-1]
        super().__init__(
            in_channels,
            # conv_seg classifies the top, or the embedding decoded from it
            channels or top_channels,
            in_index=in_index or list(range(len(in_channels))),
            input_transform='multiple_select',
            **kwargs,
        )
        self.coarse_loss_weight = coarse_loss_weight
        self.decodes_logits = channels is None
        self.pyramid = None
        if context_channels is not None:
            self.pyramid = PyramidContext(
                in_channels[-1],
                context_channels,
                norm_cfg=self.norm_cfg,
                act_cfg=self.act_cfg,
                align_corners=self.align_corners,
            )
        if not self.decodes_logits:
            self.embed = ConvModule(
                top_channels,
                channels,
                1,
                conv_cfg=CONV_1X1,
                norm_cfg=self.norm_cfg,
                act_cfg=self.act_cfg,
            )
        self.decoder = MODELS.build(
            decoder_config(
                decoder,
                in_channels,
                self.out_channels if self.decodes_logits else channels,
                norm_cfg=self.norm_cfg,
                act_cfg=self.act_cfg,
            )
        )

    def _check_maps(self, inputs: Sequence[Tensor]) -> None:
        """Say at once what doesn't fit between backbone and head."""
        widths = [sizes_of(x)[1] for x in inputs]
        if self._takes_all_maps:
            fits = widths == list(self.in_channels)
        else:
            fits = all(
                -len(widths) <= index < len(widths) and widths[index] == width
                for index, width in zip(self.in_index, self.in_channels)
            )
        if not fits:
            raise ValueError(
                f'in_channels={list(self.in_channels)} with in_index='
                f'{None if self._takes_all_maps else list(self.in_index)} '
                f'does not fit the backbone, whose maps have {widths} channels'
            )

    def _decode(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Maps of the backbone to y_0 … y_L, finest first."""
        self._check_maps(inputs)
        maps = self._transform_inputs(inputs)
        top = maps[-1] if self.pyramid is None else self.pyramid(maps[-1])
        top = self.cls_seg(top) if self.decodes_logits else self.embed(top)
        return self.decoder(maps, top)

    def _logits(self, decoded: Tensor) -> Tensor:
        return decoded if self.decodes_logits else self.cls_seg(decoded)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Maps of the backbone, (N, C_l, H_l, W_l), to logits
        (N, out_channels, H_0, W_0)."""
        return self._logits(self._decode(inputs)[0])

    def loss(
        self,
        inputs: tuple[Tensor, ...],
        batch_data_samples: list[SegDataSample],
        train_cfg,
    ) -> dict:
        """mmseg's losses at the finest map, and with ``coarse_loss_weight``
        those of the coarser ones, ``loss_ce_1`` and so on by level.

        Args:
            inputs (tuple[Tensor]): Maps of the backbone.
            batch_data_samples (list[SegDataSample]): Holding the labels.
            train_cfg (dict): Not used.

        Returns:
            dict[str, Tensor]: The losses, and ``acc_seg`` of the finest map.
        """
        decoded = self._decode(inputs)
        losses = self.loss_by_feat(self._logits(decoded[0]), batch_data_samples)
        if not self.coarse_loss_weight:
            return losses
        labels = self._stack_batch_gt(batch_data_samples)
        maps = list(zip(decoded, self.decoder.labels_of(labels, decoded)))
        for level, (y, own) in enumerate(maps[1:], 1):
            coarse = self._losses(self._logits(y), own)
            losses.update(
                {
                    f'{name}_{level}': self.coarse_loss_weight * loss
                    for name, loss in coarse.items()
                }
            )
        return losses

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]
    ) -> dict:
        """mmseg's; but logits of the labels' own size stay as they are, where
        mmseg would interpolate them to the same, and ``acc_seg`` is that of
        what is predicted also with one output channel."""
        labels = self._stack_batch_gt(batch_data_samples)
        if seg_logits.shape[2:] != labels.shape[2:]:
            seg_logits = resize(
                seg_logits,
                labels.shape[2:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
        losses = self._losses(seg_logits, labels)
        losses['acc_seg'] = self._accuracy(seg_logits, labels.squeeze(1))
        return losses

    def _accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Labels that are predicted right, in percent, (1,); 100 where all are
        to be ignored. mmseg's sorts the classes, which takes several times as
        long, and with one output channel takes every pixel for class 0."""
        if self.out_channels == 1:
            predicted = logits[:, 0].sigmoid() > self.threshold
        else:
            predicted = logits.max(1).indices
        counts = labels != self.ignore_index
        wrong = (predicted != labels) & counts
        return (100.0 - 100.0 * wrong.sum() / counts.sum().clamp(min=1))[None]

    def _losses(self, logits: Tensor, labels: Tensor) -> dict:
        """By name, of logits (N, C, H, W) and labels (N, 1, H, W)."""
        weight = None if self.sampler is None else self.sampler.sample(logits, labels)
        functions = self.loss_decode
        if not isinstance(functions, ModuleList):
            functions = [functions]
        losses = defaultdict(float)
        for function in functions:
            losses[function.loss_name] += function(
                logits, labels.squeeze(1), weight=weight, ignore_index=self.ignore_index
            )
        return dict(losses)
