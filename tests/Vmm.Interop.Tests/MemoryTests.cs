namespace Vmm.Interop.Tests;

public sealed class MemoryTests
{
    [Fact]
    public void Discarded_pages_read_as_zeros()
    {
        using MappedMemFd memory = new("interop-test", 8192, 4096);
        Span<byte> bytes = HostSpan.Bytes(memory.Address, 8192);
        bytes[0] = 1;
        bytes[4096] = 2;
        Assert.Equal(0, HostPages.Discard(memory.Address, 4096));
        Assert.Equal((0, 2), (bytes[0], bytes[4096]));
        Assert.Equal(Errno.EINVAL, HostPages.Discard(memory.Address + 1, 4096));
    }

    [Fact]
    public void Mappings_lie_side_by_side_in_a_reservation_and_leave_it_reserved()
    {
        using AddressReservation range = new(3 << 21, 1 << 21);
        Assert.Equal(0, range.Address & ((1 << 21) - 1));
        using (MappedMemFd first = new("one", 1 << 21, 4096, range), second = new("two", 1 << 21, 4096, range, 1 << 21))
        {
            Assert.Equal((range.Address, range.Address + (1 << 21)), (first.Address, second.Address));
            HostSpan.Bytes(range.Address + (1 << 21) - 1, 2).Fill(7);
        }

        Assert.Equal(Errno.EINVAL, HostPages.Populate(range.Address, 4096)); // reserved, and nothing behind it
        Assert.Throws<ArgumentOutOfRangeException>(() => new MappedMemFd("three", 2 << 21, 4096, range, 2 << 21));
    }

    /// <summary>Every host has node 0 or no NUMA at all (then there is nothing to move and the calls say ENOSYS).</summary>
    [Fact]
    public void Pages_are_populated_found_and_moved()
    {
        using MappedMemFd memory = new("interop-test", 12288, 4096);
        int numa = memory.Bind(MemoryPolicyMode.Bind, [0]);
        if (numa != 0)
        {
            Assert.Equal(Errno.ENOSYS, numa);
            return;
        }

        Assert.Equal([-1, -1, -1], memory.NodesOfPages(0, 3));
        HostSpan.Bytes(memory.Address, 12288)[4096] = 7;
        Assert.Equal(0, HostPages.Populate(memory.Address, 8192));
        Assert.Equal([0, 0, -1], memory.NodesOfPages(0, 3));
        Assert.Equal(0, memory.Move([0, 1], 4096, node: 0));
        Assert.Equal(Errno.ENODEV, memory.Move([0, 1], 4096, node: 60));
        Assert.Equal(7, HostSpan.Bytes(memory.Address, 12288)[4096]);
        Assert.Equal(0, memory.Unbind());
        Assert.NotEqual(0, memory.Bind(MemoryPolicyMode.Bind, [60]));
    }

    [Fact]
    public void Another_thread_can_be_pinned_until_it_is_gone()
    {
        using ManualResetEventSlim go = new();
        int number = 0;
        Thread thread = new(() =>
        {
            Volatile.Write(ref number, ThreadPlacement.CurrentId);
            go.Wait();
        });
        thread.Start();
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref number) != 0, TimeSpan.FromSeconds(30)));
        Assert.NotEqual(number, ThreadPlacement.CurrentId);
        string Allowed() =>
            File.ReadAllLines(
                $"/proc/self/task/{number}/status").First(l => l.StartsWith("Cpus_allowed_list", StringComparison.Ordinal)).Split('\t')[1];
        int cpu = int.Parse(Allowed().Split(',', '-')[0], System.Globalization.CultureInfo.InvariantCulture);
        ThreadPlacement.Pin(number, [cpu]);
        Assert.Equal(cpu.ToString(System.Globalization.CultureInfo.InvariantCulture), Allowed());
        go.Set();
        thread.Join();
        int errno = 0;
        // the kernel puts it away a moment after join
        Assert.True(SpinWait.SpinUntil(() => (errno = ErrnoOf(() => ThreadPlacement.Pin(number, [cpu]))) != 0, TimeSpan.FromSeconds(30)));
        Assert.Equal(Errno.ESRCH, errno);
        Assert.Equal(Errno.EINVAL, ErrnoOf(() => ThreadPlacement.PinCurrent([1023])));
    }

    private static int ErrnoOf(Action action)
    {
        try
        {
            action();
            return 0;
        }
        catch (KernelException error)
        {
            return error.Errno;
        }
    }
}
