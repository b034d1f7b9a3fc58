#!/usr/bin/env bash
# Makes an environment with Home Assistant's own code (400 MB), for tests/integration/test_home_assistant.py:
#   tests/home_assistant/set_up.sh DIR && EDGE_AGENT_HOME_ASSISTANT_PYTHON=DIR/bin/python pytest tests/integration/test_home_assistant.py
set -euo pipefail
python=$(ls -d "$HOME"/.pyenv/versions/3.13.*/bin/python 2>/dev/null | tail -1)
"${python:-python3.13}" -m venv "$1"
pip=("$1/bin/pip" install -q --disable-pip-version-check --only-binary=:all:)
"${pip[@]}" --no-deps "homeassistant==2025.1.4"
"${pip[@]}" voluptuous voluptuous-serialize voluptuous-openapi aiohttp aiohttp-cors aiohttp-fast-zlib attrs awesomeversion \
    orjson pyyaml jinja2 yarl ulid-transform webrtc-models propcache multidict async-interrupt atomicwrites-homeassistant \
    certifi bcrypt cryptography ifaddr httpx lru-dict PyJWT python-slugify requests typing-extensions paho-mqtt aiozoneinfo \
    astral packaging psutil-home-assistant securetar sqlalchemy urllib3 aiodns ciso8601 cronsim fnv-hash-fast
