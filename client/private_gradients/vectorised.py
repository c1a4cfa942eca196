"""The vectorised engine: ``torch.func.vmap`` of one patient's gradient over the stack."""

from torch import Tensor
from torch.func import functional_call, grad, vmap

from client.private_gradients.clipping import as_rows
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientRows, PatientStack


def vmap_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (patients, num_parameters). Works for any layer that vmap can batch; a stack's activations are in memory.

    Convolutions become grouped convolutions, which is fast for few channels and slow for many.
    Raises: RuntimeError (torch's own) for layers that vmap cannot batch.
    """
    network = problem.network
    trained = {name.name: value.detach() for name, value in zip(problem.order.entries, problem.parameters, strict=True)}
    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    fixed = {name: value.detach() for name, value in named.items() if name not in trained}

    def loss(weights_of_network: dict[str, Tensor], rows: PatientRows) -> Tensor:
        outputs = problem.forward(
            lambda inputs: functional_call(network, (weights_of_network, fixed), (inputs,)), rows.inputs
        )
        return problem.weigh(outputs, rows)

    def gradient(inputs: Tensor, targets: tuple[Tensor, ...], weights: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = grad(loss)(trained, PatientRows(inputs, targets, weights))
        return result

    gradients = vmap(gradient)(stack.inputs, stack.targets, stack.weights)
    return as_rows([gradients[entry.name] for entry in problem.order.entries])
