namespace Vmm.Interop.Tests;

public sealed class HandleTests
{
    [Fact]
    public void Event_counts_signals_and_is_empty_afterwards()
    {
        using EventFd eventFd = new();
        eventFd.Signal();
        eventFd.Signal();
        Assert.True(eventFd.TryTake(out ulong count));
        Assert.Equal(2ul, count);
        Assert.False(eventFd.TryTake(out _));
    }

    [Fact]
    public void Mapping_is_zero_and_refuses_ranges_outside()
    {
        using AnonymousMapping mapping = new(8192);
        Assert.Equal(-1, mapping.Slice(0, 8192).IndexOfAnyExcept((byte)0));
        Assert.Throws<ArgumentOutOfRangeException>(() => { mapping.Slice(8000, 193); });
        Assert.Throws<ArgumentOutOfRangeException>(() => { mapping.Slice(8193, 0); });
        Assert.Throws<ArgumentOutOfRangeException>(() => { mapping.Slice(ulong.MaxValue, 1); });
    }

    [Fact]
    public void Disposed_mapping_is_not_touched()
    {
        AnonymousMapping mapping = new(4096);
        mapping.Dispose();
        Assert.Throws<ObjectDisposedException>(() => { mapping.Slice(0, 1); });
    }

    [Fact]
    public void Kernel_error_names_the_call_and_the_cause()
    {
        Exception outer = Assert.Throws<Kvm.KvmUnavailableException>(() => Kvm.KvmHandle.Open("/nonexistent/kvm"));
        KernelException e = Assert.IsType<KernelException>(outer.InnerException);
        Assert.Equal(2, e.Errno);
        Assert.Contains("/nonexistent/kvm", e.Message, StringComparison.Ordinal);
        Assert.Contains("No such file", e.Message, StringComparison.Ordinal);
    }
}
