"""docs/encoders.md: the programs that it shows make an encoder that passes the check."""

import ast
import re

import numpy as np
import pytest
import torch
from monai.networks.nets import resnet10
from torch import nn

from client.features.encoder import Encoder
from common.encoders.card import read_card
from common.encoders.inspecting import inspect


@pytest.fixture(scope="module")
def programs(repository):
    text = (repository / "docs/encoders.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def script(programs):
    names = {}
    exec(compile(programs[0], "make_encoder.py", "exec"), names)
    return names


WORDS = {
    "name": "n", "version": "v", "source": "s", "licence": "l", "training_data": "t", "intended_use": "i",
}  # fmt: skip


class Transformer(nn.Module):
    """What the page's script takes from a vision transformer of the library: hidden states by name."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 14, 14)
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        self.joined = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)

    def forward(self, *, pixel_values, output_hidden_states):
        assert output_hidden_states
        first = torch.cat([self.class_token, self.patches(pixel_values).flatten(2).transpose(1, 2)], 1)
        query, key, value = self.joined(first).chunk(3, dim=-1)
        second = self.norm(first + (query @ key.transpose(1, 2)).softmax(-1) @ value)
        return type("Output", (), {"hidden_states": (first, second)})


def stages(make):
    network = resnet10(spatial_dims=3, n_input_channels=1, feed_forward=False)
    return make["Stages"](network, ["maxpool", "layer1", "layer2", "layer3", "layer4"]), (16, 16, 16), 1


def tokens(make):
    return make["Tokens"](Transformer(), blocks=[0, 1], grid=(3, 3)), (42, 42), 3


@pytest.mark.parametrize("made_of", [stages, tokens])
def test_what_the_pages_script_writes_passes_the_check_and_gives_the_same_features(
    script, tmp_path, monkeypatch, made_of
):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    network, size_px, channels = made_of(script)
    script["write"](network, size_px, channels, [0.5] * channels, [0.25] * channels, **WORDS)
    card = read_card(tmp_path / "encoder.toml")
    content = (tmp_path / "encoder.onnx").read_bytes()
    assert inspect(content, card).outputs["levels"] == (1, card.features_of(["levels"]))
    image = np.random.default_rng(1).random((1, channels, *size_px), np.float32)
    found = Encoder(tmp_path / "encoder.onnx", card).features(image, ["levels"])
    expected = network(torch.from_numpy((image - 0.5) / 0.25))[0].detach().numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_every_program_of_the_page_is_python_and_uses_what_the_script_has(programs, script):
    assert len(programs) == 7
    assert "InferenceSession" in programs.pop(6)
    for program in programs[1:6]:
        tree = ast.parse(program)
        taken = [name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
                 if node.module == "make_encoder"]  # fmt: skip
        assert set(taken) <= set(script)
        call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "write")
        assert {keyword.arg for keyword in call.keywords} == set(WORDS)
        assert len(call.args) == 5
