"""fedward-server up: everything the coordinator runs, kept alive until it is told to end."""

import logging
from typing import Final

from common.flower.environment import require_flower
from common.processes.supervision import Supervisor
from common.terminal import errors, output
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.deployment.loopback_tls import ensure_loopback_certificates
from server.deployment.processes import children
from server.federation.admission import audit
from server.federation.certificates import days_left

FEW_DAYS: Final = 30


def up(*, folder: FolderOption = HERE) -> None:
    """Run SuperLink, executor, gateway and status page until SIGTERM or Ctrl-C. Put it under systemd (docs/deploy).

    Example: `fedward-server up`
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    require_flower()
    federation, config = federation_at(folder)
    days = days_left(federation.server_certificate)
    if days < FEW_DAYS:
        errors.print(f"the gateway's certificate ends in {days:.0f} days: `fedward-server certificate --renew`")
    ensure_loopback_certificates(federation)
    with Supervisor(children(federation, config), federation.state) as supervisor:
        audit(federation, "up", gateway_port=config.gateway.gateway_port)
        output.print(f"hospitals reach this coordinator at {config.gateway.public_address}", markup=False)
        supervisor.run()
    audit(federation, "down")
