"""The policy's limit of a public encoder, for a plan that names one."""

from client.consent.errors import PolicyRefusedError
from client.consent.policy import SitePolicyFile
from client.installation.folder import SiteFolder
from common.encoders.shelf import EncoderShelf
from common.plan.plan import StudyPlan


def check_encoder_size(folder: SiteFolder, policy: SitePolicyFile, plan: StudyPlan) -> None:
    """Refuse a plan on an encoder that is larger than this site allows, also one that was taken in before.

    Edge cases: an encoder that is not here is refused by whoever needs it. Raises: PolicyRefusedError.
    """
    named = plan.network.encoder
    if named is None:
        return
    file = EncoderShelf(folder.encoders).file(named.file)
    size = file.stat().st_size if file.exists() else 0
    if size > policy.largest_encoder_bytes:
        raise PolicyRefusedError(
            f"policy, largest_encoder_bytes: the plan's encoder has {size} bytes, the limit is "
            f"{policy.largest_encoder_bytes}; this site does not take part in such a plan"
        )
