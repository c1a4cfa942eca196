"""fedward-server page: where the status page is, token included."""

from common.terminal import JsonOption, output, print_json
from common.web.door import page_address
from common.web.page_token import FILE_NAME, page_token
from server.commands.federation_options import HERE, FolderOption
from server.federation.config import read_coordinator_config
from server.federation.errors import FederationInvalidError
from server.federation.folder import FederationFolder


def page(
    *,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Print the address of the status page, to be opened in a browser on this machine.

    `fedward-server up` serves the page where coordinator.toml sets a port. The address holds a secret token: show it to
    nobody. To end every session, delete `page.token` in the federation folder: the next address has a new one.

    Example: `fedward-server page --folder federation/`
    """
    federation = FederationFolder(folder)
    federation.require()
    port = read_coordinator_config(federation.config).loopback.status_port
    if port == 0:
        raise FederationInvalidError(
            f"{federation.config}: no status page; set `status_port` under [loopback], restart `up`"
        )
    address = page_address(port, page_token(folder / FILE_NAME))
    print_json({"address": address}) if as_json else output.print(address, markup=False)
