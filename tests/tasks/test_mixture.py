"""Tasks of several sources in one stack."""

from __future__ import annotations

import pytest
import torch

from rbml.data.examples import Grouped, Labelled
from rbml.data.inputs import Arrays, Pictures
from rbml.data.targets import real
from rbml.errors import UsageError
from rbml.recipe import Recipe, build
from rbml.recipe.sections import Data
from rbml.tasks import FewShot, Mixture, PerGroup, Sinusoid, generator, task_seeds
from rbml.tasks.base import one


def pictures(size: int = 4, classes: int = 6, level: int = 0) -> Labelled:
    source = generator(level)
    x = torch.randint(level, level + 100, (classes * 10, 1, size, size), generator=source).to(torch.uint8)
    names = [str(index) for index in range(classes)]
    return Labelled(x, torch.arange(classes * 10) // 10, names, f"source {level}", Pictures(size))


def test_a_task_is_that_of_its_source_with_padding_behind() -> None:
    sources = [FewShot(pictures(level=0), 3, 1, 4), FewShot(pictures(level=100), 5, 2, 2)]
    mixture = Mixture(sources)
    seeds = task_seeds(12, generator(0))
    whole = mixture.draw(seeds)
    assert whole.support.x.shape == (12, 10, 1, 4, 4) and whole.query.y.shape == (12, 12)
    places = [mixture.chosen_source(seed) for seed in seeds]
    assert set(places) == {0, 1}
    for index, (seed, place) in enumerate(zip(seeds, places, strict=True)):
        alone = one(sources[place].draw([seed]), 0)
        n = len(alone.support.y)
        assert torch.equal(whole.support.x[index, :n], alone.support.x)
        assert int(whole.support.mask["example"][index].sum()) == n
        assert int(whole.query.mask["class"][index].sum()) == sources[place].ways
    assert mixture.stored(seeds).support.x.dtype == torch.uint8
    assert (mixture.outputs, mixture.ways, mixture.about) == (5, 5, "source 0; source 100")
    assert mixture.modality == Pictures(4) and mixture.target is sources[0].target


def test_a_task_does_not_depend_on_the_others_of_its_stack() -> None:
    mixture = Mixture([FewShot(pictures(level=0), 3, 1, 4), FewShot(pictures(level=100), 5, 2, 2)])
    seeds = task_seeds(6, generator(1))
    whole = mixture.draw(seeds)
    for index, seed in enumerate(seeds):
        alone = mixture.draw([seed])
        assert torch.equal(alone.query.x[0], whole.query.x[index])
        assert torch.equal(alone.query.mask["example"][0], whole.query.mask["example"][index])


def test_sources_of_one_size_need_no_mask() -> None:
    mixture = Mixture([FewShot(pictures(level=level), 3, 1, 4) for level in (0, 100)])
    assert mixture.sample(5, generator(0)).support.mask == {}


def test_both_sources_are_equally_likely() -> None:
    mixture = Mixture([FewShot(pictures(level=level), 3, 1, 4) for level in (0, 100)])
    count = sum(mixture.chosen_source(seed) for seed in task_seeds(2000, generator(0)))
    assert abs(count - 1000) < 5 * 500**0.5  # five standard deviations


def test_sources_that_do_not_belong_together_are_refused() -> None:
    small, large = FewShot(pictures(4), 3, 1, 2), FewShot(pictures(8), 3, 1, 2)
    with pytest.raises(
        UsageError, match=r"one kind of inputs, not pictures \{'size': 4.*\(source 0\).*'size': 8.*size"
    ):
        Mixture([small, large])
    with pytest.raises(UsageError, match=r"one kind of target, not classes .* and real"):
        Mixture([small, Sinusoid()])
    rows = Grouped(torch.zeros(9, 3), torch.zeros(9, 1), torch.arange(9) // 3, list("abc"), "rows", Arrays())
    units = [PerGroup(rows._replace(target=real([0.0], [scale])), 1, 1) for scale in (2.0, 3.0)]
    with pytest.raises(UsageError, match=r"not real \{.*2.0.* and real \{.*3.0"):
        Mixture(units)
    arrays = [FewShot((torch.zeros(20, *shape), torch.arange(20) // 10), 2, 1, 1) for shape in ((3,), (4,))]
    with pytest.raises(UsageError, match=r"x \(3,\) float32.* and x \(4,\) float32"):
        Mixture(arrays)
    with pytest.raises(UsageError, match="at least one source"):
        Mixture([])


def test_a_recipe_of_several_sources_draws_from_all() -> None:
    recipe = Recipe.of(data="glyphs").model_copy(update={"data": (Data(name="glyphs"), Data(name="glyphs"))})
    mixture = build.tasks(recipe, "val")
    assert isinstance(mixture, Mixture) and len(mixture.sources) == 2 and mixture.outputs == 5
