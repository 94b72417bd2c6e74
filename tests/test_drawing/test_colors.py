"""Colors that readers with and without green cones tell apart, and text that can be read on them."""

import numpy as np
import pytest
from mmengine.config import Config
from skimage.color import deltaE_ciede2000, rgb2lab

from mmstvit.drawing import class_colors
from mmstvit.drawing.colors import PALETTE, text_color

from ..helpers import ROOT

# Machado, Oliveira and Fernandes (2009), deuteranopia of severity 1, on linear RGB.
DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]


def linear(colors: list) -> np.ndarray:
    values = np.array(colors) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def smallest_distance(colors: list, deuteranope: bool = False) -> float:
    """Return the smallest CIEDE2000 difference of two colors."""
    values = linear(colors)
    values = (values @ np.transpose(DEUTERANOPE)).clip(0, 1) if deuteranope else values
    lab = rgb2lab(np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055))
    distances = deltaE_ciede2000(lab[:, None], lab[None])
    return distances[~np.eye(len(colors), dtype=bool)].min()


@pytest.mark.parametrize(('count', 'normal', 'deuteranope'), [(5, 22, 15.5), (8, 21.5, 11.5), (20, 11, 9.8)])
def test_colors_differ(count, normal, deuteranope):
    colors = class_colors([f'class {i}' for i in range(count)])
    assert smallest_distance(colors) > normal
    assert smallest_distance(colors, deuteranope=True) > deuteranope


@pytest.mark.parametrize('name', ['scenes_instance', 'scenes_semantic'])
def test_colors_of_the_bundled_scenes_differ(name):
    metainfo = Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py').metainfo
    assert metainfo.palette == class_colors(metainfo.classes)
    assert smallest_distance(metainfo.palette, deuteranope=True) > 15


def test_up_to_eight_classes_have_the_colors_of_okabe_and_ito_and_keep_them_among_more():
    names = list(map(str, range(150)))
    assert class_colors(names)[:8] == class_colors(names[:8]) == PALETTE[:8]
    assert len(set(class_colors(names))) == 40
    assert len(class_colors(list(map(str, range(1000))))) == 1000


def test_a_background_alone_is_black():
    colors = class_colors([*'abcd', 'Background', *'efghijkl'])
    assert colors[4] == (0, 0, 0) and colors.count((0, 0, 0)) == 1


def test_own_palette_and_what_is_none():
    assert class_colors('ab', [[1, 2, 3], [4, 5, 6], [7, 8, 9]]) == [(1, 2, 3), (4, 5, 6)]
    for other in (None, 'random', [(1, 2, 3)], [(1, 2), (3, 4)], [(1, 2, 300), (1, 2, 3)], [(1,), (2, 3)]):
        assert class_colors('ab', other) == PALETTE[:2]


def test_text_has_the_higher_contrast_of_black_and_white():
    for color in class_colors(list(map(str, range(100)))):
        luminance = linear(color) @ (0.2126, 0.7152, 0.0722)
        contrasts = {(0, 0, 0): (luminance + 0.05) / 0.05, (255, 255, 255): 1.05 / (luminance + 0.05)}
        assert contrasts[text_color(color)] == max(contrasts.values()) >= 4.5
