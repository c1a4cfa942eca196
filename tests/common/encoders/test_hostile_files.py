"""Encoder files made to do harm: each is one sentence with a code, and nothing of it is run."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, helper, numpy_helper

from common.encoders import sizes
from common.encoders.checking import check_encoder
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.inspecting import inspect
from common.encoders.work import multiply_adds
from common.errors import ExitCode
from simulation.drawing.made_up_encoder import card_of, made_up_model

Change = Callable[[ModelProto], object]


def adding(op: str, inputs: list[str], *, constants: dict[str, object] | None = None, **attributes) -> Change:
    """Return a change that adds a node, whose result nothing uses, and the constants that it takes."""

    def change(model: ModelProto) -> None:
        for name, value in (constants or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        model.graph.node.append(helper.make_node(op, inputs, ["added"], **attributes))

    return change


def weight(model: ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def external(place: str) -> Change:
    def change(model: ModelProto) -> None:
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(StringStringEntryProto(key="location", value=place))

    return change


def external_but_does_not_say_so(model: ModelProto) -> None:
    weight(model).external_data.append(StringStringEntryProto(key="location", value="/etc/passwd"))


def external_in_a_constant(model: ModelProto) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["added"], value=tensor))


def sparse() -> object:
    values, places = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]), helper.make_tensor("i", 7, [1], [0])
    return helper.make_sparse_tensor(values, places, [1 << 40])


def claims(*dims: int) -> Change:
    def change(model: ModelProto) -> None:
        del weight(model).dims[:]
        weight(model).dims.extend(dims)

    return change


def subgraph() -> object:
    return helper.make_graph([helper.make_node("Identity", ["image"], ["inner"])], "g", [], [])


def hidden_graph(model: ModelProto) -> None:
    """The attribute's type says a number; what it holds beside it is a graph."""
    attribute = AttributeProto(name="alpha", type=AttributeProto.FLOAT, f=1.0)
    attribute.g.CopyFrom(subgraph())
    model.graph.node.append(NodeProto(op_type="LeakyRelu", input=["image"], output=["added"], attribute=[attribute]))


def size_from_the_image(model: ModelProto) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "one"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["added"]),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    model.graph.node.extend(nodes)


def many_constants(model: ModelProto) -> None:
    """Each is within the limit of one tensor; a runtime would compute and keep them all."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 27]), "n"))
    model.graph.node.extend(helper.make_node("ConstantOfShape", ["n"], [f"k{i}"]) for i in range(20))


def divided_by_the_image(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["image"], ["whole"], to=TensorProto.INT64))
    model.graph.node.append(helper.make_node("Div", ["whole", "whole"], ["added"]))


def slow_functions(model: ModelProto) -> None:
    """Each value is one operation, which takes as long as hundreds of multiplications: half a minute an image."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1000, 500]), "n"))
    model.graph.node.append(helper.make_node("Tile", ["image", "n"], ["t0"]))
    model.graph.node.extend(helper.make_node("Tan", [f"t{i}"], [f"t{i + 1}"]) for i in range(80))


def many_small_constants(model: ModelProto) -> None:
    """Each is one number; computed one by one they take half a minute."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "k0"))
    model.graph.node.extend(helper.make_node("Neg", [f"k{i}"], [f"k{i + 1}"]) for i in range(60))


def growing(model: ModelProto) -> None:
    """Each node doubles what the one before it made."""
    last = "image"
    for step in range(40):
        model.graph.node.append(helper.make_node("Concat", [last, last], [f"d{step}"], axis=1))
        last = f"d{step}"


def endless_products(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 500, 500]), "n"))
    model.graph.node.append(helper.make_node("Tile", ["image", "n"], ["p0"]))
    model.graph.node.extend(helper.make_node("MatMul", [f"p{i}", f"p{i}"], [f"p{i + 1}"]) for i in range(60))


def sizes_by_arithmetic(model: ModelProto) -> None:
    """10 GB, as a product of the input's own size that no stored tensor names."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([10_000_000]), "factor"))
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["image"], ["shape"]),
            helper.make_node("Mul", ["shape", "factor"], ["large"]),
            helper.make_node("ConstantOfShape", ["large"], ["added"]),
        ]
    )


