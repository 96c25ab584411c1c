"""Algorithms that learn to learn from streams: classes come one after another, and none may be forgotten.

Their tasks are streams (:class:`rbml.tasks.Continual`); give them as many ``steps`` as a stream has.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.learner.initial import head_layer_name
from rbml.models import Modulated, OMLNet, modulated, with_cosine_head
from rbml.strategy import Hyper, Scalar, Strategy, chain, clipped_sgd, fresh_rows, lda, settle, sgd, tempered
from rbml.strategy.fresh_rows import To, When


def oml(
    model: nn.Module,
    lr: float | Hyper = 0.03,
    steps: int = 50,
    to: To = "zero",
    when: When = "start",
    cosine: bool = False,
    **options: Any,
) -> Learner:
    r"""Learn a representation on which a head can be trained online, one example after another, without forgetting.

    .. math:: \min_{\theta, w_0} L(f_\theta, w_T;\; \text{stream} \cup \text{remembered}), \qquad
              w_{t+1} = w_t - \mathrm{lr}\, \nabla_w \ell(f_\theta(x_t), y_t; w_t)

    Javed and White 2019 (arXiv:1905.12588): the representation network is fixed while a stream is learned, and learned
    across streams; the prediction network is adapted: the last two layers of the paper's own network,
    :class:`rbml.models.OMLNet`, or the head of any other model (name other layers in ``adapt``). Differs: rows begin at
    zero, not drawn (``to="drawn"``). The paper's tasks are ``Continual(..., remember=..., labels="global")``. The body
    runs once per stream.

    With ``cosine`` the last layer is a :class:`rbml.models.CosineHead`, which alone is adapted. Its rows learn while
    their class is new (:func:`rbml.strategy.settle`), from scores that are made less sharp than those of queries
    (:func:`rbml.strategy.tempered`): close to class means, which are forgotten by nothing, and then learned from there.
    Streams of 3,000 steps need it (docs/results.md).

    Args:
        model: the model.
        lr: the inner learning rate.
        steps: T, the steps of a stream.
        to: how the head's rows of a stream's classes begin, as in :func:`rbml.strategy.fresh_rows`.
        when: when they do: at the start of the stream, or when their class comes.
        cosine: put a head of cosines, whose rows settle, in place of the last layer; a rate is then about 1.
        **options: any other of :func:`rbml.algorithms.options.assemble`; ``adapt`` is the prediction network.
    """
    layer = head_layer_name(model, options.get("head"))
    adapt = f"hidden.*|{layer}.*" if isinstance(model, OMLNet) and not cosine else "head"
    own = {"adapt": adapt} | options
    if cosine:
        model, own = with_cosine_head(model, layer), own | {"head": f"{layer}.weight"}
    return assemble(model, _online(lr, layer, to, when, cosine), steps, **own)


def _online(lr: float | Hyper, layer: str, to: To, when: When, cosine: bool) -> Strategy:
    """Return gradient descent along a stream, for a head that is a layer of this name."""
    rows = f"{layer}.*"
    plain = chain(sgd(lr), fresh_rows(to, when, rows))
    factor, tau = Scalar(1 / 16, bounds=(0, 1)), Hyper(15.0, bounds=(1, 60))
    return chain(tempered(factor), settle(tau, rows), plain) if cosine else plain


def anml(
    model: nn.Module,
    lr: float | Hyper = 0.1,
    steps: int = 50,
    to: To = "zero",
    when: When = "start",
    cosine: bool = False,
    **options: Any,
) -> Learner:
    r"""Learn a network that decides which features pass, so that online learning does not overwrite what is known.

    .. math:: \min_{\theta_0, \nu} L(\text{stream} \cup \text{remembered}), \qquad \theta_{t+1} = \theta_t -
              \mathrm{lr}\, \nabla_\theta\, \ell\big(f_\theta(x_t) \circ \mathrm{sigmoid}(g_\nu(x_t)), y_t\big)

    Beaulieu et al. 2020 (arXiv:2002.09571): the prediction network is adapted, the modulating one learned across
    streams. :func:`rbml.models.anml_net` has the paper's two networks; of any other model the modulating network is a
    second body. Differs: rows begin at zero. The paper adapts the head alone when it is tested: ``adapt="head"``.

    Args:
        model: the model, of which a modulated copy is made; or a :class:`rbml.models.Modulated`.
        lr: the inner learning rate.
        steps: T, the steps of a stream.
        to: as in :func:`oml`.
        when: as in :func:`oml`.
        cosine: as in :func:`oml`.
        **options: any other of :func:`rbml.algorithms.options.assemble`.

    Raises:
        UsageError: if the last layer of the model is not an ``nn.Linear`` inside it.
    """
    whole: nn.Module = model
    if not isinstance(model, Modulated):
        whole = modulated(model, head_layer_name(model, options.pop("head", None)))
    if cosine:
        whole = with_cosine_head(whole, "head")
    chosen = {"adapt": "!modulation.*|!head.log_scale", "head": "head.weight" if cosine else "head.*"} | options
    return assemble(whole, _online(lr, "head", to, when, cosine), steps, **chosen)


def streaming_lda(
    model: nn.Module,
    shrink: float | Scalar = Scalar(0.1, bounds=(0, 1)),  # noqa: B008  frozen
    scale: float | Scalar = Scalar(1.0, bounds=(0, None)),  # noqa: B008
    steps: int = 0,
    **options: Any,
) -> Learner:
    """Learn features, and how far to trust their covariance, for a head made from running sums: nothing is forgotten.

    Streaming LDA (Hayes and Kanan 2020, arXiv:1909.01520) with features that are learned across tasks; there they are
    pretrained. Because the head is the same in whatever order examples come, ordinary few-shot tasks train it.

    Args:
        model: the model; its own head is not used.
        shrink: how much of the covariance is replaced by a multiple of the identity.
        scale: of the logits.
        steps: gradient steps on the head after it is made.
        **options: any other of :func:`rbml.algorithms.options.assemble`.
    """
    return assemble(model, chain(lda(shrink, scale), sgd(0.1)), steps, **({"adapt": "head"} | options))


def la_maml(model: nn.Module, lr: float = 0.1, steps: int = 10, **options: Any) -> Learner:
    r"""Learn a rate for every weight, so that what is learned from new examples does not hurt earlier ones.

    .. math:: \theta_{t+1} = \theta_t - \max(\alpha, 0) \circ \nabla \ell(\theta_t), \qquad
              \min_{\theta_0, \alpha} \frac1T \sum_t L(\theta_t;\; \text{new} \cup \text{remembered})

    Gupta, Yadav, Paull 2020 (arXiv:2007.13904): one inner step per example of a batch, judged after each of them. Its
    own training goes along one stream: :func:`rbml.training.online.learn_online`. Differs: exact second derivatives
    (the paper's code uses first-order ones by default).

    Args:
        model: the model.
        lr: the start of all rates.
        steps: T, the examples of a batch.
        **options: any other of :func:`rbml.algorithms.options.assemble`.
    """
    weights = None if "curriculum" in options else [1 / steps] * steps
    return assemble(model, clipped_sgd(Hyper(lr, per="element")), steps, **({"step_weights": weights} | options))
