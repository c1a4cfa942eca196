"""fedward-site withdraw: a patient opts out."""

import sys
from contextlib import suppress
from enum import StrEnum
from typing import Annotated

import typer

from client.commands.site_options import CacheOption, SecretFileOption, SiteFolderOption, secret_and_caches
from client.consent.continuity.opting_out import IsMeant, Spread, keep_opt_outs
from client.dicom.cache import refresh_catalogues
from client.dicom.cache_folder import open_folder
from client.dicom.caches import opened_caches, preparation
from client.dicom.errors import CacheInvalidError
from client.dicom.opt_outs import OptOuts
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.withdrawals import Withdrawal, opt_out
from client.features.leaving import forget_features
from client.final_model.kept_score import forget_score
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json


class By(StrEnum):
    """What names the person who opts out."""

    PATIENT_ID = "patient-id"
    STUDY = "study"
    FOLDER = "folder"


ASKED = {By.PATIENT_ID: "PatientID", By.STUDY: "StudyInstanceUID", By.FOLDER: "first folder below the scans"}


def withdraw(
    *,
    site_folder: SiteFolderOption = None,
    secret_file: SecretFileOption = None,
    cache: CacheOption = None,
    issuer: Annotated[str, typer.Option(help="IssuerOfPatientID: only the patient of this issuer.")] = "",
    by: Annotated[By, typer.Option(help="What names the person; study or folder where there are no identifiers.")] = (
        By.PATIENT_ID
    ),
    as_json: JsonOption = False,
) -> None:
    """Erase a patient from every cache of the site and take no scan of theirs again, for whatever study.

    Reaches every record of the person: under all identifiers that the scans or the hospital's table join, and under
    all issuers unless one is named. Asks for the identifier without showing it, so that it lies in no shell history.
    Studies that were approved before keep the patient as a null record: nothing of them is trained on. With
    --site-folder the opt-out outlives the cache.

    Example: `fedward-site withdraw --site-folder site/`
    """
    if issuer and by is not By.PATIENT_ID:
        raise typer.BadParameter("an issuer belongs to a PatientID; leave it out with --by study or folder")
    secret, _ = secret_and_caches(site_folder, secret_file, cache)
    given = open_folder(cache, secret) if cache else None
    identifier = _asked(by)
    request, is_meant = _request(Pseudonyms.of_site(secret), by, identifier, issuer)
    if site_folder is None:
        assert given is not None  # noqa: S101 (secret_and_caches has looked)
        reached = opt_out(given, request, is_meant)
        refresh_catalogues(given)
        _report(reached, by, as_json=as_json)
        return
    folder = SiteFolder(site_folder)
    spread = keep_opt_outs(folder, *([given] if given else []), request=request, is_meant=is_meant)
    forget_features(folder, of_unknown_scans=True)
    forget_score(folder)
    for each in opened_caches(folder, secret):  # last: it only makes the next opening quick
        with suppress(CacheInvalidError):
            refresh_catalogues(each)
    _report(spread.erased, by, as_json=as_json)
    _refuse_half(folder, spread)


def _asked(by: By) -> str:
    """Ask for the identifier without showing it; where nobody types (a script's pipe), read one line."""
    if sys.stdin.isatty():
        return str(typer.prompt(ASKED[by], hide_input=True, err=True))
    line = sys.stdin.readline().strip()
    if not line:
        raise typer.Abort
    return line


def _request(names: Pseudonyms, by: By, identifier: str, issuer: str) -> tuple[OptOuts, IsMeant]:
    """Return who is meant: by what goes on the list, and by what a record says of itself."""
    if by is By.STUDY:
        study_key = names.label_key("StudyInstanceUID", identifier)
        return OptOuts(frozenset({names.person_of_study(identifier)})), lambda record: record.study_key == study_key
    if by is By.FOLDER:
        return OptOuts(frozenset({names.person_of_folder(identifier.encode())})), lambda _record: False
    reference = (names.label_key("PatientID", identifier), names.issuer(issuer))
    return OptOuts(identifiers=frozenset({reference})), lambda _record: False


def _report(reached: Withdrawal, by: By, *, as_json: bool) -> None:
    if as_json:
        print_json(reached.counts())
        return
    if not reached.persons:
        output.print(
            f"no record here is of this {ASKED[by]}: look at the spelling, which was not shown. It is kept as an "
            "opt-out, so scans that come under it later are not taken",
            markup=False,
        )
        return
    people = f"{reached.persons} persons" if reached.persons > 1 else "one person"
    known = f"known by {reached.identities} pairs of PatientID and issuer"
    text = f"erased {reached.erased_records} records of {people}, {known}; scans of this patient are not taken again"
    output.print(text, markup=False)


def _refuse_half(folder: SiteFolder, spread: Spread) -> None:
    """Say which caches the opt-out did not reach: it is noted, and holds there from the next `ingest` on."""
    if spread.failed:
        missed = "; ".join(f"{preparation(folder, path).name}: {error}" for path, error in spread.failed.items())
        raise CacheInvalidError(
            f"the opt-out is noted, but it could not be carried out everywhere ({missed}). Mend or remove that cache, "
            "then `fedward-site withdraw` again"
        )
