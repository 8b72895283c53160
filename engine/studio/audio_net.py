"""The network that hears: a window of mel to one mouth vector, or a whole spectrogram to one vector per column.

Place in the flow: mel (80 bands) -> AudioNet -> mouth vector (``engine.types.MOUTH_SHAPES``).

The first layers slide over frequency too, so that a voice moved up or down looks alike to them. No layer pads or
strides in time, so a window of ``CONTEXT_COLUMNS`` columns and a whole spectrogram go through the same weights, and
training on whole clips costs a tenth of training on windows.

Invariants:
    * output column j sees input columns j … j + CONTEXT_COLUMNS - 1;
    * outputs are in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.audio.mel import HOP_MS, MEL_BANDS, MEL_LIMIT
from engine.audio.window import MelWindow
from engine.studio.mouth import VISEMES
from engine.types import FRAME_MS, MOUTH_SHAPES

WINDOW = MelWindow(columns=32, offset=-24)
"""What the network hears around a video frame: 300 ms of past and 112.5 ms from the frame's start on."""

CONTEXT_COLUMNS = WINDOW.columns

LABEL_DELAY_MS = (WINDOW.offset + WINDOW.columns - 1) * HOP_MS - FRAME_MS / 2 - 0.4 * HOP_MS
"""A window's last column is this much later than the middle of its frame (0.4: mean of the fraction of 3.2 i)."""


class _Temporal(nn.Module):
    """A dilated convolution over time with a skip connection; the output is shorter by what it needs as context."""

    def __init__(self, channels: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.trim = (kernel - 1) * dilation
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, (1, kernel), dilation=(1, dilation), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        # Every output is centred on what the skip connection carries past it.
        first = self.trim // 2
        return x[..., first : x.shape[-1] - (self.trim - first)] + self.body(x)


class AudioNet(nn.Module):
    """Mel to mouth.

    Args:
        channels: width of the temporal part.
        dropout: share of channels dropped in training.
    """

    def __init__(self, channels: int = 144, dropout: float = 0.1) -> None:
        super().__init__()

        def over_frequency(before: int, after: int, columns: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(before, after, (5, columns), stride=(2, 1), bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )

        self.front = nn.Sequential(over_frequency(1, 16, 3), over_frequency(16, 32, 3), over_frequency(32, 32, 1))
        bands = MEL_BANDS
        for _ in range(3):
            bands = (bands - 5) // 2 + 1
        self.gather = nn.Sequential(
            nn.Conv2d(32, channels, (bands, 1), bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.temporal = nn.Sequential(
            _Temporal(channels, 5, 1, dropout),
            _Temporal(channels, 5, 2, dropout),
            _Temporal(channels, 5, 3, dropout),
            _Temporal(channels, 4, 1, dropout),
        )
        self.mouth = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, len(MOUTH_SHAPES), 1)
        )
        self.viseme = nn.Conv2d(channels, len(VISEMES), 1)

    def features(self, mel: Tensor) -> Tensor:
        """(B, 1, 80, T) mel in [-4, 4] -> (B, channels, 1, T - CONTEXT_COLUMNS + 1)."""
        return self.temporal(self.gather(self.front(mel / MEL_LIMIT)))

    def both(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mouth vectors (B, S, 10) and, for training only, viseme scores (B, S, number of visemes)."""
        features = self.features(mel)
        mouth = torch.sigmoid(self.mouth(features))
        return mouth[:, :, 0].transpose(1, 2), self.viseme(features)[:, :, 0].transpose(1, 2)

    def track(self, mel: Tensor) -> Tensor:
        """(B, 1, 80, T) -> mouth vectors (B, T - CONTEXT_COLUMNS + 1, 10), one per window position."""
        return self.both(mel)[0]

    def forward(self, mel: Tensor) -> Tensor:
        """One window (B, 1, 80, 32) -> (B, 10), as exported."""
        return torch.sigmoid(self.mouth(self.features(mel))).flatten(1)
