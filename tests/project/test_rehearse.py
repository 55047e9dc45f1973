"""The rehearsal's rules are a GPU's; "meta" stands for the device that is not the CPU."""

import pytest
import torch

from tests.tools.rehearse import generator_class, like_a_gpu

META = torch.device("meta")


@pytest.fixture
def here():
    with like_a_gpu(META):
        yield torch.ones(2, 3), torch.ones(2, 3, device=META)


def test_tensors_of_two_devices_do_not_mix(here):
    cpu, other = here
    for mix in (torch.add, torch.mul, torch.lerp):
        with pytest.raises(RuntimeError, match=mix.__name__):
            mix(other, cpu, *([0.5] if mix is torch.lerp else []))
    with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        torch.cat([cpu, other])


def test_what_a_gpu_allows_is_allowed(here):
    cpu, other = here
    assert (other * torch.tensor(2.0)).device == META  # a single number
    assert other[torch.tensor([0, 1])].device == META  # picking rows
    other.copy_(cpu)
    assert cpu.to(META).device == other.to(META).device == META
    module = torch.nn.Linear(3, 3).to(META)
    assert module(other).shape == (2, 3)


def test_numpy_takes_nothing_from_it(here):
    cpu, other = here
    assert cpu.numpy().sum() == 6
    with pytest.raises(TypeError, match="to numpy"):
        other.numpy()


@pytest.mark.parametrize("made_for, drawn_on", [("cpu", "meta"), ("meta", "cpu")])
def test_a_generator_draws_for_its_own_device(here, made_for, drawn_on):
    generator = generator_class()(device=made_for)
    with pytest.raises(RuntimeError, match=f"generator of {made_for} cannot draw on {drawn_on}"):
        torch.randn(3, generator=generator, device=drawn_on)
    noise = torch.randn(3, generator=generator, device=made_for)
    assert noise.device.type == made_for
