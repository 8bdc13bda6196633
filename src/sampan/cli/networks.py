"""``network`` create, connect, disconnect, ls, rm."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context, err, out
from sampan.cli.listing import Labelled, filtered, filters, identities, natural, render
from sampan.client.api import ApiError, segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class Network(Labelled):
    """A row of ``network ls``."""

    kind = "*network.networkContext"
    columns: ClassVar[dict[str, str]] = {
        "CreatedAt": "CREATED AT",
        "Driver": "DRIVER",
        "ID": "NETWORK ID",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "Name": "NAME",
        "Scope": "SCOPE",
    }
    __slots__ = ("_all", "_network")

    def __init__(self, network: dict[str, Any], *, truncate: bool) -> None:
        super().__init__(network)
        self._network = network
        self._all = not truncate

    def ID(self) -> str:
        identity: str = self._network["Id"]
        return identity if self._all else identity[:12]

    def Name(self) -> str:
        return str(self._network["Name"])

    def Driver(self) -> str:
        return str(self._network["Driver"])

    def Scope(self) -> str:
        return str(self._network["Scope"])

    def IPv4(self) -> str:
        return _flag(self._network.get("EnableIPv4"))

    def IPv6(self) -> str:
        return _flag(self._network.get("EnableIPv6"))

    def Internal(self) -> str:
        return _flag(self._network.get("Internal"))

    def CreatedAt(self) -> str:
        from sampan.cli.human import printed

        return printed(self._network.get("Created") or "0001-01-01T00:00:00Z")


def _flag(value: object) -> str:
    return "true" if value else "false"


def _ls(context: Context, options: Options, _arguments: list[str]) -> int:
    networks = context.client.call("GET", "/networks", filtered(filters(options))) or []
    networks.sort(key=lambda network: natural(network["Name"]))
    rows = [Network(network, truncate=not options["no-trunc"]) for network in networks]
    template = options["format"]
    if options["quiet"]:
        return identities((row.ID() for row in rows), template)
    default = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
    render(rows, Network, default if template in ("", "table") else template)
    return 0


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    from sampan.cli.labels import labels

    ipam: dict[str, Any] = {"Driver": options["ipam-driver"], "Options": dict(options["ipam-opt"])}
    ipam["Config"] = _pools(options)
    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": options["driver"],
        "Options": dict(options["opt"]),
        "IPAM": ipam,
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "Ingress": options["ingress"],
        "Scope": options["scope"],
        "ConfigOnly": options["config-only"],
        "Labels": labels([], options["label"]),
    }
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in options.given:
            body[key] = options[flag]
    if options["egress"]:
        body["Options"]["io.sampan.egress"] = " ".join(options["egress"])
    if options["config-from"]:
        body["ConfigFrom"] = {"Network": options["config-from"]}
    out(context.client.call("POST", "/networks/create", None, body)["Id"])
    return 0


def _pools(options: Options) -> list[dict[str, Any]]:
    """Subnets with the ranges and gateways that lie in them. Raises Failure."""
    from ipaddress import ip_address, ip_network

    subnets = [subnet for text in options["subnet"] for subnet in text]
    pools: dict[str, dict[str, Any]] = {}
    try:
        nets = {subnet: ip_network(subnet, strict=False) for subnet in subnets}
        for subnet in subnets:
            pools[subnet] = {"Subnet": subnet}
        for flag, key in (("ip-range", "IPRange"), ("gateway", "Gateway")):
            for text in [one for texts in options[flag] for one in texts]:
                address = ip_address(text.partition("/")[0])
                owner = [subnet for subnet in subnets if address in nets[subnet]]
                if not owner:
                    raise Failure(f"no matching subnet for {'range' if flag == 'ip-range' else flag} {text}")
                pools[owner[0]][key] = text
    except ValueError as error:
        raise Failure(str(error)) from error
    for name, text in options["aux-address"]:
        owner = [subnet for subnet in subnets if ip_address(text) in nets[subnet]]
        if not owner:
            raise Failure(f"no matching subnet for aux-address {text}")
        pools[owner[0]].setdefault("AuxiliaryAddresses", {})[name] = text
    return list(pools.values())


def _connect(context: Context, options: Options, arguments: list[str]) -> int:
    network, container = arguments
    endpoint: dict[str, Any] = {
        "Aliases": [alias for aliases in options["alias"] for alias in aliases],
        "Links": options["link"],
        "DriverOpts": _driver_options(options["driver-opt"]) or None,
        "GwPriority": options["gw-priority"],
    }
    ipam: dict[str, Any] = {
        key: options[flag] for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")) if options[flag]
    }
    if options["link-local-ip"]:
        ipam["LinkLocalIPs"] = [address for addresses in options["link-local-ip"] for address in addresses]
    endpoint["IPAMConfig"] = ipam or None
    body = {"Container": container, "EndpointConfig": endpoint}
    context.client.raw("POST", f"/networks/{segment(network)}/connect", None, body)
    return 0


def _driver_options(given: list[list[str]]) -> dict[str, str]:
    found = {}
    for option in [option for options in given for option in options]:
        key, sign, value = option.partition("=")
        if not sign:
            raise Failure(f"invalid key/value pair format in driver options: {option}")
        found[key] = value
    return found


def _disconnect(context: Context, options: Options, arguments: list[str]) -> int:
    network, container = arguments
    body = {"Container": container, "Force": options["force"]}
    context.client.raw("POST", f"/networks/{segment(network)}/disconnect", None, body)
    return 0


def _rm(context: Context, options: Options, arguments: list[str]) -> int:
    code = 0
    for name in arguments:
        try:
            context.client.raw("DELETE", f"/networks/{segment(name)}")
        except ApiError as error:
            if not (options["force"] and error.status == 404):
                err(str(error))
                code = 1
        else:
            out(name)
    if code:
        err(f"exit status {code}")  # as Docker's client says it
    return code


COMMANDS: tuple[Command, ...] = (
    Command(
        "network ls",
        "[OPTIONS]",
        "List networks",
        _ls,
        flags=(
            ("f", "filter", "filter", "Show only what meets the conditions"),
            ("", "format", "string", FORMAT_HELP),
            ("", "no-trunc", "bool", "Do not shorten the output"),
            ("q", "quiet", "bool", "Show only IDs"),
        ),
        most=0,
        aliases=("network ls", "network list"),
    ),
    Command(
        "network create",
        "[OPTIONS] NETWORK",
        "Create a network",
        _create,
        flags=(
            ("", "attachable", "bool", "Let containers attach by hand"),
            ("", "aux-address", "map", "Address that the network's driver uses"),
            ("", "config-from", "string", "Network from which the configuration is copied"),
            ("", "config-only", "bool", "Create only a configuration"),
            ("d", "driver", "string", "Driver of the network", "bridge"),
            ("", "gateway", "strings", "Gateway of a subnet"),
            ("", "ingress", "bool", "Create the swarm's routing mesh"),
            ("", "internal", "bool", "Cut the network off from the outside"),
            ("", "ip-range", "strings", "Part of a subnet from which addresses are taken"),
            ("", "ipam-driver", "string", "Driver of the address management", "default"),
            ("", "egress", "list", "Where its containers may connect to if they do not say it themselves"),
            ("", "ipam-opt", "map", "Option of the address management's driver"),
            ("", "ipv4", "bool", "Use IPv4", "true"),
            ("", "ipv6", "bool", "Use IPv6"),
            ("", "label", "label", "Set a label"),
            ("o", "opt", "map", "Set an option of the driver"),
            ("", "scope", "string", "Scope of the network"),
            ("", "subnet", "strings", "Subnet in CIDR notation"),
        ),
        least=1,
        most=1,
    ),
    Command(
        "network connect",
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network",
        _connect,
        flags=(
            ("", "alias", "strings", "Name of the container on this network"),
            ("", "driver-opt", "strings", "Option of the network's driver"),
            ("", "gw-priority", "int", "Highest wins as the container's default gateway"),
            ("", "ip", "string", "IPv4 address (e.g., 172.30.100.104)"),
            ("", "ip6", "string", "IPv6 address (e.g., 2001:db8::33)"),
            ("", "link", "link", "Make another container's name known"),
            ("", "link-local-ip", "strings", "Link-local address"),
        ),
        least=2,
        most=2,
    ),
    Command(
        "network disconnect",
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
        _disconnect,
        flags=(("f", "force", "bool", "Disconnect even a container that is gone"),),
        least=2,
        most=2,
    ),
    Command(
        "network rm",
        "NETWORK [NETWORK...]",
        "Remove one or more networks",
        _rm,
        flags=(("f", "force", "bool", "Succeed if a network does not exist"),),
        least=1,
        aliases=("network rm", "network remove"),
    ),
)
