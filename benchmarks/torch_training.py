"""What every task does with a model in PyTorch: weights by common names, and clipped SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import processes
from .task import Arrays


def lstm_weights(name: str, lstm: nn.LSTM) -> Iterator[tuple[str, nn.Parameter]]:
    """An LSTM's parameters by the names that all frameworks share: `{name}.{layer}.w_ih`, ...

    One bias per gate, whatever the framework has, so that every framework trains the same model:
    the second one is set to zero, and stays there.
    """
    for layer in range(lstm.num_layers):
        nn.init.zeros_(getattr(lstm, f"bias_hh_l{layer}")).requires_grad_(False)
        yield f"{name}.{layer}.w_ih", getattr(lstm, f"weight_ih_l{layer}")
        yield f"{name}.{layer}.w_hh", getattr(lstm, f"weight_hh_l{layer}")
        yield f"{name}.{layer}.bias", getattr(lstm, f"bias_ih_l{layer}")


def linear_weights(name: str, linear: nn.Linear) -> Iterator[tuple[str, nn.Parameter]]:
    """A linear layer's parameters: `{name}.weight` `[out, in]` and `{name}.bias`."""
    yield f"{name}.weight", linear.weight
    yield f"{name}.bias", linear.bias


WARM_UPS = 3
"""How many steps of a shape run before its graph is captured, as PyTorch wants it."""

Losses = Callable[..., tuple[Tensor, Tensor]]
"""A step's tensors to the loss to go down, and the figure to report."""


@dataclass
class Graph:
    """A step of one shape on a GPU: what it reads, what it reports, and the captured graph."""

    given: list[Tensor]
    seen: int = 0
    figure: Tensor | None = None
    captured: torch.cuda.CUDAGraph | None = None


class Trainer:
    """A model that is trained by SGD, on a GPU where there is one.

    Args:
        model: whose parameters they are.
        named: its parameters by their common names.
        clip: the global norm that gradients are clipped to.
    """

    def __init__(self, model: nn.Module, named: dict[str, nn.Parameter], clip: float) -> None:
        self.graphs: dict[tuple[torch.Size, ...], Graph] = {}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # as cuDNN has it in recurrent layers
        self.model, self.named, self.clip = model.to(self.device), named, clip
        self.parallel = processes.as_distributed(self.model)  # called in training
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(self.trained)

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """One step down a loss."""
        self.optimizer.zero_grad()
        loss.backward()
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

    def replayed(self, losses: Losses, arrays: list[np.ndarray], learning_rate: float) -> float:
        """One step down the loss of some arrays, on a GPU, and what it reports.

        A step's many small kernels take longer to start than to run, so that they are captured in a
        CUDA graph for each shape and started at once. What `losses` carries on from step to step,
        it writes in place.
        """
        tensors = [self.tensor(array) for array in arrays]
        tensors.append(torch.full((), learning_rate, device=self.device))
        graph = self.graphs.setdefault(tuple(each.shape for each in tensors), Graph(tensors))
        for place, value in zip(graph.given, tensors, strict=True):
            place.copy_(value)
        if graph.seen < WARM_UPS:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                graph.figure = self._whole(losses, graph.given)
            torch.cuda.current_stream().wait_stream(side)
            graph.seen += 1
        else:
            if graph.captured is None:
                graph.captured = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph.captured):
                    graph.figure = self._whole(losses, graph.given)
            graph.captured.replay()
        assert graph.figure is not None, "a step has run"
        return graph.figure.item()

    def _whole(self, losses: Losses, given: list[Tensor]) -> Tensor:
        """A step in tensors alone; clipped and updated in as few passes over memory as can be."""
        *tensors, rate = given
        self.optimizer.zero_grad()
        loss, figure = losses(*tensors)
        loss.backward()
        with torch.no_grad():
            found = [(p, p.grad) for p in self.trained if p.grad is not None]
            norms = [torch.linalg.vector_norm(gradient) for _, gradient in found]
            norm = torch.linalg.vector_norm(torch.stack(norms))
            scale = rate * self.clip / norm.clamp(min=self.clip)
            for parameter, gradient in found:
                parameter.addcmul_(gradient, scale, value=-1.0)
        return figure.detach()

    @torch.no_grad()
    def _clip(self) -> None:
        """Scale the gradients down to a global norm.

        Not `clip_grad_norm_`: it adds an epsilon to the norm, and on a CPU the norm of a large
        float32 tensor is off by as much again where the sum of its squares is not.
        """
        gradients = [p.grad for p in self.trained if p.grad is not None]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        scale = self.clip / norm.clamp(min=self.clip)
        for gradient in gradients:
            gradient.mul_(scale)

    def weights(self) -> Arrays:
        """The model's weights."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.named.items()}

    @torch.no_grad()
    def load(self, weights: Arrays) -> None:
        """Give the model weights."""
        for name, parameter in self.named.items():
            parameter.copy_(self.tensor(weights[name]))

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the model's device: whole numbers as indices, others in float32."""
        kind = np.int64 if array.dtype.kind in "iu" else np.float32
        return torch.from_numpy(np.array(array, kind, order="C")).to(self.device)
