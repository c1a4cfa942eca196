"""fedward-site withdraw: a patient opts out."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from client.commands.site_options import CacheOption, SecretFileOption, SiteFolderOption, secret_and_cache
from client.consent.continuity.opting_out import keep_opt_outs
from client.dicom.cache import refresh_catalogues
from client.dicom.cache_folder import CacheFolder, open_folder
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
    """Erase a patient from the cache and take no scan of theirs again.

    Reaches every record of the person: under all identifiers that the scans or the hospital's table join, and under
    all issuers unless one is named. Asks for the identifier without showing it, so that it lies in no shell history.
    Studies that were approved before keep the patient as a null record: nothing of them is trained on. With
    --site-folder the opt-out outlives the cache.

    Example: `fedward-site withdraw --site-folder site/`
    """
    if issuer and by is not By.PATIENT_ID:
        raise typer.BadParameter("an issuer belongs to a PatientID; leave it out with --by study or folder")
    secret, cache_path = secret_and_cache(site_folder, secret_file, cache)
    folder = open_folder(cache_path, secret)
    identifier = typer.prompt(ASKED[by], hide_input=True, err=True)
    reached = _withdrawn(folder, Pseudonyms.of_site(secret), by, identifier, issuer)
    if site_folder:
        keep_opt_outs(SiteFolder(site_folder), folder)
        forget_features(SiteFolder(site_folder))
        forget_score(SiteFolder(site_folder))
    refresh_catalogues(folder)  # last: it only makes the next opening quick
    if as_json:
        print_json(asdict(reached))
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


def _withdrawn(folder: CacheFolder, names: Pseudonyms, by: By, identifier: str, issuer: str) -> Withdrawal:
    if by is By.STUDY:
        study_key = names.label_key("StudyInstanceUID", identifier)
        asked = OptOuts(frozenset({names.person_of_study(identifier)}))
        return opt_out(folder, asked, lambda record: record.study_key == study_key)
    if by is By.FOLDER:
        asked = OptOuts(frozenset({names.person_of_folder(identifier.encode())}))
    else:
        reference = (names.label_key("PatientID", identifier), names.issuer(issuer))
        asked = OptOuts(identifiers=frozenset({reference}))
    return opt_out(folder, asked)
