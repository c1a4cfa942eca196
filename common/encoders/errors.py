"""What can be wrong with an encoder or its card: one sentence each, with a code that scripts can read."""

from enum import StrEnum

from common.errors import ExitCode, FedwardError


class EncoderFault(StrEnum):
    """Why an encoder is refused; the code ends the sentence, in brackets."""

    CARD = "card_invalid"
    OTHER_FILE = "other_file"
    TOO_LARGE = "file_too_large"
    NOT_ONNX = "not_onnx"
    FORMAT = "format_version"
    CUSTOM_DOMAIN = "custom_domain"
    OPERATOR = "operator_not_allowed"
    CONTROL_FLOW = "control_flow"
    FUNCTION = "model_function"
    EXTERNAL_DATA = "external_data"
    SPARSE = "sparse_tensor"
    ELEMENT_TYPE = "element_type"
    TENSOR_SIZE = "tensor_size"
    TEXT_TOO_LONG = "text_too_long"
    GRAPH = "graph_malformed"
    INPUT = "input_differs"
    OUTPUT = "output_differs"
    SHAPE_UNKNOWN = "shape_unknown"
    MEMORY = "memory_too_large"
    WORK = "work_too_large"
    NOT_CHECKED = "check_failed"
    NOT_FINITE = "not_finite"
    RUN = "run_failed"
    NOT_HERE = "not_here"
    NOT_FETCHED = "not_fetched"


class EncoderInvalidError(FedwardError):
    """An encoder, or its card, cannot be used; nothing was computed with it."""

    exit_code = ExitCode.ENCODER_INVALID

    def __init__(self, sentence: str, fault: EncoderFault | None = None) -> None:
        """Take a sentence and its code; a sentence that came from another process has its code at its end already."""
        super().__init__(sentence if fault is None else f"{sentence} [{fault}]")
        ending = sentence.rpartition("[")[2].removesuffix("]")
        self.fault = fault or next((known for known in EncoderFault if known == ending), EncoderFault.NOT_CHECKED)
