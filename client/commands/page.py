"""fedward-site page: where the status page is, token included."""

from pathlib import Path

from client.commands.site_folder import SiteFolderHere
from client.installation.config import read_site_config
from client.installation.errors import SiteConfigInvalidError
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json
from common.web.door import page_address
from common.web.page_token import FILE_NAME, page_token


def page(
    *,
    site_folder: SiteFolderHere = Path(),
    as_json: JsonOption = False,
) -> None:
    """Print the address of this site's status page, to be opened in a browser on this machine.

    `fedward-site up` serves the page where site.toml sets a port. The address holds a secret token: show it to nobody.
    To end every session, delete `page.token` in the site folder: the next address has a new one.

    Example: `fedward-site page --site-folder site/`
    """
    folder = SiteFolder(site_folder)
    port = read_site_config(folder.config).status_page.port
    if port == 0:
        raise SiteConfigInvalidError(f"{folder.config}: no status page; set `port` under [status_page], restart `up`")
    address = page_address(port, page_token(folder.path / FILE_NAME))
    print_json({"address": address}) if as_json else output.print(address, markup=False)
