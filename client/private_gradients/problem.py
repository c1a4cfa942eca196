"""What is differentiated: a network, the part of it that is trained, and a loss for each row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from client.private_gradients.stacks import PatientRows, PatientStack
from common.networks.parameters import Layout

# criterion(outputs (rows, ...), *targets (rows, ...)) -> losses (rows,). One row never looks at another: no mean over
# the batch, no batch statistic. Must consist of differentiable torch operations that torch.func can vectorise.
Criterion = Callable[..., Tensor]


@dataclass(frozen=True)
class Problem:
    """A network whose trainable parameters are those of ``order``, and how a row's loss is computed.

    autocast: bfloat16 in forward and backward. Gradients, norms and sums are float32 or wider in any case.
    """

    network: nn.Module
    order: Layout
    criterion: Criterion
    autocast: bool = False

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in the order of the vector."""
        named = dict(self.network.named_parameters())
        return [named[entry.name] for entry in self.order.entries]

    @cached_property
    def trained_layers(self) -> list[nn.Module]:
        """The layers that own a trained parameter themselves."""
        trained = {id(parameter) for parameter in self.parameters}
        return [
            layer
            for layer in self.network.modules()
            if any(id(parameter) in trained for parameter in layer.parameters(recurse=False))
        ]

    def with_autocast(self, autocast: bool) -> "Problem":
        """Return the same problem with or without bfloat16; itself if nothing changes, which keeps what it knows."""
        return self if autocast == self.autocast else replace(self, autocast=autocast)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.parameters[0].device

    def loss(self, rows: PatientRows) -> Tensor:
        """Return the weighted sum of the rows' losses, a scalar."""
        return self.weigh(self.forward(self.network, rows.inputs), rows)

    def forward(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Run the network, under autocast if asked; the outputs are float32 or wider, so that losses are too."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            outputs = network(inputs)
        return outputs if outputs.dtype == torch.float64 else outputs.float()

    def weigh(self, outputs: Tensor, rows: PatientRows) -> Tensor:
        """Return sum_j w_j criterion(output_j, targets_j)."""
        losses = self.criterion(outputs, *rows.targets)
        if losses.shape != rows.weights.shape:
            raise ValueError(f"the criterion gave {tuple(losses.shape)} for {tuple(rows.weights.shape)} rows")
        return (losses * rows.weights).sum()


# An engine returns the gradient of every place in the stack, padding exactly zero, in a new tensor that its caller may
# overwrite: (patients, num_parameters). Raises RuntimeError (often torch's own) for a network that it cannot do.
Engine = Callable[[Problem, PatientStack], Tensor]
