"""The spline warp: what it must give back, where it moves things, and that its gradients are true."""

import pytest
import torch

from face2voice.speech2face.landmarks import template
from face2voice.speech2face.warp import border_points, interpolate, lattice, warp

ORDERS = pytest.mark.parametrize("order", [1, 2])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@ORDERS
def test_spline_passes_through_its_points_and_keeps_planes(order):
    centres = torch.rand(2, 12, 2, dtype=torch.double) * 2 - 1
    values = torch.randn(2, 12, 3, dtype=torch.double)
    assert torch.allclose(interpolate(centres, values, centres, order, ridge=0), values, atol=1e-3)
    plane = 0.3 + centres @ torch.tensor([[0.5], [-0.2]], dtype=torch.double)
    at = torch.rand(2, 5, 2, dtype=torch.double)
    wanted = 0.3 + at @ torch.tensor([[0.5], [-0.2]], dtype=torch.double)
    assert torch.allclose(interpolate(centres, plane, at, order, ridge=0.1), wanted, atol=1e-9)


@ORDERS
def test_gradients_of_the_spline_are_true(order):
    centres, values, at = (torch.rand(1, n, 2, dtype=torch.double, requires_grad=True) for n in (5, 5, 4))
    assert torch.autograd.gradcheck(lambda *x: interpolate(*x, order), (centres, values, at))


@ORDERS
def test_gradients_of_the_warp_are_true(order):
    x, y = lattice(9).double().view(9, 9, 2).unbind(2)
    # Flat at the edges, where what comes from beyond is cut off, and smooth between.
    image = (((1 - x**2) * (1 - y**2)).clamp(min=0) ** 3).expand(1, 1, 9, 9).clone().requires_grad_()
    source = torch.tensor([[2.2, 3.1], [5.7, 2.6], [4.3, 6.2]], dtype=torch.double, requires_grad=True)
    target = torch.tensor([[[2.5, 2.7], [5.3, 3.2], [4.6, 5.7]]], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *x: warp(*x, order=order, border=2, grid=5), (image, source, target), eps=1e-7, atol=1e-4
    )


@ORDERS
@pytest.mark.parametrize("points", [68, 72])
def test_landmarks_in_place_give_the_texture_back(order, points):
    textures, mean = torch.rand(2, 3, 224, 224), torch.from_numpy(template(points)).float()
    assert (warp(textures, mean, mean.repeat(2, 1, 1), order) - textures).abs().max() < 1e-4


@ORDERS
def test_what_lies_at_a_point_goes_where_the_point_goes(order):
    mean = torch.from_numpy(template()).float()
    moved = mean + torch.tensor([6.0, -4.0])
    x, y = ((lattice(224) + 1) * 111.5).view(224, 224, 2).unbind(2)
    for number in (8, 30, 45, 48):  # chin, nose, an eye, a lip corner
        blob = torch.exp(-((x - mean[number, 0]) ** 2 + (y - mean[number, 1]) ** 2) / 8)
        image = warp(blob.expand(1, 1, 224, 224), mean, moved[None], order)[0, 0]
        centre = torch.stack([(image * x).sum(), (image * y).sum()]) / image.sum()
        assert (centre - moved[number]).norm() < 1.5
    corner = torch.zeros(1, 1, 224, 224)
    corner[..., 0, 0] = 1
    assert warp(corner, mean, moved[None], order)[..., 0, 0] > 0.9


@ORDERS
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_coincident_points_do_not_blow_up(order, ridge):
    source = torch.from_numpy(template(72)).float()  # has four such pairs
    target = (source + torch.randn(72, 2)).requires_grad_()
    images = torch.rand(1, 3, 224, 224)
    warped = warp(images, source, target[None], order, ridge)
    warped.mean().backward()
    assert torch.isfinite(warped).all() and torch.isfinite(target.grad).all()
    assert 0 <= warped.min() and warped.max() <= 1


def test_gradient_reaches_landmarks_that_are_in_place():
    mean = torch.from_numpy(template(72)).float()
    target = mean.clone().requires_grad_()
    (warp(torch.rand(1, 3, 224, 224), mean, target[None]) * torch.rand(224, 224)).sum().backward()
    assert torch.isfinite(target.grad).all() and target.grad.abs().sum() > 0


def test_border_points_and_lattice():
    assert border_points(3).shape == (12, 2) and len(border_points(3).unique(dim=0)) == 12
    assert border_points(3).abs().amax(1).eq(1).all() and len(border_points(0)) == 0
    assert lattice(3)[:4].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0]]


def test_unknown_order():
    with pytest.raises(ValueError, match="order 3"):
        warp(torch.rand(1, 1, 8, 8), torch.rand(3, 2), torch.rand(1, 3, 2), order=3)
