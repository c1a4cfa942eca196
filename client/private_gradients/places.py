"""Whether a patient's gradient is the same to the last bit in each place of a stack, beside others and alone.

A kernel may take some rows of a matrix together and the others in another way, whatever their values. Who else was
sampled decides a patient's place, so it must not decide a bit: where parts have one size, this shows it.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from client.private_gradients.stacks import PatientStack


def same_in_each_place(gradients: Callable[[PatientStack], Tensor], example: PatientStack) -> bool:
    """Say whether no patient of ``example`` has another gradient in another place, or beside empty places only.

    ``gradients``: of all places of a stack (patients, num_parameters), empty ones (weight 0, NaN) included.
    """
    found, places = gradients(example), torch.arange(example.patients)
    for place in range(example.patients):
        order = places.roll(place)
        if not torch.equal(gradients(example.places(order)), found[order]):
            return False
        there = (places == place).view(-1, 1)
        inputs = example.inputs.masked_fill(~there.view(-1, *[1] * (example.inputs.dim() - 1)), float("nan"))
        alone = replace(example, inputs=inputs, weights=example.weights * there)
        if not torch.equal(gradients(alone)[place], found[place]):
            return False
    return True
