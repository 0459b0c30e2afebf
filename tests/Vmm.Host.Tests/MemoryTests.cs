namespace Vmm.Host.Tests;

/// <summary>Memory of a stock guest that grows and shrinks on two real host nodes; the scripts in Payload check every step.</summary>
[Trait("Tier", "host")]
public sealed class MemoryTests
{
    [Fact]
    public void A_vnode_grows_and_shrinks_under_load_on_its_host_node_and_a_guest_that_holds_memory_is_told_of_truthfully() =>
        PayloadRun.Check("memory", "talk-guest.sh", nodes: 2, seconds: 1200, "memory", modules: ["virtio_mem"]);

    [Fact]
    public void A_guest_with_one_vnode_goes_below_its_start_by_balloon() =>
        PayloadRun.Check("balloon", "talk-guest.sh", nodes: 2, seconds: 600, "balloon", modules: ["virtio_mem"]);
}
