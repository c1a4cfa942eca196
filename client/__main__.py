"""fedward-site: what a hospital's staff run."""

from common.processes.hardening import shut_process
from common.terminal import new_application, run

HELP = """Take part in a federated study without letting a scan leave the hospital.

Examples: **fedward-site init** north · **fedward-site check** · **fedward-site approve** study.toml
"""

COMMANDS = {
    "init": ("client.commands.init:init", "Set up a new site."),
    "enrol": ("client.commands.enrol:enrol", "Write the enrolment file for the coordinator."),
    "join": ("client.commands.join:join_federation", "Take the coordinator's kit, after comparing its fingerprint."),
    "check": ("client.commands.check:check", "Look at everything that can go wrong, and say what to do."),
    "confirm": ("client.commands.confirm:confirm_hospital", "Confirm that a hospital of the roster is real."),
    "approve": ("client.commands.approve:approve_plan", "Read a plan, approve it, or take that back."),
    "model": ("client.commands.model:model_app", "Receive, score and use a study's final model."),
    "annotate": ("client.commands.annotate:annotate", "Draw masks of what nobody has labelled, to be corrected."),
    "encoder": ("client.commands.encoder:encoder_app", "Add, fetch, show and verify public encoders."),
    "audit": ("client.commands.audit:show_audit", "Show who decided what here; verify the record."),
    "page": ("client.commands.page:page", "Print the address of the status page."),
    "outbox": ("client.commands.outbox:show_outbox", "Show what left this hospital; verify the record."),
    "ingest": ("client.commands.ingest:ingest", "Read scans into the encrypted cache."),
    "data": ("client.commands.data:data", "Show what this site holds, small cells suppressed."),
    "withdraw": ("client.commands.withdraw:withdraw", "Erase a patient who opts out."),
    "ledger": ("client.commands.ledger:ledger", "Show what patients have spent of their privacy."),
    "up": ("client.commands.up:up", "Run the site: SuperNode, agent, status page."),
    "status": ("client.commands.status:status", "Show what the site is doing."),
    "pause": ("client.commands.pause:pause", "Take part in nothing from now on."),
    "resume": ("client.commands.pause:resume", "Take part again."),
    "agent": ("client.commands.agent:agent", "Work on tasks (started by `up`)."),
    "begin-again": ("client.commands.begin_again:begin_file_again", "Go on without a lost file, at its price."),
    "restored": ("client.commands.restored:restored", "After restoring a backup: refuse the attempts it forgot."),
    "keys": ("common.trust.keys_command:keys_app", "Make keys and show fingerprints."),
}

app = new_application("fedward-site", HELP, COMMANDS)


def main() -> None:
    """Entry point of the console script."""
    shut_process()
    run(app)


if __name__ == "__main__":
    main()
