using Vmm.Spec;

namespace Vmm.Cli.Tests;

public sealed class NetOptionTests
{
    [Fact]
    public void Everything_that_can_be_said_is_read()
    {
        Assert.True(NetOption.TryParse("tap=vmtap0,mac=52:54:00:12:34:56,queues=2,mtu=1400,transport=mmio", out NetSpec net, out _));
        Assert.Equal(new NetSpec { Tap = "vmtap0", Mac = "52:54:00:12:34:56", Queues = 2, Mtu = 1400, Transport = VirtioTransport.Mmio }, net);
    }

    [Theory]
    [InlineData("vmtap0", "expected key=value")]
    [InlineData("mac=1", "tap=NAME is missing")]
    [InlineData("tap=a,queue=2", "did you mean queues?")]
    [InlineData("tap=a,queues=x", "expected a number")]
    [InlineData("tap=a,transport=usb", "expected pci or mmio")]
    public void A_mistake_is_named(string text, string problem)
    {
        Assert.False(NetOption.TryParse(text, out _, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
        Assert.StartsWith("--net " + text, said, StringComparison.Ordinal);
    }
}
