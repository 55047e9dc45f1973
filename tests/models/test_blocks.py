"""The blocks against PyTorch's own operations, on images that are not square."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError
from helpers.models.blocks import (
    EPS,
    AttentionBlock,
    Downsample,
    ResBlock,
    SelfAttention,
    Upsample,
    group_norm,
)


def randomised(module: nn.Module) -> nn.Module:
    """Every weight random: fresh norms (1 and 0) and zero biases would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + 0.1)
    return module.double()


def image(channels: int, height: int = 6, width: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


def test_group_norm_gives_every_group_of_every_image_mean_0_and_variance_1():
    x = 3 + 5 * image(8)
    y = group_norm(8, 2).double()(x).unflatten(1, (2, 4)).flatten(2)  # (B, groups, 4·H·W)
    torch.testing.assert_close(y.mean(2), torch.zeros(2, 2).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(y.var(2, correction=0), torch.ones(2, 2).double(), atol=1e-6, rtol=0)


def test_groups_that_do_not_divide_the_width_are_refused():
    with pytest.raises(CourseError, match="48 channels cannot be shared by 32 groups"):
        group_norm(48, 32)


def test_res_block_is_norm_silu_conv_twice_around_a_shortcut():
    block, x = randomised(ResBlock(8, 12, groups=4)), image(8)
    h = F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, EPS)
    h = F.conv2d(h * torch.sigmoid(h), block.conv1.weight, block.conv1.bias, padding=1)
    h = F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, EPS)
    h = F.conv2d(h * torch.sigmoid(h), block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = torch.einsum("oi,bihw->bohw", block.shortcut.weight[:, :, 0, 0], x)
    shortcut = shortcut + block.shortcut.bias[:, None, None]
    torch.testing.assert_close(block(x), shortcut + h)


def test_a_fresh_res_block_is_its_shortcut():
    x = image(8).float()
    same, wider = ResBlock(8, 8, groups=4), ResBlock(8, 12, groups=4)
    assert torch.equal(same(x), x) and not list(same.shortcut.parameters())
    assert torch.equal(wider(x), wider.shortcut(x))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_self_attention_equals_torchs_multihead_attention(heads):
    ours = randomised(SelfAttention(8, heads))
    torchs = nn.MultiheadAttention(8, heads, batch_first=True).double()
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        torchs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        torchs.out_proj.load_state_dict(ours.out.state_dict())
    tokens = torch.randn(2, 5, 8, dtype=torch.float64)
    expected, weights = torchs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(ours(tokens), expected)
    torch.testing.assert_close(ours.weights(tokens), weights)


def test_attention_on_four_tokens_by_hand():
    """One-hot queries and keys, scaled so that a token counts 4 for itself and 1 for each other."""
    attention = SelfAttention(4)
    with torch.no_grad():
        for layer in (attention.q, attention.k, attention.v, attention.out):
            layer.weight.copy_(torch.eye(4))
            layer.bias.zero_()
        attention.q.weight.mul_(2 * torch.log(torch.tensor(4.0)))  # √4 = 2 takes the scale out
    tokens = torch.eye(4)[None]
    expected = (torch.ones(4, 4) + 3 * torch.eye(4)) / 7
    torch.testing.assert_close(attention.weights(tokens)[0, 0], expected)
    torch.testing.assert_close(attention(tokens)[0], expected)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(CourseError, match="8 channels cannot be shared by 3 heads"):
        SelfAttention(8, 3)


def test_attention_block_normalises_mixes_positions_and_adds():
    block, x = randomised(AttentionBlock(8, heads=2, groups=4)), image(8, 3, 5)
    tokens = F.group_norm(x, 4, block.norm.weight, block.norm.bias, EPS).flatten(2).transpose(1, 2)
    mixed = SelfAttention.forward(block, tokens)
    for row, column in [(0, 0), (1, 3), (2, 4)]:
        token = row * 5 + column  # row · width + column
        expected = x[:, :, row, column] + mixed[:, token]
        torch.testing.assert_close(block(x)[:, :, row, column], expected)


def test_attention_block_sees_everything_and_a_convolution_only_its_neighbours():
    x = image(8, 9, 7).requires_grad_()
    attention, convolution = AttentionBlock(8, groups=4), nn.Conv2d(8, 8, 3, padding=1)
    for block, seen in ((attention, 63), (convolution, 9)):
        (reached,) = torch.autograd.grad(randomised(block)(x)[0, 0, 4, 3], x)
        assert int((reached[0].abs().sum(0) > 0).sum()) == seen


def test_downsample_pads_right_and_bottom_only():
    down = Downsample(1)
    with torch.no_grad():
        down.conv.weight.copy_(torch.arange(1.0, 10).view(1, 1, 3, 3))
        down.conv.bias.zero_()
    x = torch.arange(24.0).view(1, 1, 4, 6)
    padded = torch.zeros(5, 7)
    padded[:4, :6] = x[0, 0]
    kernel = torch.arange(1.0, 10).view(3, 3)
    expected = torch.zeros(2, 3)
    for i in range(2):
        for j in range(3):
            expected[i, j] = (padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * kernel).sum()
    assert torch.equal(down(x)[0, 0], expected)


def test_upsample_repeats_pixels_then_convolves():
    up, x = randomised(Upsample(2)), image(2, 3, 4)
    larger = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x), F.conv2d(larger, up.conv.weight, up.conv.bias, padding=1))
