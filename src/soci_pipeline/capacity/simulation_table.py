"""The simulated scenarios of docs/capacity.md, and their outcomes as a table."""

from collections.abc import Sequence
from typing import Any

from soci_pipeline.capacity.policy import Policy
from soci_pipeline.capacity.simulation import Outcome, Pool, Scenario

# On-demand prices per hour of a c7i.xlarge and a c7g.xlarge in us-east-1, as assumed here; a region, a spot price or
# another size changes the cost in proportion. A branch that builds takes some minutes.
POOLS = (Pool("soci-amd64", 0.1785, 300.0), Pool("soci-arm64", 0.145, 300.0))

Played = Sequence[tuple[Scenario, Outcome]]


def scenario(publishes_per_hour: float, hours: float, policy: Policy) -> Scenario:
    """One row of the table."""
    return Scenario(publishes_per_hour, hours, POOLS, policy)


def as_json(played: Played) -> list[dict[str, Any]]:
    """One object for each scenario; waits in seconds, cost in US dollars."""
    return [
        {
            "publishes_per_hour": each.publishes_per_hour,
            "hours": each.hours,
            "publishes": outcome.publishes,
            "wait_median_s": round(outcome.median_wait, 1),
            "wait_95_s": round(outcome.wait(0.95), 1),
            "wait_longest_s": round(outcome.waits[-1], 1),
            "instance_hours": {name: round(hours, 2) for name, hours in outcome.instance_hours.items()},
            "cost": round(outcome.cost, 2),
            "cost_per_publish": round(outcome.cost / outcome.publishes, 4),
            "cost_always_on": round(_always_on(each, outcome), 2),
        }
        for each, outcome in played
    ]


def as_table(played: Played) -> str:
    """The outcomes as a Markdown table."""
    lines = [
        "| publishes an hour | simulated | wait, median | 95 % | longest | instance hours | cost | of one publish "
        "| one instance of each, always |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each, outcome in played:
        hours = sum(outcome.instance_hours.values())
        lines.append(
            f"| {each.publishes_per_hour:g} | {outcome.publishes} in {each.hours:g} h "
            f"| {outcome.median_wait:.0f} s | {outcome.wait(0.95):.0f} s | {outcome.waits[-1]:.0f} s "
            f"| {hours:.1f} | ${outcome.cost:.2f} | ${outcome.cost / outcome.publishes:.3f} "
            f"| ${_always_on(each, outcome):.2f} |"
        )
    return "\n".join(lines)


def _always_on(scenario: Scenario, outcome: Outcome) -> float:
    """What one instance of each pool would have cost, had it been there the whole time."""
    return sum(pool.price_per_hour for pool in scenario.pools) * outcome.hours
