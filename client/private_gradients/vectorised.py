"""The vectorised engine: ``torch.func.vmap`` of one patient's gradient over the stack."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from client.private_gradients.clipping import as_rows
from client.private_gradients.problem import Problem
from client.private_gradients.stacks import PatientRows, PatientStack

Named = dict[str, Tensor]
# gradients(trained, fixed, inputs, targets, weights) -> gradient of each trained parameter, (patients, *shape)
StackGradients = Callable[[Named, Named, Tensor, tuple[Tensor, ...], Tensor], Named]


def vmap_gradients(problem: Problem, stack: PatientStack) -> Tensor:
    """Return (patients, num_parameters). Works for any layer that vmap can batch; a stack's activations are in memory.

    Convolutions become grouped convolutions, which is fast for few channels and slow for many.
    Raises: RuntimeError (torch's own) for layers that vmap cannot batch.
    """
    return in_order(problem, stack, stack_gradients(problem, problem.network))


def stack_gradients(problem: Problem, network: nn.Module) -> StackGradients:
    """Return a function of tensors only; of ``network`` it uses the structure, its parameters are handed in."""

    def gradients(trained: Named, fixed: Named, inputs: Tensor, targets: tuple[Tensor, ...], weights: Tensor) -> Named:
        def loss(trained: Named, inputs: Tensor, targets: tuple[Tensor, ...], weights: Tensor) -> Tensor:
            outputs = problem.forward(lambda images: functional_call(network, (trained, fixed), (images,)), inputs)
            return problem.weigh(outputs, PatientRows(inputs, targets, weights))

        result: Named = vmap(grad(loss), in_dims=(None, 0, 0, 0))(trained, inputs, targets, weights)
        return result

    return gradients


def in_order(problem: Problem, stack: PatientStack, gradients: StackGradients) -> Tensor:
    """Run ``gradients`` on the problem's network and join the parameters in the vector's order."""
    names = [entry.name for entry in problem.order.entries]
    trained = {name: value.detach() for name, value in zip(names, problem.parameters, strict=True)}
    named = {**dict(problem.network.named_parameters()), **dict(problem.network.named_buffers())}
    fixed = {name: value.detach() for name, value in named.items() if name not in trained}
    found = gradients(trained, fixed, stack.inputs, stack.targets, stack.weights)
    return as_rows([found[name] for name in names])
