"""The dashboard in a real browser, on a real network of three machines: what it shows is what happened."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import browsers
import httpx
import pytest
import tied
from networks import Network, clean_environment, running_network
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=browsers.PATIENCE_MS)


class Fleet:
    """A network whose HTTP interface asks for keys, with two more machines that ask to be admitted.

    Attributes:
        key: of an operator.
        machines: the further ones, by label.
    """

    def __init__(self, network: Network, folder: Path, stack: ExitStack) -> None:
        self.network = network
        self.key = (network.state / "api.key").read_text().strip()
        self.machines = {name: self._start(folder / name, name, stack) for name in ("attic", "kitchen")}

    def _start(self, folder: Path, label: str, stack: ExitStack) -> subprocess.Popen[bytes]:
        folder.mkdir(mode=0o700)
        about = self.network.about
        command = [sys.executable, "-m", "edge_agent", "run", "--broker", about["mqtt"], "--state", str(folder)]
        command += ["--coordinator-key", about["coordinator_key"], "--labels", label, "--threads", "1"]
        log = stack.enter_context((folder / "log").open("wb"))
        process = tied.start(command, stdout=log, stderr=log, env=clean_environment())
        stack.callback(_end, process)
        return process

    @property
    def url(self) -> str:
        """Of the coordinator."""
        return str(self.network.about["http"])

    def ask(self, path: str) -> httpx.Response:
        """Ask as an operator's program would."""
        return httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.key}"}, trust_env=False)

    def submit(self) -> str:
        """Run a job; return its id."""
        scan = (Path(__file__).parents[2] / "examples" / "scan.json").read_bytes()
        answer = httpx.post(
            f"{self.url}/v2/models/digits/infer",
            content=scan,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            timeout=60,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return answer.headers["Edge-Agent-Job"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three machines, one of which is admitted."""
    folder = tmp_path_factory.mktemp("dashboard")
    with running_network(folder, EDGE_AGENT_GATEWAY_AUTH="required") as network, ExitStack() as stack:
        yield Fleet(network, folder, stack)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests here."""
    with browsers.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def log_in(page: Page, fleet: Fleet) -> None:
    """Come in by the login, as a person does."""
    page.goto(f"{fleet.url}/")
    page.get_by_label("API key of an operator").fill(fleet.key)
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_have_text("live")


def admit(page: Page) -> str:
    """Let one of two machines in that ask, with the keyboard alone; return its id."""
    waiting = page.locator("#fleet tbody tr", has_text="waits for approval")
    expect(waiting).to_have_count(2)
    waiting.first.get_by_role("button").focus()
    page.keyboard.press("Enter")
    admitted = page.locator("#sheet .mono").inner_text()
    page.get_by_role("button", name="Approve").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Whose machine is it?").fill("ada")
    page.keyboard.press("Enter")
    expect(waiting).to_have_count(1)
    page.keyboard.press("Escape")
    return admitted


def test_an_operator_runs_a_fleet_with_it(fleet: Fleet, chromium: Browser) -> None:
    """Log in, admit a machine, see it serve and work, look at a job's way, drain it, see it go: live, by hand."""
    with browsers.page(chromium) as page:
        page.goto(f"{fleet.url}/dashboard/")
        page.get_by_label("API key of an operator").fill("ea_nothing")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not known")
        log_in(page, fleet)
        admitted = admit(page)
        machine = page.locator("#fleet tbody tr", has_text="ada")
        expect(machine).to_contain_text("digits")
        expect(machine).to_contain_text("newcomer")
        expect(page.locator("#fleet tbody tr", has_text="yours")).to_have_count(1)

        # Jobs: the page counts what was sent, and shows each by its id.
        page.get_by_role("link", name="Jobs").click()
        jobs = [fleet.submit() for _ in range(20)]
        expect(page.locator("#jobs tbody tr th button").first).to_have_text(jobs[-1][:12])
        expect(page.locator("#jobs tbody").first.locator("tr", has_text="succeeded")).to_have_count(20)
        told = fleet.ask(f"/api/v1/jobs/{jobs[0]}").json()
        page.get_by_role("button", name=jobs[0][:12]).click()
        expect(page.locator("#sheet .way li")).to_have_count(5)
        expect(page.locator("#sheet")).to_contain_text(told["variant"])
        took = re.search(r"Took\s*([0-9.]+) ms", page.locator("#sheet .facts").inner_text())
        assert took is not None
        assert float(took[1]) == pytest.approx(told["ended_ms"] - told["submitted_ms"], abs=1)
        page.keyboard.press("Escape")
        metrics = fleet.ask("/metrics").text
        assert 'edge_agent_jobs_ended_total{family="digits",state="succeeded"} 20.0' in metrics

        # Models: predicted and measured, by those who serve it.
        page.get_by_role("link", name="Models").click()
        expect(page.locator("#models")).to_contain_text("served by 2")

        # What was earned stands under owners' names, not under names of accounts.
        page.get_by_role("link", name="Ledger").click()
        earned = page.locator("#ledger table").first.locator("tbody tr", has_text="your own machines")
        expect(earned).to_have_count(1)
        expect(page.locator("#ledger")).not_to_contain_text("owner:")

        # It is drained, and gets nothing; then it stops, and that is seen.
        page.get_by_role("link", name="Fleet").click()
        machine.get_by_role("button").click()
        page.get_by_role("button", name="Drain").click()
        page.locator("#sheet").get_by_role("button", name="Drain").click()
        page.keyboard.press("Escape")
        expect(machine).to_contain_text("drained")
        done = {fleet.ask(f"/api/v1/jobs/{fleet.submit()}").json()["agent_id"] for _ in range(5)}
        assert admitted not in done
        for process in fleet.machines.values():
            _end(process)
        expect(machine).to_contain_text("stopped")


def test_logging_out_closes_the_door(fleet: Fleet, chromium: Browser) -> None:
    """The address alone shows nothing any more."""
    with browsers.page(chromium) as page:
        log_in(page, fleet)
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(re.compile("/dashboard/login$"))
        page.goto(f"{fleet.url}/dashboard/#jobs")
        expect(page).to_have_url(re.compile("/dashboard/login"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [browsers.DESK, browsers.PHONE], ids=["desk", "phone"])
def test_everybody_can_read_and_use_it(fleet: Fleet, chromium: Browser, size: dict[str, int], scheme: str) -> None:
    """Names, captions, contrast, nothing wider than the screen: on a desk and a phone, in light and dark."""
    with browsers.page(chromium, size, scheme) as page:
        page.goto(f"{fleet.url}/dashboard/login")
        assert browsers.problems(page) == []
        log_in(page, fleet)
        names = page.locator(".pages a:visible").all_inner_texts()
        assert names[:4] == ["Fleet", "Jobs", "Models", "Checks"]
        for name in names:
            page.get_by_role("link", name=name, exact=True).click()
            expect(page.locator(f"#{name.lower()}")).to_be_visible()
            assert browsers.problems(page) == [], name
        page.get_by_role("link", name="Fleet", exact=True).click()
        page.locator("#fleet tbody button").first.click()
        expect(page.locator("#sheet")).to_be_visible()
        assert browsers.problems(page) == []
