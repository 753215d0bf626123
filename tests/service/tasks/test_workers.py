"""How long a platform may be without a worker, by a clock of the test's own."""

from dataclasses import dataclass, field

from soci_pipeline.oci.platform import Platform
from tasks.workers import MissingRequirement, Watch

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
POOLS = {AMD64: "pool-amd64", ARM64: "pool-arm64"}


@dataclass
class Pools:
    """What is seen of the work pools at a time; ``without`` are those that no worker polls."""

    without: set[str]
    now: float = 1000
    asked: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def look(self, pool: str) -> MissingRequirement | None:
        self.asked.append(pool)
        return MissingRequirement(f"no worker polls {pool}", "Start one.") if pool in self.without else None


def test_a_branch_that_waits_has_the_patience_that_was_asked_for() -> None:
    pools = Pools({"pool-arm64"})
    watch = Watch(POOLS, timeout=600, clock=pools.clock)
    for seconds in (0, 300, 299):
        pools.now += seconds
        assert watch.abandoned(pools.look, [AMD64, ARM64]) == {}
    pools.now += 2
    assert watch.abandoned(pools.look, [AMD64, ARM64]) == {
        ARM64: MissingRequirement("no worker polls pool-arm64", "Start one.")
    }


def test_a_worker_that_comes_back_ends_the_count() -> None:
    pools = Pools({"pool-arm64"})
    watch = Watch(POOLS, timeout=600, clock=pools.clock)
    assert watch.abandoned(pools.look, [ARM64]) == {}
    pools.now, pools.without = 1500, set()
    assert watch.abandoned(pools.look, [ARM64]) == {}
    for now in (2000, 2599):
        pools.now, pools.without = now, {"pool-arm64"}
        assert watch.abandoned(pools.look, [ARM64]) == {}


def test_a_branch_whose_worker_is_gone_before_it_began_has_the_patience_for_a_late_beat() -> None:
    pools = Pools({"pool-arm64"})
    watch = Watch(POOLS, timeout=600, clock=pools.clock)
    for seconds in (0, 29):
        pools.now += seconds
        assert watch.abandoned(pools.look, [], [ARM64]) == {}
    pools.now += 3
    gone = MissingRequirement("no worker polls pool-arm64, because the one that accepted it is gone", "Start one.")
    assert watch.abandoned(pools.look, [], [ARM64]) == {ARM64: gone}


def test_the_server_is_not_asked_at_every_turn() -> None:
    pools = Pools({"pool-arm64"})
    watch = Watch(POOLS, timeout=600, clock=pools.clock)
    for _ in range(10):
        watch.abandoned(pools.look, [ARM64])
        pools.now += 0.5
    assert len(pools.asked) == 3