def renamed_input(model: ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"


def twice(field: str) -> Change:
    def change(model: ModelProto) -> None:
        made = getattr(model.graph, field)
        made.append(made[0])

    return change


def other_order(model: ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def declares_too_little(model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("c0", TensorProto.FLOAT, [1, 1, 1, 1]))


def function(model: ModelProto) -> None:
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], body, [helper.make_opsetid("", 17)]))


def opset(version: int, *more: tuple[str, int]) -> Change:
    def change(model: ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(*each) for each in (("", version), *more))

    return change


def setting(path: str, value: object) -> Change:
    def change(model: ModelProto) -> None:
        *way, name = path.split(".")
        target: object = model
        for step in way:
            target = getattr(target, step) if not step.isdigit() else target[int(step)]  # type: ignore[index]
        setattr(target, name, value)

    return change


TABLE: list[tuple[str, Change, EncoderFault]] = [
    ("custom operator", adding("Evil", ["image"], domain="com.evil"), EncoderFault.CUSTOM_DOMAIN),
    ("contributed operator", adding("FusedConv", ["image"], domain="com.microsoft"), EncoderFault.CUSTOM_DOMAIN),
    ("custom import", opset(17, ("com.evil", 1)), EncoderFault.CUSTOM_DOMAIN),
    ("unknown operator", adding("Evil", ["image"]), EncoderFault.OPERATOR),
    ("random operator", adding("RandomNormal", [], shape=[2]), EncoderFault.OPERATOR),
    ("size by values", adding("NonZero", ["image"]), EncoderFault.OPERATOR),
    ("image files", adding("ImageDecoder", ["image"]), EncoderFault.OPERATOR),
    ("texts", adding("StringNormalizer", ["image"]), EncoderFault.OPERATOR),
    (
        "loop bomb",
        adding("Loop", ["n", "", "image"], constants={"n": 1 << 62}, body=subgraph()),
        EncoderFault.CONTROL_FLOW,
    ),
    ("loop without body", adding("Loop", ["image"]), EncoderFault.CONTROL_FLOW),
    ("branches", adding("If", ["image"], then_branch=subgraph(), else_branch=subgraph()), EncoderFault.CONTROL_FLOW),
    ("scan", adding("Scan", ["image"], body=subgraph(), num_scan_inputs=1), EncoderFault.CONTROL_FLOW),
    ("graph in another operator", adding("Relu", ["image"], body=subgraph()), EncoderFault.CONTROL_FLOW),
    ("graph beside a number", hidden_graph, EncoderFault.GRAPH),
    ("function", function, EncoderFault.FUNCTION),
    ("external data", external("weights.bin"), EncoderFault.EXTERNAL_DATA),
    ("external data elsewhere", external("../../../../etc/passwd"), EncoderFault.EXTERNAL_DATA),
    ("external data unsaid", external_but_does_not_say_so, EncoderFault.EXTERNAL_DATA),
    ("external constant", external_in_a_constant, EncoderFault.EXTERNAL_DATA),
    ("sparse weights", lambda m: m.graph.sparse_initializer.append(sparse()), EncoderFault.SPARSE),
    ("sparse constant", adding("Constant", [], sparse_value=sparse()), EncoderFault.SPARSE),
    ("10 GB by header", claims(2500, 1_000_000), EncoderFault.TENSOR_SIZE),
    ("more than 64 bits", claims(1 << 62, 1 << 62), EncoderFault.TENSOR_SIZE),
    ("negative size", claims(-4, -9), EncoderFault.TENSOR_SIZE),
    ("values twice", lambda m: weight(m).float_data.append(1.0), EncoderFault.TENSOR_SIZE),
    ("text weights", setting("graph.initializer.0.data_type", TensorProto.STRING), EncoderFault.ELEMENT_TYPE),
    ("unknown type", setting("graph.initializer.0.data_type", 99), EncoderFault.ELEMENT_TYPE),
    ("10 GB constant", adding("ConstantOfShape", ["n"], constants={"n": [2_500_000_000]}), EncoderFault.MEMORY),
    ("10 GB by sums", sizes_by_arithmetic, EncoderFault.MEMORY),
    ("10 GB expanded", adding("Expand", ["image", "n"], constants={"n": [10_000_000, 1, 16, 16]}), EncoderFault.MEMORY),
    ("10 GB tiled", adding("Tile", ["image", "n"], constants={"n": [1, 1, 100_000, 100]}), EncoderFault.MEMORY),
    (
        "10 GB resized",
        adding("Resize", ["image", "", "n"], constants={"n": np.array([1, 1, 3200, 3200], np.float32)}),
        EncoderFault.MEMORY,
    ),
    (
        "10 GB padded",
        adding("Pad", ["image", "n"], constants={"n": [0, 0, 50_000, 50_000, 0, 0, 0, 0]}),
        EncoderFault.MEMORY,
    ),
    ("10 GB padded by a layer", adding("Conv", ["image", "weight_0"], pads=[50_000] * 4), EncoderFault.MEMORY),
    (
        "10 GB range",
        adding("Range", ["a", "b", "c"], constants={"a": 0, "b": 1 << 40, "c": 1}),
        EncoderFault.MEMORY,
    ),
    ("many constants", many_constants, EncoderFault.MEMORY),
    (
        "10 GB of columns",
        adding("ConvTranspose", ["image", "w"], constants={"w": np.zeros((1, 1, 4000, 4000), np.float16)}),
        EncoderFault.GRAPH,
    ),
    ("60000 sizes", claims(*[1 << 62] * 60_000), EncoderFault.TENSOR_SIZE),
    ("sizes beyond all words", claims(*[1 << 62] * 16), EncoderFault.TENSOR_SIZE),
    (
        "a constant beyond all words",
        adding("ConstantOfShape", ["n"], constants={"n": [1 << 62] * 8}),
        EncoderFault.MEMORY,
    ),
    (
        "three factors",
        adding("Einsum", ["a", "a", "a"], constants={"a": np.zeros((2, 2), np.float32)}, equation="ai,bi,ci->abc"),
        EncoderFault.GRAPH,
    ),
    ("the least by -1", adding("Div", ["a", "b"], constants={"a": [-(1 << 63)], "b": [-1]}), EncoderFault.GRAPH),
    ("the rest of it", adding("Mod", ["a", "b"], constants={"a": [-(1 << 63)], "b": [-1]}), EncoderFault.GRAPH),
    (
        "32 bits of it",
        adding("Div", ["a", "b"], constants={"a": np.int32([-(1 << 31)]), "b": np.int32([-1])}),
        EncoderFault.GRAPH,
    ),
    ("by a number of the image", divided_by_the_image, EncoderFault.GRAPH),
    (
        "resized by NaN",
        adding("Resize", ["image", "", "n"], constants={"n": np.array([1, 1, np.nan, 1], np.float32)}),
        EncoderFault.MEMORY,
    ),
    ("constants without end", many_small_constants, EncoderFault.WORK),
    (
        "yes by another number",
        adding("ReduceSum", ["a"], constants={"a": np.array([1, 250_000_000])}, noop_with_empty_axes=16),
        EncoderFault.GRAPH,
    ),
    ("yes below nothing", adding("ReduceMax", ["image"], keepdims=-1), EncoderFault.GRAPH),
    (
        "10 GB between two sides",
        adding(
            "Resize",
            ["high", "", "", "n"],
            constants={"high": np.zeros((1, 1, 40_000, 1), np.float32), "n": np.array([1, 1, 1, 40_000])},
        ),
        EncoderFault.MEMORY,
    ),
    ("slow functions", slow_functions, EncoderFault.WORK),
    ("doubling", growing, EncoderFault.MEMORY),
    ("endless work", endless_products, EncoderFault.WORK),
    ("size from the image", size_from_the_image, EncoderFault.SHAPE_UNKNOWN),
    ("another shape declared", declares_too_little, EncoderFault.GRAPH),
    ("node before its input", other_order, EncoderFault.GRAPH),
    ("made twice", twice("node"), EncoderFault.GRAPH),
    ("weights twice", twice("initializer"), EncoderFault.GRAPH),
    ("no nodes", lambda m: m.graph.ClearField("node"), EncoderFault.GRAPH),
    ("wrong number of inputs", adding("Relu", ["image", "image"]), EncoderFault.GRAPH),
    ("shapes that do not fit", adding("MatMul", ["image", "weight_0"]), EncoderFault.GRAPH),
    ("old operators", opset(13), EncoderFault.FORMAT),
    ("operators of the future", opset(99), EncoderFault.FORMAT),
    ("two versions", opset(17, ("ai.onnx", 18)), EncoderFault.FORMAT),
    ("format of the future", setting("ir_version", 99), EncoderFault.FORMAT),
    ("training", lambda m: m.training_info.add(), EncoderFault.FORMAT),
    ("long name", setting("graph.node.0.name", "n" * 5000), EncoderFault.TEXT_TOO_LONG),
    ("long remark", setting("doc_string", "n" * 300_000), EncoderFault.TEXT_TOO_LONG),
    ("long entry", lambda m: m.metadata_props.add(key="k", value="v" * 300_000), EncoderFault.TEXT_TOO_LONG),
    ("long text", adding("Relu", ["image"], mode="m" * 5000), EncoderFault.TEXT_TOO_LONG),
    ("another input", renamed_input, EncoderFault.INPUT),
    ("two inputs", lambda m: m.graph.input.add(name="second"), EncoderFault.INPUT),
    ("no input", lambda m: m.graph.ClearField("input"), EncoderFault.INPUT),
    ("wide numbers in", setting("graph.input.0.type.tensor_type.elem_type", TensorProto.DOUBLE), EncoderFault.INPUT),
    ("another output", setting("graph.output.0.name", "features"), EncoderFault.OUTPUT),
    ("output of nobody", lambda m: m.graph.output.add(name="nobody"), EncoderFault.OUTPUT),
]


