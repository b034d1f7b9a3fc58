"""Complete configurations for brokers: TLS, a login for each agent that is its own key, access by that login. Pure.

An agent shows a certificate by the registrar whose common name is its id. It may write its upper topics and read its
lower ones, the coordinator's, and nothing else; what it keeps (birth, will) lies on its own topics. The coordinator's
certificate has the common name `coordinator`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.wire.topics import COORDINATOR, DOWN_CHANNELS, PREFIX, PROBE, REVOCATIONS, UP_CHANNELS

COORDINATOR_LOGIN: Final = "coordinator"
AUTHORITY_FILE: Final = "registrar-ca.pem"
CERTIFICATE_FILE: Final = "broker.crt"
KEY_FILE: Final = "broker.key"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a configuration is made for.

    Attributes:
        network: its name.
        folder: where the files lie on the broker's machine.
        agents: who may connect; some brokers want a list.
        revoked: who may not any more, although its certificate may still count.
        port: for MQTT over TLS.
        max_packet_bytes: the largest message.
    """

    network: str
    folder: Path
    agents: Sequence[str]
    revoked: Sequence[str]
    port: int
    max_packet_bytes: int

    def file(self, name: str) -> str:
        """Return a file's path there."""
        return str(self.folder / name)


def mosquitto(facts: Facts) -> dict[str, str]:
    """Return the files for Mosquitto 2; the first is its configuration."""
    base = f"{PREFIX}/{facts.network}"
    main = f"""# Mosquitto 2. Start it with: mosquitto -c {facts.file("mosquitto.conf")}
listener {facts.port}
cafile {facts.file(AUTHORITY_FILE)}
certfile {facts.file(CERTIFICATE_FILE)}
keyfile {facts.file(KEY_FILE)}
tls_version tlsv1.2
# The certificate is the login, and the login is the client id: nobody can take another's place.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {facts.file("mosquitto.acl")}
# Without this a job waits 40 ms for each of its packets.
set_tcp_nodelay true
# Nothing depends on what the broker remembers.
persistence false
message_size_limit {facts.max_packet_bytes}
max_queued_messages 10000
"""
    rules = [f"user {COORDINATOR_LOGIN}", f"topic readwrite {base}/#", ""]
    for agent in facts.revoked:
        rules += [f"user {agent}", f"topic deny {base}/#", ""]
    rules += [f"pattern write {base}/%u/{channel}" for channel in UP_CHANNELS]
    rules += [f"pattern read {base}/%u/{channel}" for channel in DOWN_CHANNELS]
    rules += [f"pattern readwrite {base}/%u/{PROBE}/#"]
    rules += [f"pattern read {base}/{common}" for common in (COORDINATOR, REVOCATIONS)]
    return {"mosquitto.conf": main, "mosquitto.acl": "\n".join(rules) + "\n"}


def nats(facts: Facts) -> dict[str, str]:
    """Return the file for a NATS server with JetStream. It lists the agents: write it anew when one joins."""
    base = f"{PREFIX}.{facts.network}"
    users = [
        f"""    {{ user: "{COORDINATOR_LOGIN}", permissions: {{
        publish: {{ allow: ["{base}.>"] }}, subscribe: {{ allow: ["{base}", "{base}.>", "$MQTT.sub.>"] }} }} }}"""
    ]
    for agent in facts.agents:
        write = [f"{base}.{agent}.{channel}" for channel in UP_CHANNELS] + [f"{base}.{agent}.{PROBE}.>"]
        read = [f"{base}.{agent}.{channel}" for channel in DOWN_CHANNELS] + [f"{base}.{agent}.{PROBE}.>"]
        read += [f"{base}.{COORDINATOR}", f"{base}.{REVOCATIONS}", "$MQTT.sub.>"]
        users.append(
            f"""    {{ user: "{agent}", permissions: {{
        publish: {{ allow: {json.dumps(write)} }}, subscribe: {{ allow: {json.dumps(read)} }} }} }}"""
        )
    text = f"""# NATS 2.9 or newer. Start it with: nats-server -c {facts.file("nats.conf")}
# It lists the agents: write it again when one joins or leaves, then: nats-server --signal reload
server_name: "{facts.network}"
# Nobody speaks NATS' own protocol here.
host: 127.0.0.1
port: -1
max_payload: {min(facts.max_packet_bytes, 64 * 1024 * 1024)}
jetstream {{ store_dir: "{facts.file("nats-state")}" }}
mqtt {{
  port: {facts.port}
  tls {{
    ca_file: "{facts.file(AUTHORITY_FILE)}"
    cert_file: "{facts.file(CERTIFICATE_FILE)}"
    key_file: "{facts.file(KEY_FILE)}"
    # The certificate is the login.
    verify_and_map: true
  }}
  ack_wait: 10s
  max_ack_pending: 1000
}}
authorization {{
  timeout: 10
  users: [
{chr(10).join(users)}
  ]
}}
"""
    return {"nats.conf": text}


