"""fedward-site withdraw: a patient opts out."""

from typing import Annotated

import typer

from client.commands.site_options import CacheOption, SecretFileOption, SiteFolderOption, secret_and_cache
from client.dicom.cache_folder import open_folder
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.withdrawals import withdraw as erase
from common.terminal import JsonOption, output, print_json


def withdraw(
    *,
    site_folder: SiteFolderOption = None,
    secret_file: SecretFileOption = None,
    cache: CacheOption = None,
    issuer: Annotated[str, typer.Option(help="IssuerOfPatientID, if the scans have one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Erase a patient from the cache and take no scan of theirs again.

    Asks for the PatientID without showing it, so that it lies in no shell history. Studies that were approved before
    keep the patient as a null record: nothing of them is trained on.

    Example: `fedward-site withdraw --site-folder site/`
    """
    secret, cache_path = secret_and_cache(site_folder, secret_file, cache)
    folder = open_folder(cache_path, secret)
    patient_id = typer.prompt("PatientID", hide_input=True, err=True)
    erased = erase(folder, Pseudonyms.of_site(secret).patient(issuer, patient_id))
    if as_json:
        print_json({"erased_records": erased})
    else:
        output.print(f"erased {erased} records; scans of this patient are not taken again", markup=False)
