"""The operators an encoder may have: arithmetic on tensors whose sizes are known, the same each time, and nothing else.

Of the standard domain. Left out: control flow and sequences (no bound), random numbers, text, image files, operators
whose result has a size that depends on values, training, and those whose inner tensors the file does not show
(Attention: exporters write it out in parts).
"""

from typing import Final

STANDARD_DOMAINS: Final = ("", "ai.onnx")
FIRST_OPSET, LAST_OPSET = 17, 25
FIRST_IR, LAST_IR = 4, 13

CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})

ALLOWED: Final = frozenset(
    {
        # by element
        "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot",
        "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal",
        "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf",
        "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not",
        "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
        "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
        # layers
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "GlobalAveragePool",
        "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization",
        "LogSoftmax", "LpNormalization", "LpPool", "MatMul", "MaxPool", "MeanVarianceNormalization",
        "RMSNormalization", "Softmax",
        # over an axis
        "ArgMax", "ArgMin", "CumSum", "Hardmax", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
        "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "TopK",
        # shape and place
        "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "EyeLike", "Flatten", "Gather",
        "GatherElements", "GatherND", "GridSample", "OneHot", "Pad", "Range", "Reshape", "Resize", "ScatterElements",
        "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu",
        "Unsqueeze",
        # quantised weights
        "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear",
    }
)  # fmt: skip

# Attributes that are yes or no. ONNX takes any number but 0 for yes, onnxruntime only 1: of another the size found
# here would not be the size that is made.
YES_OR_NO: Final = frozenset(
    {
        "align_corners", "allowzero", "antialias", "ceil_mode", "count_include_pad", "exclude_outside", "exclusive",
        "fmod", "keepdims", "largest", "noop_with_empty_axes", "reverse", "saturate", "select_last_index", "sorted",
        "storage_order", "training_mode", "transA", "transB", "upper",
    }
)  # fmt: skip

# Arithmetic of sizes, which exporters leave in a file: with constant inputs its small results are computed here.
FOLDED: Final = frozenset(
    {
        "Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten",
        "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul",
        "Neg", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Slice",
        "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
