"""The inspection service's decisions as transcripts: what happened and when, and what it did about it."""

from mamori.bridge import Interface, Sample
from mamori.inspect import core
from mamori.inspect.core import BridgeSampled, Event, Settings, StopRequested, TimerExpired


def sample(*, lan_carrier: bool = True, bridge: bool = True) -> Sample:
    wan = Interface("wan", "02:00:00:00:00:01", True, 3, 10, 20)
    lan = Interface("lan", "02:00:00:00:00:02", lan_carrier, 3 if lan_carrier else 0, 30, 40)
    return Sample(Interface("br0", "02:00:00:00:00:00", True, None, 0, 0) if bridge else None, (wan, lan))


def words(command: core.Command) -> str:
    match command:
        case core.SampleBridge():
            return "sample"
        case core.Publish(_, judgement, since):
            return f"publish {judgement.condition.value} since {since:g}"
        case core.Notify(message):
            return f"notify {message!r}"
        case core.Log(level, text):
            return f"log {level} {text}"
        case core.Stop():
            return "stop"


def transcript(settings: Settings, *events: tuple[float, Event]) -> list[str]:
    """Each command with the time of the event that led to it; the last line is when the timer is due."""
    state, commands = core.start(settings, 100.0)
    lines = [f"100 {words(command)}" for command in commands]
    for now, event in events:
        state, commands = core.receive(state, event, now)
        lines += [f"{now:g} {words(command)}" for command in commands]
    return [*lines, f"next at {core.next_deadline(state):g}"]


PLAIN = Settings("br0", ("wan", "lan"))
WATCHED = Settings("br0", ("wan", "lan"), watchdog_s=5.0)


def test_a_healthy_start_is_ready_after_the_first_report() -> None:
    assert transcript(PLAIN, (100.1, BridgeSampled(sample()))) == [
        "100 sample",
        "100.1 publish forwarding since 100.1",
        "100.1 log 5 br0 forwards between wan and lan",
        "100.1 notify 'READY=1\\nSTATUS=br0 forwards between wan and lan'",
        "next at 102",
    ]


def test_a_start_without_a_bridge_is_ready_too_and_warns() -> None:
    assert transcript(PLAIN, (100, BridgeSampled(sample(bridge=False)))) == [
        "100 sample",
        "100 publish broken since 100",
        "100 log 4 br0 does not exist",
        "100 notify 'READY=1\\nSTATUS=br0 does not exist'",
        "next at 102",
    ]


def test_the_switch_goes_off_at_night_and_on_in_the_morning() -> None:
    assert transcript(
        PLAIN,
        (100, BridgeSampled(sample())),
        (102, TimerExpired()),
        (102, BridgeSampled(sample(lan_carrier=False))),
        (104, TimerExpired()),
        (104, BridgeSampled(sample(lan_carrier=False))),
        (106, TimerExpired()),
        (106, BridgeSampled(sample())),
    )[4:] == [
        "102 sample",
        "102 publish waiting since 102",
        "102 log 5 lan: no carrier",
        "102 notify 'STATUS=lan: no carrier'",
        "104 sample",
        "104 publish waiting since 102",
        "106 sample",
        "106 publish forwarding since 106",
        "106 log 5 br0 forwards between wan and lan",
        "106 notify 'STATUS=br0 forwards between wan and lan'",
        "next at 108",
    ]


def test_the_watchdog_hears_of_us_at_half_its_patience() -> None:
    assert transcript(
        WATCHED,
        (102, TimerExpired()),
        (102.4, TimerExpired()),
        (102.5, TimerExpired()),
        (104, TimerExpired()),
        (105, TimerExpired()),
    ) == ["100 sample", "102 sample", "102.5 notify 'WATCHDOG=1'", "104 sample", "105 notify 'WATCHDOG=1'", "next at 106"]


def test_after_a_long_pause_one_look_and_one_sign_of_life_are_enough() -> None:
    assert transcript(WATCHED, (200, TimerExpired())) == ["100 sample", "200 notify 'WATCHDOG=1'", "200 sample", "next at 202"]


def test_a_timer_that_is_early_does_nothing() -> None:
    assert transcript(WATCHED, (101.9, TimerExpired())) == ["100 sample", "next at 102"]


def test_a_stop_is_said_before_it_is_done() -> None:
    assert transcript(PLAIN, (101, StopRequested())) == ["100 sample", "101 notify 'STOPPING=1'", "101 stop", "next at 102"]