@pytest.mark.parametrize(("change", "fault"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_hostile_file_is_one_sentence_with_its_code(change, fault, monkeypatch):
    monkeypatch.setattr(sizes, "MOST_COMPUTED", 50)
    model = made_up_model((1, 16, 16))
    change(model)
    content = model.SerializeToString()
    with pytest.raises(EncoderInvalidError) as refused:
        inspect(content, card_of(content))
    assert (refused.value.fault, refused.value.exit_code) == (fault, ExitCode.ENCODER_INVALID)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_card_that_says_another_size_is_refused():
    content = made_up_model((1, 16, 16)).SerializeToString()
    with pytest.raises(EncoderInvalidError) as refused:
        inspect(content, card_of(content, size_px=(16, 24)))
    assert refused.value.fault is EncoderFault.INPUT


def test_what_was_found_of_a_good_file_is_its_memory_and_work(encoder):
    facts = inspect(encoder.file.read_bytes(), encoder.card)
    assert facts.outputs == {"levels": (1, 12), "map": (1, 8, 4, 4)}
    assert 4 * 8 * 8 * 4 * 2 <= facts.bytes_at_once <= 10_000
    assert facts.multiply_adds >= 8 * 8 * 4 * 9 + 4 * 4 * 8 * 4 * 9


def test_numbers_of_half_precision_are_counted_with_the_single_ones_that_a_runtime_makes_of_them():
    single, half = made_up_model((1, 16, 16)), made_up_model((1, 16, 16))
    half.graph.initializer.append(numpy_helper.from_array(np.zeros((100, 1000), np.float16), "w"))
    half.graph.node.append(helper.make_node("Neg", ["w"], ["added"]))
    found = [inspect(each.SerializeToString(), card_of(each.SerializeToString())) for each in (single, half)]
    assert found[1].bytes_at_once >= 100_000 * (4 + 2 + 4) > 100 * found[0].bytes_at_once


def nested(depth: int) -> bytes:
    """A graph inside an attribute inside a node, again and again, as protobuf writes it."""
    content = b""
    for _ in range(depth):
        for tag in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            content = bytes([tag]) + varint(len(content)) + content
    return b"\x08\x08" + bytes([0x3A]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    content = b""
    while value > 127:
        content, value = content + bytes([value & 127 | 128]), value >> 7
    return content + bytes([value])


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("empty part", made_up_model((1, 16, 16)).SerializeToString()[:-100], {EncoderFault.NOT_ONNX}),
        ("noise", bytes(range(1, 256)) * 100, {EncoderFault.NOT_ONNX}),
        ("nested", nested(2000), {EncoderFault.NOT_ONNX}),
        # two bytes each, which a parser makes two hundred of
        ("millions of empty nodes", b"\x08\x08\x3a" + varint(12_000_000) + b"\x0a\x00" * 6_000_000, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_a_parser_chokes_on_ends_nothing_but_the_process_that_looks(tmp_path, name, content, faults):
    (tmp_path / "encoder.onnx").write_bytes(content)
    with pytest.raises(EncoderInvalidError) as refused:
        check_encoder(tmp_path / "encoder.onnx", card_of(content))
    assert refused.value.fault in (faults or {EncoderFault.NOT_ONNX, EncoderFault.MEMORY, EncoderFault.NOT_CHECKED})


def test_another_file_and_one_cut_short_are_told_before_anything_looks_into_them(encoder, tmp_path):
    content = encoder.file.read_bytes()
    for other in (content[:-1], content + b"\0", content[:-1] + b"\0"):
        (tmp_path / "encoder.onnx").write_bytes(other)
        with pytest.raises(EncoderInvalidError) as refused:
            check_encoder(tmp_path / "encoder.onnx", encoder.card)
        assert refused.value.fault is EncoderFault.OTHER_FILE


def test_a_file_beyond_the_limit_is_not_opened(encoder, tmp_path):
    with pytest.raises(EncoderInvalidError, match="the limit is 100") as refused:
        check_encoder(tmp_path / "there is none", encoder.card, limit_bytes=100)
    assert refused.value.fault is EncoderFault.TOO_LARGE


def test_a_good_file_passes_in_a_process_of_its_own(encoder):
    assert check_encoder(encoder.file, encoder.card).bytes_at_once > 0


def test_work_is_never_counted_below_nothing():
    node = helper.make_node("LRN", ["image"], ["made"], size=-(1 << 50))
    assert multiply_adds(node, [(1, 1, 4, 4)], [(1, 1, 4, 4)]) > 0


def test_a_file_that_changes_after_it_was_compared_is_another_file(encoder, monkeypatch):
    other = encoder.card.model_copy(update={"file": "f" * 64})
    monkeypatch.setattr("common.encoders.checking.file_digest", lambda _: "f" * 64)
    with pytest.raises(EncoderInvalidError) as refused:
        check_encoder(encoder.file, other)
    assert refused.value.fault is EncoderFault.OTHER_FILE
    assert "it changed while it was read" in str(refused.value)


def test_a_limit_that_is_there_already_makes_no_good_file_a_hostile_one(encoder):
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (400, 400))\n"
        "from pathlib import Path\n"
        "from common.encoders.card import read_card\n"
        "from common.encoders.checking import check_encoder\n"
        "print(check_encoder(Path(sys.argv[1]), read_card(Path(sys.argv[2]))).multiply_adds)\n"
    )
    command = [sys.executable, "-c", code, str(encoder.file), str(encoder.card_file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert int(ended.stdout) > 0, ended.stderr
