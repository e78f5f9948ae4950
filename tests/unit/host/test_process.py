"""Tools are run with nothing of the caller's shell, fail with what one needs to know, and leave nobody behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from firmware import process
from firmware.process import CAPTURE_LIMIT_BYTES, PIPE, ToolError, printable, run, shown_command, start
from mamori.formats.problems import MamoriError
from tests.support.wait import check_until, patience_s

TREE = "sleep 600 & sleep 601 & echo $$; wait"
STUBBORN = "trap '' TERM; echo $$; while :; do sleep 0.1; done"


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_a_tool_sees_a_clean_environment_and_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "vi")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.delenv("TMPDIR", raising=False)
    lines = run(["env"], env={"SOURCE_DATE_EPOCH": "1"}, explain="look around").stdout.splitlines()
    assert {line.partition("=")[0] for line in lines} == {"PATH", "LANG", "TZ", "HOME", "SOURCE_DATE_EPOCH"}
    assert {"LANG=C.UTF-8", "TZ=UTC", "SOURCE_DATE_EPOCH=1"} <= set(lines)


def test_both_outputs_are_kept_apart_and_every_line_is_passed_on_and_logged(tmp_path: Path) -> None:
    seen: list[str] = []
    script = "echo one; echo two >&2; printf '10%%\\r90%%\\r\\033[1mdone\\033[0m'"
    result = run(["sh", "-c", script], explain="talk", on_line=seen.append, log=tmp_path / "new" / "log")
    assert (result.stdout, result.stderr) == ("one\n10%\r90%\r\x1b[1mdone\x1b[0m", "two\n")
    assert sorted(seen) == ["10%", "90%", "done", "one", "two"]
    assert (tmp_path / "new" / "log").read_text().splitlines() == [f"$ {result.command}", *seen]


def test_input_reaches_the_tool_whole() -> None:
    assert run(["sha256sum"], input=b"a" * 1_000_000, explain="hash").stdout.startswith("cdc76e5c9914fb9281a1c7e284d73e67")


def test_a_tool_without_input_does_not_wait_for_the_terminal() -> None:
    assert run(["cat"], explain="read", timeout_s=patience_s(5)).stdout_bytes == b""


def test_a_failure_tells_purpose_exit_code_last_lines_and_a_command_to_paste(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        run(["sh", "-c", "seq 30; exit 7"], explain="count the sheep", cwd=tmp_path, env={"MODE": "a b", "HSM_PIN": "1234"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "count the sheep: exit code 7"
    assert lines[1:-1] == [f"    | {number}" for number in range(11, 31)]
    assert lines[-1] == f"    command: (cd {tmp_path} && MODE='a b' HSM_PIN=\"$HSM_PIN\" sh -c 'seq 30; exit 7')"


def test_the_shown_command_does_what_was_run(tmp_path: Path) -> None:
    argv = ["sh", "-c", 'printf "%s|" "$MODE" "$1" "$PWD"', "x", 'it\'s "here" $HOME']
    env = {"MODE": "a 'b' $c"}
    pasted = run(["sh", "-c", shown_command(argv, tmp_path, env)], explain="paste").stdout
    assert pasted == run(argv, cwd=tmp_path, env=env, explain="run").stdout
    assert pasted == f"a 'b' $c|it's \"here\" $HOME|{tmp_path}|"


def test_a_signal_is_named() -> None:
    with pytest.raises(ToolError, match=r"crash: killed by SIGSEGV"):
        run(["sh", "-c", "kill -SEGV $$"], explain="crash")


def test_other_exit_codes_can_be_accepted() -> None:
    assert run(["false"], explain="compare", accept=(0, 1)).code == 1


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(MamoriError, match="serve: no-such-tool is not on this machine"):
        run(["no-such-tool"], explain="serve")
    assert process.host_tools.install_hint("bwrap").endswith("apt-get install bubblewrap")


def test_a_missing_working_directory_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(MamoriError, match=r"list: No such file or directory: .*gone"):
        run(["ls"], cwd=tmp_path / "gone", explain="list")


def test_more_output_than_an_answer_may_have_is_refused_when_it_is_read() -> None:
    result = run(["sh", "-c", f"yes | tr -d '\\n' | head -c {CAPTURE_LIMIT_BYTES + 1}"], explain="flood")
    with pytest.raises(MamoriError, match="came from"):
        _ = result.stdout
    assert result.stderr == ""


def test_a_timeout_ends_the_whole_family() -> None:
    pids: list[str] = []
    with pytest.raises(ToolError, match=r"dawdle: not done after 0\.5 s"):
        run(["sh", "-c", f"sleep 600 & echo $!; {TREE}"], explain="dawdle", on_line=pids.append, timeout_s=0.5)
    assert len(pids) == 2
    assert [pid for pid in pids if is_alive(int(pid))] == []


def test_a_tool_that_ignores_sigterm_is_killed() -> None:
    pids: list[str] = []
    with pytest.raises(ToolError, match="not done after"):
        run(["sh", "-c", STUBBORN], explain="resist", on_line=pids.append, timeout_s=0.3)
    assert not is_alive(int(pids[0]))


def test_an_exception_on_the_way_ends_the_tool() -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", TREE], explain="be interrupted", on_line=interrupt)
    assert not is_alive(pids[0])


def test_what_a_tool_left_in_the_background_is_ended_and_not_waited_for() -> None:
    started = time.monotonic()
    pid = int(run(["sh", "-c", "sleep 600 & echo $!"], explain="fork").stdout)
    assert time.monotonic() - started < patience_s(3)
    assert not is_alive(pid)


def test_noise_from_the_background_does_not_prolong_a_tool() -> None:
    started = time.monotonic()
    run(["sh", "-c", "yes >&2 & echo up"], explain="leave a noisy child")
    assert time.monotonic() - started < patience_s(3)


def test_a_daemon_that_holds_the_pipes_open_is_not_waited_for() -> None:
    started = time.monotonic()
    assert run(["sh", "-c", "setsid sleep 20 & echo up"], explain="start a daemon").stdout == "up\n"
    assert time.monotonic() - started < patience_s(5)


def test_a_started_program_ends_with_its_block(tmp_path: Path) -> None:
    with start(["sh", "-c", TREE], explain="serve", log=tmp_path / "log") as server:
        check_until("it says its pid", lambda: str(server.pid) in (tmp_path / "log").read_text(), within_s=5)
        server.check()
        assert is_alive(server.pid)
    assert server.code == -signal.SIGTERM
    assert not is_alive(server.pid)


def test_a_started_program_that_died_is_reported_with_its_own_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("$ older command\nolder output\n")
    with start(["sh", "-c", "echo bad disk; exit 3"], explain="boot", log=tmp_path / "log") as machine:
        assert machine.wait(patience_s(5)) == 3
        with pytest.raises(ToolError) as caught:
            machine.check()
    assert (caught.value.ending, caught.value.tail) == ("exit code 3", ("bad disk",))


def test_waiting_for_a_started_program_has_a_deadline() -> None:
    with start(["sleep", "600"], explain="sleep") as sleeper, pytest.raises(TimeoutError, match="sleep: still running"):
        sleeper.wait(0.1)


def test_a_started_program_can_be_talked_to_over_pipes_and_inherited_descriptors() -> None:
    reader, writer = os.pipe()
    with start(
        ["sh", "-c", f"read word; echo got $word; echo fd >/dev/fd/{writer}"],
        explain="talk",
        stdin=PIPE,
        stdout=PIPE,
        pass_fds=[writer],
    ) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        tool.stdin.write(b"hello\n")
        tool.stdin.flush()
        assert tool.stdout.readline() == b"got hello\n"
        assert os.read(reader, 10) == b"fd\n"
    os.close(reader)
    os.close(writer)


def test_a_tool_does_not_outlive_us_even_when_we_are_killed() -> None:
    program = (
        "from firmware.process import run\n"
        "run(['sh', '-c', 'echo $$; exec sleep 600'], explain='sleep', on_line=lambda line: print(line, flush=True))"
    )
    with start([sys.executable, "-c", program], explain="be killed", stdout=PIPE) as victim:
        assert victim.stdout is not None
        tool = int(victim.stdout.readline())
        os.kill(victim.pid, signal.SIGKILL)
        check_until("the tool is gone", lambda: not is_alive(tool), within_s=5)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param("\x1b[1;32mok\x1b[0m", "ok", id="colours"),
        pytest.param("\x1b]0;title\x07text", "text", id="window title"),
        pytest.param("守り\tok", "守り\tok", id="text stays"),
        pytest.param("a\x00\x08b\x7f", "ab", id="control characters"),
    ],
)
def test_lines_are_shown_without_control_sequences(line: str, shown: str) -> None:
    assert printable(line) == shown
