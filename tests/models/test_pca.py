"""Principal components: against scikit-learn, and what is left of rows after fewer directions."""

import torch
from sklearn.decomposition import PCA

from helpers.models.pca import principal_components
from helpers.rng import generator_for


def rows() -> torch.Tensor:
    mixing = torch.randn(5, 12, generator=generator_for("mixing"))
    return torch.randn(40, 5, generator=generator_for("rows")) @ mixing + 3


def test_the_directions_are_those_of_scikit_learn():
    mean, directions = principal_components(rows(), 3)
    theirs = PCA(3, svd_solver="full").fit(rows().numpy())
    torch.testing.assert_close(mean, torch.from_numpy(theirs.mean_), rtol=1e-4, atol=1e-5)
    together = (directions * torch.from_numpy(theirs.components_)).sum(1).abs()
    torch.testing.assert_close(together, torch.ones(3), rtol=0, atol=1e-4)  # the sign is free


def test_all_directions_of_a_flat_family_rebuild_it():
    mean, directions = principal_components(rows(), 5)
    code = (rows() - mean) @ directions.T
    torch.testing.assert_close(mean + code @ directions, rows(), rtol=0, atol=1e-4)
    torch.testing.assert_close(directions @ directions.T, torch.eye(5), rtol=0, atol=1e-4)
