using Vmm.Machine.Run;
using Vmm.Storage;

namespace Vmm.Machine.Tests.Run;

/// <summary>Who lets a machine go on whose disks wait for the host, without a guest.</summary>
public sealed class DiskStallsTests
{
    private const int Patience = 30_000;

    private readonly FakeLife _life = new();
    private readonly List<string> _told = [];
    private volatile IReadOnlyList<WaitingDisk> _waiting = [];
    private volatile bool _hasSpace;

    /// <summary>
    /// Found by tests/testhost/disks: a second disk on the full file system, which began to wait a moment after the first had paused the
    /// machine, was taken for a pause of somebody else, and the machine waited for ever.
    /// </summary>
    [Fact]
    public void A_machine_that_waits_for_two_disks_goes_on_by_itself()
    {
        DiskStalls stalls = new(null);
        stalls.Attach(_life, () => _waiting, Hear);
        _waiting = [Disk("disk0")];
        stalls.Report();
        Await(() => _life.IsPausedBy(stalls) && Told() == 1, "the first disk does not pause it");
        _waiting = [Disk("disk0"), Disk("disk1")];
        stalls.Report();
        Await(() => Told() == 3, "nobody is told of the second disk");
        _hasSpace = true;
        Await(() => _life.IsRunning, "it does not go on");
        Await(() => Told() == 5, "nobody is told that it goes on");
        stalls.End();
        Assert.Equal(["disk0 waits", "disk0 waits", "disk1 waits", "disk0 goes on", "disk1 goes on"], _told);
    }

    /// <summary>A pause by command stays, whatever becomes of the disks.</summary>
    [Fact]
    public void A_pause_of_somebody_else_is_not_ended()
    {
        DiskStalls stalls = new(null);
        stalls.Attach(_life, () => _waiting, Hear);
        Assert.True(_life.TryPause(this));
        (_waiting, _hasSpace) = ([Disk("disk0")], true);
        stalls.Report();
        Await(() => Told() == 1, "nobody is told of the disk");
        stalls.End(); // whatever it was about to do is over
        Assert.True(_life.IsPausedBy(this));
        Assert.Equal(["disk0 waits"], _told);
    }

    private WaitingDisk Disk(string name) => new(name, "/" + name, DiskStatus.NoSpace, () => _hasSpace);

    private void Hear(DiskStallEventArgs stall)
    {
        lock (_told)
        {
            _told.Add($"{stall.Disk} {(stall.Waits ? "waits" : "goes on")}");
        }
    }

    private int Told()
    {
        lock (_told)
        {
            return _told.Count;
        }
    }

    private static void Await(Func<bool> condition, string otherwise) => Assert.True(SpinWait.SpinUntil(condition, Patience), otherwise);

    private sealed class FakeLife : IPausable
    {
        private readonly Lock _gate = new();
        private object? _pausedBy;

        public bool IsRunning => !IsPaused(null);

        public bool TryPause(object owner)
        {
            lock (_gate)
            {
                bool paused = _pausedBy is null;
                _pausedBy ??= owner;
                return paused;
            }
        }

        public bool IsPausedBy(object owner) => IsPaused(owner);

        public bool TryResume(object owner)
        {
            lock (_gate)
            {
                bool resumed = ReferenceEquals(_pausedBy, owner);
                _pausedBy = resumed ? null : _pausedBy;
                return resumed;
            }
        }

        private bool IsPaused(object? owner)
        {
            lock (_gate)
            {
                return owner is null ? _pausedBy is not null : ReferenceEquals(_pausedBy, owner);
            }
        }
    }
}
