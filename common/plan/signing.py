"""The coordinator's signature under a study plan: a small file beside the plan, ``study.toml.sig``."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.files import parsed_json, read_text, replace_atomically
from common.plan.errors import PlanBadSignatureError, PlanUnsignedError
from common.plan.plan import FORMAT, StudyPlan
from common.trust.canonical import canonical_bytes, decode_base64, encode_base64
from common.trust.identity import fingerprint, public_bytes, sign, verify

MAX_SIGNATURE_BYTES = 4096
FIELDS = {"format", "plan_digest", "public_key", "signature"}


@dataclass(frozen=True, eq=False)
class PlanSignature:
    """Who signed which plan: the signer's public key (32 bytes, Ed25519) and its fingerprint."""

    signer: Ed25519PublicKey
    plan_digest: str

    @property
    def fingerprint(self) -> str:
        """Return the signer's fingerprint, to be compared with the coordinator over the phone."""
        return fingerprint(self.signer)


def signature_path(plan_path: Path) -> Path:
    """Return where the signature of the plan at ``plan_path`` lies."""
    return plan_path.with_name(plan_path.name + ".sig")


def sign_plan(plan: StudyPlan, plan_path: Path, key: Ed25519PrivateKey) -> Path:
    """Sign the plan's digest (Ed25519, RFC 8032) and write the signature file, replacing an older one.

    Returns: the signature file. Raises: FileUnreadableError.
    """
    document = {
        "format": FORMAT,
        "plan_digest": plan.digest(),
        "public_key": encode_base64(public_bytes(key.public_key())),
        "signature": encode_base64(sign(key, FORMAT, bytes.fromhex(plan.digest()))),
    }
    target = signature_path(plan_path)
    replace_atomically(target, canonical_bytes(document) + b"\n")
    return target


def verify_plan(plan: StudyPlan, plan_path: Path, expected: Ed25519PublicKey | None = None) -> PlanSignature:
    """Check that the file beside the plan signs exactly this plan, and by ``expected`` where given.

    Without ``expected`` the signature proves only that the plan is unchanged since *somebody* signed it: compare the
    fingerprint. Raises: PlanUnsignedError, PlanBadSignatureError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    path = signature_path(plan_path)
    if not path.exists():
        raise PlanUnsignedError(
            f"{plan_path}: not signed (there is no {path.name}); sign it with `fedward-server plan sign`"
        )
    signer, signed_digest, signature = _read(path)
    if signed_digest != plan.digest():
        raise PlanBadSignatureError(
            f"{path}: signs plan {signed_digest[:12]}…, this plan is {plan.digest()[:12]}…; "
            "the plan was changed after it was signed: compare it, then sign again"
        )
    if not verify(signer, FORMAT, bytes.fromhex(plan.digest()), signature):
        raise PlanBadSignatureError(f"{path}: the signature is not valid for this plan; ask the coordinator again")
    if expected is not None and public_bytes(expected) != public_bytes(signer):
        raise PlanBadSignatureError(
            f"{path}: signed by {fingerprint(signer)}, expected {fingerprint(expected)}; do not use this plan"
        )
    return PlanSignature(signer=signer, plan_digest=signed_digest)


def _read(path: Path) -> tuple[Ed25519PublicKey, str, bytes]:
    damaged = PlanBadSignatureError(f"{path}: not a plan signature of format {FORMAT}; ask the coordinator again")
    try:
        document = parsed_json(read_text(path, MAX_SIGNATURE_BYTES))
        if not isinstance(document, dict) or set(document) != FIELDS or document["format"] != FORMAT:
            raise damaged
        key = Ed25519PublicKey.from_public_bytes(decode_base64(document["public_key"]))
        signature = decode_base64(document["signature"])
    except ValueError:
        raise damaged from None
    return key, str(document["plan_digest"]), signature
