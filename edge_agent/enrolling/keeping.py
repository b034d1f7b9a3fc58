"""What an agent keeps of its enrolment, in its state directory: whom it works for, and its certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_agent.errors import KeyFileError, StateError
from edge_agent.folders import write_durably
from edge_agent.settings.enrolment import ENROLMENT_FILE, text_of
from edge_agent.wire.identity import Enrolled
from edge_agent.wire.keys import PublicKey

CERTIFICATE_FILE = "certificate.cose"
BROKER_CERTIFICATE_FILE = "agent.crt"
BROKER_CA_FILE = "broker-ca.pem"
REGISTRAR_FILE = "registrar.pub"


def pin(path: Path, coordinator: PublicKey) -> None:
    """Keep the coordinator's key, unless it is kept already.

    Raises:
        KeyFileError: another one is kept there.
    """
    if not path.exists():
        coordinator.write(path)
    elif PublicKey.from_file(path) != coordinator:
        raise KeyFileError(
            f"{path} pins another coordinator than {coordinator.id}.",
            hint=f"To work for the new one from now on, move {path} away and run this again.",
        )


def keep_certificates(state_dir: Path, said: Enrolled) -> None:
    """Write the certificates that an answer brings.

    Raises:
        OSError: they cannot be written.
    """
    if said.certificate is not None:
        write_durably(state_dir / CERTIFICATE_FILE, said.certificate)
    if said.x509 is not None:
        write_durably(state_dir / BROKER_CERTIFICATE_FILE, ssl.DER_cert_to_PEM_cert(said.x509))


def keep(state_dir: Path, said: Enrolled, *, broker_url: str | None, key_file: Path | None) -> None:
    """Write all that an agent needs to run.

    Args:
        state_dir: the agent's.
        said: the coordinator's answer.
        broker_url: where the broker is.
        key_file: the agent's secret key, if the broker's TLS can use it as it lies there.

    Raises:
        StateError: it cannot be written.
    """
    values = {"network.name": said.network}
    try:
        keep_certificates(state_dir, said)
        if said.registrar_key is not None:
            registrar = state_dir / REGISTRAR_FILE
            registrar.unlink(missing_ok=True)
            PublicKey.from_bytes(said.registrar_key).write(registrar)
        if broker_url is not None:
            values["broker.url"] = broker_url
            if said.broker_ca is not None and broker_url.startswith("mqtts:"):
                write_durably(state_dir / BROKER_CA_FILE, said.broker_ca)
                values["broker.ca_file"] = BROKER_CA_FILE
            if said.x509 is not None and key_file is not None and broker_url.startswith("mqtts:"):
                values["broker.client_cert_file"] = BROKER_CERTIFICATE_FILE
                values["broker.client_key_file"] = str(key_file)
        write_durably(state_dir / ENROLMENT_FILE, text_of(values))
    except OSError as error:
        raise StateError(f"the enrolment cannot be written to {state_dir}: {error.strerror}") from error
