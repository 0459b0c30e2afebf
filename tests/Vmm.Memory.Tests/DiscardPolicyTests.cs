namespace Vmm.Memory.Tests;

/// <summary>Pages that the guest gives up go, or stay while somebody needs them.</summary>
public sealed class DiscardPolicyTests
{
    [Fact]
    public void While_anybody_inhibits_pages_are_kept_and_counted()
    {
        using VnodeMemory ram = VnodeMemory.Create(
            new VnodePlacement(0, ByteSize.MiB(1), new ByteSize(4096), null, []), HostTopology.Unknown);
        GuestMemory memory = new([ram.Region(new(0), ByteSize.MiB(1), 0)]);
        Assert.True(memory.TryWrite(new GuestAddress(0x2000), 7));
        using (memory.Ram.Discards.Inhibit("a save copies memory"))
        {
            using (memory.Ram.Discards.Inhibit("a device pinned it"))
            {
                Assert.Equal(["a save copies memory", "a device pinned it"], memory.Ram.Discards.Reasons);
                Assert.Equal((0, 0UL, 7), Discard(memory));
            }

            Assert.Equal((0, 0UL, 7), Discard(memory));
            Assert.Equal(2 * 0x4000, memory.Ram.Discards.KeptBytes);
        }

        Assert.Empty(memory.Ram.Discards.Reasons);
        Assert.Equal((0, 0x4000UL, 0), Discard(memory));
        Assert.Equal(2 * 0x4000, memory.Ram.Discards.KeptBytes);
    }

    [Fact]
    public async Task Who_inhibits_waits_for_a_discard_that_runs()
    {
        DiscardPolicy policy = new();
        Assert.True(policy.TryBegin(4096));
        Task<IDisposable> inhibit = Task.Run(() => policy.Inhibit("test"));
        while (policy.Reasons.Count == 0)
        {
            await Task.Yield();
        }

        Assert.False(policy.TryBegin(4096)); // none begins meanwhile
        Assert.False(inhibit.IsCompleted);
        policy.End();
        (await inhibit).Dispose();
        Assert.True(policy.TryBegin(4096));
        policy.End();
    }

    private static (int Errno, ulong Discarded, int Value) Discard(GuestMemory memory)
    {
        int errno = memory.Discard(new GuestAddress(0x1000), 0x4000, out ulong discarded);
        Assert.True(memory.TryRead(new GuestAddress(0x2000), out int value));
        return (errno, discarded, value);
    }
}
