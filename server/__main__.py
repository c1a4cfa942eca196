"""fedward-server: what the coordinator of a study runs."""

from common.processes.hardening import shut_process
from common.terminal import new_application, run

HELP = """Define a study, sign it, and run it over hospitals whose scans stay where they are.

Examples: **fedward-server plan check** study.toml · **fedward-server plan sign** study.toml --key coordinator.key
"""

COMMANDS = {
    "init": ("server.commands.init:init", "Make a federation folder: keys, certificates, settings."),
    "admit": ("server.commands.admit:admit", "Admit a hospital whose fingerprint was compared."),
    "dismiss": ("server.commands.admit:dismiss", "Take a hospital out of the next roster."),
    "keys": ("common.trust.keys_command:keys_app", "Make keys and show fingerprints."),
    "roster": ("server.commands.roster:roster_app", "Sign and show the roster of a federation."),
    "kit": ("server.commands.kit:kit", "Write what every hospital needs to join."),
    "study": ("server.commands.study:study_app", "Make and sign the studies of a federation."),
    "plan": ("server.commands.plan:plan_app", "Make, check and sign a study plan."),
    "encoder": ("server.commands.encoder:encoder_app", "Add and show public encoders."),
    "page": ("server.commands.page:page", "Print the address of the status page."),
    "certificate": ("server.commands.certificate:certificate", "Show or renew the gateway's certificate."),
    "up": ("server.commands.up:up", "Run SuperLink, executor, gateway and status page, and keep them alive."),
    "run": ("server.commands.run:run", "Have a study run until it is finished."),
    "stop": ("server.commands.run:stop", "Stop a study after the attempt under way."),
    "resume": ("server.commands.run:run", "Go on with a study that was stopped."),
    "status": ("server.commands.status:status", "Show where a federation or a study stands."),
    "export": ("server.commands.export:export", "Write the model and its card."),
}

app = new_application("fedward-server", HELP, COMMANDS)


def main() -> None:
    """Entry point of the console script."""
    shut_process()
    run(app)


if __name__ == "__main__":
    main()
