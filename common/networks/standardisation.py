"""From the released feature moments to the feature norm's scale and shift: post-processing, so it costs no privacy.

    m = sqrt(F) b        mean of the features y           (b, w): mean gradient of shift and spread,
    v = 1 + sqrt(F) w - m^2   their variance                       see client/learning/feature_moments.py
    scale <- scale / sqrt(v)        shift <- (shift - m) / sqrt(v)

A private head learns from standardised features in a tenth of the steps, and steps are what privacy is spent on. v is
kept above 1 / 25, because a smaller one cannot be told from noise: features that vary less are stretched five times a
round, and a few rounds do the rest.
"""

import math

import torch
from torch import Tensor

LEAST_VARIANCE = 1.0 / 25.0


def standardised(norm: Tensor, mean_gradient: Tensor) -> Tensor:
    """Return the new feature norm.

    Shapes: norm (2 F,) float32, scale then shift (the layout of ``feature_norm``); mean_gradient (2 F,): the noised sum
    over patients divided by the public expected batch; result (2 F,) float32, finite for finite input.
    """
    features = len(norm) // 2
    scale, shift = norm[:features].double(), norm[features:].double()
    excess, mean = mean_gradient.double().view(2, features) * math.sqrt(features)
    spread = (1 + excess - mean.square()).clamp(min=LEAST_VARIANCE).sqrt()
    return torch.cat([scale / spread, (shift - mean) / spread]).float()
