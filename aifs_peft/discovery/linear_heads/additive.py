"""The additive head: the linear discriminant of the class with the attribute's effect held constant.

Fisher's discriminant (1936) of the class offsets of the additive model, with one change: the attribute's directions are
added to the covariance, so that the head turns away from them.
"""

from __future__ import annotations

import numpy as np

from aifs_peft.discovery.config import MixtureConfig
from aifs_peft.discovery.linear_heads.logistic import LinearHead
from aifs_peft.discovery.mixture.additive import AdditiveModel, split_by_signal


def additive_head(
    model: AdditiveModel, *, shrinkage: float, avoidance: float, config: MixtureConfig, split: bool = True
) -> LinearHead:
    """The linear discriminant of the class, turned away from the attribute.

    Args:
        model: The fitted additive model.
        shrinkage: Of `Sigma` towards a multiple of the identity, in `[0, 1]`.
        avoidance: How often `beta beta' / K`, the covariance of an attribute independent of the class, is added to
            `Sigma`: 0 ignores the attribute, 1 is the discriminant of a balanced population, more turns away further.
        config: See `split_by_signal`.
        split: Whether the offsets are to be split by their signal; not where they are posterior means already.

    Example:
        >>> alpha, beta = np.array([[0.0, 0.0], [4.0, 4.0]]), np.array([[0.0, -2.0], [0.0, 2.0]])
        >>> model = AdditiveModel(alpha, beta, np.eye(2), 0.0, np.ones(1))
        >>> ignores, avoids = (additive_head(model, shrinkage=0.0, avoidance=a, config=MixtureConfig()) for a in (0, 9))
        >>> np.diff(ignores.weight, axis=0).round(1).tolist(), np.diff(avoids.weight, axis=0).round(1).tolist()
        ([[4.0, 4.0]], [[4.0, 0.1]])
    """
    alpha, beta = (
        split_by_signal(model, config=config) if split else (model.alpha - model.alpha.mean(axis=0), model.beta)
    )
    K, k = alpha.shape
    sigma = (1.0 - shrinkage) * model.sigma + (shrinkage * np.trace(model.sigma) / k + 1e-6) * np.eye(k)
    sigma = sigma + avoidance * beta.T @ beta / K
    weight = np.linalg.solve(sigma, alpha.T).T
    centre = model.alpha.mean(axis=0)
    return LinearHead(weight, -0.5 * np.sum(weight * alpha, axis=1) - weight @ centre)
