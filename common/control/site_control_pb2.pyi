# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Connection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONNECTION_UNSPECIFIED: _ClassVar[Connection]
    CONNECTION_AWAY: _ClassVar[Connection]
    CONNECTION_REFUSED: _ClassVar[Connection]
    CONNECTION_UP: _ClassVar[Connection]

class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_UNSPECIFIED: _ClassVar[Step]
    STEP_WAITING: _ClassVar[Step]
    STEP_GREETED: _ClassVar[Step]
    STEP_TRAINING: _ClassVar[Step]
    STEP_KEYED: _ClassVar[Step]
    STEP_SHARED: _ClassVar[Step]
    STEP_MASKED: _ClassVar[Step]
    STEP_CONSISTENT: _ClassVar[Step]
    STEP_UNMASKED: _ClassVar[Step]
    STEP_DONE: _ClassVar[Step]
    STEP_REFUSED: _ClassVar[Step]
    STEP_REJECTED: _ClassVar[Step]
    STEP_FAILED: _ClassVar[Step]
    STEP_PAUSED: _ClassVar[Step]
    STEP_RESUMED: _ClassVar[Step]
    STEP_MEASURING: _ClassVar[Step]
    STEP_MEASURED: _ClassVar[Step]
CONNECTION_UNSPECIFIED: Connection
CONNECTION_AWAY: Connection
CONNECTION_REFUSED: Connection
CONNECTION_UP: Connection
STEP_UNSPECIFIED: Step
STEP_WAITING: Step
STEP_GREETED: Step
STEP_TRAINING: Step
STEP_KEYED: Step
STEP_SHARED: Step
STEP_MASKED: Step
STEP_CONSISTENT: Step
STEP_UNMASKED: Step
STEP_DONE: Step
STEP_REFUSED: Step
STEP_REJECTED: Step
STEP_FAILED: Step
STEP_PAUSED: Step
STEP_RESUMED: Step
STEP_MEASURING: Step
STEP_MEASURED: Step

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("site", "version", "started_at_s", "connection", "paused", "last", "studies", "tasks", "rejected")
    SITE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_S_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    site: str
    version: str
    started_at_s: int
    connection: Connection
    paused: bool
    last: ProgressEvent
    studies: _containers.RepeatedCompositeFieldContainer[ApprovedStudy]
    tasks: int
    rejected: int
    def __init__(self, site: _Optional[str] = ..., version: _Optional[str] = ..., started_at_s: _Optional[int] = ..., connection: _Optional[_Union[Connection, str]] = ..., paused: _Optional[bool] = ..., last: _Optional[_Union[ProgressEvent, _Mapping]] = ..., studies: _Optional[_Iterable[_Union[ApprovedStudy, _Mapping]]] = ..., tasks: _Optional[int] = ..., rejected: _Optional[int] = ...) -> None: ...

class ApprovedStudy(_message.Message):
    __slots__ = ("plan_digest", "name", "rounds")
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    plan_digest: str
    name: str
    rounds: int
    def __init__(self, plan_digest: _Optional[str] = ..., name: _Optional[str] = ..., rounds: _Optional[int] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("plan", "signature", "approver")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    signature: bytes
    approver: str
    def __init__(self, plan: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., approver: _Optional[str] = ...) -> None: ...

class ApproveReply(_message.Message):
    __slots__ = ("plan_digest",)
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    plan_digest: str
    def __init__(self, plan_digest: _Optional[str] = ...) -> None: ...

class WithdrawApprovalRequest(_message.Message):
    __slots__ = ("plan_digest", "approver")
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    APPROVER_FIELD_NUMBER: _ClassVar[int]
    plan_digest: str
    approver: str
    def __init__(self, plan_digest: _Optional[str] = ..., approver: _Optional[str] = ...) -> None: ...

class WithdrawApprovalReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("person",)
    PERSON_FIELD_NUMBER: _ClassVar[int]
    person: str
    def __init__(self, person: _Optional[str] = ...) -> None: ...

class PauseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("person",)
    PERSON_FIELD_NUMBER: _ClassVar[int]
    person: str
    def __init__(self, person: _Optional[str] = ...) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchProgressRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProgressEvent(_message.Message):
    __slots__ = ("number", "time_s", "step", "plan_digest", "round_number", "code", "left_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    LEFT_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    time_s: int
    step: Step
    plan_digest: str
    round_number: int
    code: int
    left_s: int
    def __init__(self, number: _Optional[int] = ..., time_s: _Optional[int] = ..., step: _Optional[_Union[Step, str]] = ..., plan_digest: _Optional[str] = ..., round_number: _Optional[int] = ..., code: _Optional[int] = ..., left_s: _Optional[int] = ...) -> None: ...
