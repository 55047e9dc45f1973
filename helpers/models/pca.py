"""Principal components: the best linear code (notebook 1)."""

import torch


def principal_components(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean (D,), the k orthonormal directions (k, D) along which rows x (N, D) differ most).

    The most important direction comes first.  The sign of a direction is arbitrary.
    """
    mean = x.mean(0)
    _, _, directions = torch.linalg.svd(x - mean, full_matrices=False)  # (min(N, D), D)
    return mean, directions[:k]
