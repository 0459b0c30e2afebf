namespace Vmm.Io.Tests;

public sealed class RingLoopTests : IoLoopTests
{
    protected override IoLoop Create(int busyPollMicroseconds = 0) => new(busyPollMicroseconds);

    [Fact]
    public void A_poll_that_the_ring_has_cannot_be_called_off()
    {
        using IoLoop loop = Create();
        Assert.Throws<InvalidOperationException>(() => loop.CallOff(new IoPoll((_, _) => { })));
    }
}
