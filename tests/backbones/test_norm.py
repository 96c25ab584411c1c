from __future__ import annotations

import torch
from torch import Tensor, nn

from rbml.backbones.norm import FrozenBatchNorm, folded, with_frozen_norms


def trained() -> nn.Sequential:
    """Return a network whose norms have seen data, in eval mode."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh(),
                        nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5, affine=False)))  # fmt: skip
    for _ in range(3):
        net(torch.randn(6, 3, 7, 7) * 2 + 1)
    with torch.no_grad():
        net.get_parameter("1.weight").uniform_(0.5, 2)
        net.get_parameter("1.bias").normal_()
    return net.eval()


def test_frozen_norms_compute_what_eval_mode_does() -> None:
    net, x = trained(), torch.randn(4, 3, 7, 7)
    expected = net(x)
    frozen = with_frozen_norms(net).train()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in frozen.modules())
    assert torch.allclose(frozen(x), expected, atol=1e-6)
    assert not frozen.get_parameter("3.1.weight").requires_grad, "it had no gain and shift to train"
    assert torch.allclose(torch.cat([frozen(one[None]) for one in x]), expected, atol=1e-6), "each by itself"


def test_norms_that_hold_an_activation_keep_it() -> None:
    class WithActivation(nn.BatchNorm2d):
        def __init__(self) -> None:
            super().__init__(3)
            self.drop, self.act = nn.Identity(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.act(self.drop(super().forward(x)))
            return found

    net, x = nn.Sequential(WithActivation()).eval(), torch.randn(5, 3, 2, 2)
    expected = net(x)
    assert torch.allclose(with_frozen_norms(net)(x), expected, atol=1e-6)


def test_norms_are_folded_into_the_convolutions_before_them() -> None:
    net = with_frozen_norms(trained())
    x = torch.randn(4, 3, 7, 7)
    fast = folded(net)
    assert torch.allclose(fast(x), net(x), atol=1e-5)
    assert isinstance(fast.get_submodule("1"), nn.Identity)
    assert isinstance(fast.get_submodule("3.1"), FrozenBatchNorm), "its convolution has a bias of its own"
    assert not any(leaf.requires_grad for leaf in fast.parameters())
    assert isinstance(net.get_submodule("1"), FrozenBatchNorm), "the network itself is left as it is"
