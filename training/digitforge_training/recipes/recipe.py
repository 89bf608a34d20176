"""A recipe: everything that decides how a generator is trained, as data."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable
from typing import Any, Literal

from digitforge_client.errors import InvalidInputError

LossName = Literal["relativistic", "minimax", "non-saturating", "least-squares", "wasserstein", "hinge"]
Normalization = Literal["none", "batch", "instance", "spectral"]

_REPORTED_IMAGES = 1_600  # between two reports


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a generator is trained. Counts of images are images of real data shown to the discriminator."""

    name: str
    summary: str  # one line for people
    notes: tuple[str, ...] = ()  # what a published text leaves open or gets wrong, and how to mend it

    # Latents and classes.
    latent_size: int = 64
    latent_distribution: Literal["normal", "uniform"] = "normal"  # N(0, 1), or uniform on [−1, 1]
    positive_latents: bool = False  # the generator first maps latents from [−1, 1] to [0, 1]
    # Whether the networks know classes: not at all, or the discriminator by a projection of the class onto its
    # features, by an auxiliary classifier, or by both. The generator then takes an embedding of the class.
    conditioning: Literal["none", "projection", "auxiliary", "both"] = "both"
    embedding_size: int = 32  # of a class, in the generator's input
    # Of each class, found in its training images (see clusters.py): both networks are told an image's cluster, and a
    # quarter of a batch shows all clusters equally often, against the leaving out of rare ones. 1: none.
    clusters: int = 1

    # Networks: residual pairs at half and quarter resolution, dense layers, or DCGAN's convolutions (see networks/).
    network: Literal["residual", "dense", "convolutional"] = "residual"
    width: int = 48  # residual: channels at half resolution; twice as many at quarter resolution
    generator_blocks: int = 2  # residual: pairs at half resolution
    discriminator_blocks: int = 2
    generator_widths: tuple[int, ...] = ()  # dense: units of the hidden layers; convolutional: channels
    discriminator_widths: tuple[int, ...] = ()
    activation: Literal["leaky-relu", "sigmoid"] = "leaky-relu"  # dense: of the hidden layers
    output: Literal["linear", "tanh", "sigmoid"] = "linear"  # sigmoid: both networks work with pixels in [0, 1]
    generator_normalization: Normalization = "none"
    discriminator_normalization: Normalization = "none"
    normalization_momentum: float = 0.9  # of batch normalization's moving averages
    generator_dropout: float = 0.0  # share of features that are dropped
    discriminator_dropout: float = 0.0

    # Losses (see losses.py) and penalties (see adversary.py).
    loss: LossName = "relativistic"
    label_smoothing: float = 0.0  # the discriminator's target for real images is 1 less this much
    gamma: float = 0.1  # weight γ of (γ/2)·‖∇D‖² on real and on generated images, at the start
    gamma_end: float = 0.01  # at the end; γ falls along a cosine, as R3GAN has it, so that detail can still be learned
    penalty_every: int = 2  # steps; the penalty is weighted up by as much, so that γ keeps its meaning
    penalty_noise: float = 0.03  # σ of the finite difference that estimates ‖∇D‖², in units of [−1, 1] pixels
    gradient_penalty: float = 0.0  # weight λ of WGAN-GP's λ·(‖∇D‖ − 1)² between real and generated images
    auxiliary_discriminator: float = 1.0  # weight of the class loss on real images
    auxiliary_generator: float = 0.1  # weight of the class loss on generated images; large values cost variety

    # A step: updates of the discriminator, then updates of the generator.
    discriminator_steps: int = 1
    generator_steps: int = 1
    separate_batches: bool = False  # one update on real images, then one on generated ones, instead of one on both
    shared_latents: bool = True  # the generator's updates use the latents that the discriminator's have used
    generator_predicts: bool = False  # generated images for the discriminator come in inference mode
    # The discriminator's weights while the generator learns through them: frozen; trained along; or copies, which
    # are trained along and then thrown away.
    discriminator_in_chain: Literal["frozen", "trained", "copied"] = "frozen"
    equilibrium: float = 0.0  # stop when 0.5 ± this much of the generated images pass for real; 0: never

    # Optimization.
    batch_size: int = 64  # real images of an update
    steps: int = 15_000
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 4e-4
    discriminator_learning_rate: float = 0.0  # 0: the same as the generator's
    # Along a cosine to zero; constant; or divided by 1 + decay · updates.
    schedule: Literal["cosine", "constant", "inverse-time"] = "cosine"
    decay: float = 0.0
    discriminator_decay: float = 0.0
    clip_value: float = 0.0  # of each component of the gradient; 0: not clipped
    beta_1: float = 0.0
    beta_2: float = 0.99
    ema_images: int = 40_000  # half-life of the generator's averaged weights, in images; 0: not averaged

    # Augmentation of what the discriminator sees, real and generated alike (see augmentation.py). Never flips.
    augment_shift: int = 0  # pixels at most, in each direction
    augment_rotation: float = 0.0  # degrees at most, either way
    augment_scale: float = 0.0  # at most this much larger or smaller, as a share
    augment_cutout: int = 0  # side of the square that is blanked, in pixels; 0: none

    # How the step is computed; auto, which is None: so on a GPU, and not on a CPU. The weights stay float32, and so
    # does what is exported.
    jit: bool | None = None  # by XLA; measured on a CPU: pays for dense networks, costs for convolutions and dropout
    bfloat16: bool | None = None  # layers compute in bfloat16; pays on processors that have it, others take many times

    # Progress, counted in images.
    images_per_checkpoint: int = 64_000
    images_per_sheet: int = 64_000  # sample sheets become the frames of the GIF

    def __post_init__(self) -> None:
        """Refuse values that no training could use."""
        hints = typing.get_type_hints(Recipe)
        for field, value in dataclasses.asdict(self).items():
            hint = hints[field]
            if typing.get_origin(hint) is Literal:
                if value not in typing.get_args(hint):
                    raise InvalidInputError(f"{field} is {value!r}; expected {_any_of(typing.get_args(hint))}")
            elif hint in (int, float):
                _check_number(field, value)
        for field in ("generator_widths", "discriminator_widths"):
            if any(width < 1 for width in getattr(self, field)):
                raise InvalidInputError(f"{field} is {getattr(self, field)}; expected numbers above 0, as 256,512,1024")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.network == "convolutional" and not (len(self.generator_widths) > 2 and self.discriminator_widths):
            raise InvalidInputError(
                "a convolutional network needs generator_widths, at least three, and discriminator_widths"
            )
        if self.network == "dense" and "instance" in {self.generator_normalization, self.discriminator_normalization}:
            raise InvalidInputError(
                "dense layers have no images to normalize one by one: set generator_normalization and "
                "discriminator_normalization to none, batch or spectral"
            )
        if self.clusters > 1 and not self.projection:
            raise InvalidInputError(
                "clusters need a discriminator that is told them: set conditioning to projection or both, "
                "or clusters to 1"
            )
        if self.loss == "relativistic" and self.separate_batches:
            raise InvalidInputError("the relativistic loss compares pairs; it needs separate_batches=false")
        if self.label_smoothing and self.loss not in {"minimax", "non-saturating", "least-squares"}:
            raise InvalidInputError(f"label_smoothing has no meaning with the {self.loss} loss; set it to 0")

    @property
    def conditional(self) -> bool:
        """Whether the generator takes classes."""
        return self.conditioning != "none"

    @property
    def projection(self) -> bool:
        """Whether the discriminator's score depends on the class."""
        return self.conditioning in {"projection", "both"}

    @property
    def auxiliary(self) -> bool:
        """Whether the discriminator also classifies."""
        return self.conditioning in {"auxiliary", "both"}

    @property
    def images_per_step(self) -> int:
        """Real images shown to the discriminator in a step."""
        return self.batch_size * self.discriminator_steps

    @property
    def steps_at_once(self) -> int:
        """Steps between two reports, in one compiled call; Ctrl-C waits for it. One, where any may end the training."""
        return 1 if self.equilibrium else max(1, _REPORTED_IMAGES // self.images_per_step)

    def computed(self, *, on_gpu: bool) -> Recipe:
        """The recipe, with what it leaves to the device decided."""
        return self.computed_like(dataclasses.replace(self, jit=on_gpu, bfloat16=on_gpu))

    def computed_like(self, other: Recipe) -> Recipe:
        """The recipe, with what it leaves to the device as *other* has it."""
        left: dict[str, Any] = {
            field: getattr(other, field) for field in ("jit", "bfloat16") if getattr(self, field) is None
        }
        return dataclasses.replace(self, **left)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready data."""
        values = dataclasses.asdict(self)
        return {field: list(value) if isinstance(value, tuple) else value for field, value in values.items()}


_MAY_BE_ZERO = {
    "gamma",
    "gamma_end",
    "gradient_penalty",
    "auxiliary_discriminator",
    "auxiliary_generator",
    "augment_shift",
    "augment_rotation",
    "augment_cutout",
    "discriminator_learning_rate",
    "decay",
    "discriminator_decay",
    "clip_value",
    "ema_images",
}
_SHARES = {
    "beta_1",
    "beta_2",
    "normalization_momentum",
    "generator_dropout",
    "discriminator_dropout",
    "label_smoothing",
    "augment_scale",
}


def _check_number(field: str, value: float) -> None:
    if field in _SHARES:
        if not 0 <= value < 1:
            raise InvalidInputError(f"{field} is {value}; expected 0 ≤ {field} < 1")
    elif field == "equilibrium":
        if not 0 <= value < 0.5:
            raise InvalidInputError(f"{field} is {value}; expected 0 ≤ {field} < 0.5")
    elif field in _MAY_BE_ZERO:
        if not 0 <= value < math.inf:
            raise InvalidInputError(f"{field} is {value}; expected 0 or a finite number above")
    elif not 0 < value < math.inf:
        raise InvalidInputError(f"{field} is {value}; expected a finite number above 0")


def _any_of(words: Iterable[object]) -> str:
    *first, last = map(repr, words)
    return f"{', '.join(first)} or {last}"
