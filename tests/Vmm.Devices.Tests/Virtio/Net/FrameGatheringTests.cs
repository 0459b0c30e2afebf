using System.Diagnostics;
using Vmm.Devices.Virtio.Net;

namespace Vmm.Devices.Tests.Virtio.Net;

public sealed class FrameGatheringTests
{
    private static readonly long s_microsecond = Stopwatch.Frequency / 1_000_000;

    [Fact]
    public void Frames_gather_after_several_sleeps_in_a_row_that_a_frame_ended_at_once()
    {
        FrameGathering gathering = default;
        Assert.False(gathering.Wanted);
        Assert.Equal(8, SleepsUntilWanted(ref gathering));
        gathering.Slept(s_microsecond, byFrame: false); // the guest's doorbell
        Assert.False(gathering.Wanted);
        Assert.Equal(8, SleepsUntilWanted(ref gathering));
        gathering.Slept(1000 * s_microsecond, byFrame: true);
        Assert.False(gathering.Wanted);
    }

    [Fact]
    public void Gathering_goes_on_while_it_is_worth_it()
    {
        FrameGathering gathering = default;
        SleepsUntilWanted(ref gathering);
        for (int i = 0; i < 100; i++)
        {
            gathering.Gathered(toTheEnd: true);
            gathering.Received(10);
            gathering.Received(1); // of a later look
            Assert.True(gathering.Wanted);
            gathering.Gathered(toTheEnd: false);
            gathering.Received(1); // cut short: says nothing
            Assert.True(gathering.Wanted);
        }

        gathering.Gathered(toTheEnd: true);
        gathering.Received(1);
        Assert.False(gathering.Wanted);
    }

    [Fact]
    public void Traffic_that_waits_for_its_answers_is_delayed_ever_more_rarely()
    {
        FrameGathering gathering = default;
        int before = 0;
        for (int i = 0; i < 20; i++)
        {
            int sleeps = SleepsUntilWanted(ref gathering);
            Assert.InRange(sleeps, Math.Min(1024, before), 1024);
            before = Math.Min(1024, 2 * sleeps);
            gathering.Gathered(toTheEnd: true);
            gathering.Received(1);
        }

        Assert.Equal(1024, SleepsUntilWanted(ref gathering));
    }

    private static int SleepsUntilWanted(ref FrameGathering gathering)
    {
        int sleeps = 0;
        for (; !gathering.Wanted; sleeps++)
        {
            gathering.Slept(5 * s_microsecond, byFrame: true);
        }

        return sleeps;
    }
}
