"""Everything that decides a run's figures, in one record that is saved with them."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from dropout_policies import Policy, Site
from dropout_policies.policies.catalog import resolve

from .recipe import presets

BACKENDS = ("torch", "tensorflow", "jax", "keras-torch")
TASKS = ("ptb", "speech", "captions", "translation")


@dataclass(frozen=True)
class RunConfig:
    """One run: a task, a preset, a policy, a backend and a seed.

    `policy` names one of the catalogue, or several joined by `+`. `rate` is that of the first;
    None for the catalogue's own rates, and for `none`. With `same_start` every backend gets the
    same initial weights and the same keyed masks, and the first steps a lower learning rate;
    without it each backend draws its own.
    """

    preset: str
    backend: str
    policy: str
    rate: float | None
    seed: int
    epochs: int
    same_start: bool
    task: str = "ptb"

    @property
    def recipe(self) -> Any:
        """The preset, a `Recipe` and what its task adds."""
        return presets(self.task)[self.preset]

    @property
    def placement(self) -> Policy:
        """The policy itself.

        Raises:
            PolicyError: there is none of that name, it has no such rate, or two fall on one site.
        """
        first, *others = self.policy.split("+")
        joined = resolve(first, self.rate)
        for other in others:
            joined = joined | resolve(other)
        return joined

    @property
    def recurrent_masks(self) -> bool:
        """Whether the recurrent layers draw masks at all."""
        policy = self.placement
        return any(policy.masks(site) for site in Site if site is not Site.EMBEDDING)

    @property
    def word_types(self) -> dict[str, Any]:
        """What an embedding is given beside its sizes: nothing, where no word types are dropped."""
        dropped = self.placement.masks(Site.EMBEDDING)
        return {"policy": self.placement, "seed": self.start_seed} if dropped else {}

    @property
    def name(self) -> str:
        """The run's name, and its folder's."""
        rate = "" if self.rate is None else f"-{self.rate:g}"
        start = "-same" if self.same_start else ""
        return f"{self.preset}-{self.policy}{rate}-{self.backend}-s{self.seed}{start}"

    @property
    def start_seed(self) -> int:
        """The seed of initial weights and masks, in [0, 2**32)."""
        return (
            self.seed
            if self.same_start
            else (self.seed + zlib.crc32(self.backend.encode())) % 2**32
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})

    def check(self) -> None:
        """Refuse what no command writes.

        Raises:
            ValueError: a field has a value that it cannot have.
            PolicyError: there is no such policy, or it has no such rate.
        """
        fine = {
            "task": self.task in TASKS,
            "backend": self.backend in BACKENDS,
            "policy": type(self.policy) is str,
            "rate": self.rate is None or type(self.rate) in (int, float),
            "seed": type(self.seed) is int and self.seed >= 0,
            "epochs": type(self.epochs) is int and self.epochs >= 1,
            "same_start": type(self.same_start) is bool,
        }
        names = presets(self.task) if fine["task"] else {}
        fine["preset"] = type(self.preset) is str and self.preset in names
        for name, is_fine in fine.items():
            if not is_fine:
                raise ValueError(
                    f"{name} has an impossible value. Received: {getattr(self, name)!r:.60}"
                )
        self.placement  # noqa: B018 # refused now, if it is to be refused
