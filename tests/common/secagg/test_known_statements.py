"""The known answers of docs/protocol.md: what is hashed and signed about results has one form on every machine."""

import hashlib
from pathlib import Path

from common.secagg.encoding import labelled
from common.secagg.messages import Keys, Result
from common.secagg.refusals import CHECK_OF_CODE, TABLE
from common.secagg.statements import keys_statement, result_digest

ONE = bytes([1]) * 32
PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocol.md"
RESULT = "10316bb50ccf79e8c07e0dc92b7f08755e53cadcd36373509abd3d1a815ded94"
KEYS = "397001d0253b0d192a344e531b0dc7fb275c37e25dc9dfd0933eca297c1bb510"


def test_the_digest_of_a_result_is_the_known_one() -> None:
    result = Result(
        session_id=ONE, survivors_digest=ONE, sum_digest=ONE, divisor=2.0, model_digest=ONE, signature=bytes(64)
    )
    assert result_digest(result).hex() == RESULT
    assert RESULT in PAGE.read_text()


def test_what_keys_sign_holds_the_newest_result_that_was_told() -> None:
    keys = Keys(
        order_digest=ONE,
        site_id="north",
        sealing_key=ONE,
        mask_key=ONE,
        seed_commitment=ONE,
        ledger_head=ONE,
        last_attempt=7,
        last_result=ONE,
        signature=bytes(64),
    )
    assert hashlib.sha256(labelled(*keys_statement(keys))).hexdigest() == KEYS
    assert KEYS in PAGE.read_text()


def test_each_check_has_a_code_of_its_own_that_the_page_lists() -> None:
    assert len(CHECK_OF_CODE) == len(TABLE)
    rows = [f"| `{check}` | {row.code} | {row.stops} |" for check, row in TABLE.items()]
    page = PAGE.read_text()
    assert [row for row in rows if row not in page] == []
