using Vmm.Daemon.Workers;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>passt that vmmd starts again: one for a VM, whatever its worker asks for.</summary>
public sealed class UserNetStartsTests
{
    private static readonly NetSpec s_net = new() { User = new UserNetSpec() };

    [Fact]
    public void One_that_is_asked_for_another_ends_the_one_before_and_waits()
    {
        List<UnixStream> ends = [];
        List<string> told = [];
        using UserNetStarts starts = new(_ => Make(ends), told.Add) { First = TimeSpan.FromMilliseconds(200) };
        Assert.Contains("no user-mode network", starts.Start().Problem, StringComparison.Ordinal);
        Assert.Empty(ends);
        starts.Serve([s_net]);
        Assert.NotNull(starts.Start().Socket);
        int refused = 0;
        for (int i = 0; i < 100; i++)
        {
            refused += starts.Start().Problem is "passt was started a moment ago" ? 1 : 0;
        }

        Assert.InRange(refused, 1, 100);
        Assert.True(ends.Count < 5, $"{ends.Count} were started");
        Thread.Sleep(1000);
        int before = ends.Count;
        Assert.NotNull(starts.Start().Socket);
        Assert.Equal(before + 1, ends.Count);
        Assert.True(ends.Take(before).All(IsOver), "an earlier passt goes on");
        Assert.False(IsOver(ends[before]));
        Assert.Equal(ends.Count, told.Count);
        ends.ForEach(end => end.Dispose());
    }

    [Fact]
    public void What_the_worker_has_goes_on_when_the_daemon_lets_go()
    {
        List<UnixStream> ends = [];
        UserNetStarts starts = new(_ => Make(ends), _ => { });
        starts.Serve([s_net]);
        using UnixStream workers = UnixStream.FromDescriptor(Duplicate(starts.Start().Socket!));
        starts.LetGo();
        Assert.False(IsOver(ends[0]));
        starts.Dispose();
        Assert.False(IsOver(ends[0]));
        workers.Dispose();
        Assert.True(IsOver(ends[0]));
        ends[0].Dispose();
    }

    [Fact]
    public void Why_it_does_not_start_is_told_once()
    {
        List<string> told = [];
        UserNetStarts starts = new(_ => throw new HostNetException("the port is taken"), told.Add) { First = TimeSpan.Zero };
        starts.Serve([s_net]);
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal("the port is taken", starts.Start().Problem);
        }

        Assert.Contains("the port is taken", Assert.Single(told), StringComparison.Ordinal);
        starts.Dispose();
    }

    // What passt would have is kept; the other end is the answer.
    private static FileDescriptorHandle Make(List<UnixStream> ends)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        ends.Add(own);
        return theirs;
    }

    private static FileDescriptorHandle Duplicate(FileDescriptorHandle handle) =>
        new(Mono.Unix.Native.Syscall.dup(handle.Number));

    private static bool IsOver(UnixStream end) => end.Receive(new byte[1]) == 0;
}
