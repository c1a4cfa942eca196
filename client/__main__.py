"""fedward-site: what a hospital's staff run."""

from common.terminal import new_application, run

HELP = """Take part in a federated study without letting a scan leave the hospital.

Examples: **fedward-site keys new** site-keys/ · **fedward-site ingest** /srv/dicom --labels labels.csv
"""

app = new_application("fedward-site", HELP)


def main() -> None:
    """Entry point of the console script."""
    run(app)


if __name__ == "__main__":
    main()
