"""The workloads, by name. To add one: a module with a `Workload`, a line here, and in `bench.bars` if it has a bar."""

from bench.harness import Workload
from bench.workloads.awaiting import Asyncio
from bench.workloads.background import Background
from bench.workloads.compiled_call import CompiledCall
from bench.workloads.compiled_transfer import CompiledTransfer
from bench.workloads.counters import Counter
from bench.workloads.growth import Growth
from bench.workloads.hand_over import HandOver
from bench.workloads.importing import Import
from bench.workloads.long_body import LongBody
from bench.workloads.maps import Map
from bench.workloads.memory import Memory
from bench.workloads.picture import Picture
from bench.workloads.queues import Queue
from bench.workloads.read_mostly import ReadMostly
from bench.workloads.read_set import ReadSet
from bench.workloads.routing import Routing
from bench.workloads.scheduler import SchedulerCost
from bench.workloads.shared_clock import SharedClock
from bench.workloads.stats_cost import Statistics
from bench.workloads.transfer import Transfer

WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload
    for workload in (
        Transfer,
        ReadMostly,
        LongBody,
        Picture,
        HandOver,
        ReadSet,
        Memory,
        Import,
        Queue,
        Map,
        Counter,
        Growth,
        Asyncio,
        Statistics,
        SchedulerCost,
        Background,
        # From here on numba is in the process: the workloads above are measured without it.
        SharedClock,
        CompiledCall,
        CompiledTransfer,
        Routing,
    )
}