def rabbitmq(facts: Facts) -> dict[str, str]:
    """Return the files for RabbitMQ with its MQTT plugin. They list the agents, like those for NATS."""
    main = f"""# RabbitMQ 3.10 or newer, with: rabbitmq-plugins enable rabbitmq_mqtt rabbitmq_auth_mechanism_ssl
# definitions.json lists the agents: write it again when one joins, then: rabbitmqctl import_definitions FILE
listeners.tcp = none
mqtt.listeners.tcp = none
mqtt.listeners.ssl.default = {facts.port}
mqtt.allow_anonymous = false
# The certificate is the login.
mqtt.ssl_cert_login = true
ssl_cert_login_from = common_name
mqtt.tcp_listen_options.nodelay = true
max_message_size = {facts.max_packet_bytes}
ssl_options.cacertfile = {facts.file(AUTHORITY_FILE)}
ssl_options.certfile = {facts.file(CERTIFICATE_FILE)}
ssl_options.keyfile = {facts.file(KEY_FILE)}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
load_definitions = {facts.file("definitions.json")}
"""
    base = rf"{PREFIX}\.{re.escape(facts.network)}"
    logins = (COORDINATOR_LOGIN, *facts.agents)
    permissions, topics = [], []
    for login in logins:
        # The names of a session's queues begin with its client id, which begins with the agent's own id.
        own = rf"^(amq\.topic|mqtt-(subscription|will)-ea1-{'' if login == COORDINATOR_LOGIN else login}.*)$"
        permissions.append({"user": login, "vhost": "/", "configure": own, "write": own, "read": own})
        read = rf"^{base}\..*$" if login == COORDINATOR_LOGIN else _read_pattern(base, login)
        write = rf"^{base}\..*$" if login == COORDINATOR_LOGIN else _write_pattern(base, login)
        topics.append({"user": login, "vhost": "/", "exchange": "amq.topic", "write": write, "read": read})
    users = [{"name": login, "password_hash": "", "tags": []} for login in logins]
    definitions = {
        "users": users,
        "vhosts": [{"name": "/"}],
        "permissions": permissions,
        "topic_permissions": topics,
    }
    return {"rabbitmq.conf": main, "definitions.json": json.dumps(definitions, indent=1) + "\n"}


def _write_pattern(base: str, login: str) -> str:
    return rf"^{base}\.{login}\.({'|'.join(UP_CHANNELS)}|{PROBE}\..*)$"


def _read_pattern(base: str, login: str) -> str:
    return rf"^{base}\.({login}\.({'|'.join(DOWN_CHANNELS)}|{PROBE}\..*)|{COORDINATOR}|{REVOCATIONS})$"


def emqx(facts: Facts) -> dict[str, str]:
    """Return the files for EMQX 5."""
    main = f"""# EMQX 5: its etc/emqx.conf
node {{ name = "emqx@127.0.0.1", data_dir = "{facts.file("emqx-state")}" }}
listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.wss.default.enable = false
listeners.ssl.default {{
  bind = {facts.port}
  tcp_options.nodelay = true
  ssl_options {{
    cacertfile = "{facts.file(AUTHORITY_FILE)}"
    certfile = "{facts.file(CERTIFICATE_FILE)}"
    keyfile = "{facts.file(KEY_FILE)}"
    verify = verify_peer
    fail_if_no_peer_cert = true
  }}
}}
# The certificate is the login, and the login is the client id: nobody can take another's place.
mqtt.peer_cert_as_username = cn
mqtt.peer_cert_as_clientid = cn
mqtt.max_packet_size = {facts.max_packet_bytes}
authorization {{
  no_match = deny
  deny_action = ignore
  sources = [ {{ type = file, enable = true, path = "{facts.file("acl.conf")}" }} ]
}}
"""
    base = f"{PREFIX}/{facts.network}"
    up = [f"{base}/${{username}}/{channel}" for channel in UP_CHANNELS] + [f"{base}/${{username}}/{PROBE}/#"]
    down = [f"{base}/${{username}}/{channel}" for channel in DOWN_CHANNELS] + [f"{base}/${{username}}/{PROBE}/#"]
    down += [f"{base}/{COORDINATOR}", f"{base}/{REVOCATIONS}"]
    rules = [f'{{deny, {{username, "{agent}"}}, all, ["#"]}}.' for agent in facts.revoked]
    rules += [
        f'{{allow, {{username, "{COORDINATOR_LOGIN}"}}, all, ["{base}/#"]}}.',
        f"{{allow, all, publish, {json.dumps(up)}}}.",
        f"{{allow, all, subscribe, {json.dumps(down)}}}.",
        "{deny, all}.",
    ]
    return {"emqx.conf": main, "acl.conf": "\n".join(rules) + "\n"}


BROKERS: Final[dict[str, Callable[[Facts], dict[str, str]]]] = {
    "mosquitto": mosquitto,
    "nats": nats,
    "rabbitmq": rabbitmq,
    "emqx": emqx,
}
