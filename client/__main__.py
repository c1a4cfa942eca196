"""fedward-site: what a hospital's staff run."""

from common.terminal import new_application, run

HELP = """Take part in a federated study without letting a scan leave the hospital.

Examples: **fedward-site keys new** north · **fedward-site ingest** /srv/dicom --labels labels.csv
"""

COMMANDS = {
    "outbox": ("client.commands.outbox:show_outbox", "Show what left this hospital; verify the record."),
    "ingest": ("client.commands.ingest:ingest", "Read scans into the encrypted cache."),
    "data": ("client.commands.data:data", "Show what this site holds, small cells suppressed."),
    "withdraw": ("client.commands.withdraw:withdraw", "Erase a patient who opts out."),
    "ledger": ("client.commands.ledger:ledger", "Show what patients have spent of their privacy."),
    "keys": ("common.keys_command:keys_app", "Make keys and show fingerprints."),
}

app = new_application("fedward-site", HELP, COMMANDS)


def main() -> None:
    """Entry point of the console script."""
    run(app)


if __name__ == "__main__":
    main()
