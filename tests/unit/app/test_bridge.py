import pytest

from mamori.bridge import BridgeCondition, Interface, PortCondition, Sample, judge

BRIDGE = Interface("br0", "02:00:00:00:00:00", carrier=True, state=None, rx_bytes=0, tx_bytes=0)


def port(name: str, *, carrier: bool | None = True, state: int | None = 3) -> Interface:
    return Interface(name, "02:00:00:00:00:01", carrier, state, 1, 2)


@pytest.mark.parametrize(
    ("lan", "condition", "whole"),
    [
        pytest.param(port("lan"), PortCondition.FORWARDING, BridgeCondition.FORWARDING, id="forwards"),
        pytest.param(
            port("lan", carrier=False, state=0), PortCondition.NO_CARRIER, BridgeCondition.WAITING, id="the switch is off"
        ),
        pytest.param(
            port("lan", carrier=False), PortCondition.NO_CARRIER, BridgeCondition.WAITING, id="the switch went off just now"
        ),
        pytest.param(port("lan", state=0), PortCondition.BLOCKED, BridgeCondition.BROKEN, id="disabled with a carrier"),
        pytest.param(port("lan", state=1), PortCondition.BLOCKED, BridgeCondition.BROKEN, id="listening"),
        pytest.param(port("lan", state=2), PortCondition.BLOCKED, BridgeCondition.BROKEN, id="learning"),
        pytest.param(port("lan", state=4), PortCondition.BLOCKED, BridgeCondition.BROKEN, id="blocking"),
        pytest.param(port("lan", carrier=None, state=0), PortCondition.DOWN, BridgeCondition.BROKEN, id="the interface is down"),
        pytest.param(port("lan", state=None), PortCondition.OUTSIDE, BridgeCondition.BROKEN, id="not in the bridge"),
        pytest.param(None, PortCondition.MISSING, BridgeCondition.BROKEN, id="no such interface"),
    ],
)
def test_a_port_is_judged_by_what_a_person_can_do_about_it(lan, condition: PortCondition, whole: BridgeCondition) -> None:
    sample = Sample(BRIDGE, (port("wan"), lan) if lan else (port("wan"),))
    judgement = judge(sample, "br0", ("wan", "lan"))
    assert judgement.ports == {"wan": PortCondition.FORWARDING, "lan": condition}
    assert judgement.condition is whole
    assert judgement.text == (
        "br0 forwards between wan and lan" if whole is BridgeCondition.FORWARDING else f"lan: {condition.value}"
    )


def test_without_a_bridge_nothing_else_matters() -> None:
    judgement = judge(Sample(None, (port("wan", state=None), port("lan", state=None))), "br0", ("wan", "lan"))
    assert (judgement.condition, judgement.text) == (BridgeCondition.BROKEN, "br0 does not exist")


def test_the_worse_of_two_troubles_decides_and_both_are_told() -> None:
    sample = Sample(BRIDGE, (port("wan", carrier=False, state=0), port("lan", state=None)))
    judgement = judge(sample, "br0", ("wan", "lan"))
    assert (judgement.condition, judgement.text) == (BridgeCondition.BROKEN, "wan: no carrier, lan: not in the bridge")
