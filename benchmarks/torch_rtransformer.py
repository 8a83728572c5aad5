"""What the released R-Transformer computes in a training step on a tune, written in PyTorch.

As in the release, every window is copied out of the sequence by an index, and `torch.nn.GRU` runs
over the copies; attention computes all logits and masks those of later frames; the loss is taken in
float64; the gradients are clipped before they exist, so that clipping has no effect.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


class _Normalization(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return self.gain * centred / (x.std(-1, keepdim=True) + 1e-6) + self.bias


class _LocalRNN(nn.Module):
    def __init__(self, width: int, window: int):
        super().__init__()
        self.window = window
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x):
        batch, length, width = x.shape
        padded = torch.cat([x.new_zeros(batch, self.window - 1, width), x], 1)
        steps = torch.arange(length)[:, None] + torch.arange(self.window)
        windows = padded.index_select(1, steps.reshape(-1)).reshape(-1, self.window, width)
        return self.gru(windows)[0][:, -1].reshape(batch, length, width)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (p(x).reshape(shape).transpose(1, 2) for p in self.projections)
        logits = query @ key.transpose(-2, -1) / math.sqrt(shape[-1])
        later = torch.ones(length, length).triu(1).bool()
        probabilities = self.dropout(logits.masked_fill(later, -1e9).softmax(-1))
        return self.output((probabilities @ value).transpose(1, 2).reshape(x.shape))


class _Block(nn.Module):
    def __init__(self, width: int, window: int, heads: int, dropout: float):
        super().__init__()
        feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )
        parts = (_LocalRNN(width, window), _Attention(width, heads, dropout), feed_forward)
        self.parts = nn.ModuleList(parts)
        self.norms = nn.ModuleList(_Normalization(width) for _ in parts)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        for norm, part in zip(self.norms, self.parts, strict=True):
            x = x + self.dropout(part(norm(x)))
        return x


def torch_step(
    frames: np.ndarray, width: int, blocks: int, window: int, heads: int, dropout: float
) -> Callable[[], Any]:
    """A training step of the released protocol.

    Args:
        frames: (1, t, notes) float32, the tune.
    """
    torch.manual_seed(0)
    x, notes = torch.from_numpy(frames), frames.shape[-1]
    model = nn.Sequential(
        nn.Linear(notes, width),
        *(_Block(width, window, heads, dropout) for _ in range(blocks)),
        nn.Linear(width, notes),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=5e-5)
    targets = x[0].double()

    def run():
        optimizer.zero_grad()
        notes_on = torch.sigmoid(model(x))[0].double()
        log_likelihood = targets @ notes_on.log().T + (1 - targets) @ (1 - notes_on).log().T
        loss = -log_likelihood.trace()
        nn.utils.clip_grad_norm_(model.parameters(), 0.15)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run
