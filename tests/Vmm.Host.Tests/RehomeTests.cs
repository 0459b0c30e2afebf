namespace Vmm.Host.Tests;

/// <summary>
/// Vnodes of stock guests that move between real host nodes, by vmmd, while the guest walks its memory; the scripts in Payload check every
/// step.
/// </summary>
[Trait("Tier", "host")]
public sealed class RehomeTests
{
    [Fact]
    public void A_vnode_moves_to_the_other_node_and_back_while_the_guest_keeps_its_checksum() =>
        PayloadRun.Check("rehome", "rehome-guest.sh", nodes: 2, seconds: 600, "the guest kept its checksum");

    [Fact]
    public void On_four_nodes_a_spec_of_another_host_is_mapped_a_large_vnode_is_split_and_vnodes_move_one_of_huge_pages() =>
        PayloadRun.Check("four", "talk-guest.sh", nodes: 4, seconds: 900, "four nodes", more: ["tests/guests/build/dirty.elf"]);
}
